"""What a memory can be worth: a scripted driver without one, and one that is told the type, on the same scenes."""

from __future__ import annotations

import numpy as np
import pytest

from racer.envs.registry import get_world
from racer.evaluation.drivers import find_driver
from racer.evaluation.episodes import evaluate_policy


@pytest.mark.parametrize("scene", ["hidden_lane", "courteous"])
def test_the_oracle_beats_the_memoryless_driver_by_more_than_three_tenths(scene):
    world = get_world("trials")
    config = world.held_out(world.resolve({"scene": scene, "k_scenarios": 1}))
    scores = {}
    for name in ("prober", "oracle"):
        _, driver = find_driver(f"driver:trials/{name}")
        result = evaluate_policy(driver, {}, world, config, range(10_000, 10_100), num_envs=50)
        scores[name] = np.array([episode.metrics["trial_0_score"] for episode in result.episodes])
        for episode in result.episodes:
            m = episode.metrics
            ends = ("goal_reached", "crashed", "timed_out", "missed")
            assert sum(m[f"n_trials_{end}"] for end in ends) == m["n_trials_completed"] == 1
            assert m["trial_0_score"] == m["n_trials_goal_reached"]
            if m["trial_0_score"]:
                # goal, hold and progress, each once
                assert m["return"] == pytest.approx(1.0 + 0.5 + 0.3)
            else:
                # nothing but a part of the progress, less a crash
                assert m["return"] < 0.3
    assert np.mean(scores["oracle"] - scores["prober"]) >= 0.3
    assert scores["oracle"].mean() >= 0.85
    assert 0.1 <= scores["prober"].mean() <= 0.6
