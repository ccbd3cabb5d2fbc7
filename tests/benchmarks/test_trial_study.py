"""The study of trials: paired figures, their intervals, the table, and the command on runs as they lie on a disk."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "trial_study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("racer_trial_study", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def scores(rates, episodes=400, seed=0):
    """Trials that reach their goal at these rates, from one draw an episode, so that they are paired."""
    drawn = np.random.default_rng(seed).uniform(size=(episodes, 1))
    return (drawn < np.asarray(rates)).astype(int).tolist()


def run_of(row, seed, **found):
    return {
        "row": row, "scene": "hidden_lane", "seed": seed, "transitions": 1000, "minutes": 2.0,
        "scores": {name.replace("_", " "): values for name, values in found.items()},
    }  # fmt: skip


def test_an_interval_covers_the_mean_and_shrinks_with_the_square_root(study):
    rng = np.random.default_rng(1)
    widths = []
    for count in (100, 1600):
        mean, low, high = study.bootstrap_interval([rng.normal(2.0, 1.0, count)])
        assert low < mean < high
        assert abs(mean - 2.0) < 4 / np.sqrt(count)
        # 1.96 standard errors on either side
        assert high - low == pytest.approx(2 * 1.96 / np.sqrt(count), rel=0.2)
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_three_training_seeds_are_drawn_again_too(study):
    """Seeds that differ much more than their episodes widen the interval, which episodes alone would not show."""
    groups = [np.full(1000, value) for value in (0.0, 0.5, 1.0)]
    _, low, high = study.bootstrap_interval(groups)
    assert high - low > 0.5
    assert study.bootstrap_interval(groups[:2])[1:] == (0.25, 0.25)


def test_differences_are_paired(study):
    run = run_of("gru", 1, own=scores([0.2, 0.6]), wiped=scores([0.2, 0.2]), swapped=scores([0.2, 0.1]))
    found = study.differences(run)
    assert set(found) == {
        "gain, own", "gain, wiped", "gain, swapped", "last trial, own minus wiped", "last trial, own minus swapped"
    }  # fmt: skip
    # One draw an episode: nothing that was reached at the lower rate is missed at the higher one.
    assert found["gain, own"].min() == 0.0
    assert not found["gain, wiped"].any()
    assert found["last trial, own minus swapped"].mean() == pytest.approx(0.5, abs=0.08)


def test_the_table_has_every_trial_every_control_and_the_share_of_the_gap(study):
    own, none = scores([0.25, 0.75]), scores([0.25, 0.25])
    runs = [
        *(run_of("gru", seed, own=own, wiped=none, swapped=none, arm_redrawn=none) for seed in (1, 2)),
        run_of("memoryless", 1, own=none),
    ]
    text = study.trial_table(runs, {"prober": none, "oracle": scores([1.0, 1.0])})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["gru", "gru, wiped", "gru, swapped", "gru, arm redrawn", "memoryless", "prober", "oracle"]
    assert len(lines[0].split("|")) == 2 + 5
    assert "| gru | 2 |" in lines[2]
    share = (np.mean(own, axis=0)[1] - np.mean(none, axis=0)[1]) / (1.0 - np.mean(none, axis=0)[1])
    assert f"gru: {share:.0%} of the gap" in text
    assert "gru, training seed 2 (1,000 transitions, 2 minutes): gain, own" in text


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_control_that_some_runs_lack_is_of_the_others(study, order):
    own = scores([0.2, 0.6])
    runs = [run_of("gru", 1, own=own), run_of("gru", 2, own=own, wiped=scores([0.2, 0.2]))]
    text = study.trial_table([runs[k] for k in order], {"oracle": scores([1.0, 1.0])})
    assert "| gru | 2 |" in text
    assert "| gru, wiped | 1 |" in text


def test_the_picture_is_drawn(study, tmp_path):
    path = tmp_path / "trials.png"
    study.picture([run_of("gru", 1, own=scores([0.2, 0.6]))], {"oracle": scores([0.9, 0.9])}, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_partners_of_the_study_are_shipped(study):
    assert set(study.ADVANCING.values()) < set(study.PARTNERS.values())
    for name in study.PARTNERS.values():
        assert list((PROGRAM.parents[1] / "policies" / name).glob("checkpoint_*"))
