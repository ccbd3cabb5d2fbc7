"""Critics: ensembles that answer with a categorical return distribution or with one number."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import linen as nn

from racer.networks.flax_encoders import EncoderSpec, EnsembleEncoder
from racer.networks.mlp import EnsembleMLP

__all__ = ["EnsembleCritic"]


class EnsembleCritic(nn.Module):
    """``num_members`` critics over (observation, action).

    Attributes:
        num_members: E.
        hidden_dims: widths of the hidden layers.
        out_dim: O: the number of atoms (logits of a categorical distribution), or 1 (a value).
        encoder: what happens to the observation first; each member has encoder weights of its own.
        use_layer_norm: normalise before each rectifier.
    """

    num_members: int
    hidden_dims: Sequence[int]
    out_dim: int
    encoder: EncoderSpec = EncoderSpec()
    use_layer_norm: bool = False

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Evaluate observations ``[B, D]`` with K actions each, ``[K, B, A]``; returns ``[E, K, B, O]``."""
        features = EnsembleEncoder(self.num_members, self.encoder, name="encoder")(observations)
        members = EnsembleMLP(self.num_members, self.hidden_dims, self.out_dim, self.use_layer_norm, name="members")
        return members(features, actions)
