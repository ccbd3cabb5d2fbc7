"""Policy and value networks of on-policy agents.

They are two modules. With a shared trunk the value network is a linear layer on the policy network's features;
with separate ones it reads the observation itself, through an encoder and layers of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from racer.networks.flax_encoders import Encoder, EncoderSpec
from racer.networks.mlp import ACTIVATIONS

__all__ = ["DISTRIBUTIONS", "LOG_STD_MAX", "LOG_STD_MIN", "PolicyNetwork", "ValueNetwork"]

DISTRIBUTIONS = ("tanh_gaussian", "beta", "categorical")
LOG_STD_MIN = -5.0
LOG_STD_MAX = 2.0

_fan_average = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
# Small heads: the first policy is almost the same everywhere, whatever the observations' scale.
_HEAD_SCALE = 0.01


class _Trunk(nn.Module):
    """Dense layers with the activation after each.

    Attributes:
        hidden_dims: width of each layer; none passes the input on.
        activation: a name in :data:`racer.networks.mlp.ACTIVATIONS`.
        orthogonal: orthogonal kernels of gain sqrt(2) (Saxe et al. 2014) instead of uniform ones.
    """

    hidden_dims: Sequence[int]
    activation: str
    orthogonal: bool

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        init = nn.initializers.orthogonal(math.sqrt(2.0)) if self.orthogonal else _fan_average
        for index, width in enumerate(self.hidden_dims):
            inputs = ACTIVATIONS[self.activation](nn.Dense(width, kernel_init=init, name=f"hidden_{index}")(inputs))
        return inputs


def _head_init(scale: float, orthogonal: bool) -> nn.initializers.Initializer:
    if orthogonal:
        return nn.initializers.orthogonal(scale)
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


def _constants(values: np.ndarray) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(values, dtype)


def _beta_biases(centre: np.ndarray, std: float) -> dict[str, np.ndarray]:
    """Return the biases that give Beta(alpha, beta), stretched to [-1, 1], this mean and standard deviation.

    Its mean ``m`` in [0, 1] is ``alpha / s`` and its variance ``4 m (1 - m) / (s + 1)``, with ``s = alpha + beta``;
    the network's output is ``softplus^-1(alpha - 1)``. Where that has no solution, the nearest humped density is taken.
    """
    mean = 0.5 * (1.0 + centre)
    total = 4.0 * mean * (1.0 - mean) / std**2 - 1.0
    excess = {"alpha": mean * total - 1.0, "beta": (1.0 - mean) * total - 1.0}
    return {name: np.log(np.expm1(np.maximum(value, 1e-3))) for name, value in excess.items()}


class PolicyNetwork(nn.Module):
    """Encoder, trunk and the heads of an action distribution.

    Attributes:
        hidden_dims: widths of the trunk.
        size: number of actions, or of choices of a categorical policy.
        distribution: one of :data:`DISTRIBUTIONS`.
        initial_std: first standard deviation of the squashed action, as a share of half the action range (for the
            Gaussian: before squashing).
        initial_mean: first mean of every action in [-1, 1], the whole of its range; empty for the centre.
        encoder_spec: what happens to the observation first.
        activation: a name in :data:`racer.networks.mlp.ACTIVATIONS`.
        orthogonal: orthogonal initialisation of kernels.
    """

    hidden_dims: Sequence[int]
    size: int
    distribution: str
    initial_std: float = 0.5
    initial_mean: Sequence[float] = ()
    encoder_spec: EncoderSpec = EncoderSpec()
    activation: str = "tanh"
    orthogonal: bool = True

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        """Map ``[..., D]`` to the distribution's parameters by name and to the trunk's features ``[..., H]``.

        The parameters are ``mean`` ``[..., A]`` and ``log_std`` ``[A]`` (the same in every state), or ``alpha`` and
        ``beta`` ``[..., A]`` (both above 1), or ``logits`` ``[..., C]``.
        """
        encoded = Encoder(self.encoder_spec, name="encoder")(observations)
        features = _Trunk(self.hidden_dims, self.activation, self.orthogonal, name="trunk")(encoded)
        kernel = _head_init(_HEAD_SCALE, self.orthogonal)
        if self.distribution == "categorical":
            return {"logits": nn.Dense(self.size, kernel_init=kernel, name="logits")(features)}, features
        centre = np.array(self.initial_mean or (0.0,) * self.size, np.float32)
        if self.distribution == "beta":
            biases = _beta_biases(centre, self.initial_std)
            raw = {
                name: nn.Dense(self.size, kernel_init=kernel, bias_init=_constants(bias), name=name)(features)
                for name, bias in biases.items()
            }
            return {name: 1.0 + nn.softplus(value) for name, value in raw.items()}, features
        mean_bias = _constants(np.arctanh(centre))
        mean = nn.Dense(self.size, kernel_init=kernel, bias_init=mean_bias, name="mean")(features)
        log_std = self.param("log_std", nn.initializers.constant(math.log(self.initial_std)), (self.size,))
        return {"mean": mean, "log_std": jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)}, features


class ValueNetwork(nn.Module):
    """State value.

    Attributes:
        hidden_dims: widths of the trunk; none on features that are already a trunk's.
        encoder_spec: what happens to the observation first.
        activation: a name in :data:`racer.networks.mlp.ACTIVATIONS`.
        orthogonal: orthogonal initialisation of kernels.
    """

    hidden_dims: Sequence[int]
    encoder_spec: EncoderSpec = EncoderSpec()
    activation: str = "tanh"
    orthogonal: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map observations (or features) ``[..., D]`` to ``[...]``."""
        encoded = Encoder(self.encoder_spec, name="encoder")(inputs)
        hidden = _Trunk(self.hidden_dims, self.activation, self.orthogonal, name="trunk")(encoded)
        return nn.Dense(1, kernel_init=_head_init(1.0, self.orthogonal), name="value")(hidden)[..., 0]
