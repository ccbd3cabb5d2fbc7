"""The policies that come with the repository drive: each has a floor that a broken policy misses."""

from __future__ import annotations

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

    mean_return: float
    forward_speed: float
    collision_rate: float
    worst_exploit: float
    """Share of an episode's steps."""

    def is_reached(self, result: EvaluationResult) -> bool:
        found = result.aggregate
        return (
            found["mean_return"] >= self.mean_return
            and found["mean_forward_speed"] >= self.forward_speed
            and found["collision_rate"] <= self.collision_rate
            and found["off_road_rate"] <= 0.05
            and max(result.worst_exploits.values()) <= self.worst_exploit
        )


FLOORS = {
    "highway-cautious": Floor(mean_return=40.0, forward_speed=34.0, collision_rate=0.25, worst_exploit=0.0),
    "highway-ppo": Floor(mean_return=45.0, forward_speed=37.0, collision_rate=0.45, worst_exploit=0.0),
    "sparse-highway": Floor(mean_return=92.0, forward_speed=36.0, collision_rate=0.2, worst_exploit=0.1),
}


def evaluate(name: str, params_of=dict) -> EvaluationResult:
    trained = load_policy(POLICIES / name)
    seeds = evaluation_seeds(EPISODES, FIRST_UNWATCHED_SEED)
    return evaluate_policy(trained.policy, params_of(trained.params), trained.env_config, seeds, num_envs=8)


def shuffled(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers in other places: a policy that lost what it learnt, not its scale."""
    rng = np.random.default_rng(0)
    return {name: rng.permutation(value.ravel()).reshape(value.shape) for name, value in params.items()}


def test_every_shipped_policy_has_a_floor():
    assert sorted(FLOORS) == sorted(path.name for path in POLICIES.iterdir() if (path / "README.md").exists())


@pytest.mark.parametrize("name", FLOORS)
def test_a_shipped_policy_drives(name):
    result = evaluate(name)
    assert FLOORS[name].is_reached(result), (dict(result.aggregate), result.worst_exploits)


@pytest.mark.parametrize("name", FLOORS)
def test_a_policy_that_lost_what_it_learnt_misses_the_floor(name):
    assert not FLOORS[name].is_reached(evaluate(name, shuffled))


@pytest.mark.parametrize("name", FLOORS)
def test_a_shipped_policy_is_small_and_tells_its_figures(name):
    files = [path for path in (POLICIES / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MEGABYTE
    card = (POLICIES / name / "README.md").read_text(encoding="utf-8")
    for part in ("## How it drives", "held-out episodes", "Agent:", "## Trained by", "licence"):
        assert part in card
