"""States that may come from a file: what no simulation can have left never reaches the kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_states import CONFIGS, ENTRIES, VICTIM, actions, driven, go_on, mutated, simulator

from racer.core.errors import UsageError
from racer.envs.highway import make_vector_env
from racer.envs.highway.simulator import layout as at

OTHERS = [0, 2]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_changed_entry_is_refused_or_stays_in_its_environment(config: dict[str, Any]) -> None:
    state, sim, rng = driven(config), simulator(config), np.random.default_rng(3)
    sim.set_state(state)
    expected = go_on(sim, 6)
    refused, kept = 0, 0
    for entry in ENTRIES:
        for _ in range(5):
            sim.set_state(state)
            try:
                sim.set_state(mutated(state, entry, rng))
            except UsageError:
                refused += 1
                for name, array in sim.get_state().items():
                    np.testing.assert_array_equal(array, state[name])
                continue
            if not sim.get_state()["is_reset"].all():
                with pytest.raises(UsageError, match="reset"):
                    go_on(sim, 1)
                continue
            kept += 1
            with np.errstate(all="ignore"):
                after = go_on(sim, 6)
            for name, array in after.items():
                np.testing.assert_array_equal(array[OTHERS], expected[name][OTHERS], err_msg=f"{entry} {name}")
    assert refused > 60
    assert kept > 60


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("whole", (1, at.ORDER, 2), 99, "ORDER outside 0 to 9"),
        ("whole", (1, at.ORDER, 2), -1, "ORDER outside"),
        ("whole", (1, at.ORDER), 0, "no permutation"),
        ("whole", (1, at.RANK), 0, "not the inverse"),
        ("whole", (0, at.TARGET_LANE, 3), 3, "TARGET_LANE outside 0 to 2"),
        ("whole", (2, at.LANE, 0), -1, "LANE outside"),
        ("whole", (0, at.SPEED_INDEX, 0), 3, "SPEED_INDEX outside 0 to 2"),
        ("whole", (0, at.CRASHED, 0), 2, "CRASHED outside 0 to 1"),
        ("whole", (0, at.CHANGING, 0), 10, "CHANGING outside"),
        ("real", (0, at.X, 1), np.nan, "not finite in row 0"),
        ("real", (0, at.TARGET_SPEED, 1), -np.inf, "not finite in row 8"),
        ("real", (0, at.X, 1), 1e5, "SORTED_X that is not"),
        ("real", (0, at.COS, 1), 1.5, "cosine"),
        ("clock", (0, at.TIME), np.inf, "'clock'"),
        ("clock", (0, at.STEPS), 0.5, "'clock'"),
        ("rng", (1, at.RNG_INC_LOW), 2, "even increment"),
        ("rng", (1, at.RNG_32), 2**32, "half draw"),
        ("rng", (1, at.RNG_HAS_32), 2, "half draw"),
        ("result", (0, at.EGO_LANE), 3.0, "a lane"),
        ("result", (0, at.TERMINATED), 0.5, "a flag"),
        ("observations", (0, 0, 0), np.nan, "'observations'"),
    ],
)
def test_what_the_kernels_must_not_see_is_named(name: str, place: tuple[int, ...], value: Any, words: str) -> None:
    state = driven(CONFIGS[1])
    state[name][place] = value
    with pytest.raises(UsageError, match=words):
        simulator(CONFIGS[1]).set_state(state)


def test_flags_with_other_bits_are_refused() -> None:
    state = driven(CONFIGS[0])
    state["is_reset"] = np.array([1, 7, 1], dtype=np.uint8).view(bool)
    with pytest.raises(UsageError, match="'is_reset'"):
        simulator(CONFIGS[0]).set_state(state)


def test_every_state_of_a_simulation_is_let_through() -> None:
    """Also those before the first reset and those of long, crashed and crowded episodes."""
    for config in CONFIGS:
        sim, rng = simulator(config), np.random.default_rng(5)
        sim.set_state(simulator(config).get_state())
        sim.reset(indices=[VICTIM])
        sim.set_state(sim.get_state())
        sim.reset([0, 1, 2])
        for _ in range(60):
            sim.step(actions(sim, rng))
            sim.set_state(sim.get_state())
        assert sim.scene(0)["crashed"].any() or sim.scene(1)["crashed"].any() or sim.scene(2)["crashed"].any()


def test_a_generator_that_is_none_is_refused() -> None:
    sim = simulator(CONFIGS[0])
    packed = sim.get_generator_state(0)
    for wrong in (packed[:5], packed.astype(np.int64), packed & ~np.uint64(1)):
        with pytest.raises(UsageError, match="'rng'"):
            sim.set_generator_state(0, wrong)


def test_environments_that_do_not_exist_are_not_reset() -> None:
    for wrong in ([3], [-1], [0, 1000]):
        with pytest.raises(UsageError, match="0 to 2"):
            simulator(CONFIGS[0]).reset(indices=wrong)


@pytest.mark.parametrize("engine", ["compiled", "highway-env"])
def test_accounts_and_engine_states_are_checked_and_nothing_changes(engine: str) -> None:
    config = {"engine": engine, "vehicles_count": 3, "duration": 2}
    env, forward = make_vector_env(config, 2), np.full((2, 2), 0.1, np.float32)
    env.reset(seed=1)
    before = env.get_state()
    env.step(forward)
    now = env.get_state()
    wrong: dict[str, Any] = {
        "steps": [np.array([-1, 0]), np.array([0.0, 1.0]), np.zeros(3, np.int64), None],
        "episode/sum/return": [np.array([np.nan, 0.0]), np.zeros((2, 1)), None],
        "episode/sum/length": [np.array([-1.0, 0.0]), np.array([np.inf, 0.0])],
        "episode/min_distance": [np.array([np.nan, 1.0]), np.array([-1.0, 1.0])],
        "episode/heading": [np.array([np.inf, 0.0]), np.zeros(2, np.float32)],
    }
    if engine == "compiled":
        wrong["engine/real"] = [now["engine/real"] * np.nan, now["engine/real"][:1], None]
    else:
        origin = bytes(now["engine/origins"]).decode()
        wrong["engine/lengths"] = [np.array([2**62, 2**62]), np.array([-1, 3]), np.array([5, 5]), None]
        wrong["engine/actions"] = [now["engine/actions"] * np.nan, np.zeros((2, 3)), np.zeros((2, 2), object)]
        wrong["engine/origins"] = [
            np.frombuffer(text.encode(), np.uint8)
            for text in ("", "{}", "[1, 2]", '["{}", "{}"]', "[" * 100_000, origin.replace("PCG64", "MT19937"))
        ]
    for name, values in wrong.items():
        for value in values:
            state = {**before, name: value}
            if value is None:
                del state[name]
            with pytest.raises(UsageError, match=repr(name.removeprefix("engine/"))):
                env.set_state(state)
            for key, array in env.get_state().items():
                np.testing.assert_array_equal(array, now[key])
    env.set_state(before)
    env.step(forward)
    for key, array in env.get_state().items():
        np.testing.assert_array_equal(array, now[key])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_kernel_leaves_its_arrays(tmp_path: Path) -> None:
    """Numba's bounds checking belongs to no cache key: the checked code needs a cache of its own."""
    child = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "hostile_states.py"), "--tries", "12"],
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    seen = json.loads(child.stdout.splitlines()[-1])
    assert seen["stepped"] > 200
    assert seen["refused"] > 200
    assert seen["made up"] > 200
    assert seen["caught"] == len(CONFIGS)
