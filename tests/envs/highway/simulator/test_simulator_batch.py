"""The batched class: batches, threads, searches, states and scenes that must not change a result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator.compiled import source_digest
from racer.envs.highway.simulator.generator import pack, unpack

CONTINUOUS = {
    "action": {"type": "ContinuousAction"},
    "policy_frequency": 5,
    "vehicles_count": 12,
    "vehicles_density": 2,
}


def simulator(num_envs: int, config: dict[str, Any] | None = None, **options: Any) -> HighwaySimulator:
    return HighwaySimulator({**highway_defaults(False), **CONTINUOUS, **(config or {})}, num_envs, **options)


def actions(steps: int, num_envs: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.normal(size=(steps, num_envs, 2)) * [0.5, 0.03]).astype(np.float32)


def trajectory(sim: HighwaySimulator, seeds: list[int], script: np.ndarray) -> list[np.ndarray]:
    """Final scenes, observations and rewards as one list of arrays."""
    sim.reset(seeds)
    for row in script:
        sim.step(row)
    scenes = [sim.scene(i) for i in range(sim.num_envs)]
    return [
        np.stack([scene[name] for scene in scenes])
        for name in ("x", "y", "heading", "speed", "crashed", "lane", "target_lane", "timer")
    ] + [sim.observe(), sim.rewards.copy()]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("traffic", ["IDMVehicle", "LinearVehicle"])
def test_batch_size_threads_and_search_change_nothing(traffic: str) -> None:
    config = {"other_vehicles_type": f"highway_env.vehicle.behavior.{traffic}"}
    seeds, script = list(range(6)), actions(60, 6)
    expected = trajectory(simulator(6, config, search="sorted"), seeds, script)
    assert expected[4].any(), "nobody crashed: the comparison would miss collisions"
    assert same(expected, trajectory(simulator(6, config, search="brute"), seeds, script))
    assert same(expected, trajectory(simulator(6, config, num_threads=4), seeds, script))
    for i in (0, 5):
        alone = trajectory(simulator(1, config), [seeds[i]], script[:, i : i + 1])
        assert same([part[i : i + 1] for part in expected], alone)


def test_state_goes_back_exactly() -> None:
    config = {"observation": {"type": "Kinematics", "order": "shuffled"}}
    script = actions(30, 3)
    sim = simulator(3, config)
    sim.reset([1, 2, 3])
    for row in script[:10]:
        sim.step(row)
    state = sim.get_state()
    first = []
    for row in script[10:]:
        sim.step(row)
        first.append((sim.observe(), sim.rewards.copy()))
    sim.reset(indices=[1])
    first.append((sim.observe(), sim.rewards.copy()))
    other = simulator(3, config)
    other.set_state(state)
    assert np.array_equal(other.observe(), state["observations"])
    for k, row in enumerate(script[10:]):
        other.step(row)
        assert np.array_equal(other.observe(), first[k][0])
        assert np.array_equal(other.rewards, first[k][1])
    other.reset(indices=[1])
    assert np.array_equal(other.observe(), first[-1][0])


def test_state_of_another_simulator_is_refused() -> None:
    state = simulator(2).get_state()
    with pytest.raises(UsageError, match="'real'"):
        simulator(3).set_state(state)
    del state["rng"]
    with pytest.raises(UsageError, match="'rng'"):
        simulator(2).set_state(state)


def test_only_selected_environments_are_reset() -> None:
    sim = simulator(3)
    sim.reset([1, 2, 3])
    sim.step(np.zeros((3, 2), np.float32))
    before = sim.get_state()
    sim.reset([7], [1])
    after = sim.get_state()
    for name in ("real", "whole", "clock", "rng", "result", "observations"):
        assert np.array_equal(before[name][[0, 2]], after[name][[0, 2]])
    fresh = simulator(1)
    fresh.reset([7])
    assert np.array_equal(after["real"][1], fresh.get_state()["real"][0])
    assert list(sim.time) == [0.2, 0.0, 0.2]


def test_unseeded_reset_goes_on_with_the_generator() -> None:
    sim = simulator(1)
    sim.reset([4])
    first = sim.scene(0)["x"]
    sim.reset([None])
    second = sim.scene(0)["x"]
    sim.reset([4])
    assert np.array_equal(first, sim.scene(0)["x"])
    sim.reset()
    assert np.array_equal(second, sim.scene(0)["x"])
    assert not np.array_equal(first, second)


def test_frames_are_shown_between_and_change_nothing() -> None:
    script = actions(4, 2)
    plain, shown = simulator(2), simulator(2)
    plain.reset([0, 1])
    shown.reset([0, 1])
    positions: list[float] = []
    for row in script:
        plain.step(row)
        shown.step(row, lambda: positions.append(float(shown.scene(0)["x"][0])))
        positions.append(float(shown.scene(0)["x"][0]))
        assert np.array_equal(plain.observe(), shown.observe())
        assert np.array_equal(plain.rewards, shown.rewards)
    assert len(positions) == 4 * 3  # 15 Hz over 5 Hz
    assert positions == sorted(positions)
    assert len(set(positions)) == len(positions)


def test_second_observation_sees_the_same_scene() -> None:
    sim = simulator(2)
    sim.reset([0, 1])
    sim.step(np.zeros((2, 2), np.float32))
    spec = sim.observation_spec(
        {"type": "Kinematics", "features": ["x", "vx"], "normalize": False, "vehicles_count": 3}
    )
    rows = sim.observe(spec)
    assert rows.shape == (2, 3, 2)
    assert np.array_equal(rows[:, 0, 0], sim.ego_position[:, 0].astype(np.float32))
    scene = sim.scene(0)
    ahead = np.sort(scene["x"][1:] - scene["x"][0])
    ahead = ahead[ahead > -10][np.argsort(np.abs(ahead[ahead > -10]), kind="stable")]
    assert rows[0, 1, 0] == np.float32(ahead[0])
    with pytest.raises(UsageError, match="shuffled"):
        sim.observation_spec({"type": "Kinematics", "order": "shuffled"})


def test_ego_arrays_by_hand() -> None:
    sim = simulator(1, {"vehicles_count": 1, "lanes_count": 3})
    sim.reset([0])
    sim.set_scene(
        0,
        x=[100.0, 500.0],
        y=[4.5, 0.0],
        heading=[0.1, 0.0],
        speed=[20.0, 20.0],
        crashed=[False, True],
        timer=[0, 0.0],
    )
    assert sim.ego_position.tolist() == [[100.0, 4.5]]
    assert sim.ego_lateral_offset.tolist() == [0.5]
    assert sim.ego_lane.tolist() == [1]
    assert sim.ego_on_road.tolist() == [True]
    assert sim.ego_crashed.tolist() == [False]
    # lane 1 of 3; 20 cos(0.1) m/s on [20, 30] is below the range, so no speed term
    assert sim.rewards[0] == pytest.approx((0.1 * 0.5 + 1) / 1.5)
    sim.set_scene(0, y=[10.5, 0.0])
    assert sim.ego_on_road.tolist() == [False]
    assert sim.rewards.tolist() == [0.0]


def test_a_head_on_overlap_crashes_both_by_hand() -> None:
    sim = simulator(1, {"vehicles_count": 1, "lanes_count": 2})
    sim.reset([0])
    sim.set_scene(0, x=[100.0, 104.0], y=[0.0, 0.0], heading=[0.0, 0.0], speed=[0.0, 0.0], timer=[0.0, 0.0])
    sim.step(np.zeros((1, 2), np.float32))
    assert sim.terminated.tolist() == [True]
    scene = sim.scene(0)
    assert scene["crashed"].tolist() == [True, True]
    # 1 m of overlap; each is pushed by half of what is left of it, once a frame, until they are apart
    assert scene["x"][1] - scene["x"][0] == pytest.approx(5.0, abs=0.05)


def test_misuse_is_named() -> None:
    sim = simulator(2)
    with pytest.raises(UsageError, match="reset"):
        sim.step(np.zeros((2, 2), np.float32))
    sim.reset()
    with pytest.raises(UsageError, match="shape"):
        sim.step(np.zeros(2, np.float32))
    with pytest.raises(UsageError, match="3 seeds"):
        sim.reset([1, 2, 3])
    with pytest.raises(UsageError, match="non-negative"):
        sim.reset([-1, 2])
    with pytest.raises(UsageError, match="no field 'speeds'"):
        sim.set_scene(0, speeds=[1])
    with pytest.raises(UsageError, match="shape"):
        sim.set_scene(0, speed=[1])
    discrete = simulator(1, {"action": {"type": "DiscreteMetaAction"}})
    discrete.reset()
    with pytest.raises(UsageError, match="0 to 4"):
        discrete.step(np.array([5]))
    with pytest.raises(UsageError, match="search"):
        simulator(1, search="fast")


@pytest.mark.parametrize("seed", [0, 1, 123456789, 2**40])
def test_packed_generator_is_numpys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    generator.integers(0, 5, size=3, dtype=np.uint32)
    state = generator.bit_generator.state
    assert unpack(pack(state)) == state


DIGEST = """
import sys
import numpy as np
from racer.envs.highway.defaults import highway_defaults
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator.step import reset_batch, step_batch
config = {**highway_defaults(False), "vehicles_count": 12, "action": {"type": "ContinuousAction"}}
sim = HighwaySimulator(config, 2)
sim.reset([1, 2])
for k in range(10):
    sim.step(np.full((2, 2), 0.1 - 0.02 * k, np.float32))
import hashlib
print(hashlib.sha256(sim.get_state()["real"].tobytes()).hexdigest())
misses = sum(step_batch.stats.cache_misses.values())
print(sum(step_batch.stats.cache_hits.values()), misses)
if misses:
    assembly = "".join(step_batch.inspect_asm().values())
    print("mulsd" in assembly or "fmul" in assembly, any(word in assembly for word in ("fmadd", "fmsub", "fnmadd")))
"""


def run_with_cache(cache: Path) -> list[str]:
    child = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    return child.stdout.split()


def test_fresh_and_cached_code_agree(tmp_path: Path) -> None:
    digest, hits, misses, multiplies, fuses = run_with_cache(tmp_path)
    assert (hits, misses) == ("0", "1")
    # a fused multiply-add would round once where highway-env rounds twice
    assert (multiplies, fuses) == ("True", "False")
    assert run_with_cache(tmp_path) == [digest, "1", "0"]


def test_cache_is_stamped_with_every_source_file() -> None:
    """Numba alone would look at the entry point's own file and keep stale code after an edit elsewhere."""
    from racer.envs.highway.simulator.step import step_batch

    assert step_batch._cache._cache_file._source_stamp == source_digest()
