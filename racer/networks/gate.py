"""The gate that joins a layer's input and output in a transformer, with a gradient of its own on JAX arrays."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from racer.networks.layers import Array, Params, matmul, namespace, sigmoid, weights

__all__ = ["joined"]


def joined(params: Params, name: str, old: Array, new: Array) -> Array:
    """Join a layer's input ``old`` and output ``new`` as a GRU would (Parisotto et al. 2020, section 3.2)."""
    width = old.shape[-1]
    parts = (
        weights(params, f"{name}/new/kernel", new.shape[-1], 3 * width),
        weights(params, f"{name}/old/kernel", width, 2 * width),
        weights(params, f"{name}/reset/kernel", width, width),
        weights(params, f"{name}/bias", width),
    )
    join = _join if isinstance(old, np.ndarray) else _differentiable()
    result: Array = join(*parts, old, new)
    return result


def _join(of_new: Array, of_old: Array, of_reset: Array, bias: Array, old: Array, new: Array) -> Array:
    _, update, candidate = _gates(of_new, of_old, of_reset, bias, old, new)
    return (1.0 - update) * old + update * candidate


def _gates(
    of_new: Array, of_old: Array, of_reset: Array, bias: Array, old: Array, new: Array
) -> tuple[Array, Array, Array]:
    """Return reset, update and candidate, ``[..., W]`` each."""
    width = old.shape[-1]
    from_new, from_old = matmul(new, of_new), matmul(old, of_old)
    reset = sigmoid(from_new[..., :width] + from_old[..., :width])
    update = sigmoid(from_new[..., width : 2 * width] + from_old[..., width:] - bias)
    candidate = namespace(old).tanh(from_new[..., 2 * width :] + matmul(reset * old, of_reset))
    return reset, update, candidate


@cache
def _differentiable() -> Any:
    """Return :func:`_join` for JAX.

    In the gradient that JAX derives, what a product takes is a sum of padded parts, and XLA's code for CPUs computes
    each part from the slopes of all later layers again. Here the parts are put side by side once.
    """
    import jax

    join = jax.custom_vjp(_join)
    join.defvjp(_forwards, _backwards)
    return join


def _forwards(*inputs: Array) -> tuple[Array, Any]:
    _, update, candidate = gates = _gates(*inputs)
    old = inputs[4]
    return (1.0 - update) * old + update * candidate, (inputs, gates)


def _backwards(kept: Any, slope: Array) -> tuple[Array, ...]:
    import jax.numpy as jnp

    (of_new, of_old, of_reset, _, old, new), (reset, update, candidate) = kept
    width = old.shape[-1]
    to_candidate = slope * update * (1.0 - candidate * candidate)
    to_product = matmul(to_candidate, of_reset.T)
    to_reset = to_product * old * reset * (1.0 - reset)
    to_update = slope * (candidate - old) * update * (1.0 - update)
    to_new = jnp.concatenate([to_reset, to_update, to_candidate], axis=-1)
    to_old = to_new[..., : 2 * width]
    return (
        _outer(new, to_new),
        _outer(old, to_old),
        _outer(reset * old, to_candidate),
        -jnp.sum(to_update.reshape(-1, width), axis=0),
        matmul(to_old, of_old.T) + to_product * reset + slope * (1.0 - update),
        matmul(to_new, of_new.T),
    )


def _outer(inputs: Array, slopes: Array) -> Array:
    """Return the gradient ``[D, H]`` of a kernel from inputs ``[..., D]`` and slopes ``[..., H]``."""
    result: Array = inputs.reshape(-1, inputs.shape[-1]).T @ slopes.reshape(-1, slopes.shape[-1])
    return result
