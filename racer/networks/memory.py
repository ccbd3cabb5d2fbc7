"""Networks with a memory: step by step as a policy acts, and over whole sequences as it is trained.

A core reads features ``[N, D]`` and its memory, a mapping of arrays ``[N, ...]``, all zeros at an episode's start.
``step`` serves acting (NumPy or JAX), ``unroll`` training (JAX); both are the same mathematics. A row that is no
transition (``valid`` 0) leaves the memory as it was; ``forget`` clears it after a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from racer.networks.layers import Array, Params, namespace

__all__ = ["Core", "Memory", "Sequence", "cleared", "merged"]

Memory = Mapping[str, Array]
"""What a policy remembers, ``[N, ...]`` by name; all zeros at an episode's start."""


class Sequence(NamedTuple):
    """Flags of the rows of a sequence, ``[T, N]`` each, 0 or 1.

    Attributes:
        forget: whether the memory is cleared after the row.
        valid: whether the row is a transition.
    """

    forget: Array
    valid: Array


class Core(Protocol):
    """A network with a memory."""

    @property
    def width(self) -> int:
        """Numbers in an output, H."""
        ...

    def init(self, key: Any, inputs: int) -> dict[str, Array]:
        """Draw the parameters for inputs of ``inputs`` numbers, named ``memory/...`` (JAX)."""
        ...

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return the memory of ``count`` episodes that begin: zeros."""
        ...

    def step(self, params: Params, inputs: Array, memory: Memory) -> tuple[Array, dict[str, Array]]:
        """Read ``[N, D]``; return outputs ``[N, H]`` and the memory after it.

        A cache among NumPy arrays may be written into where nothing reads before the next step has written there: the
        memory before a step stays as good as it was, until a step is taken from the one after it.
        """
        ...

    def unroll(
        self, params: Params, inputs: Array, memory: Memory, rows: Sequence, peek: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Read a sequence (JAX).

        Args:
            params: parameters by name.
            inputs: ``[T, N, D]``.
            memory: before the first row.
            rows: flags.
            peek: ``[T, N, D]``, row t being what follows row t in its own episode, also where the sequence goes on with
                another one.

        Returns:
            Outputs ``[T, N, H]``, and those of ``peek``, each with the memory after its row and nothing forgotten.
        """
        ...


def cleared(memory: Memory, rows: Array) -> dict[str, Array]:
    """Return the memory with the rows ``[N]`` where ``rows`` is true set to zero, as at an episode's start."""
    return {name: _select(rows, namespace(value).zeros_like(value), value) for name, value in memory.items()}


def merged(rows: Array, new: Memory, old: Memory) -> dict[str, Array]:
    """Return ``new`` where ``rows`` ``[N]`` is true, elsewhere ``old``."""
    return {name: _select(rows, value, old[name]) for name, value in new.items()}


def _select(rows: Array, yes: Array, no: Array) -> Array:
    xp = namespace(yes)
    return xp.where(xp.reshape(rows, (-1,) + (1,) * (yes.ndim - 1)), yes, no)
