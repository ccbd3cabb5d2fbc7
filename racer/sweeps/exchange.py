"""One compiled update for all members of a population whose environments are stepped outside of it.

Each member is a run of its own: its environments, replay, random streams, logs and checkpoints are those of the same
run alone. Only the update is shared: a member that has its data waits until all have theirs, and one program updates
them all. One member works at a time, so that none slows the others by competing for the interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from racer.agents.learner import QUICK_TO_COMPILE, BaseLearner, acting_params
from racer.agents.state import flatten_state
from racer.core.errors import UsageError

__all__ = ["Exchange", "MemberAgent"]


class Exchange:
    """Where members meet for an update.

    Args:
        learners: of all members, alike but for their swept numbers and states.
        members: those that train; the others' states stay as they are.
        on_update: called after every update.
        batched: whether the update is one batched program (``vmap``), which keeps an accelerator busy; else the one
            compiled program is called for each member, which gives each the bits of its own run.

    Raises:
        UsageError: learners that cannot share a compilation.
    """

    def __init__(
        self,
        learners: Sequence[BaseLearner],
        members: Collection[int],
        on_update: Callable[[], None] = lambda: None,
        *,
        batched: bool = False,
    ) -> None:
        first = learners[0]
        for number, learner in enumerate(learners):
            if learner.static != first.static or _structure(learner.hyper) != _structure(first.hyper):
                raise UsageError(f"member {number} cannot share a compilation with member 0: something decides shapes")
        self.turn = threading.Condition(threading.Lock())
        self.error: BaseException | None = None
        self._learners, self._active = list(learners), set(members)
        self._states: _States = _Batched(learners) if batched else _OneByOne(learners)
        self._waiting: dict[int, tuple[Mapping[str, np.ndarray], int]] = {}
        self._infos: dict[int, Mapping[str, Any]] = {}
        self._on_update = on_update

    def agent(self, index: int) -> MemberAgent:
        """Return what a member's run takes for its agent."""
        return MemberAgent(self, index, self._learners[index])

    def leave(self, index: int) -> None:
        """Let the others go on without a member. Call it with the turn held."""
        self._active.discard(index)
        self._waiting.pop(index, None)
        self._meet()

    def update(self, index: int, data: Mapping[str, np.ndarray], utd_ratio: int) -> Mapping[str, Any]:
        """Wait for all members' data and update; returns the member's scalars to log. The turn is held."""
        self._waiting[index] = (data, utd_ratio)
        self._meet()
        while index not in self._infos:
            if self.error is not None:
                raise RuntimeError("the update of another member failed") from self.error
            self.turn.wait()
        return self._infos.pop(index)

    def params(self, index: int) -> dict[str, np.ndarray]:
        """Return copies of what a member's policy acts with."""
        return self._states.params(index)

    def state_arrays(self, index: int) -> dict[str, np.ndarray]:
        """Return copies of a member's state by name."""
        return self._states.arrays(index)

    def _meet(self) -> None:
        if not self._active or len(self._waiting) < len(self._active):
            return
        waiting, self._waiting = self._waiting, {}
        ratio = next(iter(waiting.values()))[1]
        try:
            self._infos |= self._states.update({index: data for index, (data, _) in waiting.items()}, ratio)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.turn.notify_all()
        self._on_update()


class _States(Protocol):
    """The members' learners as they are now."""

    def update(self, data: Mapping[int, Mapping[str, np.ndarray]], utd_ratio: int) -> dict[int, Mapping[str, Any]]: ...

    def params(self, index: int) -> dict[str, np.ndarray]: ...

    def arrays(self, index: int) -> dict[str, np.ndarray]: ...


class _OneByOne:
    """Learners that the one compiled update is called for in turn; numbers that differ are arguments of it."""

    def __init__(self, learners: Sequence[BaseLearner]) -> None:
        self._learners = list(learners)

    def update(self, data: Mapping[int, Mapping[str, np.ndarray]], utd_ratio: int) -> dict[int, Mapping[str, Any]]:
        infos: dict[int, Mapping[str, Any]] = {}
        for index in sorted(data):
            self._learners[index], infos[index] = self._learners[index].update(data[index], utd_ratio)
        return infos

    def params(self, index: int) -> dict[str, np.ndarray]:
        return self._learners[index].policy_params

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        return self._learners[index].state_arrays()


class _Batched:
    """Learners stacked on the first axis of every array, and updated by one program under ``vmap``."""

    def __init__(self, learners: Sequence[BaseLearner]) -> None:
        first = learners[0]
        self._first = first
        self._count, self._cls, self._static = len(learners), type(first), first.static
        self._hyper = jax.tree.map(lambda *rows: jnp.stack(rows), *(learner.hyper for learner in learners))
        self._states = jax.tree.map(lambda *rows: jnp.stack(rows), *(learner.state for learner in learners))
        self._params: dict[str, np.ndarray] | None = None
        self._saved: dict[str, np.ndarray] | None = None

    def update(self, data: Mapping[int, Mapping[str, np.ndarray]], utd_ratio: int) -> dict[int, Mapping[str, Any]]:
        arrays = {index: self._first.checked(rows, utd_ratio) for index, rows in data.items()}
        somebody = next(iter(arrays.values()))
        rows = [arrays.get(index, somebody) for index in range(self._count)]
        stacked = {name: np.stack(_same_length(name, [row[name] for row in rows])) for name in somebody}
        present = np.array([index in data for index in range(self._count)])
        self._states, infos = _update(
            self._cls, self._static, utd_ratio, self._hyper, self._states, stacked, present
        )
        found = {name: np.asarray(value) for name, value in infos.items()}
        self._params = self._saved = None
        return {index: {name: value[index] for name, value in found.items()} for index in data}

    def params(self, index: int) -> dict[str, np.ndarray]:
        if self._params is None:
            published = _published(self._cls, self._static, self._states)
            self._params = {name: np.asarray(value, np.float32) for name, value in published.items()}
        return {name: value[index].copy() for name, value in self._params.items()}

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        if self._saved is None:
            self._saved = flatten_state(self._states)
        return {name: np.array(value[index], copy=True) for name, value in self._saved.items()}


class MemberAgent:
    """A member's learner, as its run sees it; see :class:`racer.agents.protocol.Learner`."""

    def __init__(self, exchange: Exchange, index: int, learner: Any) -> None:
        self._exchange, self._index, self._learner = exchange, index, learner
        self.wants, self.policy = learner.wants, learner.policy

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """See :class:`racer.agents.protocol.Learner`."""
        return self._exchange.params(self._index)

    def update(self, data: Mapping[str, np.ndarray], utd_ratio: int = 1) -> tuple[MemberAgent, Mapping[str, Any]]:
        """See :class:`racer.agents.protocol.Learner`; waits for the other members."""
        return self, self._exchange.update(self._index, data, utd_ratio)

    def state_arrays(self) -> dict[str, np.ndarray]:
        """See :class:`racer.agents.protocol.Learner`."""
        return self._exchange.state_arrays(self._index)


def _structure(tree: Any) -> Any:
    return jax.tree.structure(tree)


def _same_length(name: str, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Bring members' final observations to one length; rows that fill up point one past the end, as theirs do."""
    longest = max(len(row) for row in rows)
    if name not in ("final_observations", "final_index"):
        return rows
    filled = []
    for row in rows:
        missing = longest - len(row)
        last = row[-1:] if name == "final_index" else np.zeros_like(row[:1])
        filled.append(np.concatenate([row, np.repeat(last, missing, axis=0)]) if missing else row)
    return filled


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK_TO_COMPILE)
def _published(cls: type[BaseLearner], static: Any, states: Any) -> dict[str, jax.Array]:
    return jax.vmap(lambda state: acting_params(cls, static, state))(states)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _update(
    cls: type[BaseLearner], static: Any, utd_ratio: int, hyper: Any, states: Any, data: Any, present: Any
) -> tuple[Any, dict[str, jax.Array]]:
    """Update all members ``[M, ...]``; those that are not ``present`` keep their state."""

    def one(numbers: Any, state: Any, rows: Any, here: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        after, info = cls.pure_update(static, numbers, state, rows, utd_ratio)
        return jax.tree.map(lambda new, old: jnp.where(here, new, old), after, state), info

    return jax.vmap(one)(hyper, states, data, present)
