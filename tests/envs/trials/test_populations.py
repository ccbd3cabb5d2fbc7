"""Cars that frozen policies drive, and cars that drive as they were recorded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from racer.core.checkpoint import read_checkpoint, write_checkpoint
from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.registry import get_world
from racer.envs.trials.chance import FoldedRows
from racer.envs.trials.config import TrialsConfig
from racer.envs.trials.egos import obey, rows_around
from racer.envs.trials.recorded import FRAME, read_tracks, record_traffic
from racer.envs.trials.scenes import make_simulator
from racer.envs.trials.vector import HighwayTrialsVectorEnv
from racer.training.run_spec import create_agent, spec_from_config
from racer.training.saving import policy_metadata

ROOT = Path(__file__).parents[3]
LENGTH, TRIALS = 25, 3
IDLE = 1


def write_partner(folder, seed, memory=None, **changes):
    """A policy of random weights, wide awake: it changes lanes and speeds all the time."""
    env_config = {"k_scenarios": 1, "show_reward": False, "without_memory": True, "fill_window": False, **changes}
    spec = spec_from_config(
        {"model_cls": "PPOLearner", "world": "trials", "memory": memory, "hidden_dims": (16,), "env": env_config}, seed
    )
    env = get_world("trials").make(spec.env_config, 1)
    agent = create_agent(spec, env.single_observation_space, env.single_action_space)
    env.close()
    params = {name: 3.0 * np.asarray(value) for name, value in agent.policy_params.items()}
    return str(write_checkpoint(folder, 1, {"policy": params}, policy_metadata(spec, agent)))


@pytest.fixture(scope="module")
def partners(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partners")
    return (
        write_partner(folder / "plain", 1),
        write_partner(folder / "gru", 2, {"kind": "gru", "size": 8}, vehicles_seen=5),
    )


def make(num_envs, **config):
    config = {"k_scenarios": TRIALS, "scenario_length": LENGTH, "fill_window": False, **config}
    return HighwayTrialsVectorEnv(num_envs, config)


def driven(env, steps, seeds):
    """Observations and states of all cars ``[steps + 1, N, ...]`` under a fixed script."""
    script = np.random.default_rng(5).integers(5, size=LENGTH)
    observations, _ = env.reset(seed=list(seeds))
    found = [(observations.copy(), env.world.simulator.packed[0].copy(), env.world.clock.copy())]
    for _ in range(steps):
        observations = env.step(script[env.world.clock])[0]
        found.append((observations.copy(), env.world.simulator.packed[0].copy(), env.world.clock.copy()))
    env.close()
    return found


def test_a_partner_sees_what_the_ego_would_see_in_its_place():
    simulator = make_simulator(TrialsConfig(), 3)
    simulator.reset([1, 2, 3])
    envs, ego = np.arange(3), np.zeros(3, np.int64)
    for action in (at.FASTER, at.LANE_RIGHT, at.IDLE, at.LANE_LEFT, at.SLOWER):
        simulator.step(np.full(3, action))
        np.testing.assert_array_equal(rows_around(simulator, envs, ego, 8), simulator.shown)
    # From another car the ego is one of the others, at the opposite place.
    seen = rows_around(simulator, envs, ego + 1, 20)
    real, _ = simulator.packed
    for i in envs:
        offset = real[i, [at.X, at.Y], 0] - real[i, [at.X, at.Y], 1]
        assert (np.abs(seen[i, 1:, 1:3] - offset).max(axis=1) < 1e-3).sum() == 1


def test_a_choice_means_for_a_partner_what_it_means_for_the_ego():
    simulator = make_simulator(TrialsConfig(), 4)
    simulator.reset([1, 2, 3, 4])
    rng = np.random.default_rng(0)
    envs, ego = np.arange(4), np.zeros(4, np.int64)
    changed = 0
    for _ in range(60):
        actions = rng.integers(5, size=4)
        real, whole = simulator.packed
        before = real[:, at.TARGET_SPEED, 0].copy(), whole[:, at.TARGET_LANE, 0].copy()
        obey(simulator, envs, ego, actions)
        ours = real[:, at.TARGET_SPEED, 0].copy(), whole[:, at.TARGET_LANE, 0].copy()
        real[:, at.TARGET_SPEED, 0], whole[:, at.TARGET_LANE, 0] = before
        simulator.step(actions)
        np.testing.assert_array_equal(real[:, at.TARGET_SPEED, 0], ours[0])
        np.testing.assert_array_equal(whole[:, at.TARGET_LANE, 0], ours[1])
        changed += (ours[1] != before[1]).sum()
    assert changed > 10


@pytest.mark.parametrize("rng", ["rewind", "advance"])
def test_trials_with_partners_are_equal_bit_for_bit_unless_chance_advances(partners, rng):
    env = make(2, population="partners", partners=partners, partner_rng=rng)
    found = driven(env, TRIALS * LENGTH - 1, [3, 4])
    alike = [
        np.array_equal(found[t][1], found[t % LENGTH][1])
        and np.array_equal(found[t][0][:, :-1], found[t % LENGTH][0][:, :-1])
        for t in range(LENGTH, TRIALS * LENGTH)
    ]  # fmt: skip
    assert [step[2][0] for step in found] == [*range(LENGTH)] * TRIALS
    assert all(alike) if rng == "rewind" else not any(alike[1:LENGTH])


def test_partners_of_several_policies_drive_alike_in_however_many_environments(partners):
    """One forward a policy over all environments gives each the bits that it has alone."""
    together = driven(make(5, population="partners", partners=partners), 40, range(10, 15))
    members = set()
    for i in range(5):
        env = make(1, population="partners", partners=partners)
        alone = driven(env, 40, [10 + i])
        members |= set(env.world.population.arrays()["partners/members"].ravel().tolist())
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_array_equal(ours[0][i], theirs[0][0])
            np.testing.assert_array_equal(ours[1][i], theirs[1][0])
    assert members == {0, 1}


def test_partners_drive_other_than_the_cars_they_replace_and_the_rest_do_not_at_once(partners):
    with_them = driven(make(1, population="partners", partners=partners, partner_count=3), 5, [3])
    without = driven(make(1), 5, [3])
    np.testing.assert_array_equal(with_them[0][0], without[0][0])
    speeds = [found[5][1][0, at.SPEED] for found in (with_them, without)]
    assert (np.abs(speeds[0] - speeds[1])[1:4] > 0.1).all()


def test_what_partners_do_is_not_the_egos(partners):
    env = make(6, population="partners", partners=partners, partner_count=20, scenario_length=60)
    env.reset(seed=list(range(6)))
    unharmed, episodes = 0, []
    for _ in range(60 * TRIALS):
        infos = env.step(np.full(6, IDLE))[4]
        wrecked = env.world.simulator.packed[1][:, at.CRASHED, 1:].any(axis=1)
        unharmed += int((wrecked & ~infos["crashed"] & ~infos["trial_end"]).sum())
        if "final_info" in infos:
            metrics = {k: v for k, v in infos["final_info"]["episode_metrics"].items() if k[0] != "_"}
            episodes += [{k: v[i] for k, v in metrics.items()} for i in np.flatnonzero(infos["_final_info"])]
    assert unharmed > 10
    assert len(episodes) >= 6
    for episode in episodes:
        ends = [episode[f"n_trials_{name}"] for name in ("goal_reached", "crashed", "timed_out", "missed")]
        assert sum(ends) == episode["n_trials_completed"] == TRIALS
        assert sum(episode[f"trial_{k}_score"] for k in range(TRIALS)) == ends[0]
        assert episode["length"] <= 60 * TRIALS


def test_a_state_with_partners_is_restored_bit_for_bit(partners):
    env = make(3, population="partners", partners=partners)
    script = np.random.default_rng(1).integers(5, size=(40, 3))
    env.reset(seed=[1, 2, 3])
    for actions in script[:10]:
        env.step(actions)
    state = env.get_state()
    assert any("memory_1" in name for name in state)
    ahead = [env.step(actions)[0].copy() for actions in script[10:]]
    other = make(3, population="partners", partners=partners)
    other.reset(seed=[7, 8, 9])
    other.set_state(state)
    for actions, expected in zip(script[10:], ahead, strict=True):
        np.testing.assert_array_equal(other.step(actions)[0], expected)
    with pytest.raises(UsageError, match="partners/members"):
        other.set_state({**state, "partners/members": state["partners/members"] + 2})


def test_partners_that_do_not_fit_are_refused(partners, tmp_path):
    whole = read_checkpoint(Path(partners[0]))

    def changed(**keys):
        """The same policy, said to be of another configuration."""
        folder = tmp_path / next(iter(keys))
        metadata = {**whole.metadata, "env_config": {**whole.metadata["env_config"], **keys}}
        return str(write_checkpoint(folder, 1, {"policy": whole.groups["policy"]}, metadata))

    remembering = read_checkpoint(Path(partners[1]))
    spec = remembering.metadata["policy_spec"]
    spec = {**spec, "torso": {**spec["torso"], "memory": {"kind": "gru", "size": 16}}}
    metadata = {**remembering.metadata, "policy_spec": spec}
    larger = str(write_checkpoint(tmp_path / "larger", 1, {"policy": remembering.groups["policy"]}, metadata))
    rewarded, slow = changed(show_reward=True), changed(policy_frequency=1)
    pushing, few = changed(actions="continuous"), changed(vehicles_seen=3)
    for path, words in (
        (rewarded, "show_reward"), (slow, "policy_frequency"), (pushing, "continuous"),
        (few, "observations"), (larger, "memory/"),
        (str(tmp_path / "nobody"), "nobody"), ("highway-ppo", "another world"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words) as refused:
            make(1, population="partners", partners=(path,))
        assert "\n" not in str(refused.value)
    for config, words in (
        ({"population": "partners"}, "partners"), ({"partners": partners}, "population"),
        ({"population": "recorded"}, "recording"), ({"recording": "x.csv"}, "recorded"),
        ({"population": "recorded", "recording": "x.csv", "scene": "courteous"}, "courteous"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            make(1, **config)


def test_chance_follows_from_its_keys_alone():
    seeds, clock = np.arange(2000) % 50, np.arange(2000) // 50
    key = FoldedRows(seeds, clock)
    first, second = key.random((2000, 3), dtype=np.float32), key.random((2000, 3), dtype=np.float32)
    some = FoldedRows(seeds[7:9], clock[7:9])
    np.testing.assert_array_equal(some.random((2, 3), dtype=np.float32), first[7:9])
    assert first.dtype == np.float32
    assert len(np.unique(np.concatenate([first, second]))) > 11_900
    for drawn in (first, second):
        # 6000 uniform numbers: the mean is off by 0.0037, the variance by 0.001 (standard errors).
        assert abs(drawn.mean() - 0.5) < 4 * 0.0037
        assert abs(drawn.var() - 1 / 12) < 4 * 0.001
        assert np.abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(2000)
    normal = key.standard_normal((2000, 2))
    assert abs(normal.mean()) < 4 / np.sqrt(4000)
    assert abs(normal.var() - 1.0) < 4 * np.sqrt(2 / 4000)
    gumbel = key.gumbel(size=(2000, 2))
    assert abs(gumbel.mean() - np.euler_gamma) < 4 * np.pi / np.sqrt(6 * 4000)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "traffic.csv"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/sim/record_traffic.py"), str(path), "--seconds=30", "--seed=4"],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def test_cars_are_where_the_file_has_them_in_every_trial(recording):
    env = make(3, population="recorded", recording=str(recording))
    places = read_tracks(str(recording), recording.stat().st_mtime_ns).places
    env.reset(seed=[1, 2, 3])
    arrays = env.world.population.arrays()
    firsts = arrays["recorded/first"].copy()
    assert len(set(firsts.tolist())) > 1
    for _ in range(LENGTH * TRIALS - 1):
        env.step(np.full(3, IDLE))
        real, _ = env.world.simulator.packed
        cars, shift = arrays["recorded/cars"], arrays["recorded/shift"]
        for i in range(3):
            now = places[firsts[i] + 3 * env.world.clock[i], cars[i]]
            there = cars[i] >= 0
            assert there.sum() == 19
            np.testing.assert_array_equal(real[i, at.X, 1:][there], (now[:, 0] + shift[i])[there])
            for row, column in ((at.Y, 1), (at.HEADING, 2), (at.SPEED, 3)):
                np.testing.assert_array_equal(real[i, row, 1:][there], now[there, column])
    env.close()


def test_an_ego_in_a_recording_takes_a_cars_place_and_can_crash(recording):
    env = make(8, population="recorded", recording=str(recording), scenario_length=60)
    env.reset(seed=list(range(8)))
    tracks = read_tracks(str(recording), recording.stat().st_mtime_ns)
    arrays, (real, _) = env.world.population.arrays(), env.world.simulator.packed
    for i in range(8):
        (own,) = set(range(len(tracks.ids))) - set(arrays["recorded/cars"][i].tolist())
        start = tracks.places[arrays["recorded/first"][i], own]
        assert real[i, at.X, 0] == pytest.approx(start[0] + arrays["recorded/shift"][i], abs=1e-9)
        assert real[i, at.SPEED, 0] == start[3]
    ends = np.zeros(8, bool)
    for _ in range(60):
        ends |= env.step(np.full(8, at.FASTER))[4]["crashed"]
    assert ends.any()
    env.close()


def test_a_state_in_a_recording_is_restored_bit_for_bit(recording):
    env = make(2, population="recorded", recording=str(recording))
    env.reset(seed=[1, 2])
    for _ in range(7):
        env.step(np.full(2, IDLE))
    state = env.get_state()
    ahead = [env.step(np.full(2, IDLE))[0].copy() for _ in range(LENGTH)]
    other = make(2, population="recorded", recording=str(recording))
    other.reset(seed=[5, 6])
    other.set_state(state)
    for expected in ahead:
        np.testing.assert_array_equal(other.step(np.full(2, IDLE))[0], expected)
    with pytest.raises(UsageError, match="recorded/cars"):
        other.set_state({**state, "recorded/cars": state["recorded/cars"] + 30})


def test_a_file_at_another_rate_is_read_between_its_moments(tmp_path):
    path = tmp_path / "sparse.csv"
    lines = ["id,t,speed,heading,x,y"]
    lines += [f"a,{t},20.0,0.0,{100 + 20 * t},4.0" for t in range(8)]
    lines += [f"b,{t},25.0,0.0,{200 + 25 * t},{8.0 - 0.5 * t}" for t in range(2, 6)]
    path.write_text("\n".join(lines) + "\n")
    tracks = read_tracks(str(path), 1)
    assert tracks.ids == ("a", "b")
    times = FRAME * np.arange(len(tracks.places))
    np.testing.assert_allclose(tracks.places[:, 0, 0], 100 + 20 * times, atol=1e-9)
    there = np.isfinite(tracks.places[:, 1, 0])
    assert there.sum() == 3 * 15 + 1
    np.testing.assert_allclose(tracks.places[there, 1, 1], 8.0 - 0.5 * times[there], atol=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t,id,x,y,heading\n0,a,0,0,0\n", "'speed'"),
        ("t,id,x,y,heading,speed\n", "no line"),
        ("t,id,x,y,heading,speed\n0,a,0,0,0,fast\n", "line 2"),
        ("t,id,x,y,heading,speed\n0,a,0,0,0,nan\n", "line 2"),
        ("t,id,x,y,heading,speed\n0,a,0,40,0,20\n", "four lanes"),
        ("t,id,x,y,heading,speed\n0,a,0,0,0,20\n0,a,1,0,0,20\n", "two places"),
        ("t,id,x,y,heading,speed\n0,a,0,0,0,20\n1,a,20,0,0,20\n", "too few"),
        ("t,id,x,y,heading,speed\n0,a,0,0,0,20\n999999,a,20,0,0,20\n", "too much"),
        ("\x00\x00\n", "column"),
    ],
)
def test_a_file_that_is_no_recording_is_told(tmp_path, text, words):
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as refused:
        make(1, population="recorded", recording=str(path))
    assert "\n" not in str(refused.value)


def test_what_cannot_be_recorded_or_read_is_told(tmp_path):
    with pytest.raises(UsageError, match="seconds"):
        record_traffic(tmp_path / "x.csv", 0.0, 1)
    with pytest.raises(UsageError, match="written"):
        record_traffic(tmp_path / "nowhere" / "x.csv", 1.0, 1)
    with pytest.raises(UsageError, match="cannot be read"):
        make(1, population="recorded", recording=str(tmp_path / "none.csv"))
