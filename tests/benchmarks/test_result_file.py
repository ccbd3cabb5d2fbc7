"""The file of a benchmark's figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from result_file import write_result


def test_figures_lie_beside_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "figures.json"
    write_result(path, "name", {"rows": [1.5]})
    document = json.loads(path.read_text())
    assert (document["benchmark"], document["rows"], document["cores"]) == ("name", [1.5], os.cpu_count())
    assert document["cpu"]
    assert capsys.readouterr().out == f"written to {path}\n"


def test_a_large_file_may_be_one_line(tmp_path: Path) -> None:
    write_result(tmp_path / "figures.json", "name", {"rows": [[1, 0]] * 3}, indent=None)
    assert (tmp_path / "figures.json").read_text().count("\n") == 1
