"""Controls of the memory, on a policy that counts its steps and a real world with trials."""

from __future__ import annotations

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.evaluation.episodes import evaluate_policy
from racer.evaluation.memory_controls import Recorder, Swapped, Wiped

STEPS, TRIALS = 5, 3
SEEDS = range(100, 108)


class Counter:
    """Remembers how often it has acted since its memory was empty, and the first number it was ever shown."""

    def __init__(self):
        self.seen = []

    def initial_memory(self, count):
        return {"steps": np.zeros(count, np.float32), "first": np.zeros(count, np.float32)}

    def act(self, params, observations, memory, key, deterministic=False):
        self.seen.append({name: np.array(value) for name, value in memory.items()})
        shown = np.where(memory["steps"] == 0, observations[:, 8], memory["first"])
        return np.ones(len(observations), np.int64), {"steps": memory["steps"] + 1, "first": shown}, {}


def evaluated(control, num_envs=4, seeds=SEEDS, **config):
    world, policy = get_world("trials"), Counter()
    config = {"k_scenarios": TRIALS, "scenario_length": STEPS, "fill_window": False, **config}
    evaluate_policy(policy, {}, world, config, seeds, num_envs=num_envs, control=control)
    return policy.seen


def test_without_a_control_the_memory_lasts_over_all_trials():
    steps = [seen["steps"][0] for seen in evaluated(None, 1, [7])]
    assert steps == list(range(STEPS * TRIALS))


def test_wiping_empties_the_memory_at_every_trial_and_says_how_often():
    control = Wiped()
    steps = [seen["steps"] for seen in evaluated(control)]
    assert [row[0] for row in steps[: STEPS * TRIALS]] == list(range(STEPS)) * TRIALS
    assert control.times == len(SEEDS) * (TRIALS - 1)


@pytest.mark.parametrize("carried", [True, False])
def test_a_later_trial_shows_what_the_one_before_paid_only_where_the_world_is_not_forgetful(carried):
    world = get_world("trials")
    config = world.resolve({"k_scenarios": TRIALS, "scenario_length": STEPS, "fill_window": False})
    env = world.make(config if carried else world.forgetful(config), 2)
    try:
        first = env.reset(seed=[1, 2])[0]
        for t in range(STEPS * TRIALS - 1):
            observations = env.step(np.ones(2, np.int64))[0]
            begins = (t + 1) % STEPS == 0
            assert (observations[:, -1] != 0.0).all() == (carried or not begins)
            if begins:
                np.testing.assert_array_equal(observations[:, :-1], first[:, :-1])
    finally:
        env.close()


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_swapping_puts_in_the_memory_of_an_episode_of_another_type(num_envs):
    recorder = Recorder()
    own = evaluated(recorder, num_envs)
    assert len(recorder.memories) == len(SEEDS) * (TRIALS - 1)
    swapped = Swapped(recorder)
    for seed, donor in swapped.donors.items():
        assert recorder.types[seed] != recorder.types[donor]
    seen = evaluated(swapped, num_envs)
    # The first environment runs the first seed first; from its second trial on it remembers what its donor was shown.
    donor = swapped.donors[SEEDS[0], 0]
    for t in range(STEPS * TRIALS):
        expected = own[t]["first"][0] if t < STEPS else recorder.memories[donor, 0]["first"]
        assert seen[t]["first"][0] == expected
        assert seen[t]["steps"][0] == t
    assert recorder.memories[donor, 0]["first"] != own[STEPS]["first"][0]


def test_controls_without_anything_to_act_on_are_errors():
    with pytest.raises(UsageError, match="no trials"):
        evaluated(Wiped(), k_scenarios=1)
    recorder = Recorder()
    evaluated(recorder, arms=[2])
    with pytest.raises(UsageError, match="different types"):
        Swapped(recorder)
