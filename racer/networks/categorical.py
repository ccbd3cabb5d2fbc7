"""Categorical return distributions on a uniform grid: Bellman projection, CVaR, entropy.

The grid is ``z_i = q_min + i * delta``, ``i = 0 .. n-1`` (Bellemare et al. 2017, "C51"). Every function
works on the last axis and is free of side effects; none of them divides by a probability or takes its
logarithm, so an underflowing softmax does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Support", "bellman_projection", "cvar", "project_points", "projection_taps"]


@dataclass(frozen=True)
class Support:
    """The atoms of a categorical distribution.

    Attributes:
        q_min: value of the first atom.
        q_max: value of the last atom.
        num_atoms: n, at least 2.
    """

    q_min: float
    q_max: float
    num_atoms: int

    @property
    def delta(self) -> float:
        """Distance between neighbouring atoms."""
        return (self.q_max - self.q_min) / (self.num_atoms - 1)

    def atoms(self) -> np.ndarray:
        """Return the atoms, ``[n]`` float32."""
        return np.linspace(self.q_min, self.q_max, self.num_atoms, dtype=np.float32)


def project_points(support: Support, values: jax.Array) -> jax.Array:
    """Share the unit mass of each of ``[...]`` values between its two neighbouring atoms: ``[..., n]``."""
    position = jnp.clip((values - support.q_min) / support.delta, 0.0, support.num_atoms - 1.0)
    index = np.arange(support.num_atoms, dtype=np.float32)
    return jnp.maximum(1.0 - jnp.abs(position[..., None] - index), 0.0)


def projection_taps(discount: float) -> int:
    """Return how many atoms may share in one atom of a backup under ``discount`` or a greater one."""
    return int(2.0 / discount) + 1


def bellman_projection(
    support: Support, probs: jax.Array, rewards: jax.Array, masks: jax.Array, discount: float | jax.Array, taps: int
) -> jax.Array:
    """Project ``reward + mask * discount * Z`` onto the atoms (Bellemare et al. 2017, eq. 7).

    A mask of 0 ends the return: all mass then lies at the reward. Atom ``j`` of ``Z`` lands at grid position
    ``b_j = discount * j + shift``, an affine map of the grid, so an inner atom ``i`` hears only the few
    atoms with ``|b_j - i| < 1``: ``j`` from ``ceil((i - 1 - shift) / discount)`` on, at most
    ``floor(2 / discount) + 1`` of them (``taps``). Those are gathered; what falls beyond an end is summed onto it.
    The work is linear in the number of atoms for a fixed discount.

    Args:
        support: the grid, n atoms.
        probs: ``[E, B, n]`` distribution of ``Z`` at the next state, rows sum to 1.
        rewards: ``[B]``.
        masks: ``[B]``, 0 where the episode terminated, otherwise 1.
        discount: in (0, 1].
        taps: :func:`projection_taps` of the discount or of a smaller one.

    Returns:
        ``[E, B, n]``, rows sum to 1.
    """
    size = support.num_atoms
    index = np.arange(size, dtype=np.float32)
    shift = (rewards + (discount - 1.0) * support.q_min) / support.delta
    landed = discount * index + shift[:, None]
    first = jnp.ceil((index - 1.0 - shift[:, None]) / discount)
    inner = jnp.zeros_like(probs)
    for offset in range(taps):
        source = first + offset
        weight = jnp.maximum(1.0 - jnp.abs(discount * source + shift[:, None] - index), 0.0)
        weight = jnp.where((source >= 0.0) & (source <= size - 1.0), weight, 0.0)
        place = jnp.clip(source, 0.0, size - 1.0).astype(jnp.int32)
        inner += weight * jnp.take_along_axis(probs, place[None], axis=-1)
    below = jnp.sum(probs * jnp.clip(1.0 - landed, 0.0, 1.0), axis=-1, keepdims=True)
    above = jnp.sum(probs * jnp.clip(landed - (size - 2.0), 0.0, 1.0), axis=-1, keepdims=True)
    continued = jnp.where(index == 0.0, below, jnp.where(index == size - 1.0, above, inner))
    ended = project_points(support, rewards)
    return jnp.where(masks[:, None] > 0.0, continued, ended)


def cvar(support: Support, probs: jax.Array, risk: float | jax.Array) -> jax.Array:
    """Return the mean of the worst ``1 - risk`` share of the distribution, ``[..., n] -> [...]``.

    Risk 0 is the mean, 0.8 the mean of the worst fifth (Rockafellar & Uryasev 2000). The share taken from an
    atom is what the tail still lacks when it gets there, so that the weights sum to ``1 - risk`` exactly;
    the limit at risk 1 is the first atom that carries mass. ``risk`` is one number, or one for each distribution.
    """
    atoms = support.atoms()
    if isinstance(risk, float | int) and risk <= 0.0:
        return probs @ atoms
    tail = jnp.maximum(1.0 - jnp.asarray(risk), 1e-6)
    through = jnp.cumsum(probs[..., :-1], axis=-1)
    before = jnp.concatenate([jnp.zeros_like(probs[..., :1]), through], axis=-1)
    weights = jnp.clip(tail[..., None] - before, 0.0, probs)
    return (weights @ atoms) / tail
