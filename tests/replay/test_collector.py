"""Collector: successors at episode ends, both autoreset modes, values that are not finite, exact state."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from toy_envs import FaultyEnv, StatefulVectorEnv, toy_vector

from racer.core.errors import EnvironmentFault, UsageError
from racer.replay import Collector, NonFiniteData


def constant(value: float):
    """A policy that always does the same and says so in its extras."""
    def act(observations, memory):
        actions = np.full((len(observations), 1), value, np.float32)
        return actions, memory, {"log_probs": np.full(len(observations), -value, np.float32)}

    return act


def counting(observations, memory):
    """Remember how many rows the memory has been through; the log-probability says what was remembered."""
    actions = np.zeros((len(observations), 1), np.float32)
    return actions, {"count": memory["count"] + 1.0}, {"log_probs": memory["count"][:, 0].copy()}


START = {"count": np.zeros((2, 1), np.float32)}


@pytest.mark.parametrize("terminates", [False, True])
def test_successor_at_an_episodes_end_is_its_own_final_observation(terminates):
    collector = Collector(toy_vector(2, length=3, terminates=terminates), seed=4)
    got = collector.collect(7, constant(0.5))
    assert got.observations.shape == (8, 2, 4)
    np.testing.assert_array_equal(got.observations[:-1, 0, 2], [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(got.next_observations[:, 0, 2], [1, 2, 3, 1, 2, 3, 1])
    np.testing.assert_array_equal(got.next_observations[:, 0, 1], got.observations[:-1, 0, 1])
    np.testing.assert_array_equal(got.cut[:, 1], [0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(got.bootstrap[:, 1], ~got.cut[:, 1] if terminates else np.ones(7))
    np.testing.assert_array_equal(got.observations[0, :, 0], [4, 5])
    assert got.valid.all()


def test_next_step_autoreset_gives_the_same_transitions_without_the_resetting_rows():
    same = Collector(toy_vector(2, length=3), seed=1).collect(9, constant(0.25)).flat()
    collector = Collector(toy_vector(2, length=3, mode=AutoresetMode.NEXT_STEP), seed=1)
    parts = collector.collect(5, constant(0.25)), collector.collect(7, constant(0.25))
    assert [int((~part.valid).sum()) for part in parts] == [2, 4]
    for name, value in same.items():
        np.testing.assert_array_equal(np.concatenate([part.flat()[name] for part in parts]), value)
    expected = Collector(toy_vector(2, length=3), seed=1).collect(9, constant(0.25)).episodes
    assert [*parts[0].episodes, *parts[1].episodes] == expected


def test_episode_statistics_join_own_counts_with_the_environments():
    got = Collector(toy_vector(2, length=3), seed=0).collect(6, constant(0.5))
    assert got.episodes == [{"return": 1.5, "length": 3.0, "speed": 10.0 * number} for number in (1, 1, 2, 2)]


def test_extras_are_time_major():
    got = Collector(toy_vector(3), seed=0).collect(4, constant(0.5))
    np.testing.assert_array_equal(got.extras["log_probs"], np.full((4, 3), -0.5, np.float32))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("fault", ["nan", "nan_reward"])
def test_values_that_are_not_finite_never_leave(fault, mode):
    env = toy_vector(2, cls=FaultyEnv, fault=fault, at=3, every=2, length=5, mode=mode)
    collector = Collector(env, seed=0)
    got = collector.collect(30, constant(0.5))
    batch = got.flat()
    assert all(np.isfinite(value).all() for value in batch.values())
    assert all(np.isfinite(value).all() for value in (got.observations, got.rewards, got.next_observations))
    # The bad episode ends without statistics and the next one starts at its beginning.
    assert {episode["length"] for episode in got.episodes} == {5.0}
    assert {episode["speed"] / 10 % 2 for episode in got.episodes} == {1.0}
    rows = np.flatnonzero(got.observations[:-1, 0, 2] == 2)
    bad = rows[got.observations[rows, 0, 1] % 2 == 0]
    assert len(bad)
    assert got.nonfinite == collector.nonfinite_total == 2 * len(bad)
    assert not got.valid[bad, 0].any()
    assert (got.observations[bad + 1, 0, 2] == 0).all()


class BadBeginnings(VectorWrapper):
    """The first observation after every end is NaN."""

    def step(self, actions):
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        observations = np.array(observations)
        observations[terminated | truncated] = np.nan
        return observations, rewards, terminated, truncated, infos


def test_a_first_observation_that_is_not_finite_is_counted_and_replaced():
    collector = Collector(BadBeginnings(toy_vector(2, length=3)), seed=4)
    got = collector.collect(6, constant(0.5))
    assert got.nonfinite == collector.nonfinite_total == 4
    assert got.valid.all()
    assert got.cut.sum() == 4
    assert np.isfinite(got.observations).all()
    assert np.isfinite(got.next_observations).all()
    np.testing.assert_array_equal(got.observations[:, 0, 2], [0, 1, 2, 0, 1, 2, 0])


def test_a_neighbour_is_not_reset_with_the_bad_environment():
    env = toy_vector(2, length=50)
    env.envs[0] = FaultyEnv("nan", at=3, length=50)
    got = Collector(env, seed=0).collect(10, constant(0.5))
    np.testing.assert_array_equal(got.observations[:, 1, 2], np.arange(11))
    assert (got.observations[:, 0, 2] <= 2).all()


def test_neighbours_are_truncated_where_single_environments_cannot_be_reset():
    class WholeResetEnv(SyncVectorEnv):
        """Ignores the mask, like a vector environment that does not know it."""

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)

        @property
        def unwrapped(self):
            return object()

    env = toy_vector(2, length=50, vector=WholeResetEnv)
    env.envs[0] = FaultyEnv("nan", at=3, length=50)
    got = Collector(env, seed=0).collect(10, constant(0.5))
    np.testing.assert_array_equal(got.observations[:-1, 1, 2], [0, 1, 2] * 3 + [0])
    np.testing.assert_array_equal(got.cut[:, 1], [0, 0, 1] * 3 + [0])
    np.testing.assert_array_equal(got.next_observations[:, 1, 2], [1, 2, 3] * 3 + [1])
    assert got.bootstrap[:, 1].all()
    np.testing.assert_array_equal(got.forget[:, 1], got.cut[:, 1])
    assert got.valid[:, 1].all()


def test_gives_up_after_the_limit_in_a_row():
    collector = Collector(toy_vector(2, cls=FaultyEnv, fault="nan", at=1), seed=3, max_nonfinite=6)
    with pytest.raises(NonFiniteData, match=r"seed 3.*6 observations"):
        collector.collect(50, constant(0.5))
    assert collector.nonfinite_total == 6


def test_a_fault_names_environment_seed_and_action():
    collector = Collector(toy_vector(1, cls=FaultyEnv, fault="raise", at=2), seed=11)
    with pytest.raises(EnvironmentFault, match=r"wheel fell off \(in step, seed 11, step 1, action \[\[0.5\]\]\)"):
        collector.collect(5, constant(0.5))


def test_an_action_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteData, match="action"):
        Collector(toy_vector(1), seed=0).collect(1, constant(float("nan")))


def test_state_continues_bit_for_bit():
    def fresh(seed: int) -> Collector:
        return Collector(toy_vector(2, vector=StatefulVectorEnv, length=4), seed=seed)

    whole = fresh(5)
    whole.collect(3, constant(0.5))
    halted = whole.state()
    expected = whole.collect(7, constant(0.25))
    other = fresh(77)
    other.restore(halted)
    got = other.collect(7, constant(0.25))
    for name in ("observations", "rewards", "next_observations", "cut"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert got.episodes == expected.episodes


def test_environment_without_state_says_so():
    collector = Collector(toy_vector(1), seed=0)
    assert not collector.can_save_state
    with pytest.raises(UsageError, match="get_state"):
        collector.state()


def test_disabled_autoreset_is_refused():
    with pytest.raises(UsageError, match="DISABLED"):
        Collector(toy_vector(1, mode=AutoresetMode.DISABLED), seed=0)


def test_memory_runs_through_an_episode_and_is_zero_at_the_next_ones_start():
    collector = Collector(toy_vector(2, length=3), seed=0, memory=START)
    parts = [collector.collect(steps, counting) for steps in (4, 5)]
    remembered = np.concatenate([part.extras["log_probs"][:, 0] for part in parts])
    np.testing.assert_array_equal(remembered, [0, 1, 2, 0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal([part.memory["count"][0, 0] for part in parts], [0, 1])
    np.testing.assert_array_equal(parts[0].forget[:, 0], [0, 0, 1, 0])


def test_memory_before_a_row_that_is_no_transition_is_the_memory_after_it():
    """Resetting steps leave it at zero; a broken row starts an episode."""
    collector = Collector(toy_vector(2, length=3, mode=AutoresetMode.NEXT_STEP), seed=0, memory=START)
    got = collector.collect(8, counting)
    np.testing.assert_array_equal(got.valid[:, 0], [1, 1, 1, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(got.extras["log_probs"][:, 0], [0, 1, 2, 0, 0, 1, 2, 0])
    env = toy_vector(2, cls=FaultyEnv, fault="nan", at=3, every=2, length=5)
    got = Collector(env, seed=0, memory=START).collect(9, counting)
    np.testing.assert_array_equal(got.valid[:, 0], [1, 1, 1, 1, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(got.forget[:, 0], [0, 0, 0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(got.extras["log_probs"][:, 0], [0, 1, 2, 3, 4, 0, 1, 2, 0])


class Trials(VectorWrapper):
    """A trial ends after steps 2 and 5 of an episode of 7, and steps 3 and 4 are in limbo."""

    def step(self, actions):
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        step = np.array([env.unwrapped.t for env in self.env.envs])
        infos |= {"trial_end": np.isin(step, (2, 5)), "limbo": np.isin(step, (3, 4))}
        return observations, rewards, terminated, truncated, infos


def test_trials_cut_without_forgetting_and_limbo_is_no_transition():
    got = Collector(Trials(toy_vector(2, length=7)), seed=0, memory=START).collect(8, counting)
    np.testing.assert_array_equal(got.valid[:, 0], [1, 1, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(got.cut[:, 0], [0, 1, 1, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(got.bootstrap[:, 0], [1, 0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(got.forget[:, 0], [0, 0, 0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(got.extras["log_probs"][:, 0], [0, 1, 2, 2, 2, 3, 4, 0])
    assert [episode["length"] for episode in got.episodes] == [7.0, 7.0]
    assert got.num_transitions == 12


def test_memory_is_part_of_the_state():
    def fresh(seed: int) -> Collector:
        return Collector(toy_vector(2, vector=StatefulVectorEnv, length=9), seed=seed, memory=START)

    whole = fresh(5)
    whole.collect(3, counting)
    other = fresh(77)
    other.restore(whole.state())
    np.testing.assert_array_equal(other.collect(2, counting).extras["log_probs"], [[3, 3], [4, 4]])
    with pytest.raises(UsageError, match="memory/count"):
        other.restore({name: value for name, value in whole.state().items() if name != "memory/count"})


def test_the_chosen_action_is_kept_beside_the_one_that_the_world_took():
    def act(observations, memory):
        chosen = np.full((len(observations), 3), 0.25, np.float32)
        return chosen[:, :1] * 2, memory, {"policy_actions": chosen}

    batch = Collector(toy_vector(2), seed=0).collect(4, act).flat()
    assert batch["actions"].shape == (8, 3)
    assert (batch["rewards"] == 0.5).all()
