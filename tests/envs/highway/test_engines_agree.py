"""A policy that is evaluated on both engines from the same seeds drives the same episodes."""

from __future__ import annotations

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway import make_vector_env
from racer.envs.registry import get_world
from racer.evaluation.episodes import evaluate_policy
from racer.networks.policy import build_policy

GENTLE = {"kind": "uniform", "action_low": [-0.5, -0.02], "action_high": [1.0, 0.02]}


@pytest.mark.parametrize("scenario", ["highway-v0", "highway-fast-v0"])
@pytest.mark.parametrize("observation", [{}, {"normalize": True, "absolute": True, "order": "shuffled"}])
def test_evaluation_does_not_depend_on_the_engine(scenario: str, observation: dict) -> None:
    config = {
        "scenario": scenario, "vehicles_count": 12, "duration": 6, "simulation_frequency": 15, "policy_frequency": 5,
        "observation": observation, "vehicles_density": 1.5, "offroad_penalty": -2.0,
    }  # fmt: skip
    policy, world = build_policy(GENTLE), get_world("highway")
    seeds = [3, 4, 5, 6]
    results = [
        evaluate_policy(policy, {}, world, {**config, "engine": engine}, seeds, deterministic=False)
        for engine in ("compiled", "highway-env")
    ]
    compiled, reference = (
        [{"end_reason": episode.end_reason, **episode.metrics} for episode in result.episodes] for result in results
    )
    assert any(episode["length"] < 30 for episode in reference)
    for got, want in zip(compiled, reference, strict=True):
        assert got.keys() == want.keys()
        for name, value in want.items():
            # Short episodes agree to rounding even where NumPy's own routines differ from libm.
            assert got[name] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), name


def test_batches_agree_step_by_step() -> None:
    config = {"vehicles_count": 20, "duration": 3}
    engines = [make_vector_env({**config, "engine": engine}, 3) for engine in ("compiled", "highway-env")]
    first, second = (env.reset(seed=8)[0] for env in engines)
    np.testing.assert_array_equal(first, second)
    rng = np.random.default_rng(2)
    for _ in range(25):
        actions = rng.uniform([-1, -0.03], [1, 0.03], (3, 2)).astype(np.float32)
        got, want = (env.step(actions) for env in engines)
        for mine, theirs in zip(got[:4], want[:4], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
        for name in ("time_to_collision", "min_distance", "lateral_offset", "forward_speed"):
            np.testing.assert_allclose(got[4][name], want[4][name], rtol=1e-6, atol=1e-6)


def test_what_the_compiled_engine_does_not_cover_is_refused_by_name() -> None:
    action = {"type": "ContinuousAction", "dynamical": True}
    with pytest.raises(UsageError, match=r"dynamical.*highway-env engine"):
        make_vector_env({"engine": "compiled", "action": action}, 1)
    make_vector_env({"engine": "highway-env", "action": action, "vehicles_count": 1}, 1).close()
