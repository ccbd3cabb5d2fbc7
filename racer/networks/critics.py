"""Critics: ensembles over observations and actions, and the state value of on-policy agents (JAX).

Ensembles take their observations and their actions apart. A critic is asked about several actions of one observation
(the replayed one, one from the policy), and the first layer is linear, so the observation's share of it is computed
once for all of them. Members are stacked on the first axis of each parameter and evaluated in one product a layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from racer.networks.layers import dense, init_dense, orthogonal, relu, variance_scaling
from racer.networks.torso import Torso

__all__ = ["LAYER_NORM_EPSILON", "EnsembleCritic", "ValueHeads", "normalised_relu"]

LAYER_NORM_EPSILON = 1e-6

Params = Mapping[str, jax.Array]
_ENCODER, _MEMBER = "encoder/", "encoder/member/"


@dataclass(frozen=True)
class ValueHeads:
    """State values: linear functions of features, one for each head.

    Attributes:
        torso: what computes the features from (viewed) observations; None where they are the policy's.
        features: numbers in the features.
        heads: K.
        orthogonal: orthogonal initialisation of kernels.
    """

    torso: Torso | None
    features: int
    heads: int = 1
    orthogonal: bool = True

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw the parameters."""
        torso_key, head_key = jax.random.split(key)
        params = {} if self.torso is None else self.torso.init(torso_key, orthogonal_init=self.orthogonal)
        init = orthogonal(1.0) if self.orthogonal else variance_scaling(1.0)
        return params | init_dense(head_key, "value", self.features, self.heads, init)

    def __call__(self, params: Params, features: jax.Array, observations: jax.Array) -> jax.Array:
        """Return ``[..., K]`` for the policy's features ``[..., H]`` or for observations, whichever are read."""
        if self.torso is not None:
            features = self.torso.before_memory(params, observations)
        return dense(params, "value", features)


@dataclass(frozen=True)
class EnsembleCritic:
    """``num_members`` independent perceptrons over (observation, action).

    Attributes:
        torso: scale and encoder of the (viewed) observation, without dense layers; each member has weights of its own.
        action_dim: A.
        num_members: E.
        hidden_dims: widths of the hidden layers.
        out_dim: O: the number of atoms (logits of a categorical distribution), or 1 (a value).
        use_layer_norm: normalise before each rectifier.
    """

    torso: Torso
    action_dim: int
    num_members: int
    hidden_dims: tuple[int, ...]
    out_dim: int
    use_layer_norm: bool = False

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draw the parameters."""
        encoder_key, *keys = jax.random.split(key, 2 + len(self.hidden_dims))
        drawn = jax.vmap(self._encoder.init)(jax.random.split(encoder_key, self.num_members))
        params = {_MEMBER + name.removeprefix(_ENCODER): value for name, value in drawn.items()}
        features = self._encoder.width
        sizes = (features + self.action_dim, *self.hidden_dims, self.out_dim)
        init = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=(0,))
        for index, part in enumerate(keys):
            name = f"members/hidden_{index}" if index < len(self.hidden_dims) else "members/output"
            kernel = init(part, (self.num_members, sizes[index], sizes[index + 1]))
            if index == 0:
                params[f"{name}_feature_kernel"], params[f"{name}_action_kernel"] = (
                    kernel[:, :features],
                    kernel[:, features:],
                )
            else:
                params[f"{name}_kernel"] = kernel
            params[f"{name}_bias"] = jnp.zeros((self.num_members, sizes[index + 1]))
            if self.use_layer_norm and index < len(self.hidden_dims):
                shape = (self.num_members, sizes[index + 1])
                params[f"members/norm_{index}_scale"] = jnp.ones(shape)
                params[f"members/norm_{index}_bias"] = jnp.zeros(shape)
        return params

    def __call__(self, params: Params, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Evaluate (viewed) observations ``[B, ...]`` with K actions each, ``[K, B, A]``; returns ``[E, K, B, O]``."""
        members, (num_actions, batch, action_dim) = self.num_members, actions.shape
        features = self._features(params, observations)
        flat_actions = actions.reshape(num_actions * batch, action_dim)
        flat_actions = jnp.broadcast_to(flat_actions, (members, *flat_actions.shape))
        names = ("feature_kernel", "action_kernel", "bias")
        feature_kernel, action_kernel, bias = (self._centred(params[f"members/hidden_0_{name}"]) for name in names)
        width = self.hidden_dims[0]
        hidden = _products(flat_actions, action_kernel).reshape(members, num_actions, batch, width)
        hidden = hidden + (_products(features, feature_kernel) + bias[:, None, :])[:, None]
        hidden = self._activate(params, 0, hidden.reshape(members, num_actions * batch, width))
        for index in range(1, len(self.hidden_dims)):
            kernel, bias = (self._centred(params[f"members/hidden_{index}_{name}"]) for name in ("kernel", "bias"))
            hidden = self._activate(params, index, _products(hidden, kernel) + bias[:, None, :])
        out = _products(hidden, params["members/output_kernel"]) + params["members/output_bias"][:, None, :]
        return out.reshape(members, num_actions, batch, self.out_dim)

    @property
    def _encoder(self) -> Torso:
        return dataclasses.replace(self.torso, hidden_dims=(), core=None)

    def _features(self, params: Params, observations: jax.Array) -> jax.Array:
        """Return ``[E, B, D]``."""
        own = {
            _ENCODER + name.removeprefix(_MEMBER): value for name, value in params.items() if name.startswith(_MEMBER)
        }
        if own:
            return jax.vmap(self._encoder.before_memory, in_axes=(0, None))(own, observations)
        features = self._encoder.before_memory({}, observations)
        # Broadcast first: XLA then keeps the member axis outermost and transposes nothing.
        return jnp.broadcast_to(features, (self.num_members, *features.shape))

    def _activate(self, params: Params, index: int, inputs: jax.Array) -> jax.Array:
        if not self.use_layer_norm:
            return relu(inputs)
        return normalised_relu(inputs, params[f"members/norm_{index}_scale"], params[f"members/norm_{index}_bias"])

    def _centred(self, parameter: jax.Array) -> jax.Array:
        """Subtract the mean over the output features, where a layer normalisation follows.

        That subtracts the same mean from every row of activations. The layer before it is linear, so centring its
        kernel and bias gives the same result for less work: parameters are fewer than activations.
        """
        return parameter - jnp.mean(parameter, axis=-1, keepdims=True) if self.use_layer_norm else parameter


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
    out = relu(centred * inverse * scale[:, None, :] + bias[:, None, :])
    return out, (centred, inverse, scale, out)


def _normalised_relu_backward(residuals: _Residuals, slope: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    centred, inverse, scale, out = residuals
    passed = jnp.where(out > 0.0, slope, 0.0)
    normal = centred * inverse
    scaled = passed * scale[:, None, :]
    along = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    return inverse * (scaled - normal * along), jnp.sum(passed * normal, axis=1), jnp.sum(passed, axis=1)


normalised_relu.defvjp(_normalised_relu_forward, _normalised_relu_backward)


def _products(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """``[E, R, D] x [E, D, H] -> [E, R, H]``."""
    return jnp.einsum("erd,edh->erh", inputs, kernel)
