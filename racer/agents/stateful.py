"""The verbs on a learner's state that no algorithm has to define for itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import jax
import numpy as np

from racer.agents.shared import reset_components
from racer.agents.state import flatten_state, restore_state

__all__ = ["StatefulLearner"]


class StatefulLearner:
    """Base of frozen dataclasses that hold a ``recipe`` and a ``state``, a named tuple with the random key ``rng``.

    Attributes:
        components: parts of the state that are learnt, as :meth:`reset` names them.
        initial_state: from the recipe and a random key.
    """

    recipe: Any
    state: Any

    components: ClassVar[tuple[str, ...]]
    initial_state: ClassVar[Callable[[Any, jax.Array], Any]]

    def reset(self, exclude: Collection[str] = ()) -> Self:
        """Re-initialise every component not named in ``exclude``.

        Raises:
            UsageError: an unknown component.
        """
        rng, key = jax.random.split(self.state.rng)
        fresh = type(self).initial_state(self.recipe, key)
        state = reset_components(self.state, fresh, self.components, exclude)
        return self._with(state._replace(rng=rng))

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return the whole state as named copies."""
        return flatten_state(self.state)

    def with_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return this agent in the state of ``arrays``; see :func:`racer.agents.state.restore_state`."""
        return self._with(restore_state(self.state, arrays))

    def with_components(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return this agent with the components of ``arrays``; the random key and the counts stay its own."""
        learnt = restore_state(self.state, arrays)
        return self._with(reset_components(self.state, learnt, self.components, exclude=()))

    def _with(self, state: Any) -> Self:
        return replace(self, state=state)  # type: ignore[type-var]
