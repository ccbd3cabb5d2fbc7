"""Several egos an environment: limbo until the trial ends, one trial for all, each its own goal, memory and numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.registry import get_world
from racer.envs.trials.config import resolve_config
from racer.envs.trials.env import HighwayTrialsEnv
from racer.envs.trials.scenes import PARKED, START_SPEED
from racer.envs.trials.vector import HighwayTrialsVectorEnv
from racer.evaluation.episodes import evaluate_policy, run_episode
from racer.evaluation.report import evaluation_document
from racer.replay.collector import Collector

EGOS, TRIALS = 3, 2
CONFIG = {"egos": EGOS, "k_scenarios": TRIALS, "scenario_length": 140}
ENDS = ("goal_reached", "crashed", "timed_out", "missed")


ENVS = 4


def first_to_reach(env):
    """Each environment's first ego is driven by the oracle, the others go as slowly as they can, and later."""
    driver = get_world("trials").driver("oracle")(env)
    return lambda: np.where(env.world.egos.cars == 0, driver.act({}, None, {}, None)[0], at.SLOWER)


@pytest.fixture(scope="module")
def driven():
    """An episode of environments whose egos are done at different moments: every step's outcome."""
    env = HighwayTrialsVectorEnv(ENVS * EGOS, CONFIG)
    first, _ = env.reset(seed=10_000)
    choose, steps = first_to_reach(env), []
    for _ in range(env.world.config.window - 1):
        steps.append(env.step(choose()))
        steps[-1][4]["x"] = env.world.egos.real(at.X)
    return env, first, steps


def stacked(steps, name):
    return np.array([step[4][name] for step in steps])


def test_one_ego_reaches_while_another_drives(driven):
    """It is removed, at once, without the end of a trial or an episode; limbo lasts until the trial ends."""
    _, _, steps = driven
    names = ("goal_reached", "removed", "limbo", "trial_end", "x")
    reached, removed, limbo, ends, x = (stacked(steps, name) for name in names)
    terminated, rewards = np.array([step[2] for step in steps]), np.array([step[1] for step in steps])
    alone = np.argwhere(reached & ~ends)
    assert len(alone) >= ENVS * TRIALS
    for t, row in alone:
        assert removed[t, row]
        assert not terminated[t, row]
        assert not limbo[t, row]
        assert rewards[t, row] > 1.0
        end = t + 1 + int(np.argmax(ends[t + 1 :, row]))
        assert ends[end, row]
        assert limbo[t + 1 : end + 1, row].all()
        assert not rewards[t + 1 : end + 1, row].any()
        assert not reached[t + 1 : end + 1, row].any()
        for later in range(t, end):
            assert not steps[later][0][row].any()
        # Off the road and at rest, where nobody meets it.
        assert (x[t + 1 : end, row] < PARKED + 1.0).all()
        assert np.ptp(x[t + 1 : end, row]) == 0.0


def test_the_trial_ends_for_all_egos_when_the_last_is_done(driven):
    env, first, steps = driven
    limbo, ends, removed = (stacked(steps, name) for name in ("limbo", "trial_end", "removed"))
    done = np.logical_or.reduce([stacked(steps, name) for name in ENDS])
    for e in range(ENVS):
        rows = slice(e * EGOS, (e + 1) * EGOS)
        assert (ends[:, rows].all(axis=1) == ends[:, rows].any(axis=1)).all()
        moments = np.flatnonzero(ends[:, e * EGOS])
        assert len(moments) == TRIALS
        before = -1
        for moment in moments:
            # Each ego is done once, and the last of them in this very step, before the clock has run out.
            assert (done[before + 1 : moment + 1, rows].sum(axis=0) == 1).all()
            assert done[moment, rows].any()
            assert moment - before < env.world.config.length
            before = moment
        last_paid = [steps[t][1][rows] for t in range(moments[0] + 1)]
        paid = np.array(last_paid)[np.argmax(done[: moments[0] + 1, rows], axis=0), np.arange(EGOS)]
        # The step that ends a trial shows the reset's first moment, bit for bit, and what each ego was paid last.
        shown = steps[moments[0]][0][rows]
        assert shown[:, :-1].tobytes() == first[rows, :-1].tobytes()
        np.testing.assert_array_equal(shown[:, -1], paid.astype(np.float32))
        assert not removed[moments[0], rows].any()
        assert not limbo[moments[0] + 1, rows].any()


def test_egos_have_one_end_a_trial_each_and_the_metrics_say_so(driven):
    env, _, steps = driven
    ended = [step[4]["final_info"]["episode_metrics"] for step in steps if step[2].any()]
    rows = {name: np.sum([np.nan_to_num(found[name]) * found[f"_{name}"] for found in ended], axis=0) for name in (
        "n_trials_completed", *(f"n_trials_{name}" for name in ENDS), "trial_0_score", "trial_1_score",
    )}  # fmt: skip
    assert (rows["n_trials_completed"] == TRIALS).all()
    assert (sum(rows[f"n_trials_{name}"] for name in ENDS) == TRIALS).all()
    np.testing.assert_array_equal(rows["trial_0_score"] + rows["trial_1_score"], rows["n_trials_goal_reached"])
    assert env.world.removed.all()


def test_the_clock_ends_a_trial_for_those_that_still_drive():
    env = HighwayTrialsVectorEnv(2, {"egos": 2, "k_scenarios": 2, "scenario_length": 5})
    env.reset(seed=1)
    steps = [env.step(np.full(2, at.IDLE)) for _ in range(10)]
    assert np.flatnonzero(stacked(steps, "trial_end")[:, 0]).tolist() == [4, 9]
    assert stacked(steps, "timed_out")[[4, 9]].all()
    assert [step[2].all() for step in steps] == [False] * 9 + [True]


def test_the_same_choices_in_every_trial_give_the_same_bits():
    """The whole state of the scene, with egos that crash at different moments."""
    env = HighwayTrialsVectorEnv(4, {**CONFIG, "egos": 4, "k_scenarios": 3, "show_reward": False})
    env.reset(seed=4)
    starts, trials = [env.world.simulator.get_state()], [[]]
    rng = np.random.default_rng(0)
    script = rng.choice([at.LANE_LEFT, at.LANE_RIGHT, at.IDLE, at.FASTER], size=(140, 4))
    removals = set()
    while len(trials) < 4:
        step = env.step(script[len(trials[-1])])
        if step[4]["trial_end"].all():
            starts.append(env.world.simulator.get_state())
            trials.append([])
        else:
            removals.add(int(step[4]["removed"].sum()))
            trials[-1].append((env.world.simulator.get_state(), step[0], step[1]))
    assert removals >= {0, 1, 2}
    assert len(trials[0]) == len(trials[1]) == len(trials[2])
    for other in starts[1:3]:
        same(starts[0], other)
    for other in trials[1:3]:
        for (state, seen, paid), (state_2, seen_2, paid_2) in zip(trials[0], other, strict=True):
            same(state, state_2)
            assert seen.tobytes() == seen_2.tobytes()
            assert paid.tobytes() == paid_2.tobytes()


def same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].tobytes() == right[name].tobytes(), name


@pytest.mark.parametrize("population", [{}, {"population": "partners", "partners": ("trials-partner-0.2",)}])
def test_one_environment_and_many_give_the_same_trajectories(population):
    config = {"egos": 2, "k_scenarios": 2, "policy_frequency": 1, **population}
    many, alone = HighwayTrialsVectorEnv(6, config), HighwayTrialsVectorEnv(2, config)
    single = HighwayTrialsEnv(config)
    shown = [many.reset(seed=[7, 7, 8, 8, 9, 9])[0][4:], alone.reset(seed=[9, 9])[0], single.reset(seed=9)[0]]
    assert shown[0].tobytes() == shown[1].tobytes() == shown[2].tobytes()
    rng = np.random.default_rng(1)
    for _ in range(56):
        actions = rng.choice([0, 1, 1, 1, 2, 3, 4], size=6)
        left, right, one = many.step(actions), alone.step(actions[4:]), single.step(actions[4:])
        for number in range(3):
            assert left[number][4:].tobytes() == right[number].tobytes()
        assert one[1] == pytest.approx(right[1].mean(), abs=0.0)
        assert one[2] == right[2].all()
        assert [info["removed"] for info in one[4]["egos"]] == right[4]["removed"].tolist()
        if one[2]:
            break
        assert one[0].tobytes() == right[0].tobytes()
    assert single.observation_space.contains(one[0])
    assert single.action_space.contains(actions[4:])


def test_a_state_in_the_middle_of_limbo_is_restored_bit_for_bit():
    env, other = HighwayTrialsVectorEnv(4, {**CONFIG, "egos": 2}), HighwayTrialsVectorEnv(4, {**CONFIG, "egos": 2})
    env.reset(seed=1)
    other.reset(seed=99)
    rng = np.random.default_rng(2)
    while not (env.world.removed.any() and not env.world.removed.all()):
        env.step(rng.integers(5, size=4))
    assert other.set_state(env.get_state()).tobytes() == env.world.observe().tobytes()
    for _ in range(120):
        actions = rng.integers(5, size=4)
        left, right = env.step(actions), other.step(actions)
        assert left[0].tobytes() == right[0].tobytes()
        assert left[1].tobytes() == right[1].tobytes()
        same(env.get_state(), other.get_state())


def test_egos_begin_alike_and_see_themselves_first():
    env = HighwayTrialsVectorEnv(4, {**CONFIG, "egos": 4})
    shown, _ = env.reset(seed=3)
    assert (env.world.egos.real(at.SPEED) == START_SPEED).all()
    # all of the way is left, at the same speed with the same aim, and the clock is full
    np.testing.assert_array_equal(shown[:, [0, 2, 5, 6]], np.broadcast_to(shown[0, [0, 2, 5, 6]], (4, 4)))
    assert len(np.unique(env.world.egos.real(at.X))) == 4
    assert len(np.unique(env.world.goal_lane)) == 1


def test_rows_say_when_an_ego_leaves_the_road_and_memory_lasts_over_limbo():
    env = HighwayTrialsVectorEnv(ENVS * EGOS, CONFIG)
    choose = first_to_reach(env)

    def act(seen, memory):
        return choose(), {"steps": memory["steps"] + 1.0}, {"before": memory["steps"]}

    rows = Collector(env, 10_000, memory={"steps": np.zeros(ENVS * EGOS)}).collect(2 * 140, act)
    valid, before = rows.valid, rows.extras["before"]
    leaving = valid[:-1] & ~valid[1:] & ~rows.forget[:-1]
    assert leaving.sum() >= ENVS * TRIALS
    for t, row in np.argwhere(leaving):
        assert not rows.bootstrap[t, row]
        assert rows.cut[t, row]
        back = t + 1 + int(np.argmax(valid[t + 1 :, row] | rows.forget[t + 1 :, row]))
        # Nothing is remembered of limbo: the count stands until the next trial, or the episode's end clears it.
        assert (before[t + 1 : back + 1, row] == before[t, row] + 1).all()
        if not valid[back, row]:
            assert before[back + 1, row] == 0.0
    assert len(rows.episodes) == ENVS * EGOS


class Wavering:
    """Draws choices, remembers how many steps it has seen, and is told nothing."""

    def initial_memory(self, count):
        return {"steps": np.zeros(count, np.float32)}

    def act(self, params, observations, memory, key, deterministic=False):
        drawn = np.searchsorted([0.1, 0.7, 0.8, 0.95], key.random((len(observations), 1))[:, 0])
        # What is remembered decides too, so that a memory that counts limbo acts otherwise.
        return (drawn + memory["steps"].astype(int)) % 5, {"steps": memory["steps"] + 1}, {}


def test_an_evaluation_tells_of_every_ego_and_depends_on_no_neighbour():
    world, config = get_world("trials"), {**CONFIG, "fill_window": False}
    results = [evaluate_policy(Wavering(), {}, world, config, range(100, 106), num_envs=n) for n in (1, 4)]
    one, four = ([dict(episode.metrics) for episode in result.episodes] for result in results)
    assert json.dumps(one) == json.dumps(four)
    document = evaluation_document(results[0])
    log = document["per_agent_success_log"]
    assert [(entry["episode"], entry["agent"]) for entry in log] == [(i, a) for i in range(6) for a in range(EGOS)]
    assert all({"t0", "t1"} <= entry.keys() for entry in log)
    for i, episode in enumerate(results[0].episodes):
        assert len(episode.egos) == EGOS
        share = np.mean([entry["t0"] for entry in log if entry["episode"] == i])
        assert episode.metrics["trial_0_score"] == document["episodes"][i]["trial_0_score"] == pytest.approx(share)
        assert len({ego["return"] for ego in episode.egos}) > 1
        assert episode.metrics["return"] == pytest.approx(np.mean([ego["return"] for ego in episode.egos]))
    # A film steps the single environment: the same episode.
    fitted, env = world.fitted(world.resolve(config)), HighwayTrialsEnv(config)
    *_, last = run_episode(Wavering(), {}, fitted, env, 103, deterministic=False)
    sampled = evaluate_policy(Wavering(), {}, world, config, [103], deterministic=False)
    assert last.result.metrics == sampled.episodes[0].metrics
    assert last.result.agents == sampled.episodes[0].agents


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"scene": "courteous"}, "scene='hidden_lane'"),
        ({"actions": "continuous"}, "actions='choices'"),
        ({"population": "recorded", "recording": "nowhere.csv"}, "egos = 2"),
        ({"population": "partners", "partners": ("trials-partner-0.1",), "partner_count": 20}, "21 cars"),
        ({"egos": 0}, "egos"),
    ],
)
def test_egos_that_cannot_be_are_told(overrides, words):
    with pytest.raises(UsageError, match=words):
        resolve_config({"egos": 2, **overrides})


def test_rows_that_make_no_environments_are_told():
    with pytest.raises(UsageError, match=r"num_envs = 5 .* egos = 2"):
        HighwayTrialsVectorEnv(5, {"egos": 2})
    env = HighwayTrialsVectorEnv(4, {"egos": 2})
    env.reset(seed=1)
    with pytest.raises(UsageError, match="2 rows"):
        env.reset(options={"reset_mask": np.array([True, False, False, False])})
