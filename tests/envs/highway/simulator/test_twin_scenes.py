"""Chosen initial scenes: alike with both engines, alone and in a batch."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from twin_pairs import CONTINUOUS, SMALL, same, same_episode, same_reset, same_step, same_vehicles

from racer.core.errors import UsageError

SCENE: dict[str, Any] = {
    "ego": {"x": 200, "lane": 1, "speed": 28},
    "others": [
        {"x": 218, "lane": 1, "speed": 20},
        {"x": 190, "y": 7.0, "speed": 27, "heading": -0.1, "target_lane": 1, "timer": 0.5, "exponent": 4.2},
        {},
        {"x": 260, "lane": 0, "speed": 15, "target_speed": 22},
        {"x": 230, "lane": 2, "speed": 0.0, "crashed": True},
        {"speed": 24.5},
    ],
}


def engines(env_id: str, config: dict[str, Any]) -> list[gymnasium.Env]:
    """Make the twin with highway-env's engine and with the compiled one."""
    return [gymnasium.make(env_id, config=config, engine=engine) for engine in ("highway-env", "compiled")]


@pytest.mark.parametrize("env_id", ["racer/highway-v0", "racer/highway-fast-v0"])
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        {**CONTINUOUS, "lanes_count": 3},
        {**SMALL, "observation": {"type": "Kinematics", "order": "shuffled"}},
        {**SMALL, "other_vehicles_type": "highway_env.vehicle.behavior.LinearVehicle"},
    ],
)
def test_a_chosen_scene_is_the_same_with_both_engines(env_id: str, config: dict[str, Any]) -> None:
    theirs, ours = engines(env_id, config)
    same_reset(theirs, ours, seed=3, options={"scene": SCENE})
    ego = ours.unwrapped.vehicle
    same([200.0, 4.0, 28.0], [*ego.position, ego.speed])
    same_vehicles(theirs.unwrapped, ours.unwrapped)
    for _ in range(8):
        same_step(theirs, ours, np.zeros(2, np.float32) if "action" in config else 1)
        same_vehicles(theirs.unwrapped, ours.unwrapped)
    same_episode(theirs, ours, [], seed=4)  # a reset without a scene draws one again


def test_a_scene_brings_its_own_number_of_vehicles() -> None:
    theirs, ours = engines("racer/highway-v0", SMALL)
    for others in ([], [{"x": 230, "lane": 0, "speed": 20}], [{}] * 9):
        scene = {"ego": {"lane": 0}, "others": others}
        same_reset(theirs, ours, seed=3, options={"scene": scene})
        assert len(ours.unwrapped.road.vehicles) == 1 + len(others)
        same_step(theirs, ours, 3)
    same_reset(theirs, ours, seed=3)
    assert len(ours.unwrapped.road.vehicles) == 7
    assert ours.unwrapped.config["vehicles_count"] == 6
    same_reset(theirs, ours, options={"scene": {"ego": {"lane": 2, "speed": 22}}, "config": {"lanes_count": 5}})
    assert len(ours.unwrapped.road.vehicles) == 7


def test_a_scene_can_be_read_and_started_from_again() -> None:
    theirs, ours = engines("racer/highway-v0", SMALL)
    same_episode(theirs, ours, [2, 3, 1], seed=6)
    scene = ours.unwrapped.get_scene()
    same(theirs.unwrapped.get_scene(), scene)
    before = [ours.unwrapped.road.vehicles[i].to_dict() for i in range(7)]
    for env in (theirs, ours):
        env.reset(seed=6, options={"scene": scene})
    same(before, [vehicle.to_dict() for vehicle in ours.unwrapped.road.vehicles])
    same_step(theirs, ours, 1)
    same_vehicles(theirs.unwrapped, ours.unwrapped)


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        ([], "must be"),
        ({"egos": {}}, "did you mean 'ego'"),
        ({"ego": {"sped": 3}}, r"ego 'sped'; did you mean 'speed'"),
        ({"others": [{"x": float("nan")}]}, r"'x' of scene vehicle others\[0\] must be a finite number"),
        ({"others": [{}, {"lane": 3}]}, r"others\[1\] must be a lane from 0 to 2"),
        ({"ego": {"lane": 1, "y": 4}}, "both 'lane' and 'y'"),
        ({"others": 3}, "must be a list"),
    ],
)
@pytest.mark.parametrize("engine", ["compiled", "highway-env"])
def test_a_wrong_scene_is_named(scene: Any, message: str, engine: str) -> None:
    env = gymnasium.make("racer/highway-v0", config=SMALL, engine=engine)
    with pytest.raises(UsageError, match=message):
        env.reset(options={"scene": scene})
    envs = gymnasium.make_vec("racer/highway-v0", num_envs=2, config=SMALL, engine=engine)
    with pytest.raises(UsageError, match=message if scene else "scenes were given|must be"):
        envs.reset(options={"scene": scene})


def test_a_batch_starts_from_scenes() -> None:
    envs = gymnasium.make_vec("racer/highway-v0", num_envs=3, config=SMALL, autoreset_mode="Disabled")
    singles = [gymnasium.make("racer/highway-v0", config=SMALL) for _ in range(3)]
    other = {**SCENE, "ego": {"x": 210, "lane": 0, "speed": 20}}
    for given in (SCENE, [SCENE, None, other]):
        ended = np.zeros(3, dtype=bool)
        listed = given if isinstance(given, list) else [given] * 3
        observations, _ = envs.reset(seed=5, options={"scene": given})
        for i, (env, scene) in enumerate(zip(singles, listed, strict=True)):
            same(env.reset(seed=5 + i, options={"scene": scene})[0], observations[i])
        for _ in range(2):
            stepped = envs.step(np.array([1, 0, 3]))
            for i, action in enumerate((1, 0, 3)):
                same(env_step(singles[i], action), tuple(part[i] for part in stepped[:4]))
            ended |= stepped[2]
            if ended.any():
                break
    with pytest.raises(UsageError, match="vehicles_count = 6"):
        envs.reset(options={"scene": {"others": [{}]}})
    with pytest.raises(UsageError, match="2 scenes"):
        envs.reset(options={"scene": [SCENE, SCENE]})


def env_step(env: gymnasium.Env, action: int) -> tuple[Any, ...]:
    return tuple(np.asarray(part) for part in env.step(action)[:4])
