"""What is imagined in a model of a plant is what the simulation would do on it, and its gradient is the cost's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.lateral.actions import ActionMap
from racer.envs.lateral.config import LateralConfig
from racer.envs.lateral.controllers import FeedForward
from racer.envs.lateral.demonstrations import visited
from racer.envs.lateral.generator import GeneratedRoutes, generate_route
from racer.envs.lateral.imagination import (
    Imaginer,
    begin,
    hardest_first,
    hardness,
    imagined_cost,
    places_drawn,
    roads,
)
from racer.envs.lateral.observation import observe
from racer.envs.lateral.plants import make_plant
from racer.envs.lateral.plants.distilled import errors, fit, initial, predict
from racer.envs.lateral.plants.recorder import Recorder
from racer.envs.lateral.routes import Route
from racer.envs.lateral.rules import DRAWS, FIRST_STEP, MAX_INTEGRAL, STEPS
from racer.envs.lateral.simulation import Simulation
from racer.training.settings import Imagination

LANES, HORIZON = 6, 40
ROUTES = [generate_route(0, "train", number) for number in range(5)]


class ModelPlant:
    """A model in the place of a plant, with given noise ``[T, N]``."""

    def __init__(self, model, noise):
        self._model, self._noise, self._step = model, noise, 0

    def start(self, uniforms):
        return {}

    def moments(self, states, lataccels, memory):
        said = predict(self._model, jnp.float32(states), jnp.float32(lataccels))
        return tuple(np.asarray(number, np.float64) for number in said)

    def step(self, states, lataccels, uniforms, memory):
        mean, deviation = self.moments(states, lataccels, memory)
        self._step += 1
        return mean + deviation * self._noise[self._step - 1], memory


@pytest.fixture(scope="module")
def seen():
    return visited(make_plant("synthetic"), FeedForward(), ROUTES * 4, 0.05, 0)[0]


@pytest.fixture(scope="module")
def model(seen):
    return fit(initial(jax.random.PRNGKey(0)), seen, jax.random.PRNGKey(1), epochs=6)


def act(params, signals):
    action_map = ActionMap("residual", 0.3)
    return action_map.steers(signals, jnp.tanh(observe(signals)[:, :3] @ params))


def test_imagined_episodes_follow_the_rules_of_the_simulation(model):
    weights = np.array([0.5, 2.0, 1.0, 3.0, 0.1])
    known, key = roads(make_plant("synthetic"), ROUTES, weights), jax.random.PRNGKey(3)
    lanes, params = begin(known, LANES, HORIZON, jax.random.PRNGKey(2)), jnp.array([0.5, -0.4, 0.3])
    noise = np.asarray(jax.random.normal(jax.random.split(key)[0], (2 * HORIZON, LANES)), np.float64)
    # Two have errors behind them that are as many as are counted.
    lanes = lanes._replace(
        end=jnp.full(LANES, FIRST_STEP + STEPS), integral=lanes.integral.at[:2].set([MAX_INTEGRAL, -MAX_INTEGRAL])
    )
    cost, after = imagined_cost(act, model, known, 2 * HORIZON, params, lanes, key)

    simulation = Simulation(ModelPlant(model, noise), LANES)
    simulation.start(range(LANES), [ROUTES[int(road)] for road in lanes.road], np.zeros((LANES, DRAWS)))
    begun = simulation.get_state()
    begun["clamped_integral"][:2] = MAX_INTEGRAL, -MAX_INTEGRAL
    simulation.set_state(begun, [ROUTES[int(road)] for road in lanes.road])
    total = 0.0
    for _ in range(2 * HORIZON):
        signals = simulation.signals()
        steers = np.asarray(act(params, signals._replace(**{k: jnp.float32(v) for k, v in signals._asdict().items()})))
        total = total + simulation.step(steers).costs.total
    total *= weights[np.asarray(lanes.road)]
    np.testing.assert_allclose(float(cost), total.mean() * STEPS / (2 * HORIZON), rtol=1e-3)
    state = simulation.get_state()
    np.testing.assert_array_equal(after.index, state["index"])
    np.testing.assert_allclose(after.integral, state["clamped_integral"], atol=2e-4)
    for name in ("actions", "lataccels", "previous_error", "change"):
        np.testing.assert_allclose(getattr(after, name), state[name], atol=2e-4, err_msg=name)


def test_the_gradient_is_the_costs(model):
    known, key = roads(make_plant("synthetic"), ROUTES), jax.random.PRNGKey(3)
    lanes, params = begin(known, LANES, HORIZON, jax.random.PRNGKey(2)), jnp.array([0.5, -0.4, 0.3])
    cost = jax.jit(lambda p: imagined_cost(act, model, known, HORIZON, p, lanes, key)[0])
    slopes = jax.grad(cost)(params)
    for i in range(3):
        shift = jnp.zeros(3).at[i].set(0.02)
        measured = (float(cost(params + shift)) - float(cost(params - shift))) / 0.04
        assert measured == pytest.approx(float(slopes[i]), rel=0.05, abs=0.3)
        assert abs(measured) > 0.5


def test_episodes_begin_anew_where_they_end_and_nowhere_else(model):
    known = roads(make_plant("synthetic"), ROUTES)
    lanes = begin(known, 64, HORIZON, jax.random.PRNGKey(4))
    assert set(np.asarray(lanes.end - FIRST_STEP)) == {HORIZON * k for k in range(1, STEPS // HORIZON + 1)}
    _, after = imagined_cost(act, model, known, HORIZON, jnp.zeros(3), lanes, jax.random.PRNGKey(5))
    over = np.asarray(lanes.end) == FIRST_STEP + HORIZON
    assert over.any()
    np.testing.assert_array_equal(np.asarray(after.index), np.where(over, FIRST_STEP, FIRST_STEP + HORIZON))
    np.testing.assert_array_equal(np.asarray(after.end)[over], FIRST_STEP + STEPS)
    np.testing.assert_array_equal(np.asarray(after.road)[~over], np.asarray(lanes.road)[~over])
    begun = np.asarray(known.columns)[np.asarray(after.road)[over], FIRST_STEP - 20 : FIRST_STEP, 0]
    np.testing.assert_array_equal(np.asarray(after.lataccels)[over], begun)


def test_a_model_learns_what_comes_next(seen, model):
    other = visited(make_plant("synthetic"), FeedForward(), [generate_route(0, "train", 99)] * 4, 0.05, 1)[0]
    untaught = errors(initial(jax.random.PRNGKey(0)), other)
    taught = errors(model, other)
    # The delay and the drift of an episode are hidden: what is left of the error is theirs.
    assert taught[0] < 0.5 * untaught[0]
    assert taught[1] < 0.5 * untaught[1]


def test_a_plant_that_is_certain_is_learnt_as_nearly_certain(seen, model):
    certain = seen._replace(deviations=np.where(np.arange(len(seen.means)) % 2, seen.deviations, np.float32(0.0)))
    learnt = fit(model, certain, jax.random.PRNGKey(2), epochs=1)
    assert all(np.isfinite(array).all() for array in jax.tree.leaves(learnt))
    assert np.isfinite(errors(learnt, certain)).all()


def test_what_is_recorded_is_what_the_plant_draws_from():
    plant, rng = make_plant("synthetic"), np.random.default_rng(0)
    memory = {name: np.repeat(value, 4000) for name, value in plant.start(rng.random((1, DRAWS))).items()}
    states = np.tile(rng.normal(0.0, 0.3, (1, 20, 4)) + np.array([0.0, 0.0, 25.0, 0.0]), (4000, 1, 1))
    lataccels = np.tile(rng.normal(0.0, 0.3, (1, 20)), (4000, 1))
    recorder = Recorder(plant)
    drawn, _ = recorder.step(states, lataccels, rng.random(4000), memory)
    found = recorder.seen
    np.testing.assert_array_equal(found.states, states.astype(np.float32))
    assert drawn.mean() == pytest.approx(found.means[0], abs=4 * drawn.std() / np.sqrt(4000))
    assert drawn.std() == pytest.approx(found.deviations[0], rel=0.05)


def test_a_horizon_divides_the_episode():
    with pytest.raises(UsageError, match="'horizon' 30 does not divide 400 steps"):
        Imaginer(LateralConfig(), Imagination(rounds=1, horizon=30), 0)


def test_the_hardest_routes_come_first_and_short_ones_not_at_all():
    short = Route("short.csv", ROUTES[0].table[:480])
    bend, straight = (next(r for r in ROUTES if hardness(r) == f(map(hardness, ROUTES))) for f in (max, min))
    numbers = hardest_first([straight, short, bend], 10, np.random.default_rng(0))
    np.testing.assert_array_equal(numbers, [2, 0])
    with pytest.raises(UsageError, match="none of the 1 routes lasts 500 rows"):
        hardest_first([short], 10, np.random.default_rng(0))
    # Of a split without end some are taken, and sorted too.
    made = GeneratedRoutes(0, "train")
    some = [hardness(made[int(number)]) for number in hardest_first(made, 30, np.random.default_rng(0))]
    assert len(set(some)) == 30
    assert some == sorted(some, reverse=True)


def test_a_route_is_as_hard_as_the_steer_that_it_asks_for():
    def route(target, speed=20.0):
        table = np.zeros((600, 6))
        table[:, 1], table[:, 4] = speed, np.broadcast_to(target, 600)
        return Route("made.csv", table)

    gain, rows = 0.0093 * 20.0 + 1.34, np.arange(600)
    assert hardness(route(0.0)) == 0.0
    # A bend that is there at once counts once more, and so does one that comes within half a second.
    assert hardness(route(gain)) == pytest.approx(2.0)
    assert hardness(route(np.where(rows < 300, 0.0, -gain))) == pytest.approx(2.0)
    assert hardness(route(gain * np.clip((rows - 200) / 100, 0.0, 1.0))) == pytest.approx(1.05)
    assert hardness(route(gain, speed=1.0)) == pytest.approx(2.0 * gain / 1.3493)
    # What comes before and after the controlled steps says nothing.
    assert hardness(route(np.where((rows < 100) | (rows >= 500), gain, 0.0))) == 0.0


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_hard_routes_are_drawn_as_often_as_is_said(power):
    places, weights = places_drawn(1000, 40_000, power, np.random.default_rng(0))
    assert places.min() == 0 or power == 1.0
    assert places.max() == 999
    for share in (0.01, 0.1, 0.5):
        expected = share ** (1.0 / power)
        found = np.mean(places < 1000 * share)
        assert found == pytest.approx(expected, abs=4.0 * np.sqrt(expected * (1.0 - expected) / len(places)))
    # Weighted, the mean of anything is that over all places.
    values = weights * np.square(places / 1000.0)
    assert values.mean() == pytest.approx(1.0 / 3.0, abs=4.0 * values.std() / np.sqrt(len(places)))
    assert weights.mean() == pytest.approx(1.0, abs=4.0 * max(weights.std(), 1e-9) / np.sqrt(len(places)))
