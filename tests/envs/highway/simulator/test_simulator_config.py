"""Configurations: highway-env's defaults, what is refused, and the numbers that it becomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from highway_env.envs.highway_env import HighwayEnv, HighwayEnvFast

from racer.core.errors import UsageError
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator import HighwaySimulator


@pytest.mark.parametrize(("fast", "reference"), [(False, HighwayEnv), (True, HighwayEnvFast)])
def test_defaults_are_highway_envs_own(fast: bool, reference: type) -> None:
    assert highway_defaults(fast) == reference.default_config()


def test_defaults_are_a_copy() -> None:
    highway_defaults(False)["observation"]["type"] = "changed"
    assert highway_defaults(False)["observation"] == {"type": "Kinematics"}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("controlled_vehicles", {"controlled_vehicles": 2}),
        ("observation.type", {"observation": {"type": "OccupancyGrid"}}),
        ("observation.type", {"observation": {"type": "GrayscaleObservation"}}),
        ("observation.features", {"observation": {"type": "Kinematics", "features": ["x", "x"]}}),
        ("action.type", {"action": {"type": "MultiAgentAction"}}),
        ("action.dynamical", {"action": {"type": "ContinuousAction", "dynamical": True}}),
        ("action.target_speeds", {"action": {"type": "DiscreteMetaAction", "target_speeds": [20]}}),
        ("other_vehicles_type", {"other_vehicles_type": "highway_env.vehicle.kinematics.Vehicle"}),
        ("manual_control", {"manual_control": True}),
        ("show_trajectories", {"show_trajectories": True}),
    ],
)
def test_what_is_not_covered_is_refused_by_name(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=key) as refusal:
        HighwaySimulator({**highway_defaults(False), **changes}, 1)
    assert "use the highway-env engine" in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("lanes_count", {"lanes_count": 0}),
        ("lanes_count", {"lanes_count": 2.5}),
        ("vehicles_count", {"vehicles_count": -1}),
        ("vehicles_density", {"vehicles_density": 0}),
        ("policy_frequency", {"policy_frequency": 0}),
        ("duration", {"duration": None}),
        ("initial_lane_id", {"initial_lane_id": 4}),
        ("reward_speed_range", {"reward_speed_range": 20}),
        ("features_range.x", {"observation": {"type": "Kinematics", "features_range": {"x": [1]}}}),
        ("did you mean 'heading'", {"observation": {"type": "Kinematics", "features": ["headin"]}}),
        (
            "cannot both be false",
            {"action": {"type": "ContinuousAction", "lateral": False, "longitudinal": False}},
        ),
        ("observation.vehicles_count", {"observation": {"type": "Kinematics", "vehicles_count": 0}}),
    ],
)
def test_wrong_values_are_named(words: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        HighwaySimulator({**highway_defaults(False), **changes}, 1)


def test_missing_keys_are_named() -> None:
    config = highway_defaults(False)
    del config["duration"], config["lanes_count"]
    with pytest.raises(UsageError, match=r"\['duration', 'lanes_count'\]"):
        HighwaySimulator(config, 1)


def test_float32_actions_are_mapped_in_float32() -> None:
    """highway-env's lmap keeps the action's precision; only the stored command is float64."""
    config = {**highway_defaults(False), "action": {"type": "ContinuousAction"}}
    action = HighwaySimulator(config, 1).parameters.action
    command = np.zeros((1, 2))
    single = np.array([[0.1, 0.3]], dtype=np.float32)
    action.write_commands(single, command)
    expected = np.float32(-5) + (single[0, 0] - np.float32(-1)) * np.float32(10) / np.float32(2)
    assert command[0, 0] == expected
    action.write_commands(single.astype(np.float64), command)
    assert command[0, 0] == -5 + (np.float64(np.float32(0.1)) + 1) * 10 / 2
    assert command[0, 0] != expected
