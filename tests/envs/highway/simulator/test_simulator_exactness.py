"""The compiled simulator against highway-env itself: bits with a pinned libm, 1e-9 without."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from highway_pairs import Difference, Pair, run
from pinning import pinned

from racer.envs.highway.simulator.generator import pack, unpack


def test_random_configurations_are_exact_to_the_bit() -> None:
    outcome = pinned("highway_pairs.py", "random", "--episodes", "36", "--vehicles", "8", "--steps", "24")
    assert outcome["differences"] == []
    assert outcome["episodes"] == 36
    for kind in (
        "ContinuousAction",
        "DiscreteMetaAction",
        "DiscreteAction",
        "IDMVehicle",
        "LinearVehicle",
        "AggressiveVehicle",
        "DefensiveVehicle",
        "brute",
        "sorted",
        "fast",
        "crashed",
        "traffic crashed",
        "lane changes",
    ):
        assert outcome["seen"].get(kind, 0) > 0, f"the sample of configurations misses {kind}"


def test_adversarial_scenes_are_exact_to_the_bit() -> None:
    outcome = pinned("highway_pairs.py", "adversarial", "--episodes", "48", "--vehicles", "9", "--steps", "7")
    assert outcome["differences"] == []
    assert outcome["seen"]["pile-ups"] > 0
    assert outcome["seen"]["past the end"] > 0


def test_dense_traffic_is_exact_to_the_bit() -> None:
    outcome = pinned("highway_pairs.py", "dense", "--episodes", "2", "--vehicles", "40", "--steps", "12")
    assert outcome["differences"] == []
    assert outcome["seen"]["dense"] == 2


def test_close_without_pinning() -> None:
    """Libraries that round otherwise may move a car by 1e-13 m; chaos has no time to grow in a short episode."""
    outcome = run("random", iter(range(500, 512)), 1e-9, 8, 12)
    assert outcome["differences"] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("suite", "episodes", "vehicles", "steps"),
    [("random", 250, 20, 40), ("adversarial", 400, 16, 20), ("dense", 8, 50, 40)],
)
def test_long_sweep_is_exact_to_the_bit(suite: str, episodes: int, vehicles: int, steps: int) -> None:
    outcome = pinned(
        "highway_pairs.py",
        suite,
        "--first",
        "1000",
        "--episodes",
        str(episodes),
        "--vehicles",
        str(vehicles),
        "--steps",
        str(steps),
    )
    assert outcome["differences"] == []
    assert outcome["episodes"] == episodes


def test_the_comparison_itself_can_fail() -> None:
    """One car moved by one ulp in one engine is found at the next step."""
    pair = Pair({"vehicles_count": 3})
    pair.reset(0)
    scene = pair.simulator.scene(0)
    pair.simulator.set_scene(0, x=np.nextafter(scene["x"], np.inf))
    with pytest.raises(Difference, match="differs"):
        pair.step(1)
    moved = Pair({"vehicles_count": 3}, tolerance=1e-9)
    moved.reset(0)
    moved.simulator.set_scene(0, x=moved.simulator.scene(0)["x"] + 1e-6)
    with pytest.raises(Difference, match="differs"):
        moved.step(1)


@pytest.mark.parametrize("half_draw", [0, 1, 2**32 - 1])
def test_rejected_draws_are_rejected_alike(half_draw: int) -> None:
    """A kept half draw of 0 falls into the range that a fair choice among 3 lanes must reject."""
    pair = Pair({"vehicles_count": 2, "lanes_count": 3}, tolerance=1e-9)
    pair.reset(5)
    state = {**pair.reference.np_random.bit_generator.state, "has_uint32": 1, "uinteger": half_draw}
    pair.reference.np_random.bit_generator.state = state
    pair.simulator.set_generator_state(0, pack(state))
    observation, info = pair.reference.reset()
    pair.simulator.reset()
    pair.compare("reset", observation, info)
    assert pair.reference.np_random.bit_generator.state == unpack(pair.simulator.get_generator_state(0))


def test_policy_faster_than_simulation_moves_nothing() -> None:
    """int(simulation // policy) is 0 frames there, in both engines; only the clock goes on."""
    pair = Pair({"vehicles_count": 4, "simulation_frequency": 5, "policy_frequency": 10, "duration": 1})
    pair.reset(3)
    ends = [pair.step(3) for _ in range(11)]
    assert ends[-1] == (False, True)


def test_a_long_episode_ends_after_exactly_200_steps() -> None:
    """40 s at 5 Hz: 0.2 s accumulated 200 times, compared with >=, as highway-env counts."""
    pair = Pair({"vehicles_count": 0, "policy_frequency": 5, "simulation_frequency": 5})
    pair.reset(0)
    truncated = [pair.step(1)[1] for _ in range(200)]
    assert truncated == [False] * 199 + [True]


def test_the_sample_of_configurations_is_wide() -> None:
    """The generator of random configurations reaches every key that the simulator covers."""
    from highway_pairs import random_config

    rng = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for _ in range(300):
        config = random_config(rng)
        seen.update(config.keys())
        seen.update(
            f"observation.{key}={value}" for key, value in config["observation"].items() if key == "order"
        )
        seen.update(f"observation.{key}" for key in config["observation"])
        seen.update(f"action.{key}" for key in config["action"])
    for key in (
        "observation.order=shuffled",
        "observation.features_range",
        "action.speed_range",
        "on_road_reward",
    ):
        assert seen[key] > 5
    for key in ("action.target_speeds", "action.actions_per_axis", "action.lateral", "action.longitudinal"):
        assert seen[key] > 5
