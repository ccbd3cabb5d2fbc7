"""RACER's own kit, against the programs of this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from racer.__main__ import main
from racer.faults.kit import load_kit
from racer.faults.results import read_results
from racer.faults.trial import MISSED, SKIPPED, SURVIVED

FOLDER = Path(__file__).parents[2] / "benchmarks" / "faults"


def test_the_shipped_kits_are_whole() -> None:
    kits = [load_kit(path) for path in sorted(FOLDER.glob("*.yaml"))]
    assert {"racer_local", "sb3_subproc"} <= {kit.name for kit in kits}
    assert len({kit.name for kit in kits}) == len(kits)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_racer_survives_schedules(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    flags = ["--schedules", "4", "--seed", "25", "--results", str(results), "--keep", str(tmp_path / "kept")]
    assert main(["faults", str(FOLDER / "racer_local.yaml"), *flags]) == 0
    lines = read_results(results)
    assert [line["schedule"]["number"] for line in lines] == [0, 1, 2, 3, 4]
    assert {line["verdict"] for line in lines} <= {SURVIVED, MISSED, SKIPPED}
    assert sum(line["verdict"] == SURVIVED for line in lines) >= 3
