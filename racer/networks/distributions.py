"""Action distributions, each written once for acting (NumPy or JAX) and learning (JAX).

A *draw* is what the density is computed from: the Gaussian value before squashing, the beta value in the unit interval,
the index of a choice. Every density is that of the *action*, the change of variables included, and nothing is inverted,
so the density of an action near the edge of its range is exact. ``bounds`` are the lower and upper ends of the action
range, ``[A]`` each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from racer.networks import random
from racer.networks.layers import (
    Array,
    Params,
    dense,
    init_dense,
    namespace,
    orthogonal,
    softplus,
    variance_scaling,
    weights,
)

__all__ = [
    "ENTROPY_NOISE",
    "HEADS",
    "BetaHead",
    "Bounds",
    "CategoricalHead",
    "Distribution",
    "Head",
    "Start",
    "TanhGaussianHead",
    "squash",
]

Bounds = tuple[Array, Array]
Distribution = dict[str, Array]
"""Parameters of an action distribution by name, ``[..., A]`` (or ``[A]``, or ``[..., C]``)."""

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LOG_TWO = math.log(2.0)
# With both parameters of a beta above 1 the density vanishes at the edges; rounding must not put a draw on them.
_UNIT_EDGE = 1e-6
# Small heads: the first policy is almost the same everywhere, whatever the observations' scale.
_HEAD_SCALE = 0.01


@dataclass(frozen=True)
class Start:
    """The policy that training begins with.

    Attributes:
        mean: first mean of every action in (-1, 1), the whole of its range; empty for the centre.
        std: first standard deviation, as a share of half the range (for the Gaussian: before squashing).
        orthogonal: orthogonal initialisation of kernels.
        choices: first probability of every choice; empty for about equal ones.
    """

    mean: Sequence[float] = ()
    std: float = 0.5
    orthogonal: bool = False
    choices: Sequence[float] = ()


class Head(Protocol):
    """An action distribution on features ``[..., H]``."""

    @property
    def size(self) -> int:
        """Numbers in an action, A; of choices, how many there are."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice, ``[N]``, rather than numbers ``[N, A]``."""
        ...

    def init(self, key: Any, width: int, start: Start) -> dict[str, Array]:
        """Draw the parameters for features of ``width`` numbers (JAX)."""
        ...

    def parameters(self, params: Params, features: Array) -> Distribution:
        """Return the distribution's parameters."""
        ...

    def draw(self, distribution: Distribution, key: Any) -> Array:
        """Draw once for each row, before squashing."""
        ...

    def mode(self, distribution: Distribution) -> Array:
        """Return the deterministic draw."""
        ...

    def actions(self, draws: Array, bounds: Bounds | None) -> Array:
        """Map draws to actions inside the range."""
        ...

    def log_probs(self, distribution: Distribution, draws: Array, bounds: Bounds | None) -> Array:
        """Return the log-density ``[...]`` of the draws' actions."""
        ...

    def entropies(self, distribution: Distribution, noise: Array, bounds: Bounds | None) -> Array:
        """Return the differential entropy ``[...]``, nats (JAX); ``noise`` ``[..., A]`` is standard normal."""
        ...


ENTROPY_NOISE = ("squashed_gaussian", "tanh_gaussian")
"""Kinds whose entropy is estimated from a draw, because it has no closed form."""


def squash(raw: Array, bounds: Bounds) -> Array:
    """Map unbounded ``[..., A]`` into the range by the hyperbolic tangent."""
    low, high = bounds
    return 0.5 * (high + low) + 0.5 * (high - low) * namespace(raw).tanh(raw)


@dataclass(frozen=True)
class TanhGaussianHead:
    """``a = centre + half_width * tanh(u)``, ``u ~ N(mean, std)`` (Haarnoja et al. 2018, appendix C).

    Attributes:
        size: A.
        log_std_min: lower clip of the logarithm of the standard deviation.
        log_std_max: upper clip.
        per_state: whether the deviation is a function of the state; otherwise it is a parameter ``[A]``.
    """

    size: int
    log_std_min: float
    log_std_max: float
    per_state: bool = False

    @property
    def discrete(self) -> bool:
        return False

    def init(self, key: Any, width: int, start: Start) -> dict[str, Array]:
        import jax
        import jax.numpy as jnp

        mean_key, std_key = jax.random.split(key)
        init = _head_init(start)
        centre = np.arctanh(np.array(start.mean or (0.0,) * self.size, np.float32))
        params = init_dense(mean_key, "mean", width, self.size, init, bias=centre)
        if self.per_state:
            return params | init_dense(std_key, "log_std", width, self.size, init)
        return params | {"log_std": jnp.full((self.size,), math.log(start.std), jnp.float32)}

    def parameters(self, params: Params, features: Array) -> Distribution:
        if self.per_state:
            log_std = dense(params, "log_std", features, self.size)
        else:
            log_std = weights(params, "log_std", self.size)
        clipped = namespace(features).clip(log_std, self.log_std_min, self.log_std_max)
        return {"mean": dense(params, "mean", features, self.size), "log_std": clipped}

    def draw(self, distribution: Distribution, key: Any) -> Array:
        return self.draw_with(distribution, random.normal(key, distribution["mean"].shape))

    def draw_with(self, distribution: Distribution, noise: Array) -> Array:
        """Draw by reparametrisation from standard normal ``noise`` ``[..., A]``."""
        return distribution["mean"] + namespace(noise).exp(distribution["log_std"]) * noise

    def mode(self, distribution: Distribution) -> Array:
        return distribution["mean"]

    def actions(self, draws: Array, bounds: Bounds | None) -> Array:
        assert bounds is not None
        return squash(draws, bounds)

    def log_probs(self, distribution: Distribution, draws: Array, bounds: Bounds | None) -> Array:
        assert bounds is not None
        xp, log_std = namespace(draws), distribution["log_std"]
        noise = (draws - distribution["mean"]) * xp.exp(-log_std)
        density = -0.5 * xp.square(noise) - log_std - _HALF_LOG_TWO_PI
        return xp.sum(density - _log_slope(draws, bounds), axis=-1)

    def entropies(self, distribution: Distribution, noise: Array, bounds: Bounds | None) -> Array:
        """See :class:`Head`. The Gaussian's own entropy is exact, the mean log-slope is estimated from one draw."""
        assert bounds is not None
        gaussian = distribution["log_std"] + 0.5 + _HALF_LOG_TWO_PI
        slope = _log_slope(self.draw_with(distribution, noise), bounds)
        return namespace(noise).sum(gaussian + slope, axis=-1)


@dataclass(frozen=True)
class BetaHead:
    """``a = low + (high - low) x``, ``x ~ Beta(alpha, beta)`` with both above 1 (Chou et al. 2017).

    Deterministically ``x`` is the distribution's mean.

    Attributes:
        size: A.
    """

    size: int

    @property
    def discrete(self) -> bool:
        return False

    def init(self, key: Any, width: int, start: Start) -> dict[str, Array]:
        import jax

        params: dict[str, Array] = {}
        biases = _beta_biases(np.array(start.mean or (0.0,) * self.size, np.float32), start.std)
        for part, (name, bias) in zip(jax.random.split(key), biases.items(), strict=True):
            params |= init_dense(part, name, width, self.size, _head_init(start), bias=bias)
        return params

    def parameters(self, params: Params, features: Array) -> Distribution:
        return {name: 1.0 + softplus(_wide(dense(params, name, features, self.size))) for name in ("alpha", "beta")}

    def draw(self, distribution: Distribution, key: Any) -> Array:
        return self._inside(random.beta(key, distribution["alpha"], distribution["beta"]))

    def mode(self, distribution: Distribution) -> Array:
        return self._inside(distribution["alpha"] / (distribution["alpha"] + distribution["beta"]))

    def _inside(self, unit: Array) -> Array:
        return namespace(unit).clip(unit, _UNIT_EDGE, 1.0 - _UNIT_EDGE).astype(np.float32)

    def actions(self, draws: Array, bounds: Bounds | None) -> Array:
        assert bounds is not None
        low, high = bounds
        return low + (high - low) * draws

    def log_probs(self, distribution: Distribution, draws: Array, bounds: Bounds | None) -> Array:
        assert bounds is not None
        alpha, beta, x = distribution["alpha"], distribution["beta"], _wide(draws)
        xp = namespace(x)
        density = (alpha - 1.0) * xp.log(x) + (beta - 1.0) * xp.log1p(-x) - _log_beta(alpha, beta)
        return xp.sum(density - xp.log(_wide(bounds[1] - bounds[0])), axis=-1).astype(np.float32)

    def entropies(self, distribution: Distribution, noise: Array, bounds: Bounds | None) -> Array:
        from jax.scipy.special import digamma

        assert bounds is not None
        alpha, beta = distribution["alpha"], distribution["beta"]
        xp, total = namespace(alpha), alpha + beta
        unit = _log_beta(alpha, beta) - (alpha - 1.0) * digamma(alpha) - (beta - 1.0) * digamma(beta)
        unit += (total - 2.0) * digamma(total)
        return xp.sum(unit + xp.log(bounds[1] - bounds[0]), axis=-1)


@dataclass(frozen=True)
class CategoricalHead:
    """One of ``size`` choices with probability ``softmax(logits)``; deterministically the likeliest.

    Attributes:
        size: C.
    """

    size: int

    @property
    def discrete(self) -> bool:
        return True

    def init(self, key: Any, width: int, start: Start) -> dict[str, Array]:
        first = np.log(np.asarray(start.choices, np.float32)) if start.choices else 0.0
        return init_dense(key, "logits", width, self.size, _head_init(start), first)

    def parameters(self, params: Params, features: Array) -> Distribution:
        logits = dense(params, "logits", features, self.size)
        xp = namespace(logits)
        logits = logits - xp.max(logits, axis=-1, keepdims=True)
        return {"logits": logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))}

    def draw(self, distribution: Distribution, key: Any) -> Array:
        logits = distribution["logits"]
        return namespace(logits).argmax(logits + random.gumbel(key, logits.shape), axis=-1)

    def mode(self, distribution: Distribution) -> Array:
        return namespace(distribution["logits"]).argmax(distribution["logits"], axis=-1)

    def actions(self, draws: Array, bounds: Bounds | None) -> Array:
        return draws

    def log_probs(self, distribution: Distribution, draws: Array, bounds: Bounds | None) -> Array:
        logits = distribution["logits"]
        return namespace(logits).take_along_axis(logits, draws[..., None], axis=-1)[..., 0]

    def entropies(self, distribution: Distribution, noise: Array, bounds: Bounds | None) -> Array:
        logits = distribution["logits"]
        xp = namespace(logits)
        return -xp.sum(xp.exp(logits) * logits, axis=-1)


HEADS = ("squashed_gaussian", "tanh_gaussian", "beta", "categorical")
"""Kinds of policies that are learnt; the first has a deviation that depends on the state, the second has not."""


def _head_init(start: Start) -> Any:
    return orthogonal(_HEAD_SCALE) if start.orthogonal else variance_scaling(_HEAD_SCALE)


def _log_slope(raw: Array, bounds: Bounds) -> Array:
    """``log da/du``, ``log(half_width) + 2 (log 2 - u - softplus(-2 u))``: finite where the tangent saturates."""
    half_width = 0.5 * (bounds[1] - bounds[0])
    return 2.0 * (_LOG_TWO - raw - softplus(-2.0 * raw)) + namespace(raw).log(half_width)


def _wide(values: Array) -> Array:
    """Return NumPy values in float64, which costs a worker nothing; a device's as they are."""
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values


_numpy_log_gamma: Any = np.frompyfunc(math.lgamma, 1, 1)


def _log_gamma(values: Array) -> Array:
    if isinstance(values, np.ndarray):
        return _numpy_log_gamma(values).astype(np.float64)
    from jax.scipy.special import gammaln

    return gammaln(values)


def _log_beta(alpha: Array, beta: Array) -> Array:
    return _log_gamma(alpha) + _log_gamma(beta) - _log_gamma(alpha + beta)


def _beta_biases(centre: np.ndarray, std: float) -> dict[str, np.ndarray]:
    """Return the biases that give Beta(alpha, beta), stretched to [-1, 1], this mean and standard deviation.

    Its mean ``m`` in [0, 1] is ``alpha / s`` and its variance ``4 m (1 - m) / (s + 1)``, with ``s = alpha + beta``;
    the network's output is ``softplus^-1(alpha - 1)``. Where that has no solution, the nearest humped density is taken.
    """
    mean = 0.5 * (1.0 + centre)
    total = 4.0 * mean * (1.0 - mean) / std**2 - 1.0
    excess = {"alpha": mean * total - 1.0, "beta": (1.0 - mean) * total - 1.0}
    # log(exp(x) - 1) in a form that does not overflow: a narrow density has parameters of many hundreds.
    return {name: x + np.log(-np.expm1(-x)) for name, x in ((n, np.maximum(v, 1e-3)) for n, v in excess.items())}
