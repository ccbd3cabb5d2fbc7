"""Multi-layer perceptrons: plain ones, and a stacked ensemble evaluated in one batched product a layer.

The ensemble takes its observations and its actions apart. A critic is asked about several actions of one
observation (the replayed one, one from the policy), and the first layer is linear, so the observation's
share of it is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

__all__ = ["ACTIVATIONS", "LAYER_NORM_EPSILON", "MLP", "EnsembleMLP", "normalised_relu"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": nn.relu, "tanh": jnp.tanh}
LAYER_NORM_EPSILON = 1e-6

_kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
_stacked_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=(0,))


class MLP(nn.Module):
    """Dense layers with the activation after each, the last one included.

    Attributes:
        hidden_dims: width of each layer.
        activation: a name in :data:`ACTIVATIONS`.
    """

    hidden_dims: Sequence[int]
    activation: str = "relu"

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map ``[..., D]`` to ``[..., hidden_dims[-1]]``."""
        activate = ACTIVATIONS[self.activation]
        for index, width in enumerate(self.hidden_dims):
            inputs = activate(nn.Dense(width, kernel_init=_kernel_init, name=f"hidden_{index}")(inputs))
        return inputs


@jax.custom_vjp
def normalised_relu(centred: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Finish a layer normalisation (Ba et al. 2016, eq. 4) of inputs whose last axis has mean 0, and rectify.

    The derivative is written out because it needs fewer passes over the activations than the chain of its
    parts: the rectifier's sign is read off the output, and everything else is a function of the normal inputs.

    Args:
        centred: ``[E, R, H]``.
        scale: ``[E, H]``.
        bias: ``[E, H]``.
    """
    return _normalised_relu_forward(centred, scale, bias)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _normalised_relu_forward(centred: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, _Residuals]:
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    out = nn.relu(centred * inverse * scale[:, None, :] + bias[:, None, :])
    return out, (centred, inverse, scale, out)


def _normalised_relu_backward(residuals: _Residuals, slope: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    centred, inverse, scale, out = residuals
    passed = jnp.where(out > 0.0, slope, 0.0)
    normal = centred * inverse
    scaled = passed * scale[:, None, :]
    along = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    return inverse * (scaled - normal * along), jnp.sum(passed * normal, axis=1), jnp.sum(passed, axis=1)


normalised_relu.defvjp(_normalised_relu_forward, _normalised_relu_backward)


class EnsembleMLP(nn.Module):
    """``num_members`` independent perceptrons over (features, action), parameters stacked on the first axis.

    Attributes:
        num_members: E.
        hidden_dims: width of each hidden layer.
        out_dim: width O of the linear output.
        use_layer_norm: normalise before each rectifier.
    """

    num_members: int
    hidden_dims: Sequence[int]
    out_dim: int
    use_layer_norm: bool = False

    @nn.compact
    def __call__(self, features: jax.Array, actions: jax.Array) -> jax.Array:
        """Evaluate every member on K actions for each of B observations.

        Args:
            features: ``[B, D]`` shared by the members, or ``[E, B, D]``, one row of features a member.
            actions: ``[K, B, A]``.

        Returns:
            ``[E, K, B, O]``.
        """
        members, (num_actions, batch, action_dim) = self.num_members, actions.shape
        if features.ndim == 2:
            # Broadcast first: XLA then keeps the member axis outermost and transposes nothing.
            features = jnp.broadcast_to(features, (members, *features.shape))
        flat_actions = actions.reshape(num_actions * batch, action_dim)
        flat_actions = jnp.broadcast_to(flat_actions, (members, *flat_actions.shape))
        width = self.hidden_dims[0]
        feature_kernel, action_kernel, bias = self._input_layer(features.shape[-1], action_dim, width)
        hidden = _products(flat_actions, action_kernel).reshape(members, num_actions, batch, width)
        hidden = hidden + (_products(features, feature_kernel) + bias[:, None, :])[:, None]
        hidden = self._activate(hidden.reshape(members, num_actions * batch, width), 0)
        for index, width in enumerate(self.hidden_dims[1:], start=1):
            kernel, bias = self._layer(f"hidden_{index}", hidden.shape[-1], width)
            if self.use_layer_norm:
                kernel, bias = _centred(kernel), _centred(bias)
            hidden = self._activate(_products(hidden, kernel) + bias[:, None, :], index)
        kernel, bias = self._layer("output", hidden.shape[-1], self.out_dim)
        out = _products(hidden, kernel) + bias[:, None, :]
        return out.reshape(members, num_actions, batch, self.out_dim)

    def _input_layer(self, feature_dim: int, action_dim: int, width: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Create the first kernel in two parts whose fan-in is that of the whole, and its bias."""
        shape = (self.num_members, feature_dim + action_dim, width)
        parts = (
            self.param("hidden_0_feature_kernel", lambda key: _stacked_init(key, shape)[:, :feature_dim]),
            self.param("hidden_0_action_kernel", lambda key: _stacked_init(key, shape)[:, feature_dim:]),
            self.param("hidden_0_bias", nn.initializers.zeros, (self.num_members, width)),
        )
        if not self.use_layer_norm:
            return parts
        return _centred(parts[0]), _centred(parts[1]), _centred(parts[2])

    def _layer(self, name: str, in_dim: int, width: int) -> tuple[jax.Array, jax.Array]:
        kernel = self.param(f"{name}_kernel", _stacked_init, (self.num_members, in_dim, width))
        return kernel, self.param(f"{name}_bias", nn.initializers.zeros, (self.num_members, width))

    def _activate(self, inputs: jax.Array, index: int) -> jax.Array:
        if not self.use_layer_norm:
            return nn.relu(inputs)
        shape = (self.num_members, inputs.shape[-1])
        scale = self.param(f"norm_{index}_scale", nn.initializers.ones, shape)
        return normalised_relu(inputs, scale, self.param(f"norm_{index}_bias", nn.initializers.zeros, shape))


def _products(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """``[E, R, D] x [E, D, H] -> [E, R, H]``."""
    return jnp.einsum("erd,edh->erh", inputs, kernel)


def _centred(parameter: jax.Array) -> jax.Array:
    """Subtract the mean over the output features.

    Layer normalisation subtracts that mean from every row of activations. The layer before it is linear, so
    centring its kernel and bias gives the same result for less work: parameters are fewer than activations.
    """
    return parameter - jnp.mean(parameter, axis=-1, keepdims=True)
