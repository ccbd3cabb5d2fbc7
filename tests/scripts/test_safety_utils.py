"""scripts/sim/highway_safety_utils.py against the environment's own scoring."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import racer.envs  # noqa: F401
from racer.core.errors import UsageError

PATH = Path(__file__).parents[2] / "scripts" / "sim" / "highway_safety_utils.py"
spec = importlib.util.spec_from_file_location("highway_safety_utils", PATH)
assert spec is not None
utils = importlib.util.module_from_spec(spec)
assert spec.loader is not None
spec.loader.exec_module(utils)


@pytest.mark.parametrize("config", [{}, {"safety_coeff": 0.3, "safety_mode": "proximity", "normalize_reward": True}])
def test_it_is_the_reward_of_the_environment(config):
    env = gymnasium.make("racer/RiskHighway-v0", config=config)
    rng, dangers, off_road = np.random.default_rng(0), 0, 0
    for seed in range(12):
        env.reset(seed=seed)
        steering = rng.choice([0.0, 0.05])
        while True:
            action = np.array([1.0, steering * rng.choice([-1, 1, 1])], np.float32)
            observation, _, terminated, truncated, info = env.step(action)
            theirs = info["reward_components"]
            ours = utils.calculate_training_reward(
                observation, theirs["base_reward"], on_road=info["on_road"], lateral_offset=info["lateral_offset"],
                config=config,
            )  # fmt: skip
            for name in ("original_speed", "forward_speed", "safety_reward", "training_reward"):
                # The observation is float32 and the environment's own rows are float64.
                np.testing.assert_allclose(ours[name], theirs[name], atol=2e-4, err_msg=f"{seed} {name}")
            dangers += theirs["safety_reward"] < 0
            off_road += not info["on_road"]
            if terminated or truncated:
                break
    env.close()
    assert dangers > 5
    assert off_road > 0


def test_it_takes_batches_and_refuses_other_forms():
    rows = np.zeros((3, 4, 6))
    rows[..., 0] = 1.0
    rows[:, 0, 3], rows[:, 1, 1], rows[:, 1, 3] = 30.0, 15.0, -10.0
    assert utils.calculate_time_to_collision(rows).shape == (3,)
    np.testing.assert_allclose(utils.calculate_time_to_collision(rows), 1.0)
    assert utils.calculate_training_reward(rows, np.zeros(3))["training_reward"].shape == (3,)
    with pytest.raises(UsageError, match=r"rows \[..., V, 6\]"):
        utils.calculate_safety_reward(np.zeros((4, 5)))
