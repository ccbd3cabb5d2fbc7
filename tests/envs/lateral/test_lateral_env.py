"""The environments: the gymnasium contract, costs, exact states, single against batched."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import racer.envs  # noqa: F401 - registers the ids
from racer.core.errors import UsageError
from racer.envs.lateral.controllers import PID
from racer.envs.lateral.env import LateralControlEnv
from racer.envs.lateral.generator import generate_route
from racer.envs.lateral.observation import CORE, observe
from racer.envs.lateral.plants.synthetic import SyntheticPlant
from racer.envs.lateral.routes import Route
from racer.envs.lateral.rules import BINS, DRAWS, decode, encode, sampled_tokens
from racer.envs.lateral.simulation import Simulation
from racer.envs.lateral.vector import VectorizedLateralControlEnv
from racer.envs.registry import get_world
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import evaluate_policy


def costs_by_hand(targets, actual):
    """Return (total, lataccel, jerk) of the definition, in plain Python."""
    n = len(targets)
    lataccel = 100 * sum((t - a) ** 2 for t, a in zip(targets, actual, strict=True)) / n
    jerk = 100 * sum(((b - a) / 0.1) ** 2 for a, b in itertools.pairwise(actual)) / (n - 1)
    return 50 * lataccel + jerk, lataccel, jerk


def test_gymnasiums_checker_finds_nothing_wrong(recwarn):
    check_env(gymnasium.make("racer/LateralControl-v0", render_mode="rgb_array").unwrapped)
    assert not [w for w in recwarn if "gymnasium" in str(w.filename)], [str(w.message) for w in recwarn]


@pytest.mark.parametrize("config", [{}, {"max_steps": 7}, {"action": "residual"}, {"action": "steer"}])
def test_the_return_is_the_negative_cost_of_the_trace(config):
    env = LateralControlEnv(config)
    env.reset(seed=4)
    rng, total, rows = np.random.default_rng(0), 0.0, []
    ended = False
    while not ended:
        _, reward, terminated, ended, info = env.step(rng.uniform(-0.3, 0.3, 1))
        assert not terminated
        assert reward == pytest.approx(-info["total_cost"], rel=1e-12)
        total += reward
        rows.append((info["target"], info["lataccel"]))
    assert len(rows) == config.get("max_steps", 400)
    expected = costs_by_hand(*zip(*rows, strict=True))
    metrics = info["episode_metrics"]
    found = [metrics[key] for key in ("total_cost", "lataccel_cost", "jerk_cost")]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert total == pytest.approx(-expected[0], rel=1e-10)
    assert metrics["return"] == pytest.approx(total, rel=1e-10)


def test_a_batch_steps_as_single_environments_do():
    batch = VectorizedLateralControlEnv(3, {"max_steps": 6})
    singles = [LateralControlEnv({"max_steps": 6}) for _ in range(3)]
    seen, _ = batch.reset(seed=11)
    alone = [env.reset(seed=11 + i)[0] for i, env in enumerate(singles)]
    rng = np.random.default_rng(1)
    for _ in range(14):
        np.testing.assert_array_equal(seen, alone)
        actions = rng.uniform(-1, 1, (3, 1)).astype(np.float32)
        seen, rewards, _, truncated, infos = batch.step(actions)
        for i, env in enumerate(singles):
            alone[i], reward, _, ended, info = env.step(actions[i])
            assert reward == rewards[i]
            assert ended == truncated[i]
            if ended:
                np.testing.assert_array_equal(infos["final_obs"][i], alone[i])
                for key, value in info["episode_metrics"].items():
                    assert infos["final_info"]["episode_metrics"][key][i] == value
                alone[i], _ = env.reset()


def test_a_state_is_returned_to_bit_for_bit():
    env = VectorizedLateralControlEnv(4, {"max_steps": 9})
    env.reset(seed=5)
    rng = np.random.default_rng(2)
    for _ in range(12):
        env.step(rng.uniform(-1, 1, (4, 1)))
    state, actions = env.get_state(), rng.uniform(-1, 1, (25, 4, 1))
    first = [env.step(a)[:4] for a in actions]
    other = VectorizedLateralControlEnv(4, {"max_steps": 9})
    other.set_state(state)
    second = [other.step(a)[:4] for a in actions]
    for one, two in zip(first, second, strict=True):
        for x, y in zip(one, two, strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_state_of_an_earlier_version_gets_a_clamped_sum_of_its_own():
    env = VectorizedLateralControlEnv(2, {"max_steps": 30})
    env.reset(seed=5)
    for _ in range(20):
        env.step(np.full((2, 1), 0.1))
    state = env.get_state()
    earlier = {name: value for name, value in state.items() if "clamped_integral" not in name}
    assert len(earlier) == len(state) - 1
    np.testing.assert_array_equal(env.set_state(earlier), env.set_state(state))


def test_a_state_of_other_environments_is_refused():
    env = VectorizedLateralControlEnv(2)
    env.reset(seed=5)
    state = env.get_state()
    state["route_numbers"] = np.array([1, -1])
    with pytest.raises(UsageError, match="other environments"):
        env.set_state(state)


def test_an_observation_holds_what_its_names_say():
    route = generate_route(0, "train", 3)
    simulation = Simulation(SyntheticPlant(), 1)
    simulation.start([0], [route], np.full((1, DRAWS), 0.5))
    for steer in (0.1, -0.2, 0.3):
        simulation.step(np.array([steer]))
    signals = simulation.signals()
    row = dict(zip(CORE, observe(signals)[0], strict=False))
    actual = [*route.target[20:100], *signals.lataccels[0, -3:]]
    errors = [route.target[20 + i] - ([route.target[19], *actual])[i] for i in range(84)]
    assert signals.integral[0] == pytest.approx(sum(errors))
    assert signals.clamped_integral[0] == pytest.approx(sum(errors))
    assert row["integral"] == pytest.approx(sum(errors) / 5, rel=1e-4)
    assert row["target"] == pytest.approx(route.target[103] / 5, rel=1e-5)
    assert row["error"] == pytest.approx(errors[-1], rel=1e-4)
    assert row["speed"] == pytest.approx(route.speed[103] / 40, rel=1e-5)
    assert row["steer"] == pytest.approx(0.15)
    assert row["steer_rate"] == pytest.approx(0.5 / 0.1 / 2)
    assert row["lataccel_rate"] == pytest.approx((actual[-1] - actual[-2]) / 0.1 / 5, rel=1e-4)
    future = observe(signals)[0, 56:].reshape(4, 50)
    np.testing.assert_allclose(future[0], np.clip(route.target[103:153] / 5, -5, 5), rtol=1e-5)
    np.testing.assert_allclose(future[3], np.clip(route.acceleration[103:153] / 4, -5, 5), rtol=1e-4)


def test_what_follows_a_route_is_its_last_row():
    table = generate_route(0, "train", 3).table[:130]
    simulation = Simulation(SyntheticPlant(), 1)
    simulation.start([0], [Route("short.csv", table)], np.full((1, DRAWS), 0.5))
    assert simulation.steps[0] == 30
    np.testing.assert_array_equal(simulation.signals().future[0, 30:, 0], table[-1, 4])
    ended = [bool(simulation.step(np.zeros(1)).ended[0]) for _ in range(30)]
    assert ended == [False] * 29 + [True]


def test_tokens_are_those_of_the_definition():
    values = np.array([-7.0, -5.0, -4.999, 0.0, 1e-9, 5.0, 9.0])
    by_hand = [min(k for k in range(1024) if BINS[k] >= min(max(v, -5.0), 5.0)) for v in values]
    assert encode(values).tolist() == by_hand
    np.testing.assert_array_equal(encode(decode(np.arange(1024))), np.arange(1024))


def test_sampling_is_numpys_choice():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (300, 1024)).astype(np.float32)
    weights = np.exp(logits / np.float32(0.8) - (logits / np.float32(0.8)).max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    expected, uniforms = [], []
    for seed, p in enumerate(probabilities):
        expected.append(np.random.RandomState(seed).choice(1024, p=p))
        uniforms.append(np.random.RandomState(seed).random_sample())
    assert sampled_tokens(logits, np.array(uniforms)).tolist() == expected


def test_the_drivers_are_the_controllers():
    trained = load_policy("driver:lateral/pid")
    world = get_world("lateral")
    result = evaluate_policy(trained.policy, {}, world, trained.env_config, [3, 4, 5], num_envs=2)
    env = LateralControlEnv(trained.env_config)
    env.reset(seed=4)
    simulation, total = env.world.simulation, 0.0
    for _ in range(400):
        total += float(simulation.step(PID()(simulation.signals())).costs.total[0])
    assert result.episodes[1].metrics["total_cost"] == pytest.approx(total, rel=1e-4)


def test_the_synthetic_plant_settles_at_its_gain():
    plant = SyntheticPlant()
    memory = plant.start(np.full((1, DRAWS), 0.5))
    states = np.zeros((1, 20, 4))
    states[..., 0], states[..., 1], states[..., 2] = 0.5, 0.2, 20.0
    lataccels = np.zeros((1, 20))
    for _ in range(100):
        after, memory = plant.step(states, lataccels, np.full(1, 0.5), memory)
        lataccels = np.concatenate([lataccels[:, 1:], after[:, None]], axis=1)
    assert after[0] == pytest.approx(0.5 * (0.0093 * 20 + 1.34) + 0.2)
    assert memory["delay"][0] == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"plnt": "synthetic"}, "did you mean 'plant'"),
        ({"plant": "nowhere.onnx"}, "'nowhere.onnx' cannot be read: No such file"),
        ({"routes": "nowhere"}, "no folder of routes at 'nowhere'"),
        ({"split": "all"}, "split 'all' is for folders"),
        ({"max_steps": 1}, "at least 2"),
        ({"action": "increments"}, "did you mean 'increment'"),
    ],
)
def test_wrong_configurations_are_refused(config, message):
    with pytest.raises(UsageError, match=message):
        LateralControlEnv(config)


def test_actions_that_are_no_numbers_are_refused():
    env = VectorizedLateralControlEnv(2)
    env.reset(seed=0)
    with pytest.raises(UsageError, match="finite numbers"):
        env.step(np.array([[0.0], [np.nan]]))


def test_a_picture_shows_both_curves():
    env = LateralControlEnv({"max_steps": 30}, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    for _ in range(20):
        env.step(np.array([0.5]))
    after = env.render()
    assert after.shape == (400, 960, 3)
    assert (after != before).any(axis=2).sum() > 300
