"""The rules of trial mode: the table of events, identical restarts, limbo, exact states."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.registry import get_world
from racer.envs.trials.config import resolve_config
from racer.envs.trials.observation import observation_names
from racer.envs.trials.vector import HighwayTrialsVectorEnv
from racer.replay.collector import Collector

LEFT, IDLE, FASTER, SLOWER = 0, 1, 3, 4


def same(left, right):
    """Compare two trees of arrays bit for bit, whatever stands in them."""
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].tobytes() == right[name].tobytes(), name


def waiting(num_envs=2, **config):
    """Environments whose trials nothing but the clock ends: they are too short to reach anything."""
    return HighwayTrialsVectorEnv(num_envs, {"scene": "courteous", "k_scenarios": 3, "scenario_length": 7, **config})


def run(env, steps, choose=lambda t: IDLE):
    rows = []
    for t in range(steps):
        rows.append(env.step(np.full(env.num_envs, choose(t))))
    return rows


def test_timeout_at_exactly_l_and_terminals_at_exactly_k_l():
    env = waiting()
    env.reset(seed=3)
    rows = run(env, 2 * 21)
    trial_end = np.array([row[4]["trial_end"][0] for row in rows])
    terminated = np.array([row[2][0] for row in rows])
    assert np.flatnonzero(trial_end).tolist() == [6, 13, 20, 27, 34, 41]
    assert np.flatnonzero(terminated).tolist() == [20, 41]
    assert not any(row[3].any() for row in rows)
    assert not any(row[4]["limbo"].any() for row in rows)


@pytest.mark.parametrize("scene", ["hidden_lane", "courteous"])
@pytest.mark.parametrize("actions", ["choices", "continuous"])
def test_the_same_actions_in_every_trial_give_the_same_bits(scene, actions):
    length = 15
    env = HighwayTrialsVectorEnv(
        3, {"scene": scene, "actions": actions, "k_scenarios": 3, "scenario_length": length, "show_reward": False}
    )
    first, _ = env.reset(seed=11)
    rng = np.random.default_rng(0)
    script = rng.choice([LEFT, IDLE, FASTER, SLOWER], size=length)
    if actions == "continuous":
        script = rng.uniform(-0.03, 0.03, (length, 2))
    states, shown, starts = [], [], [env.world.simulator.get_state()]
    for _ in range(3):
        for t in range(length):
            step = env.step(np.repeat(script[t][None], 3, axis=0))
            shown.append(step[:2])
            assert (step[4]["trial_end"] == (t == length - 1)).all()
            if t < length - 1:
                states.append(env.world.simulator.get_state())
        starts.append(env.world.simulator.get_state())
    for t in range(length - 1):
        same(states[t], states[t + length - 1])
        same(states[t], states[t + 2 * (length - 1)])
    for t in range(length):
        np.testing.assert_array_equal(shown[t][1], shown[t + length][1])
    # A trial ends with the first moment of the next: the reset's own, bit for bit.
    same(starts[0], starts[1])
    same(starts[0], starts[2])
    assert shown[length - 1][0].tobytes() == first.tobytes()


def test_an_early_end_begins_the_next_trial_in_the_same_step_and_limbo_fills_the_window():
    env = waiting(scene="hidden_lane", k_scenarios=2, scenario_length=60)
    first, _ = env.reset(seed=5)
    collector = Collector(env, 5)
    # Faster and faster into the traffic.
    rows = collector.collect(120, lambda seen, memory: (np.full(2, FASTER), memory, {}))
    ends = ~rows.bootstrap & rows.valid
    assert (ends.sum(axis=0) == 2).all()
    for i in range(2):
        one, two = np.flatnonzero(ends[:, i])
        assert two < 118
        assert two == 2 * one + 1, "the second trial is the first again"
        np.testing.assert_array_equal(rows.observations[one + 1, i, :-1], first[i, :-1])
        assert rows.observations[one + 1, i, -1] == rows.rewards[one, i] < 0
        # trial end: memory kept; episode end: forgotten; limbo: no transition, nothing paid, nothing seen
        assert not rows.forget[one, i]
        assert rows.forget[two, i]
        assert rows.valid[: two + 1, i].all()
        assert not rows.valid[two + 1 :, i].any()
        assert rows.forget[:, i].sum() == 1
        assert rows.cut[two + 1 :, i].all()
        assert not rows.bootstrap[two:, i].any()
        assert not rows.rewards[two + 1 :, i].any()
        assert not rows.observations[two + 1 : 120, i].any()
    assert len(rows.episodes) == 2
    assert all(episode["n_trials_crashed"] == episode["n_trials_completed"] == 2 for episode in rows.episodes)
    # the window is over: a new scene
    assert rows.observations[120].any()
    assert not env.world.removed.any()


@pytest.mark.parametrize("length", [60.0, 450.0])
def test_the_goals_lane_is_paid_for_over_the_last_metres_of_the_way(length):
    unpaid = dict.fromkeys(("progress_reward", "crash_reward", "goal_reward", "miss_reward"), 0.0)
    way = {"arms": [1], "policy_frequency": 1, "k_scenarios": 1, "hold_length": length, "hold_reward": 2.0}
    env = HighwayTrialsVectorEnv(32, {"scene": "hidden_lane", **way, **unpaid})
    env.reset(seed=7)
    rng = np.random.default_rng(0)
    paid = 0
    for _ in range(28):
        before, limbo = env.world.travelled, env.world.removed
        _, rewards, terminated, _, _ = env.step(rng.choice(5, size=32, p=[0.1, 0.6, 0.1, 0.1, 0.1]))
        live = ~limbo & ~terminated  # an end shows the next episode
        metres = np.clip(env.world.travelled - (500.0 - length), 0.0, length)
        metres -= np.clip(before - (500.0 - length), 0.0, length)
        inside = np.abs(env.world.egos.real(at.Y) - 4.0) < 1.5
        np.testing.assert_allclose(rewards[live], (2.0 * metres / length * inside)[live], rtol=0.0, atol=1e-12)
        paid += int((rewards[live] > 0.0).sum())
    assert paid > 5


def test_without_filling_the_next_episode_begins_at_once():
    env = waiting(scene="hidden_lane", k_scenarios=2, scenario_length=60, fill_window=False)
    env.reset(seed=5)
    rows = run(env, 120, lambda t: FASTER)
    assert sum(row[2][0] for row in rows) > 1
    assert not any(row[4]["limbo"].any() for row in rows)


def test_after_its_end_the_single_environment_knows_no_event():
    env = gymnasium.make("racer/HighwayTrials-v0", disable_env_checker=True, config={
        "scene": "courteous", "k_scenarios": 1, "scenario_length": 4,
    })  # fmt: skip
    env.reset(seed=0)
    ends = [env.unwrapped.step(IDLE) for _ in range(9)]
    assert [step[2] for step in ends] == [False, False, False, True, False, False, False, False, False]
    for observation, reward, terminated, truncated, info in ends[4:]:
        assert reward == 0.0
        assert not terminated
        assert not truncated
        assert not info["trial_end"]
        assert info["limbo"]
        assert not observation.any()


def test_one_environment_and_many_give_the_same_trajectories():
    """Nothing about an environment depends on how many there are: the same seeds, the same bits."""
    config = {"scene": "courteous", "k_scenarios": 2, "scenario_length": 30}
    many = HighwayTrialsVectorEnv(5, config)
    alone = HighwayTrialsVectorEnv(1, config)
    single = gymnasium.make("racer/HighwayTrials-v0", config=config).unwrapped
    shown = [many.reset(seed=20)[0][3], alone.reset(seed=23)[0][0], single.reset(seed=23)[0]]
    assert shown[0].tobytes() == shown[1].tobytes() == shown[2].tobytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        actions = rng.integers(5, size=5)
        left, right, one = many.step(actions), alone.step(actions[3:4]), single.step(actions[3])
        assert left[1][3] == right[1][0] == one[1]
        assert left[2][3] == right[2][0]
        if single.world.removed[0]:
            break
        assert left[0][3].tobytes() == right[0][0].tobytes() == one[0].tobytes()


@pytest.mark.parametrize("redraw", ["nothing", "arm", "scene"])
def test_state_is_restored_bit_for_bit(redraw):
    config = {"scene": "courteous", "k_scenarios": 2, "scenario_length": 40, "redraw": redraw}
    env, other = HighwayTrialsVectorEnv(3, config), HighwayTrialsVectorEnv(3, config)
    env.reset(seed=1)
    other.reset(seed=99)
    rng = np.random.default_rng(2)
    run(env, 55, lambda t: int(rng.integers(5)))
    state = env.get_state()
    assert other.set_state(state).tobytes() == env.world.observe().tobytes()
    for _ in range(90):
        actions = rng.integers(5, size=3)
        left, right = env.step(actions), other.step(actions)
        assert left[0].tobytes() == right[0].tobytes()
        assert left[1].tobytes() == right[1].tobytes()
        same(env.get_state(), other.get_state())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("trial", 7, "'trial'"),
        ("arms", 8, "'arms'"),
        ("removed", -1, "'removed'"),
        ("return", np.nan, "'return'"),
    ],
)
def test_a_state_that_no_episode_reaches_is_refused(name, value, words):
    env = waiting()
    env.reset(seed=0)
    before, state = env.get_state(), env.get_state()
    state[name] = np.full_like(state[name], value)
    with pytest.raises(UsageError, match=words):
        env.set_state(state)
    del state[name]
    with pytest.raises(UsageError, match="lacks"):
        env.set_state(state)
    same(env.get_state(), before)
    with pytest.raises(UsageError, match="generators"):
        env.set_state({**before, "generators": np.zeros(3, np.uint8)})


def test_controls_meet_the_scenes_of_the_plain_run_in_their_first_trial():
    drawn = {}
    for redraw in ("nothing", "arm", "scene"):
        env = waiting(6, redraw=redraw)
        env.reset(seed=7)
        drawn[redraw] = {name: env.get_state()[name] for name in ("seeds", "arms")}
    plain = drawn["nothing"]
    for name in ("seeds", "arms"):
        assert (plain[name] == plain[name][:, :1]).all()
        for redraw in ("arm", "scene"):
            np.testing.assert_array_equal(drawn[redraw][name][:, 0], plain[name][:, 0])
    assert (drawn["arm"]["seeds"] == drawn["arm"]["seeds"][:, :1]).all()
    assert (drawn["scene"]["arms"] == drawn["scene"]["arms"][:, :1]).all()
    assert (np.ptp(drawn["arm"]["arms"], axis=1) > 0).any()
    assert (np.ptp(drawn["scene"]["seeds"], axis=1) > 0).all()


def test_only_the_named_types_are_drawn_and_an_oracle_sees_them():
    env = HighwayTrialsVectorEnv(40, {"arms": [1, 3], "show_arm": True})
    shown, _ = env.reset(seed=0)
    assert set(env.world.arm.tolist()) == {1, 3}
    names = observation_names(env.world.config)
    columns = [names.index(f"arm_{i}") for i in range(4)]
    np.testing.assert_array_equal(shown[:, columns].argmax(axis=1), env.world.arm)
    hidden, _ = HighwayTrialsVectorEnv(40, {"arms": [1, 3]}).reset(seed=0)
    np.testing.assert_array_equal(hidden, np.delete(shown, columns, axis=1))


def test_an_observation_tells_nothing_of_the_type():
    """Environments that differ in the type alone show the same until something has happened."""
    for scene, arms in (("hidden_lane", (0, 3)), ("courteous", (2, 6))):
        pair = [HighwayTrialsVectorEnv(1, {"scene": scene, "arms": [arm]}) for arm in arms]
        shown = [env.reset(seed=4)[0] for env in pair]
        np.testing.assert_array_equal(*shown)
        for _ in range(20):
            shown = [env.step(np.array([FASTER]))[0] for env in pair]
        np.testing.assert_array_equal(*shown)


def test_a_guard_closes_its_gap_and_a_courteous_driver_does_not():
    """The car behind the first gap speeds up beside an ego that noses in, unless the type says that it yields."""
    speeds = {}
    for arm in (0, 5):
        env = HighwayTrialsVectorEnv(1, {"scene": "courteous", "arms": [arm]})
        env.reset(seed=8)
        simulator = env.world.simulator
        scene = simulator.scene(0)
        x, y, speed = scene["x"].copy(), scene["y"].copy(), scene["speed"].copy()
        x[0], y[0], speed[0] = x[3] + 9.0, 4 + 1.2, 22.0
        simulator.set_scene(0, x=x, y=y, speed=speed)
        env.step(np.array([IDLE]))
        speeds[arm] = simulator.scene(0)["speed"][3]
    assert speeds[5] > 23.0 > speeds[0]


@pytest.mark.parametrize(("ahead", "between"), [(22.0, False), (45.0, False), (22.0, True)])
def test_a_guard_shuts_a_gap_that_another_guard_has_made_wider(ahead, between):
    """Or else the ego would be let in behind each guard that it has lured to the front, whatever the type."""
    env = HighwayTrialsVectorEnv(1, {"scene": "courteous", "arms": [7]})
    env.reset(seed=8)
    simulator = env.world.simulator
    scene = simulator.scene(0)
    x, y, speed = scene["x"].copy(), scene["y"].copy(), scene["speed"].copy()
    x[0], y[0], speed[0] = x[3] + ahead, 8 - 3.0, 22.0
    x[4:] += 60.0
    if between:
        x[4] = x[3] + 14.0
    simulator.set_scene(0, x=x, y=y, speed=speed)
    env.step(np.array([IDLE]))
    # At 6 m/s2 for 0.2 s where it shuts the gap; one that is free to drive at 30 m/s accelerates at 3 at most.
    gained = simulator.scene(0)["speed"][3] - 22.0
    assert (gained > 1.1) is not between


def test_cars_are_no_guards_unless_a_scene_says_so():
    env = HighwayTrialsVectorEnv(2, {"scene": "hidden_lane"})
    env.reset(seed=0)
    assert not env.world.simulator.get_state()["real"][:, at.GUARD].any()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"k_scenarios": 0}, "k_scenarios"),
        ({"scenario_length": 1}, "scenario_length"),
        ({"timeout": 50}, "'timeout' = 50 conflicts .* 140 follows"),
        ({"trial_count": 3}, "'trial_count' = 3 conflicts"),
        ({"scenario_length": 10, "resample_window": 10}, "'resample_window' = 10 conflicts .* 40 follows"),
        ({"scene": "hidden_lan"}, "scene"),
        ({"arms": [4]}, "0 to 3"),
        ({"arms": [1, 1]}, "different"),
        ({"scenaro_length": 10}, "scenario_length"),
        ({"k_scenarios": 64, "scenario_length": 9999}, "more than"),
    ],
)
def test_wrong_configurations_are_told(overrides, words):
    with pytest.raises(UsageError, match=words):
        resolve_config(overrides)


def test_keys_that_agree_are_no_conflict():
    config = {"k_scenarios": 3, "scenario_length": 10, "timeout": 10, "trial_count": 3, "resample_window": 30}
    assert resolve_config(resolve_config(config)) == resolve_config(config)


@pytest.mark.parametrize("trials", [1, 2, 6])
def test_metrics_have_k_scores_and_k_less_one_deltas(trials):
    world = get_world("trials")
    config = world.resolve({"k_scenarios": trials, "scenario_length": 5})
    names = [metric.name for metric in world.fitted(config).metrics]
    assert [name for name in names if name.endswith("_score")] == [f"trial_{k}_score" for k in range(trials)]
    deltas = [f"ada_delta_trial_{k}_minus_0" for k in range(1, trials)]
    assert [name for name in names if name.startswith("ada_delta")] == deltas
    env = world.make(config, 2)
    env.reset(seed=0)
    last = run(env, trials * 5)[-1]
    metrics = last[4]["final_info"]["episode_metrics"]
    assert {metric.key for metric in world.fitted(config).metrics} == {key for key in metrics if key[0] != "_"}
    for other in ("highway", "tmaze", "lateral"):
        assert not any("trial" in metric.name for metric in get_world(other).metrics)
