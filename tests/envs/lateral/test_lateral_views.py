"""The view of the observation: the same on NumPy and JAX arrays, and what its name promises."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.lateral.controllers import PID
from racer.envs.lateral.generator import generate_route, steady_gain
from racer.envs.lateral.observation import SIZE, observe, parts
from racer.envs.lateral.plants import make_plant
from racer.envs.lateral.scoring import salted_draws
from racer.envs.lateral.simulation import Simulation
from racer.envs.lateral.views import VIEWS


@pytest.fixture(scope="module")
def signals():
    simulation = Simulation(make_plant("synthetic"), 5)
    simulation.start(range(5), [generate_route(0, "validation", i) for i in range(5)], salted_draws(5, 1))
    for _ in range(30):
        simulation.step(PID()(simulation.signals()))
    return simulation.signals()


def test_parts_of_an_observation_are_the_signals(signals):
    core, steers, lataccels, (target, roll, speed, acceleration) = parts(observe(signals))
    np.testing.assert_allclose(core[:, 2], signals.error, rtol=1e-5)
    np.testing.assert_allclose(steers, signals.actions, rtol=1e-5)
    np.testing.assert_allclose(lataccels, signals.lataccels, rtol=1e-5)
    for i, found in enumerate((target, roll, speed, acceleration)):
        np.testing.assert_allclose(found, signals.future[..., i], rtol=1e-5)


def test_ahead_shows_what_is_to_change(signals):
    seen = VIEWS["ahead"](observe(signals))
    assert seen.shape == (5, *VIEWS["ahead"].shape((SIZE,)))
    np.testing.assert_allclose(seen[:, 0], 2 * signals.error, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(seen[:, 20], 2 * (signals.future[:, 30, 0] - signals.lataccel), rtol=1e-3, atol=1e-5)
    settled = (signals.target - signals.future[:, 0, 1]) / steady_gain(signals.future[:, 0, 2])
    np.testing.assert_allclose(seen[:, 21], 3 * (settled - signals.actions[:, -1]), rtol=1e-3, atol=1e-5)


def test_ahead_is_the_same_in_jax(signals):
    seen = observe(signals)
    np.testing.assert_allclose(VIEWS["ahead"](jnp.asarray(seen)), VIEWS["ahead"](seen), rtol=1e-5, atol=1e-5)


def test_another_observation_is_refused():
    with pytest.raises(UsageError, match=r"view 'ahead' is for observations \[256\], not \[8\]"):
        VIEWS["ahead"].shape((8,))
