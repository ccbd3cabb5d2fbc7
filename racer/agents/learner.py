"""The verbs of every agent in this house, written once around its two pure functions.

An algorithm is a configuration, a :class:`Static` built from it, ``initial_state(static, hyper, key)`` and
``update(static, hyper, state, data, utd_ratio)``. Both functions are pure, so a population is trained by ``jax.vmap``
over hyperparameters, states and data. Compiling and donating happens here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import gymnasium as gym
import jax
import numpy as np

from racer.agents.hyper import Fixed, Hyper, split
from racer.agents.interfaces import Interfaces, checked_seed
from racer.agents.state import flatten_state, replaced_components, restore_state, strong
from racer.core.config import NamedNumbers, from_mapping, option
from racer.core.errors import UsageError
from racer.core.memory import memory_limit
from racer.networks.distributions import Start
from racer.networks.policy import Policy, build_policy

__all__ = ["AgentConfig", "BaseLearner", "Static", "agent_policy", "run_update"]

# For functions that run once: optimizing them takes longer than they will ever run.
QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}

_MEMORY_SHARE = 0.5
"""Of the memory there is, what an agent's state may take: an update needs as much again for its gradients."""


@dataclass(frozen=True)
class AgentConfig:
    """The keys that every agent has."""

    view: str | None = option(None, "Observation transform of the world that policy and critics see through, by name.")
    controller: str | None = option(None, "Action transform of the world that the policy acts through, by name.")
    encoder: str | dict[str, Any] = option(
        "flat", 'What reads an observation first, as {"kind": "pointnet", "widths": [32, 64]}.'
    )
    positional_encoding: str | dict[str, Any] | None = option(
        None,
        'What tells the encoder where the rows of an observation stand: "rank", "distance" or "rotary", or a '
        'description as {"kind": "rotary", "max_distance": 100.0}; the world says which columns are positions.',
    )
    observation_scale: float | tuple[float, ...] | None = option(
        None, "Factor on the observation: one number, one for each number of a row, or None.", above=0.0
    )
    memory: str | dict[str, Any] | None = option(
        None, 'What the policy remembers with, as {"kind": "gru", "size": 64} or "gru"; None for nothing.'
    )
    initial_action: NamedNumbers = option(
        (),
        'Where the first policy\'s mean lies, for actions by name in their own unit, as {"acceleration": 0.3}; actions '
        "not named start at the centre of the range that the policy uses.",
    )

    def fitted(self, transitions: int, gradient_steps: int) -> Self:
        """Return the configuration with what follows from the length of a run filled in, where it is None.

        Args:
            transitions: that the run will take in.
            gradient_steps: that it will make; 0 where the agent decides that itself.
        """
        return self

    def check_utd_ratio(self, utd_ratio: int) -> None:
        """Refuse a number of gradient steps an update that this agent cannot learn with.

        Raises:
            UsageError: naming the key.
        """

    def check_num_envs(self, num_envs: int) -> None:
        """Refuse a number of environments side by side that this agent cannot learn from.

        Raises:
            UsageError: naming the key.
        """


@dataclass(frozen=True)
class Static:
    """What an agent's compiled functions are specialised on; equal ones share a compilation.

    Attributes:
        config: the configuration without its swept fields.
        interfaces: observations and actions.
        policy: what acts.
        start: the policy that training begins with.
    """

    config: Fixed
    interfaces: Interfaces
    policy: Policy
    start: Start


def agent_policy(
    config: Any, interfaces: Interfaces, kind: str, hidden_dims: tuple[int, ...], activation: str, **fields: Any
) -> Policy:
    """Return the policy of an agent.

    Raises:
        UsageError: a part that does not fit the observations, or a view that the world does not have.
    """
    scale = config.observation_scale
    if fields.get("risk") is not None and isinstance(scale, tuple):
        scale = (*scale, 1.0)
    torso = {
        "hidden_dims": hidden_dims,
        "activation": activation,
        "observation_scale": scale,
        "encoder": config.encoder,
        "memory": config.memory,
        "positions": config.positional_encoding,
    }
    policy = build_policy({"kind": kind, **interfaces.policy_fields, "torso": torso, **fields})
    assert isinstance(policy, Policy)
    return policy


@dataclass(frozen=True)
class BaseLearner:
    """Base of the agents; see :class:`racer.agents.protocol.Learner`.

    Attributes:
        static: what does not change during training.
        hyper: numbers that do not either, but differ within a population.
        state: what does change; a named tuple with the component ``actor`` and the random key ``rng``.
    """

    static: Any
    hyper: Hyper
    state: Any

    wants: ClassVar[str]
    config_class: ClassVar[type[Any]]
    components: ClassVar[tuple[str, ...]]
    """Parts of the state that are learnt, as :meth:`reset` names them."""
    initial_state: ClassVar[Callable[..., Any]]
    """Pure: static, hyper and a random key ``[2]`` uint32 to a fresh state."""
    pure_update: ClassVar[Callable[..., tuple[Any, dict[str, jax.Array]]]]
    """Pure: static, hyper, state, data and utd_ratio to the next state and scalars to log."""

    @staticmethod
    def prepare(config: Any, fixed: Fixed, interfaces: Interfaces) -> Any:
        """Return the :class:`Static` of a checked configuration."""
        raise NotImplementedError

    @staticmethod
    def bounds(static: Any, state: Any) -> tuple[jax.Array, jax.Array] | None:
        """Return the action range ``[A]``, ``[A]`` that the policy acts in; None for choices."""
        raise NotImplementedError

    def checked(self, data: Mapping[str, np.ndarray], utd_ratio: int) -> dict[str, np.ndarray]:
        """Return the fields that the update reads, or raise UsageError."""
        raise NotImplementedError

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
    ) -> Self:
        """Build a fresh agent.

        Args:
            seed: non-negative; equal seeds give equal agents.
            observation_space: of one environment.
            action_space: of one environment.
            action_names: see :meth:`outline`.
            world: see :meth:`outline`.
            config: keys of the agent's configuration class.

        Raises:
            UsageError: as :meth:`outline`.
        """
        static, hyper = cls.outline(
            observation_space, action_space, action_names=action_names, world=world, **config
        )
        return cls(static, hyper, _initial_state(cls, static, hyper, jax.random.PRNGKey(checked_seed(seed))))

    @classmethod
    def outline(
        cls,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        action_names: Sequence[str] | None = None,
        world: str | None = None,
        **config: Any,
    ) -> tuple[Any, Hyper]:
        """Check everything that an agent is built from; nothing is drawn and nothing compiled.

        Args:
            observation_space: Box ``[D]`` or ``[V, F]``, of one environment.
            action_space: bounded Box ``[A]``; Discrete where the agent can choose.
            action_names: name of each action, needed where a key of ``config`` addresses one by name.
            world: name of the world, needed where ``config`` names a view or a controller.
            config: keys of the agent's configuration class.

        Raises:
            UsageError: an unknown key, a value out of range, or a space the agent cannot serve.
        """
        name = cls.__name__
        checked = from_mapping(cls.config_class, config, f"{name} config key")
        interfaces = Interfaces.from_spaces(
            name, observation_space, action_space, action_names=action_names, world=world,
            view=checked.view, controller=checked.controller,
        )  # fmt: skip
        fixed, hyper = split(checked)
        return cls.prepare(checked, fixed, interfaces), hyper

    def update(self, data: Mapping[str, np.ndarray], utd_ratio: int = 1) -> tuple[Self, dict[str, jax.Array]]:
        """Learn from ``data``; this object's arrays are donated. See :meth:`racer.agents.protocol.Learner.update`."""
        arrays = self.checked(data, utd_ratio)
        state, info = run_update(type(self), self.static, self.hyper, self.state, arrays, utd_ratio)
        return self._with(state), info

    def sample_actions(self, observations: np.ndarray) -> tuple[np.ndarray, Self]:
        """Draw actions ``[N, A]`` for ``[N, D]`` (or ``[A]`` for ``[D]``); the returned agent has the next random key.

        Each call is the first step of an episode. Who acts over time keeps the memory and calls ``policy.act``.
        """
        rng, key = jax.random.split(self.state.rng)
        return self._act(observations, key, False), self._with(self.state._replace(rng=rng))

    def eval_actions(self, observations: np.ndarray) -> np.ndarray:
        """Return the policy's most likely actions, inside the action range and learned limits."""
        return self._act(observations, self.state.rng, True)

    @property
    def policy(self) -> Policy:
        """What acts, with :attr:`policy_params`."""
        return self.static.policy

    @property
    def policy_spec(self) -> dict[str, Any]:
        """JSON-able description for :func:`racer.networks.policy.build_policy`."""
        return self.policy.spec

    @property
    def policy_params(self) -> dict[str, np.ndarray]:
        """Parameters of the policy and the current action range, float32 copies."""
        params = _published(type(self), self.static, self.state)
        return {name: np.array(leaf, dtype=np.float32, copy=True) for name, leaf in params.items()}

    def reset(self, exclude: Collection[str] = ()) -> Self:
        """Draw fresh parameters and optimizer states for every component not named in ``exclude``.

        Raises:
            UsageError: an unknown component.
        """
        rng, key = jax.random.split(self.state.rng)
        fresh = _initial_state(type(self), self.static, self.hyper, key)
        return self._with(replaced_components(self.state, fresh, self.components, exclude)._replace(rng=rng))

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return the whole state as named copies."""
        return flatten_state(self.state)

    def with_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return this agent in the state of ``arrays``; see :func:`racer.agents.state.restore_state`."""
        return self._with(restore_state(self.state, arrays))

    def with_components(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return this agent with the components of ``arrays``: what another one of its kind learnt.

        Random key and counts, and with them schedules, stay this agent's own. A mean of the weights that this agent
        keeps and the other one did not begins at the other's weights; one that only the other kept is what it drove
        with, and this agent's actor begins there.
        """
        means = {name: name.replace("/params/", "/average/", 1) for name in arrays if name.startswith("actor/params/")}
        known = dict(arrays)
        if self.state.actor.average is not None:
            known = {**{mean: arrays[name] for name, mean in means.items()}, **known}
        else:
            known |= {name: known.pop(mean) for name, mean in means.items() if mean in known}
        return self._with(replaced_components(self.state, restore_state(self.state, known), self.components))

    def _with(self, state: Any) -> Self:
        return replace(self, state=state)

    def _act(self, observations: np.ndarray, key: jax.Array, deterministic: bool) -> np.ndarray:
        given = np.asarray(observations, dtype=np.float32)
        shape = self.static.interfaces.observation_shape
        single = given.shape == shape or given.ndim == 1
        if given.ndim == 0:
            raise UsageError(f"observations must be {list(shape)} or [N, ...], got a single number")
        rows = self.policy.shaped(given[None] if single else given)
        actions = np.array(_act(type(self), self.static, self.state, rows, key, deterministic))
        actions = actions.astype(np.int64) if self.policy.discrete else actions
        return actions[0] if single else actions


def acting_params(cls: type[BaseLearner], static: Any, state: Any) -> dict[str, jax.Array]:
    """Return what ``Policy.act`` takes: the actor's parameters or their mean, and of numbers the action range."""
    bounds = cls.bounds(static, state)
    ends = {} if bounds is None else {"action_low": bounds[0], "action_high": bounds[1]}
    return {**state.actor.kept, **ends}


_published = jax.jit(acting_params, static_argnums=(0, 1), compiler_options=QUICK_TO_COMPILE)


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK_TO_COMPILE)
def _initial_state(cls: type[BaseLearner], static: Any, hyper: Hyper, key: jax.Array) -> Any:
    state = cls.initial_state(static, hyper, key)
    # While it is traced nothing has been computed yet: what cannot be kept is refused before it is drawn.
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if size > _MEMORY_SHARE * memory_limit():
        raise UsageError(
            f"{cls.__name__} with its networks and optimizers takes {size / 2**30:.0f} GiB, which does not fit into "
            "memory: choose smaller widths (*_dims), fewer critics (num_qs) or atoms"
        )
    return strong(state)


@partial(jax.jit, static_argnums=(0, 1, 5), donate_argnums=3)
def run_update(
    cls: type[BaseLearner], static: Any, hyper: Hyper, state: Any, data: dict[str, jax.Array], utd_ratio: int
) -> tuple[Any, dict[str, jax.Array]]:
    """Run one update of an agent's class, compiled; ``state`` is donated, do not use it afterwards."""
    return cls.pure_update(static, hyper, state, data, utd_ratio)


@partial(jax.jit, static_argnums=(0, 1, 5), compiler_options=QUICK_TO_COMPILE)
def _act(
    cls: type[BaseLearner], static: Any, state: Any, observations: jax.Array, key: jax.Array, deterministic: bool
) -> jax.Array:
    policy = static.policy.without_exploration()
    memory = policy.initial_memory(len(observations))
    return policy.act(acting_params(cls, static, state), observations, memory, key, deterministic)[0]
