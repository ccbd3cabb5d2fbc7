"""The policies that come with the repository drive: each has a floor that a broken policy misses."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import FIRST_UNWATCHED_SEED, EvaluationResult, evaluate_policy, evaluation_seeds

POLICIES = Path(__file__).resolve().parents[2] / "policies"
EPISODES = 20
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Floor:
    """What a policy must reach on the first held-out episodes that its card counts too."""

    at_least: dict[str, float]
    """Of the aggregate."""

    at_most: dict[str, float]
    worst_exploit: float = 0.0
    """Share of an episode's steps."""

    def is_reached(self, result: EvaluationResult) -> bool:
        found = result.aggregate
        return (
            all(found[name] >= bound for name, bound in self.at_least.items())
            and all(found[name] <= bound for name, bound in self.at_most.items())
            and max(result.worst_exploits.values(), default=0.0) <= self.worst_exploit
        )


def highway(mean_return: float, forward_speed: float, collision_rate: float, worst_exploit: float) -> Floor:
    return Floor(
        {"mean_return": mean_return, "mean_forward_speed": forward_speed},
        {"collision_rate": collision_rate, "off_road_rate": 0.05},
        worst_exploit,
    )


FLOORS = {
    "highway-cautious": highway(mean_return=40.0, forward_speed=34.0, collision_rate=0.25, worst_exploit=0.0),
    "highway-cvar": highway(mean_return=48.0, forward_speed=36.5, collision_rate=0.15, worst_exploit=0.0),
    "highway-ppo": highway(mean_return=45.0, forward_speed=37.0, collision_rate=0.45, worst_exploit=0.0),
    # The feed-forward controller that it corrects misses this.
    "lateral-synthetic": Floor({}, {"mean_total_cost": 45.0}),
    "sparse-highway": highway(mean_return=98.0, forward_speed=36.0, collision_rate=0.15, worst_exploit=0.0),
    # A scripted driver without a memory of earlier trials reaches half of them.
    "trials-courteous": Floor({"trial_3_score": 0.7, "mean_ada_delta_trial_3_minus_0": 0.05}, {}),
    # Without a memory of earlier trials a quarter of them is the most.
    "trials-hidden-lane": Floor({"trial_3_score": 0.7, "mean_ada_delta_trial_3_minus_0": 0.4}, {}),
}


PARTNERS = [f"trials-partner-{temper}" for temper in ("0.05", "0.1", "0.2", "0.5")]
"""Drivers of other cars, the calmest first. Idling gets them as far as they get: what counts is how they differ."""


def evaluate(name: str, params_of=dict) -> EvaluationResult:
    trained = load_policy(POLICIES / name)
    seeds = evaluation_seeds(EPISODES, FIRST_UNWATCHED_SEED)
    return evaluate_policy(trained.policy, params_of(trained.params), trained.world, trained.env_config, seeds)


def shuffled(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers in other places: a policy that lost what it learnt, not its scale."""
    rng = np.random.default_rng(0)
    return {name: rng.permutation(value.ravel()).reshape(value.shape) for name, value in params.items()}


def test_every_shipped_policy_has_a_floor():
    shipped = sorted(path.name for path in POLICIES.iterdir() if (path / "README.md").exists())
    assert sorted([*FLOORS, *PARTNERS]) == shipped


@pytest.mark.parametrize("name", FLOORS)
def test_a_shipped_policy_drives(name):
    result = evaluate(name)
    assert FLOORS[name].is_reached(result), (dict(result.aggregate), result.worst_exploits)


@pytest.mark.parametrize("name", FLOORS)
def test_a_policy_that_lost_what_it_learnt_misses_the_floor(name):
    assert not FLOORS[name].is_reached(evaluate(name, shuffled))


def test_partners_are_of_different_temper():
    """Drawing their choices, as they do at the wheel of other cars, in one trial each."""
    crashed = []
    for name in PARTNERS:
        trained = load_policy(POLICIES / name)
        seeds = evaluation_seeds(100, FIRST_UNWATCHED_SEED)
        result = evaluate_policy(
            trained.policy, trained.params, trained.world, trained.env_config, seeds, num_envs=50, deterministic=False
        )
        crashed.append(result.aggregate["mean_n_trials_crashed"])
    # 100 episodes: a share of 0.2 is off by 0.04 (standard error). Found: 0.04, 0.09, 0.18, 0.28.
    assert crashed[0] < 0.12
    assert crashed[3] > 0.18
    assert crashed[2] > crashed[0] + 0.05
    assert crashed[3] > crashed[1] + 0.08


@pytest.mark.parametrize("name", [*FLOORS, *PARTNERS])
def test_a_shipped_policy_is_small_and_tells_its_figures(name):
    files = [path for path in (POLICIES / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MEGABYTE
    card = (POLICIES / name / "README.md").read_text(encoding="utf-8")
    for part in ("## How it drives", "held-out episodes", "Agent:", "## Trained by", "licence"):
        assert part in card


# Returns of the first unwatched seeds, as they were when the policies were given away.
RETURNS = {
    ("highway-cautious", "deterministic"): (
        "0x1.c261253bb5bd6p+5", "0x1.b87d1d40cfc10p+5", "0x1.a33f2b349a32fp+5", "0x1.9d0e0764cde52p+5",
    ),
    ("highway-cautious", "sampled"): (
        "0x1.bca099784b013p+5", "0x1.b5078c796c785p+5", "0x1.bc9d0b46fd415p+5", "0x1.8c3840d531ffep+5",
    ),
    ("highway-cvar", "deterministic"): (
        "0x1.e783633798ffbp+5", "0x1.e7ad3746fd3a0p+5", "0x1.de5a107301ed7p+5", "0x1.d1a5a0a6e3039p+5",
    ),
    ("highway-cvar", "sampled"): (
        "0x1.e40988a384f46p+5", "0x1.e38c3012f3c38p+5", "0x1.d8eab90f36ee8p+5", "0x1.d09fe19a4603fp+5",
    ),
    ("highway-ppo", "deterministic"): (
        "0x1.9109f3af132dbp+4", "0x1.015a716a7a2d2p+6", "0x1.f63a4ea84b9cdp+5", "0x1.f2f203eb954f8p+5",
    ),
    ("highway-ppo", "sampled"): (
        "0x1.859c784923a33p+4", "0x1.ff7bc214cc47fp+5", "0x1.f09b6f69b3ce4p+5", "0x1.ea1093002970cp+5",
    ),
    ("sparse-highway", "deterministic"): (
        "0x1.a6fd6d3e223dap+5", "0x1.c32175eb99cd1p+6", "0x1.c185e4ac19ed6p+6", "0x1.bf7ab7cbd16e0p+6",
    ),
    ("sparse-highway", "sampled"): (
        "0x1.862b93a3cc075p+6", "0x1.c17a3fe7cecf2p+6", "0x1.c1f71bc388824p+6", "0x1.bb55e10c27ffep+6",
    ),
}  # fmt: skip


# What every x86-64 machine of the last ten years has: with wider vectors a product may round its last bit otherwise,
# and a rounding error grows into another episode.
COMMON_VECTORS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
}


def first_returns(name: str, actions: str, count: int) -> tuple[str, ...]:
    """Return the returns of the first unwatched seeds, written out to the bit."""
    trained = load_policy(POLICIES / name)
    result = evaluate_policy(
        trained.policy, trained.params, trained.world, trained.env_config,
        evaluation_seeds(count, FIRST_UNWATCHED_SEED), num_envs=3, deterministic=actions == "deterministic",
    )  # fmt: skip
    return tuple(float(value).hex() for value in result.returns)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the returns were taken on an x86-64 machine")
def test_shipped_policies_drive_as_on_their_first_day_to_the_bit():
    done = subprocess.run(
        [sys.executable, __file__], env={**os.environ, **COMMON_VECTORS}, capture_output=True, text=True, check=False,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {f"{name} {actions}": list(expected) for (name, actions), expected in RETURNS.items()}


if __name__ == "__main__":
    print(json.dumps({f"{name} {actions}": first_returns(name, actions, 4) for name, actions in RETURNS}))
