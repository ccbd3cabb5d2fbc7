"""An agent that knows the verbs of the jaxrl family alone, adapted to the protocol of this house.

The verbs: ``create(seed, observation_space, action_space, **config)``, ``update(batch, utd_ratio) -> (agent, info)``,
``sample_actions(observations) -> (actions, agent)`` and ``eval_actions(observations)``. Such an agent acts where it
learns: its policy is no description that a worker process could build, so it trains in a single process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from racer.agents.interfaces import checked_seed
from racer.agents.protocol import REPLAY
from racer.agents.state import flatten_state, restore_state
from racer.core.errors import UsageError, unknown_name

__all__ = ["ForeignLearner", "ForeignPolicy", "adapted"]

VERBS = ("create", "update", "sample_actions", "eval_actions")


class _Cell:
    """Holds the agent that acts: acting moves its random key, so what acts and what learns must be the same."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent


@dataclass(frozen=True, eq=False)
class ForeignPolicy:
    """Acts by the verbs of the agent that learns; see :class:`racer.networks.policy.Policy`.

    Attributes:
        cell: holds the agent.
        name: of the agent's class, for errors.
        discrete: whether an action is a choice.
    """

    cell: _Cell
    name: str
    discrete: bool = False

    observation_shape: ClassVar[None] = None
    has_memory: ClassVar[bool] = False

    @property
    def spec(self) -> dict[str, Any]:
        """Say what it is; nobody can build it from that."""
        return {"kind": "foreign", "model_cls": self.name}

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return nothing."""
        return {}

    def act(
        self,
        params: Mapping[str, np.ndarray],
        observations: np.ndarray,
        memory: Mapping[str, np.ndarray],
        key: Any,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return actions, no memory and no extras; parameters and key are the agent's own."""
        if deterministic:
            actions = self.cell.agent.eval_actions(observations)
        else:
            actions, self.cell.agent = self.cell.agent.sample_actions(observations)
        return np.asarray(actions, np.int64 if self.discrete else np.float32), {}, {}


@dataclass(frozen=True, eq=False)
class ForeignLearner:
    """See :class:`racer.agents.protocol.Learner`.

    Attributes:
        policy: acts with the agent, and holds it.
    """

    policy: ForeignPolicy

    wants: ClassVar[str] = REPLAY
    config_class: ClassVar[None] = None
    foreign_class: ClassVar[Any]
    name: ClassVar[str]

    @classmethod
    def checked_settings(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration, if the class takes every key.

        Raises:
            UsageError: an unknown key, with the nearest one.
        """
        parameters = inspect.signature(cls.foreign_class.create).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            known = [p.name for p in parameters if p.name not in ("seed", "observation_space", "action_space")]
            for key in values:
                if key not in known:
                    raise unknown_name(f"config key of {cls.name}", key, known)
        return dict(values)

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        action_names: Sequence[str] | None = None,
        world: str | None = None,
        **config: Any,
    ) -> ForeignLearner:
        """Create the agent; names of actions and world are not its business."""
        settings = cls.checked_settings(config)
        agent = cls.foreign_class.create(checked_seed(seed), observation_space, action_space, **settings)
        discrete = isinstance(action_space, gym.spaces.Discrete)
        return cls(ForeignPolicy(_Cell(agent), cls.name, discrete))

    @property
    def agent(self) -> Any:
        """The adapted agent."""
        return self.policy.cell.agent

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """Nothing: the policy acts with the agent itself."""
        return {}

    def update(self, data: Mapping[str, np.ndarray], utd_ratio: int = 1) -> tuple[ForeignLearner, dict[str, Any]]:
        """See :meth:`racer.agents.protocol.Learner.update`."""
        self.policy.cell.agent, info = self.agent.update(dict(data), utd_ratio)
        return self, dict(info)

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return the agent's own ``state_arrays``, or the leaves of the pytree that it is.

        Raises:
            UsageError: it is neither, so it cannot be saved.
        """
        if hasattr(self.agent, "state_arrays"):
            return dict(self.agent.state_arrays())
        self._check_pytree()
        return flatten_state(self.agent)

    def with_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> ForeignLearner:
        """Return the learner in the state of ``arrays``.

        Raises:
            UsageError: the state does not fit, or the agent cannot be restored.
        """
        return self._restored(arrays, "with_state_arrays")

    def with_components(self, arrays: Mapping[str, np.ndarray]) -> ForeignLearner:
        """Return the learner in the state of ``arrays``: which parts of it are learnt is not known."""
        return self._restored(arrays, "with_components")

    def _restored(self, arrays: Mapping[str, np.ndarray], verb: str) -> ForeignLearner:
        own: Callable[[Any], Any] | None = getattr(self.agent, verb, None)
        if own is None:
            self._check_pytree()
        agent = own(arrays) if own is not None else restore_state(self.agent, arrays)
        return replace(self, policy=replace(self.policy, cell=_Cell(agent)))

    def _check_pytree(self) -> None:
        import jax

        leaves = jax.tree.leaves(self.agent)
        if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
            raise UsageError(
                f"{self.name} cannot be saved: it is neither a pytree of arrays nor has it state_arrays and "
                "with_state_arrays"
            )


def adapted(cls: Any, name: str) -> type[ForeignLearner]:
    """Return the class of learners that adapts ``cls``.

    Raises:
        UsageError: a verb is missing.
    """
    missing = [verb for verb in VERBS if not callable(getattr(cls, verb, None))]
    if missing:
        raise UsageError(f"agent {name!r} lacks the verbs: {', '.join(missing)}")
    return type(getattr(cls, "__name__", name), (ForeignLearner,), {"foreign_class": cls, "name": name})
