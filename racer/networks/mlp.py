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

__all__ = ["ACTIVATIONS", "LAYER_NORM_EPSILON", "MLP", "EnsembleMLP", "layer_norm"]

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


def layer_norm(inputs: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift (Ba et al. 2016, eq. 4).

    Args:
        inputs: ``[E, R, H]``.
        scale: ``[E, H]``.
        bias: ``[E, H]``.
    """
    mean = jnp.mean(inputs, axis=-1, keepdims=True)
    centred = inputs - mean
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return normal * scale[:, None, :] + bias[:, None, :]


class EnsembleMLP(nn.Module):
    """``num_members`` independent perceptrons over (features, action), parameters stacked on the first axis.

    Attributes:
        num_members: E.
        hidden_dims: width of each hidden layer.
        out_dim: width O of the linear output.
        use_layer_norm: normalise before each activation.
        activation: a name in :data:`ACTIVATIONS`.
    """

    num_members: int
    hidden_dims: Sequence[int]
    out_dim: int
    use_layer_norm: bool = False
    activation: str = "relu"

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
        width = self.hidden_dims[0]
        feature_dim = features.shape[-1]
        feature_kernel, action_kernel = self._input_kernels(feature_dim, action_dim, width)
        if features.ndim == 2:
            from_features = jnp.einsum("bd,edh->ebh", features, feature_kernel)
        else:
            from_features = jnp.einsum("ebd,edh->ebh", features, feature_kernel)
        flat_actions = actions.reshape(num_actions * batch, action_dim)
        from_actions = jnp.einsum("ra,eah->erh", flat_actions, action_kernel)
        bias = self.param("hidden_0_bias", nn.initializers.zeros, (members, width))
        hidden = from_actions.reshape(members, num_actions, batch, width) + from_features[:, None]
        hidden = hidden.reshape(members, num_actions * batch, width) + bias[:, None, :]
        hidden = self._activate(hidden, 0)
        for index, width in enumerate(self.hidden_dims[1:], start=1):
            hidden = self._activate(self._dense(hidden, f"hidden_{index}", width), index)
        out = self._dense(hidden, "output", self.out_dim)
        return out.reshape(members, num_actions, batch, self.out_dim)

    def _input_kernels(self, feature_dim: int, action_dim: int, width: int) -> tuple[jax.Array, jax.Array]:
        """Create the first kernel in two parts whose fan-in is that of the whole."""
        shape = (self.num_members, feature_dim + action_dim, width)
        return (
            self.param("hidden_0_feature_kernel", lambda key: _stacked_init(key, shape)[:, :feature_dim]),
            self.param("hidden_0_action_kernel", lambda key: _stacked_init(key, shape)[:, feature_dim:]),
        )

    def _dense(self, inputs: jax.Array, name: str, width: int) -> jax.Array:
        members, in_dim = self.num_members, inputs.shape[-1]
        kernel = self.param(f"{name}_kernel", _stacked_init, (members, in_dim, width))
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (members, width))
        return jnp.einsum("erd,edh->erh", inputs, kernel) + bias[:, None, :]

    def _activate(self, inputs: jax.Array, index: int) -> jax.Array:
        if self.use_layer_norm:
            shape = (self.num_members, inputs.shape[-1])
            scale = self.param(f"norm_{index}_scale", nn.initializers.ones, shape)
            bias = self.param(f"norm_{index}_bias", nn.initializers.zeros, shape)
            inputs = layer_norm(inputs, scale, bias)
        return ACTIVATIONS[self.activation](inputs)
