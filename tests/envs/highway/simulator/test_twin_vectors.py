"""The batched twin beside gymnasium's own vector environment of single twins: its whole interface."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, TransformReward
from gymnasium.wrappers import vector as wrappers
from twin_pairs import SMALL, same, same_vehicle

from racer.core.errors import UsageError
from racer.envs.highway.twin_vector_env import HighwayVectorTwin

SHORT: dict[str, Any] = {**SMALL, "duration": 3, "vehicles_density": 2}
ENV_ID = "racer/highway-v0"


def batch_and_singles(mode: AutoresetMode, config: dict[str, Any] = SHORT, num_envs: int = 3) -> tuple[Any, Any]:
    batch = gymnasium.make_vec(ENV_ID, num_envs=num_envs, config=config, autoreset_mode=mode)
    singles = gymnasium.make_vec(
        ENV_ID, num_envs=num_envs, config=config, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
    )
    assert isinstance(batch.unwrapped, HighwayVectorTwin)
    assert isinstance(singles, SyncVectorEnv)
    return batch, singles


def comparable(infos: dict[str, Any]) -> dict[str, Any]:
    """Leave out the sampled actions, which are each environment's own, and elapsed times."""
    dropped = ("action", "_action", "final_info", "final_obs")
    return {key: comparable(value) if isinstance(value, dict) else value for key, value in infos.items()
            if key not in dropped and key != "t"}  # fmt: skip


def test_the_default_autoreset_is_highway_envs() -> None:
    theirs = gymnasium.make_vec("highway-v0", num_envs=2, config=SMALL)
    ours = gymnasium.make_vec(ENV_ID, num_envs=2, config=SMALL)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    same(theirs.reset(seed=1)[0], ours.reset(seed=1)[0])
    actions = np.array([1, 3])
    for _ in range(3):
        same(theirs.step(actions)[:4], ours.step(actions)[:4])
    for form in ({"autoreset_mode": "SameStep"}, {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}):
        asked = gymnasium.make_vec(ENV_ID, num_envs=2, config=SMALL, **form)
        assert isinstance(asked, HighwayVectorTwin)
        assert asked.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        again = gymnasium.make_vec(asked.spec)
        assert again.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        assert again.num_envs == 2


WRAPPERS: dict[str, Any] = {
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "FlattenObservation": wrappers.FlattenObservation,
    "NormalizeReward": wrappers.NormalizeReward,
    "ClipReward": lambda envs: wrappers.ClipReward(envs, -0.5, 0.5),
    "NormalizeObservation": wrappers.NormalizeObservation,
    "DtypeObservation": lambda envs: wrappers.DtypeObservation(envs, np.float64),
}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", WRAPPERS)
def test_vector_wrappers_work_in_every_mode(mode: AutoresetMode, name: str) -> None:
    both = batch_and_singles(mode)
    try:
        expected = WRAPPERS[name](both[1])
    except ValueError as error:
        # gymnasium's wrapper refuses the mode, whatever the environment
        with pytest.raises(ValueError, match=re.escape(str(error))):
            WRAPPERS[name](both[0])
        return
    wrapped = WRAPPERS[name](both[0])
    same(expected.reset(seed=2)[0], wrapped.reset(seed=2)[0])
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(9):
        actions = rng.integers(0, 5, 3)
        want, got = expected.step(actions), wrapped.step(actions)
        same(want[:4], got[:4], name)
        # gymnasium's SyncVectorEnv hides the mask of a reset from the wrapper, which then counts all episodes anew
        shown = [{**info, "episode": {}, "_episode": {}} if mode is AutoresetMode.DISABLED else info
                 for info in (want[4], got[4])]  # fmt: skip
        same(*[comparable(info) for info in shown])
        over = want[2] | want[3]
        ended += int(over.sum())
        if mode is AutoresetMode.DISABLED and over.any():
            same(*[envs.reset(options={"reset_mask": over.copy()})[0] for envs in (expected, wrapped)])
    assert ended > 2


@pytest.mark.parametrize("mode", [None, "sync", "async", "vector_entry_point"])
@pytest.mark.parametrize("engine", ["compiled", "highway-env"])
def test_wrappers_of_single_environments_in_every_vectorization_mode(mode: str | None, engine: str) -> None:
    listed = [FlattenObservation, lambda env: TransformReward(env, lambda reward: 10 * reward)]
    if mode == "async" and engine == "highway-env":
        pytest.skip("the same path as with the compiled engine")
    theirs = gymnasium.make_vec("highway-v0", num_envs=2, config=SHORT, wrappers=listed)
    ours = gymnasium.make_vec(
        ENV_ID, num_envs=2, config=SHORT, wrappers=listed, vectorization_mode=mode, engine=engine,
    )  # fmt: skip
    assert ours.single_observation_space == theirs.single_observation_space
    same(theirs.reset(seed=1)[0], ours.reset(seed=1)[0])
    for _ in range(2):
        same(theirs.step(np.array([1, 3]))[:4], ours.step(np.array([1, 3]))[:4])
    ours.close()
    limited = gymnasium.make_vec(ENV_ID, num_envs=1, config=SMALL, max_episode_steps=2, vectorization_mode=mode)
    limited.reset(seed=0)
    assert [bool(limited.step(np.array([1]))[3][0]) for _ in range(2)] == [False, True]
    limited.close()


def test_call_and_get_attr_reach_every_environment() -> None:
    batch, singles = batch_and_singles(AutoresetMode.NEXT_STEP)
    for envs in (batch, singles):
        envs.reset(seed=3)
    rng = np.random.default_rng(1)
    kept = [envs.get_attr("vehicle") for envs in (batch, singles)]
    for _ in range(8):
        same(singles.call("get_available_actions"), batch.call("get_available_actions"))
        same(singles.call("action_masks"), batch.call("action_masks"))
        same(singles.get_attr("time"), batch.get_attr("time"))
        same(singles.call("get_scene"), batch.call("get_scene"))
        for a, b in zip(singles.get_attr("vehicle"), batch.get_attr("vehicle"), strict=True):
            same_vehicle(a, b)
        actions = rng.integers(0, 5, 3)
        same(singles.step(actions)[:4], batch.step(actions)[:4])
    for a, b in zip(*kept, strict=True):
        same_vehicle(b, a)  # vehicles of an episode that is over keep its last values
    same(singles.np_random_seed, batch.np_random_seed)
    plans = [[env.step(1)[:4] for env in envs.call("simplify")] for envs in (singles, batch)]
    same(*plans)
    for name, arguments in (("reset", ()), ("step", (1,)), ("close", ())):
        with pytest.raises(UsageError, match="together"):
            batch.call(name, *arguments)
    with pytest.raises(UsageError, match="cannot be written"):
        batch.get_attr("vehicle")[0].speed = 3.0
    with pytest.raises(AttributeError, match="speeed"):
        batch.call("speeed")
    batch.set_attr("mark", [1, 2, 3])
    assert batch.get_attr("mark") == (1, 2, 3)


def test_generators_are_shared_with_the_user() -> None:
    config = {**SHORT, "observation": {"type": "Kinematics", "order": "shuffled"}}
    batch, singles = batch_and_singles(AutoresetMode.NEXT_STEP, config)
    for envs in (batch, singles):
        envs.reset(seed=3)
    for _ in range(6):
        same(*[[generator.uniform() for generator in envs.np_random] for envs in (singles, batch)])
        actions = np.array([1, 2, 3])
        same(singles.step(actions)[:4], batch.step(actions)[:4])
    same(singles.reset()[0], batch.reset()[0])


def test_configuration_changes_of_a_batch() -> None:
    batch, singles = batch_and_singles(AutoresetMode.NEXT_STEP, SMALL)
    actions = np.array([1, 2, 3])
    for envs in (batch, singles):
        envs.reset(seed=3)
        envs.call("configure", {"high_speed_reward": 3.0, "simulation_frequency": 10})
    same(singles.step(actions)[:4], batch.step(actions)[:4])
    for envs in (batch, singles):
        envs.call("configure", {"lanes_count": 5, "vehicles_count": 3})
    same(singles.step(actions)[:4], batch.step(actions)[:4])
    with pytest.raises(UsageError, match=r'reset all.*vectorization_mode="sync"'):
        batch.reset(options={"reset_mask": np.array([True, False, False])})
    same(singles.reset()[0], batch.reset()[0])
    options = {"config": {"vehicles_density": 2}}
    same(singles.reset(seed=1, options=options)[0], batch.reset(seed=1, options=options)[0])
    same(singles.step(actions)[:4], batch.step(actions)[:4])
    batch.reset(seed=2)
    batch.set_attr("config", {**batch.config, "duration": 1})
    assert batch.step(actions)[3].all()
    with pytest.raises(UsageError, match="one configuration"):
        batch.set_attr("config", [{**batch.config, "duration": n} for n in range(3)])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_states_of_a_batch_are_returned_to_exactly(mode: AutoresetMode) -> None:
    batch, _ = batch_and_singles(mode)
    batch.reset(seed=8)
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 5, (12, 3))
    for action in actions[:2]:
        batch.step(action)
    state = batch.get_state()
    first = [batch.step(action) for action in actions]
    assert any((part[2] | part[3]).any() for part in first)
    other, _ = batch_and_singles(mode, {**SHORT, "lanes_count": 2})
    for envs in (batch, other):
        envs.set_state(state)
        for action, want in zip(actions, first, strict=True):
            got = envs.step(action)
            same(want[:4], got[:4])
            same(comparable(want[4]), comparable(got[4]))
            assert np.array_equal(want[4]["action"], got[4]["action"])
    single = gymnasium.make(ENV_ID, config=SHORT).unwrapped
    batch.set_state(state)
    single.set_state(batch.call("get_state")[1])
    assert batch.step(actions[0])[1][1] == single.step(actions[0][1])[1]
    with pytest.raises(UsageError, match="lacks"):
        batch.set_state({})
