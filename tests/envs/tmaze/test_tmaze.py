"""racer/TMaze-v0: its rules by hand, its two faces, and what gymnasium and exact resume ask of it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import racer.envs  # noqa: F401 - registers the ids
from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.envs.tmaze import ENV_ID, maze
from racer.envs.tmaze.config import resolve_config, tmaze_config
from racer.envs.tmaze.env import TMazeEnv
from racer.envs.tmaze.maze import EAST, NORTH, SOUTH, WEST
from racer.envs.tmaze.vector import TMazeVectorEnv

WORLD = get_world("tmaze")


def _walk(goal: int, actions: list[int], **config: Any) -> tuple[np.ndarray, list[Any]]:
    """Walk from a start with ``goal``; return what was seen ``[T+1, 4]`` and the steps."""
    settings = tmaze_config(config)
    state = maze.start(np.array([goal], np.int32))
    seen, steps = [maze.observe(settings, state)[0]], []
    for action in actions:
        steps.append(maze.step(settings, state, np.array([action])))
        state = steps[-1].state
        seen.append(maze.observe(settings, state)[0])
    return np.array(seen), steps


@pytest.mark.parametrize("goal", [NORTH, SOUTH])
def test_the_shortest_way_takes_twelve_steps(goal: int) -> None:
    seen, steps = _walk(goal, [EAST] * 11 + [goal])
    start, corridor, junction, turned = [goal, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]
    np.testing.assert_array_equal(seen, [start, *[corridor] * 10, junction, turned])
    assert [float(s.reward[0]) for s in steps] == [0.0] * 11 + [4.0]
    assert [bool(s.terminated[0]) for s in steps] == [False] * 11 + [True]
    metrics = {name: float(value[0]) for name, value in steps[-1].metrics.items()}
    discounted = metrics.pop("discounted_return")
    assert discounted == pytest.approx(3.581, abs=5e-4)  # 4 * .99 ** 11
    assert metrics == {"return": 4.0, "length": 12.0, "success": 1.0, "wrong_turn": 0.0}


def test_perfect_memory_keeps_the_sign() -> None:
    seen, _ = _walk(SOUTH, [EAST] * 11 + [SOUTH], observation="perfect_memory")
    np.testing.assert_array_equal(seen[:, 0], 1.0)
    np.testing.assert_array_equal(seen[11], [1, 0, 1, 0])
    seen, _ = _walk(NORTH, [EAST] * 11 + [NORTH], observation="perfect_memory")
    np.testing.assert_array_equal(seen[:, 0], 0.0)


def test_the_wrong_turn_costs_a_tenth() -> None:
    _, steps = _walk(NORTH, [EAST] * 11 + [SOUTH])
    assert float(steps[-1].reward[0]) == -0.1
    assert bool(steps[-1].terminated[0])
    assert float(steps[-1].metrics["wrong_turn"][0]) == 1.0
    assert float(steps[-1].metrics["success"][0]) == 0.0


def test_walls_stop() -> None:
    """Turning in the corridor, west of the start and east of the junction change nothing but the clock."""
    _, steps = _walk(SOUTH, [WEST, NORTH, SOUTH, EAST, NORTH, SOUTH, EAST, EAST, EAST, WEST, SOUTH], length=2)
    assert [int(s.state.cell[0]) for s in steps] == [0, 0, 0, 1, 1, 1, 2, 3, 3, 2, 2]
    assert [int(s.state.steps[0]) for s in steps] == list(range(1, 12))
    assert not any(s.terminated[0] for s in steps)


def test_the_step_limit_truncates() -> None:
    _, steps = _walk(NORTH, [WEST] * 1000)
    assert [bool(s.truncated[0]) for s in steps] == [False] * 999 + [True]
    assert not bool(steps[-1].terminated[0])
    assert float(steps[-1].metrics["return"][0]) == 0.0
    _, steps = _walk(NORTH, [EAST] * 11 + [NORTH], max_episode_steps=12)
    assert bool(steps[-1].terminated[0])
    assert not bool(steps[-1].truncated[0])  # a turn in the last step ends the episode by itself


def _memoryless_value(sign: float, corridor: float, turn: np.ndarray) -> float:
    """Value of the start under a policy without memory, exactly, by solving its linear equations.

    The probability of east (else west, as good as a wall) is ``sign`` where a 1 is seen, at the start of a southern
    goal, and ``corridor`` in the corridor, which the other start looks like; ``turn [3]``: of north, south and west
    at the junction.
    """
    length, discount, value = 10, 0.99, 0.0
    for goal in (NORTH, SOUTH):
        cells = length + 2
        change, reward = np.zeros((cells, cells)), np.zeros(cells)
        for cell in range(length + 1):
            east = sign if cell == 0 and goal == SOUTH else corridor
            change[cell, cell + 1] += east
            change[cell, max(cell - 1, 0)] += 1.0 - east
        change[length + 1, length] = turn[2]
        reward[length + 1] = turn[goal] * maze.RIGHT_TURN + turn[1 - goal] * maze.WRONG_TURN
        value += 0.5 * float(np.linalg.solve(np.eye(cells) - discount * change, reward)[0])
    return value


def test_what_a_policy_without_memory_can_reach() -> None:
    """In the corridor the sign is forgotten, so the turn is the same for both goals.

    Who turns north with probability q there earns, if it always goes there, q and 1 - q times 4 and -0.1 for the two
    goals: (4 - 0.1) / 2 = 1.95 on average whatever q is, 11 steps after the start at the earliest, which makes
    1.95 * .99 ** 11 = 1.746. One thing is better: always turn north, and where the sign says south never leave the
    start, which earns 0 instead of -0.1. That makes 4 / 2 * .99 ** 11 = 1.791, and nothing makes more.
    """
    bound = 2.0 * 0.99**11
    north, south = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    for turn in (north, south, 0.3 * north + 0.7 * south):
        assert _memoryless_value(1.0, 1.0, turn) == pytest.approx(1.746, abs=5e-4)
    assert _memoryless_value(0.0, 1.0, north) == pytest.approx(bound, rel=1e-12)
    assert bound < 1.80
    grid = np.linspace(0.0, 1.0, 6)
    for sign, corridor, p, q in itertools.product(grid, repeat=4):
        if p + q <= 1.0:
            assert _memoryless_value(sign, corridor, np.array([p, q, 1.0 - p - q])) <= bound + 1e-12


def test_gymnasium_checkers_are_content() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENV_ID, config={"length": 3}).unwrapped, skip_render_check=False)


def _actions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.choice([EAST, NORTH, SOUTH, WEST], shape, p=[0.7, 0.1, 0.1, 0.1])


def test_single_and_batched_environments_agree() -> None:
    config = {"length": 2, "max_episode_steps": 9}
    vector = gymnasium.make_vec(ENV_ID, num_envs=3, config=config)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    singles = [gymnasium.make(ENV_ID, config=config) for _ in range(3)]
    seeds = [5, 17, 2]
    observations, _ = vector.reset(seed=seeds)
    for env, seed, row in zip(singles, seeds, observations, strict=True):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], row)
    rng, ends = np.random.default_rng(0), {"terminated": 0, "truncated": 0}
    for _ in range(200):
        actions = _actions(rng, (3,))
        observations, rewards, terminated, truncated, infos = vector.step(actions)
        assert observations in vector.observation_space
        for i, env in enumerate(singles):
            obs, reward, term, trunc, info = env.step(actions[i])
            assert (reward, term, trunc) == (rewards[i], terminated[i], truncated[i])
            if term or trunc:
                ends["terminated" if term else "truncated"] += 1
                np.testing.assert_array_equal(infos["final_obs"][i], obs)
                final = infos["final_info"]["episode_metrics"]
                assert {name: final[name][i] for name in info["episode_metrics"]} == info["episode_metrics"]
                assert final["_return"][i]
                obs, _ = env.reset()
            np.testing.assert_array_equal(observations[i], obs)
    assert min(ends.values()) > 5


def test_reset_mask_leaves_the_others_alone() -> None:
    vector = TMazeVectorEnv(2, {"length": 3})
    vector.reset(seed=1)
    vector.step(np.array([EAST, EAST]))
    before = vector.get_state()
    observations, _ = vector.reset(seed=[9, None], options={"reset_mask": np.array([True, False])})
    after = vector.get_state()
    assert after["cell"].tolist() == [0, 1]
    assert after["goal"][1] == before["goal"][1]
    np.testing.assert_array_equal(observations[0], TMazeVectorEnv(1, {"length": 3}).reset(seed=9)[0][0])
    with pytest.raises(UsageError, match="2 booleans"):
        vector.reset(options={"reset_mask": np.array([True])})
    with pytest.raises(UsageError, match="3 seeds"):
        vector.reset(seed=[1, 2, 3])


def test_state_is_restored_exactly() -> None:
    vector = TMazeVectorEnv(4, {"length": 2})
    vector.reset(seed=3)
    actions = _actions(np.random.default_rng(1), (80, 4))
    for action in actions[:20]:
        vector.step(action)
    state = vector.get_state()
    first = [vector.step(action) for action in actions[20:]]
    assert sum(int(terminated.sum()) for _, _, terminated, _, _ in first) >= 20
    for other in (vector, TMazeVectorEnv(4, {"length": 2})):
        other.set_state(state)
        for action, expected in zip(actions[20:], first, strict=True):
            for got, want in zip(other.step(action)[:4], expected, strict=False):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("observation", ["plain", "perfect_memory"])
def test_numpy_and_jax_agree_step_by_step(observation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functional face in jit, vmap and scan against the vector environment, which is told the goals drawn there."""
    config = resolve_config({"length": 2, "max_episode_steps": 9, "observation": observation})
    assert WORLD.functional is not None
    functional = WORLD.functional(config)
    actions = _actions(np.random.default_rng(2), (150, 6))
    keys = jax.random.split(jax.random.key(0), (151, 6))

    @jax.jit
    def run(actions: jax.Array, keys: jax.Array) -> Any:
        def advance(state: Any, row: Any) -> Any:
            step = jax.vmap(functional.step)(state, *row)
            return step.state, step

        first = jax.vmap(functional.reset)(keys[0])
        return first, jax.lax.scan(advance, first[0], (actions, keys[1:]))[1]

    (first, seen), steps = jax.tree.map(np.asarray, run(jnp.asarray(actions), keys))
    vector = TMazeVectorEnv(6, config)
    goals = first.goal

    def restart(mask: np.ndarray) -> None:
        vector._state = maze.restart(vector._state, mask, goals)

    monkeypatch.setattr(vector, "_begin", restart)
    np.testing.assert_array_equal(vector.reset()[0], seen)
    for t in range(150):
        goals = steps.state.goal[t]
        observations, rewards, terminated, truncated, infos = vector.step(actions[t])
        np.testing.assert_array_equal(observations, steps.observation[t])
        np.testing.assert_array_equal(rewards.astype(np.float32), steps.reward[t])
        np.testing.assert_array_equal(terminated, steps.terminated[t])
        np.testing.assert_array_equal(truncated, steps.truncated[t])
        for i in np.flatnonzero(terminated | truncated):
            np.testing.assert_array_equal(infos["final_obs"][i], steps.final_observation[t, i])
            for name, value in steps.metrics.items():
                got = infos["final_info"]["episode_metrics"][name][i]
                assert got == pytest.approx(value[t, i], rel=1e-6)
    assert steps.terminated.any()
    assert steps.truncated.any()
    assert len(np.unique(steps.state.goal)) == 2


def test_goals_are_fair() -> None:
    vector = TMazeVectorEnv(2000)
    assert abs(vector.reset(seed=0)[0][:, 0].mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"lenght": 3}, "'length'"),
        ({"length": 0}, "at least 1"),
        ({"length": 2.5}, "whole number"),
        ({"observation": "perfect"}, "perfect_memory"),
        ({"discount": 1.5}, "at most 1"),
        ({"max_episode_steps": 0}, "at least 1"),
    ],
)
def test_wrong_configuration_is_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        WORLD.resolve(config)


def test_what_the_registry_says_is_what_the_environment_reports() -> None:
    vector = WORLD.make(WORLD.resolve({"length": 1}), 1)
    vector.reset(seed=0)
    goal = int(vector.get_state()["goal"][0])
    for action in (EAST, EAST, goal):
        *_, infos = vector.step(np.array([action]))
    metrics = {k: v[0] for k, v in infos["final_info"]["episode_metrics"].items() if not k.startswith("_")}
    assert set(metrics) == {metric.key for metric in WORLD.metrics}
    assert WORLD.end_reason(metrics, True) == "right_turn"
    assert WORLD.end_reason({**metrics, "success": 0.0}, True) == "wrong_turn"
    assert WORLD.end_reason({**metrics, "success": 0.0}, False) == "time_limit"


def test_frames_show_the_walk() -> None:
    env = gymnasium.make(ENV_ID, config={"length": 3}, render_mode="rgb_array_list")
    env.reset(seed=0)
    for _ in range(3):
        env.step(EAST)
    frames = env.render()
    assert len(frames) == 4
    assert frames[0].dtype == np.uint8
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    centres = [np.argwhere((frame == (38, 86, 148)).all(-1)).mean(axis=0) for frame in frames]
    assert np.ptp([y for y, _ in centres]) == 0.0
    assert np.allclose(np.diff([x for _, x in centres]), 40.0)
    with pytest.raises(UsageError, match="rgb_array"):
        TMazeEnv(render_mode="rgb_aray")


def test_the_world_needs_no_jax() -> None:
    code = "import sys, racer.envs.tmaze.entry as e; e.WORLD.make({}, 2).reset(seed=0); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
