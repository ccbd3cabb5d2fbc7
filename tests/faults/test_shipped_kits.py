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
@pytest.mark.timeout(5400)
def test_racer_survives_hundreds_of_schedules(tmp_path: Path) -> None:
    """As many as 40 minutes have room for: about 200 on a core of their own, 75 on a third of one."""
    results = tmp_path / "results.jsonl"
    flags = ["--schedules", "300", "--seconds", "2400", "--seed", "25", "--results", str(results)]
    folders = ["--cache", str(tmp_path / "cache"), "--keep", str(tmp_path / "kept")]
    assert main(["faults", str(FOLDER / "racer_local.yaml"), *flags, *folders]) == 0
    lines = read_results(results)
    assert [line["schedule"]["number"] for line in lines] == list(range(len(lines)))
    assert {line["verdict"] for line in lines} <= {SURVIVED, MISSED, SKIPPED}
    # One kind of ten is skipped, where no folder can be mounted two are.
    assert sum(line["verdict"] == SURVIVED for line in lines) >= max(8, 0.7 * len(lines))
