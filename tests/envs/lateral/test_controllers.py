"""The controllers beside each other, and what demonstrations are."""

from __future__ import annotations

import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.lateral.actions import ActionMap
from racer.envs.lateral.controllers import CONTROLLERS, PID, FeedForward, make_controller
from racer.envs.lateral.demonstrations import controller_steers, logged_steers
from racer.envs.lateral.generator import generate_route
from racer.envs.lateral.plants.synthetic import SyntheticPlant
from racer.envs.lateral.predictive import ModelPredictive
from racer.envs.lateral.routes import Route
from racer.envs.lateral.rules import DRAWS, MAX_INTEGRAL
from racer.envs.lateral.scoring import salted_draws
from racer.envs.lateral.simulation import Simulation

ROUTES = [generate_route(0, "validation", number) for number in range(12)]


def costs(make, steps=60):
    """Return the total cost of each route over its first controlled steps."""
    simulation = Simulation(SyntheticPlant(), len(ROUTES), max_steps=steps)
    simulation.start(range(len(ROUTES)), ROUTES, salted_draws(len(ROUTES), 1))
    controller = make(simulation)
    return sum(simulation.step(controller(simulation.signals())).costs.total for _ in range(steps))


def test_the_baselines_come_in_the_order_that_they_are_known_for():
    means = {name: float(np.median(costs(make))) for name, make in CONTROLLERS.items()}
    assert means["model-predictive"] < means["feed-forward"] < means["pid"] < means["zero"]


def test_looking_ahead_helps_and_knows_no_draws():
    ahead = costs(lambda simulation: ModelPredictive(simulation, seed=1))
    other = costs(lambda simulation: ModelPredictive(simulation, seed=2))
    plain = costs(lambda simulation: FeedForward())
    assert ahead.mean() < 0.9 * plain.mean()
    assert other.mean() < 0.9 * plain.mean()
    assert (ahead != other).all()
    assert np.abs(ahead - other).mean() < np.abs(ahead - plain).mean()
    simulation = Simulation(SyntheticPlant(), 2)
    simulation.start(range(2), ROUTES[:2], salted_draws(2, 1))
    first = ModelPredictive(simulation, seed=1)(simulation.signals())
    simulation.redraw(salted_draws(2, 9))
    np.testing.assert_array_equal(first, ModelPredictive(simulation, seed=1)(simulation.signals()))


def test_planning_leaves_the_episode_alone():
    simulation = Simulation(SyntheticPlant(), 3)
    simulation.start(range(3), ROUTES[:3], salted_draws(3, 1))
    controller = ModelPredictive(simulation)
    for _ in range(5):
        before = simulation.get_state()
        steers = controller(simulation.signals())
        for name, value in simulation.get_state().items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        simulation.step(steers)


def test_a_target_out_of_reach_leaves_no_debt():
    """A second after it is over, the feed-forward steer is that of a car for which it never was (no wind-up)."""
    rows = np.arange(600)
    table = np.zeros((600, 6))
    table[:, 1], table[:, 4] = 20.0, np.where((rows >= 120) & (rows < 220), 4.9, 0.0)
    simulation = Simulation(SyntheticPlant(), 1)
    simulation.start([0], [Route("wall.csv", table)], np.full((1, DRAWS), 0.5))
    steers = []
    for _ in range(160):
        signals = simulation.signals()
        steers.append(FeedForward()(signals)[0])
        simulation.step(np.array([steers[-1]]))
    assert max(steers[40:115]) > 2.0
    assert signals.integral[0] > 5 * MAX_INTEGRAL
    assert abs(signals.clamped_integral[0]) < MAX_INTEGRAL
    assert abs(signals.lataccel[0]) < 0.3


def test_an_unknown_controller_is_refused():
    with pytest.raises(UsageError, match="did you mean 'feed-forward'"):
        make_controller("feedforward", Simulation(SyntheticPlant(), 1))


@pytest.mark.parametrize("kind", ["increment", "residual", "steer"])
def test_actions_and_steers_are_inverse(kind):
    simulation = Simulation(SyntheticPlant(), 12)
    simulation.start(range(12), ROUTES, salted_draws(12, 1))
    signals, action_map = simulation.signals(), ActionMap(kind, 0.25)
    actions = np.linspace(-0.9, 0.9, 12)
    steers = action_map.steers(signals, actions)
    inside = np.abs(steers) < 2.0
    assert inside.sum() > 8
    np.testing.assert_allclose(action_map.actions(signals, steers)[inside], actions[inside], atol=1e-12)


def test_logged_steers_are_seen_as_a_controller_would_have_seen_them():
    """Row 100 is the first that an episode shows; a log that goes on until there gives the same observation."""
    route = ROUTES[0]
    seen, done = logged_steers([route], ActionMap("steer", 0.25), 60, seed=0)
    assert seen.shape == (60, 256)
    steps = np.random.default_rng(0).permutation(np.arange(40, 100))
    np.testing.assert_allclose(done[:, 0], np.clip(route.steer[steps], -2, 2) / 2, atol=1e-6)
    place = int(np.flatnonzero(steps == 99)[0])
    row = seen[place]
    assert row[0] == pytest.approx(np.clip(route.target[99] / 5, -5, 5), rel=1e-5)
    np.testing.assert_allclose(row[16:36], np.clip(route.steer[79:99], -2, 2) / 2, rtol=1e-5)
    np.testing.assert_allclose(row[36:56], route.target[79:99] / 5, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(row[56:106], np.clip(route.target[99:149] / 5, -5, 5), rtol=1e-5, atol=1e-7)


def test_a_controllers_steers_are_what_it_did():
    seen, done = controller_steers(SyntheticPlant(), PID(), ROUTES[:2], ActionMap("steer", 0.25), 5, seed=0)
    assert seen.shape == (10, 256)
    # The observation's own numbers, put together by hand: error, integral over 5, change of the error over 0.5.
    by_hand = 0.195 * seen[:, 2] + 0.100 * 5 * seen[:, 9] - 0.053 * 0.5 * seen[:, 12]
    np.testing.assert_allclose(2 * done[:, 0], by_hand, atol=1e-5)
