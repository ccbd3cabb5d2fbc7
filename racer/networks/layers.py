"""Layers as functions of parameters by name, each written once for NumPy and JAX arrays.

Parameters are one flat mapping: the layer called ``trunk/hidden_0`` owns ``trunk/hidden_0/kernel`` and
``trunk/hidden_0/bias``, so a parameter that is missing shows up as a KeyError with that name. A function asks its input
for its array library; acting with NumPy arrays imports no JAX.

On NumPy arrays ``[N, D]`` every row is multiplied by itself: a product over several rows rounds otherwise than one over
a single row, and a last bit is enough to change the course of a chaotic world. Results of a row do not depend on how
many rows are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = [
    "ACTIVATIONS",
    "MAX_WIDTH",
    "Array",
    "Params",
    "dense",
    "init_dense",
    "init_norm",
    "layer_norm",
    "mlp",
    "namespace",
    "orthogonal",
    "relu",
    "sigmoid",
    "softplus",
    "variance_scaling",
    "weights",
    "writable",
    "written",
]

Array = Any
"""A NumPy or a JAX array."""

Params = Mapping[str, Array]
"""Parameters by name."""

Init = Callable[[Any, tuple[int, ...]], Array]
"""A random key and a shape to first values (JAX)."""

MAX_WIDTH = 65_536
"""Widest layer, longest cache: what is larger is a mistake and would end in a lack of memory."""

_NORM_EPSILON = 1e-6


def namespace(array: Array) -> Any:
    """Return the library that ``array`` belongs to: ``numpy`` or ``jax.numpy``."""
    return array.__array_namespace__()


def relu(values: Array) -> Array:
    """Return ``max(values, 0)``."""
    return namespace(values).maximum(values, 0.0)


def tanh(values: Array) -> Array:
    """Return the hyperbolic tangent."""
    return namespace(values).tanh(values)


def sigmoid(values: Array) -> Array:
    """Return ``1 / (1 + exp(-values))`` in a form that does not overflow."""
    return 0.5 + 0.5 * namespace(values).tanh(0.5 * values)


def softplus(values: Array) -> Array:
    """Return ``log(1 + exp(values))``."""
    return namespace(values).logaddexp(values, 0.0)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": relu, "tanh": tanh}


def matmul(inputs: Array, kernel: Array) -> Array:
    """Return ``inputs @ kernel``; of NumPy rows ``[N, D]`` each gets the bits that it would get alone.

    On a device all leading axes become one: gradients of products of two axes take half the time of those of three.
    """
    if isinstance(inputs, np.ndarray):
        return (inputs[:, None, :] @ kernel)[:, 0, :] if inputs.ndim == 2 else inputs @ kernel
    return (inputs.reshape(-1, inputs.shape[-1]) @ kernel).reshape(*inputs.shape[:-1], kernel.shape[-1])


def weights(params: Params, name: str, *shape: int | None) -> Array:
    """Return the parameter called ``name`` of just this shape, None for any size: others might broadcast to it.

    Raises:
        ValueError: it has another shape.
    """
    found = params[name]
    if len(found.shape) != len(shape) or any(
        size not in (None, other) for size, other in zip(shape, found.shape, strict=True)
    ):
        wanted = ["any" if size is None else size for size in shape]
        raise ValueError(f"{name!r} has shape {list(found.shape)}, not {wanted}")
    return found


def dense(params: Params, name: str, inputs: Array, outputs: int | None = None) -> Array:
    """Return ``inputs @ kernel + bias`` of the layer called ``name``: ``[..., D] -> [..., H]``, H as given if it is."""
    kernel = weights(params, f"{name}/kernel", inputs.shape[-1], outputs)
    return matmul(inputs, kernel) + weights(params, f"{name}/bias", kernel.shape[1])


def mlp(params: Params, name: str, count: int, activation: str, inputs: Array) -> Array:
    """Apply ``count`` dense layers ``{name}_0, {name}_1, ...`` with the activation after each."""
    activate = ACTIVATIONS[activation]
    for index in range(count):
        inputs = activate(dense(params, f"{name}_{index}", inputs))
    return inputs


def layer_norm(params: Params, name: str, inputs: Array) -> Array:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift (Ba et al. 2016, eq. 4)."""
    xp = namespace(inputs)
    centred = inputs - xp.mean(inputs, axis=-1, keepdims=True)
    variance = xp.mean(xp.square(centred), axis=-1, keepdims=True)
    scale, bias = (weights(params, f"{name}/{part}", inputs.shape[-1]) for part in ("scale", "bias"))
    return centred / xp.sqrt(variance + _NORM_EPSILON) * scale + bias


def writable(array: Array) -> Array:
    """Return what :func:`written` may be called on: the array itself, or a copy of a NumPy array that is read-only."""
    return array.copy() if isinstance(array, np.ndarray) and not array.flags.writeable else array


def written(array: Array, index: Any, values: Array) -> Array:
    """Return ``array`` with ``values`` at ``index``; a NumPy array is changed in place."""
    if isinstance(array, np.ndarray):
        array[index] = values
        return array
    return array.at[index].set(values)


def variance_scaling(scale: float) -> Init:
    """Return an initializer: uniform, with variance ``scale`` over the mean of fan in and fan out."""
    import jax

    return jax.nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


def orthogonal(gain: float = math.sqrt(2.0)) -> Init:
    """Return an initializer: orthogonal rows or columns times ``gain`` (Saxe et al. 2014)."""
    import jax

    return jax.nn.initializers.orthogonal(gain)


def init_dense(key: Any, name: str, inputs: int, outputs: int, init: Init, bias: Any = 0.0) -> dict[str, Array]:
    """Return the first parameters of a dense layer; ``bias`` is one number or ``[outputs]``."""
    import jax.numpy as jnp

    return {
        f"{name}/kernel": init(key, (inputs, outputs)),
        f"{name}/bias": jnp.broadcast_to(jnp.asarray(bias, jnp.float32), (outputs,)),
    }


def init_norm(name: str, width: int) -> dict[str, Array]:
    """Return the first parameters of a layer normalisation: scale 1, shift 0."""
    import jax.numpy as jnp

    return {f"{name}/scale": jnp.ones((width,)), f"{name}/bias": jnp.zeros((width,))}
