"""A small, differentiable stand-in for a plant: what comes next, as a normal distribution, learnt from the plant.

It reads what a plant reads and is some hundreds of times cheaper than the learned one. A plant names the mean and the
deviation of what it would draw (:meth:`racer.envs.lateral.plants.Plant.moments`), so it is learnt from numbers without
noise. It is trusted where it has seen the plant, and nowhere else: controllers are judged on the plant alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from racer.envs.lateral.generator import steady_gain
from racer.envs.lateral.plants.recorder import Seen
from racer.envs.lateral.rules import CONTEXT, MAX_CHANGE

__all__ = ["errors", "fit", "initial", "predict"]

Params = Mapping[str, Any]

_WIDTH = 128
_LINEAR = 8.0
"""Inputs are of about one; greater ones than this are compressed. Cut off, they would leave the model no gradient where
the car is lost, which is where the policy needs one."""

_MEAN_SCALE = 0.1
_TYPICAL_DEVIATION = 0.08
_LEAST, _GREATEST = -5.0, 0.0
"""Limits of the deviation's logarithm."""

_PRECISION = 0.03
"""Error of the mean (m/s^2) that weighs as much as one of 1 in the deviation's logarithm."""

_REACH = 2.0 * MAX_CHANGE
"""Changes that the plant expects (m/s^2) are learnt up to this one; what is greater leads to the same."""

_OUTLIER = 3.0
"""Errors of more than so many precisions count linearly (Huber 1964): histories that no car has."""

_BATCH = 512
_FINAL_RATE = 0.02


def initial(key: Any) -> dict[str, Any]:
    """Draw parameters; they say that nothing changes."""
    inputs = _inputs(jnp.zeros((1, CONTEXT, 4)), jnp.zeros((1, CONTEXT))).shape[1]
    first, second, last = jax.random.split(key, 3)
    return {
        "linear": jnp.zeros((inputs, 2)),
        "hidden_0/kernel": jax.random.normal(first, (inputs, _WIDTH)) / np.sqrt(inputs),
        "hidden_0/bias": jnp.zeros(_WIDTH),
        "hidden_1/kernel": jax.random.normal(second, (_WIDTH, _WIDTH)) / np.sqrt(_WIDTH),
        "hidden_1/bias": jnp.zeros(_WIDTH),
        "out/kernel": 0.01 * jax.random.normal(last, (_WIDTH, 2)),
        "out/bias": jnp.array([0.0, np.log(_TYPICAL_DEVIATION)]),
    }


def predict(params: Params, states: Any, lataccels: Any) -> tuple[Any, Any]:
    """Return mean and deviation (m/s^2) of the next lateral accelerations, ``[N]`` each (JAX, pure)."""
    x = _LINEAR * jnp.arcsinh(_inputs(states, lataccels) / _LINEAR)
    hidden = x
    for layer in ("hidden_0", "hidden_1"):
        hidden = jax.nn.swish(hidden @ params[f"{layer}/kernel"] + params[f"{layer}/bias"])
    out = hidden @ params["out/kernel"] + params["out/bias"] + _MEAN_SCALE * (x @ params["linear"])
    return lataccels[:, -1] + _MEAN_SCALE * out[:, 0], jnp.exp(jnp.clip(out[:, 1], _LEAST, _GREATEST))


def fit(params: Params, seen: Seen, key: Any, *, epochs: int, learning_rate: float = 2e-3) -> dict[str, Any]:
    """Learn from what was seen, from ``params`` on; the step size falls along half a cosine."""
    size = min(_BATCH, len(seen.means))
    batches = len(seen.means) // size
    rate = optax.cosine_decay_schedule(learning_rate, epochs * batches, _FINAL_RATE)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    state = dict(params), optimizer.init(dict(params))
    known: Any = jax.tree.map(jnp.asarray, seen)
    for epoch_key in jax.random.split(key, epochs):
        order = jax.random.permutation(epoch_key, len(seen.means))[: batches * size].reshape(batches, size)
        state = _epoch(optimizer.update, state, known, order)
    return state[0]


def errors(params: Params, seen: Seen) -> tuple[float, float]:
    """Return the median error of the mean (m/s^2) and of the deviation's logarithm."""
    means, deviations = jax.jit(predict)(params, seen.states, seen.lataccels)
    off = np.abs(np.log(np.asarray(deviations)) - np.asarray(_logarithms(seen.deviations)))
    return float(np.median(np.abs(np.asarray(means) - seen.means))), float(np.median(off))


@partial(jax.jit, static_argnums=0)
def _epoch(update: Any, state: Any, seen: Seen, order: Any) -> Any:
    def step(state: Any, rows: Any) -> tuple[Any, None]:
        params, moments = state
        grads = jax.grad(_loss)(params, Seen(*(column[rows] for column in seen)))
        changes, moments = update(grads, moments)
        return (optax.apply_updates(params, changes), moments), None

    return jax.lax.scan(step, state, order)[0]


def _loss(params: Params, seen: Seen) -> Any:
    means, deviations = predict(params, seen.states, seen.lataccels)
    now = seen.lataccels[:, -1]
    said = jnp.clip(seen.means, now - _REACH, now + _REACH)
    mean = 2.0 * jnp.mean(optax.huber_loss(means, said, delta=_OUTLIER * _PRECISION)) / _PRECISION**2
    return mean + jnp.mean(jnp.square(jnp.log(deviations) - _logarithms(seen.deviations)))


def _logarithms(deviations: Any) -> Any:
    """Return their logarithms within the model's limits: a plant that is certain at its limit has a deviation of 0."""
    return jnp.log(jnp.clip(deviations, np.exp(_LEAST), np.exp(_GREATEST)))


def _inputs(states: Any, lataccels: Any) -> Any:
    """Return inputs ``[N, 66]``: where each steer would settle, and what has changed."""
    steers, roll, speed, acceleration = (states[..., i] for i in range(4))
    now = lataccels[:, -1:]
    settled = steady_gain(speed[:, -1:]) * steers + roll - now
    shown = (
        settled / 0.5,
        jnp.diff(lataccels, axis=1) / 0.1,
        jnp.diff(steers, axis=1)[:, -11:] / 0.1,
        jnp.diff(roll, axis=1)[:, -6:] / 0.03,
        now / 2.0,
        (speed[:, -1:] - 25.0) / 10.0,
        acceleration[:, ::6],
        acceleration[:, -1:],
        steers[:, -1:],
        roll[:, -1:] / 0.3,
    )
    return jnp.concatenate(shown, axis=1)
