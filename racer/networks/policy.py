"""Policies: from observations and memory to actions, the same code in workers, evaluation and the learner.

A policy is a frozen description; its parameters are handed in at every call. From outside it takes its world's
observations and gives its world's actions, whatever view of the one and controller of the other it uses inside.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from racer.core.config import check_fields, option
from racer.core.errors import UsageError, shown, unknown_name
from racer.envs.registry import get_world
from racer.envs.world import Controller, View
from racer.networks import random
from racer.networks.distributions import (
    HEADS,
    BetaHead,
    Bounds,
    CategoricalHead,
    Distribution,
    Head,
    Start,
    TanhGaussianHead,
)
from racer.networks.fields import freeze, require, thaw
from racer.networks.layers import MAX_WIDTH, Array, Params, namespace, weights
from racer.networks.memory import Memory, Sequence, cleared, merged
from racer.networks.past import upgraded
from racer.networks.torso import Torso, build_torso
from racer.networks.uniform import UniformPolicy

__all__ = ["MAX_RISK", "ActingPolicy", "AnyPolicy", "Policy", "build_policy", "cleared", "merged", "world_transform"]

MAX_RISK = 0.95
"""Highest level that is drawn in training; few returns are left beyond."""

LOG_STD_LIMITS = {"squashed_gaussian": (-20.0, 2.0), "tanh_gaussian": (-5.0, 2.0)}
"""Usual clips of the logarithm of the standard deviation, of the SAC family and of on-policy agents."""


class ActingPolicy(Protocol):
    """All that collecting and evaluating need of a policy, whoever wrote it; see :class:`Policy`."""

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return the memory of ``count`` episodes that begin."""
        ...

    def act(
        self, params: Any, observations: Any, memory: Any, key: Any, deterministic: bool = False
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Return actions ``[N, A]`` (choices ``[N]``) for observations ``[N, ...]``, memory after them, and extras."""
        ...


@dataclass(frozen=True)
class Policy:
    """A learnt policy.

    Correlated noise (``noise_correlation`` c above 0) is ``x_t = c x_(t-1) + sqrt(1 - c^2) e_t``: each draw alone stays
    standard normal, so the distribution in a state is what it was. White noise at 5 Hz cancels out before it has moved
    anything (an autoregressive form of the noise of Lillicrap et al. 2015, arXiv 1509.02971).

    Raises:
        UsageError: a value out of range, or names that the world does not know.
    """

    kind: str = option(MISSING, "the action distribution", choices=HEADS)
    observation_shape: tuple[int, ...] = option(MISSING, "shape of one observation of the world", empty=False)
    torso: Torso = option(MISSING, "what lies below the head; reads the observation through the view")
    size: int = option(MISSING, "numbers in an action of the head, or how many choices", low=1, high=MAX_WIDTH)
    start: int = option(0, "number of the first choice")
    log_std_min: float = option(-20.0, "lower clip of a Gaussian's log-deviation")
    log_std_max: float = option(2.0, "upper clip of a Gaussian's log-deviation")
    action_names: tuple[str, ...] = option((), "name of each action, in order, or empty")
    learned_action: str | None = option(None, "name of the action with a learned limit")
    noise_correlation: float = option(0.0, "of a Gaussian's noise from one step to the next", low=0.0, below=1.0)
    world: str | None = option(None, "where view and controller are looked up")
    view: str | None = option(None, "name of an observation transform of the world")
    controller: str | None = option(None, "name of an action transform of the world")
    risk: float | None = option(
        None, "risk level the networks are told beside each observation; None: they are told none", low=0.0, high=1.0
    )
    risk_drawn: bool = option(False, "whether draws are told a level of the episode's own, uniform below MAX_RISK")

    def __post_init__(self) -> None:
        check_fields(self, "key of a policy")
        if self.action_names and len(self.action_names) != self.size:
            raise UsageError(f"policy has {self.size} actions but {len(self.action_names)} action_names")
        if self.discrete and self.controller is not None:
            raise UsageError(f"controller {self.controller!r} takes numbers, but the policy makes choices")
        if self.torso.shape != self._viewed_shape():
            raise UsageError(f"the torso reads {list(self.torso.shape)}, the policy gives {list(self._viewed_shape())}")
        if self.risk_drawn and self.risk is None:
            raise UsageError("risk_drawn is for a policy that is told a risk level: risk is None")
        _ = self.head, self._controller

    @cached_property
    def head(self) -> Head:
        """The action distribution."""
        if self.kind == "categorical":
            return CategoricalHead(self.size)
        if self.kind == "beta":
            return BetaHead(self.size)
        per_state = self.kind == "squashed_gaussian"
        return TanhGaussianHead(self.size, self.log_std_min, self.log_std_max, per_state)

    @property
    def discrete(self) -> bool:
        """Whether an action is a choice ``[N]`` rather than numbers ``[N, A]``."""
        return self.kind == "categorical"

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action of the head."""
        return () if self.discrete else (self.size,)

    @property
    def has_memory(self) -> bool:
        """Whether training unrolls it over sequences (correlated noise alone does not count)."""
        return self.torso.core is not None

    @property
    def spec(self) -> dict[str, Any]:
        """JSON-able and complete: ``build_policy(policy.spec) == policy``."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**{name: thaw(value) for name, value in fields.items()}, "torso": self.torso.spec}

    def init(self, key: Any, start: Start | None = None) -> dict[str, Array]:
        """Draw the trained parameters (JAX), flat: ``trunk/hidden_0/kernel``, ``mean/bias``, ..."""
        import jax

        start = start or Start()
        torso_key, head_key = jax.random.split(key)
        torso = self.torso.init(torso_key, orthogonal_init=start.orthogonal)
        return torso | self.head.init(head_key, self.torso.width, start)

    def initial_memory(self, count: int) -> dict[str, np.ndarray]:
        """Return the memory of ``count`` episodes that begin: zeros ``[count, ...]`` by name, or nothing."""
        memory = self.torso.initial_memory(count)
        if self.noise_correlation > 0.0:
            memory["noise"] = np.zeros((count, self.size), np.float32)
            memory["noise_begun"] = np.zeros((count, 1), np.float32)
        if self.risk_drawn:
            memory["risk"] = np.zeros((count, 1), np.float32)
            memory["risk_begun"] = np.zeros((count, 1), np.float32)
        return memory

    def without_exploration(self) -> Policy:
        """Return the same distribution in every state, with draws independent from step to step and one risk level."""
        return dataclasses.replace(self, noise_correlation=0.0, risk_drawn=False)

    def at_risk(self, level: float) -> Policy:
        """Return the policy at another risk level.

        Raises:
            UsageError: it was not trained for several, or there is no such level.
        """
        if self.risk is None:
            raise UsageError("this policy has the one risk level that it was trained for (risk_conditioned is off)")
        if not 0.0 <= level <= 1.0:
            raise UsageError(f"a risk level (cvar_risk) lies between 0 and 1, got {level:g}")
        return dataclasses.replace(self, risk=level)

    def act(
        self, params: Params, observations: Array, memory: Memory, key: Any, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """Choose actions.

        Args:
            params: trained parameters, and for numbers the range ``action_low``, ``action_high`` ``[A]``: a learned
                limit moves it during training, and a policy always acts inside the range it was published with.
            observations: ``[N, *observation_shape]``, or flattened.
            memory: from the last call, :meth:`initial_memory` at first. A cache among NumPy arrays is written into, so
                copy it to go on from the same memory twice; the last call's own step may be taken again.
            key: a NumPy generator for NumPy arrays, a JAX key for JAX arrays.
            deterministic: take the mode instead of drawing.

        Returns:
            Actions of the world, float32 ``[N, A]`` inside the range or integers ``[N]``; the memory after them; and
            what a learner wants to know: of on-policy kinds ``log_probs`` ``[N]`` and ``draws`` ``[N, A]``, under a
            controller ``policy_actions`` ``[N, A]``, what the head chose.

        Raises:
            UsageError: observations of another shape.
        """
        shaped = self.shaped(observations)
        level, told = self._level(memory, shaped.shape[0], key, deterministic)
        features, after = self.torso.step(params, self.viewed(shaped, level), memory)
        after |= told
        head, bounds = self.head, self.bounds(params)
        distribution = head.parameters(params, features)
        if deterministic:
            draws = head.mode(distribution)
            after |= {name: memory[name] for name in memory if name not in after}
        else:
            draws, noise = self._draw(distribution, memory, key)
            after |= noise
        actions = head.actions(draws, bounds)
        extras = {} if self.kind == "squashed_gaussian" else {"log_probs": head.log_probs(distribution, draws, bounds)}
        if self.discrete:
            return actions + self.start, after, extras
        if extras:
            extras["draws"] = draws
        assert bounds is not None
        # Clipping mends the rounding of the stretching alone; the density is taken at the draw and does not know of it.
        actions = namespace(actions).clip(actions, *bounds)
        if self._controller is None:
            return actions, after, extras
        return self._controller(shaped, actions), after, {**extras, "policy_actions": actions}

    def unroll(
        self,
        params: Params,
        observations: Array,
        memory: Memory,
        forget: Array,
        valid: Array,
        peek: Array | None = None,
    ) -> tuple[Distribution, Array, Array | None]:
        """Read whole sequences as training does (JAX): the same mathematics as :meth:`act`, step by step.

        Args:
            params: trained parameters.
            observations: ``[T, N, ...]`` as :meth:`viewed` gives them.
            memory: before the first row.
            forget: ``[T, N]``, 1 where the memory is cleared after the row.
            valid: ``[T, N]``, 0 where a row is no transition; it leaves the memory as it was.
            peek: ``[T, N, ...]`` of :meth:`viewed`, each row's successor in its own episode, or None.

        Returns:
            The distribution's parameters, the features ``[T, N, H]``, and the features of ``peek``.
        """
        rows = Sequence(forget, valid)
        features, peeked = self.torso.unroll(params, observations, memory, rows, peek)
        return self.head.parameters(params, features), features, peeked

    def features(self, params: Params, observations: Array) -> Array:
        """Return the features ``[..., H]`` of what :meth:`viewed` gives; for policies without a core."""
        if self.has_memory:
            raise UsageError("a policy with a memory has no features of an observation alone; use unroll")
        return self.torso.before_memory(params, observations)

    def distribution(self, params: Params, features: Array) -> Distribution:
        """Return the distribution's parameters on features."""
        return self.head.parameters(params, features)

    def bounds(self, params: Params) -> Bounds | None:
        """Return the action range, or None for choices."""
        if self.discrete:
            return None
        return weights(params, "action_low", self.size), weights(params, "action_high", self.size)

    def attention(self, params: Params, observations: Array, memory: Memory) -> Array:
        """Return what :meth:`act` reads of its memory ``[N, layers, heads, slots]``; a row sums to 1.

        Raises:
            UsageError: the policy remembers with no transformer, or observations of another shape.
        """
        look = getattr(self.torso.core, "attention", None)
        if look is None:
            raise UsageError("the policy has no attention over a memory: it was not trained with a transformer")
        read: Array = look(params, self.torso.before_memory(params, self.viewed(self.shaped(observations))), memory)
        return read

    def shaped(self, observations: Array) -> Array:
        """Return ``[..., *observation_shape]`` from that or from flattened observations ``[..., D]``.

        Raises:
            UsageError: the observations are of another size.
        """
        shape = self.observation_shape
        rank = len(shape)
        if observations.ndim > rank and observations.shape[-rank:] == shape:
            return observations
        if observations.ndim > 1 and observations.shape[-1] == math.prod(shape):
            return observations.reshape(*observations.shape[:-1], *shape)
        sizes = ", ".join(map(str, shape))
        raise UsageError(f"the policy takes observations [N, {sizes}], got {list(observations.shape)}")

    def viewed(self, observations: Array, risk: Array | None = None) -> Array:
        """Return what the torso reads ``[..., *torso.shape]`` of the world's observations, shaped or flattened.

        Learners look at a batch once; critics, :meth:`features` and :meth:`unroll` take what comes out.

        Args:
            observations: of the world.
            risk: the level of each, ``[...]``; the policy's own where None. It joins every row of what is seen.
        """
        shaped = self.shaped(observations)
        seen = shaped if self._view is None else self._view(shaped)
        if self.risk is None:
            return seen
        xp, lead = namespace(seen), seen.shape[: seen.ndim - len(self.torso.shape)]
        level = xp.full(lead, self.risk, dtype=seen.dtype) if risk is None else risk
        rows = xp.reshape(level, (*lead, *[1] * len(self.torso.shape)))
        return xp.concatenate([seen, xp.broadcast_to(rows, (*seen.shape[:-1], 1))], axis=-1)

    def told_risk(self, seen: Array) -> Array:
        """Return the risk levels ``[...]`` that :meth:`viewed` has joined to what is seen."""
        rows = len(self.torso.shape) - 1
        return seen[(..., *[0] * rows, -1)]

    def _level(
        self, memory: Memory, count: int, key: Any, deterministic: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the risk levels ``[N]`` of a step, and what is remembered of them."""
        if not self.risk_drawn or deterministic:
            return None, {}
        xp = namespace(memory["risk"])
        fresh = random.uniform(key, (count, 1)) * np.float32(MAX_RISK)
        level = xp.where(memory["risk_begun"] > 0.0, memory["risk"], fresh)
        return level[:, 0], {"risk": level, "risk_begun": xp.ones_like(memory["risk_begun"])}

    def _draw(self, distribution: Distribution, memory: Memory, key: Any) -> tuple[Array, dict[str, Array]]:
        """Draw, with noise that remembers the last step's where the policy says so."""
        head = self.head
        if self.noise_correlation == 0.0 or not isinstance(head, TanhGaussianHead):
            return head.draw(distribution, key), {}
        fresh = random.normal(key, distribution["mean"].shape)
        xp, begun = namespace(fresh), memory["noise_begun"] > 0.0
        correlation = xp.where(begun, np.float32(self.noise_correlation), np.float32(0.0))
        share = xp.where(begun, np.float32(np.sqrt(1.0 - self.noise_correlation**2)), np.float32(1.0))
        noise = correlation * memory["noise"] + share * fresh
        return head.draw_with(distribution, noise), {"noise": noise, "noise_begun": xp.ones_like(memory["noise_begun"])}

    def _viewed_shape(self) -> tuple[int, ...]:
        shape = self.observation_shape if self._view is None else self._view.shape(self.observation_shape)
        return shape if self.risk is None else told_shape(shape)

    @cached_property
    def _view(self) -> View | None:
        return None if self.view is None else world_transform(self.world, "view", self.view)

    @cached_property
    def _controller(self) -> Controller | None:
        return None if self.controller is None else world_transform(self.world, "controller", self.controller)


AnyPolicy = Policy | UniformPolicy


def build_policy(spec: Mapping[str, Any]) -> AnyPolicy:
    """Build the policy that ``spec`` describes, in today's form or an earlier one.

    Raises:
        UsageError: unknown kind, unknown or missing key, or a value of the wrong form.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get("kind"), str):
        raise UsageError(f"a policy is described by a mapping with a 'kind', got {shown(spec)}")
    if spec["kind"] == "uniform":
        return require(UniformPolicy, "policy 'uniform'", {k: v for k, v in spec.items() if k != "kind"})
    if spec["kind"] not in HEADS:
        raise unknown_name("policy kind", spec["kind"], [*HEADS, "uniform"])
    fields = upgraded(spec)
    if fields["kind"] == "categorical":
        fields["size"] = fields.pop("num_choices", fields.get("size"))
    elif "action_dim" in fields:
        fields["size"] = fields.pop("action_dim")
    shape, view = freeze(fields.get("observation_shape", ())), fields.get("view")
    if not isinstance(fields.get("torso"), Mapping):
        raise UsageError(f"policy {fields['kind']!r} lacks: torso")
    viewed = shape if view is None else world_transform(fields.get("world"), "view", view).shape(shape)
    if fields.get("risk") is not None:
        viewed = told_shape(viewed)
    fields["torso"] = build_torso(viewed, fields["torso"])
    return require(Policy, f"policy {fields['kind']!r}", fields)


def told_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of what is seen once a risk level has joined each row of it."""
    return (*shape[:-1], shape[-1] + 1)


@lru_cache(maxsize=64)
def world_transform(world: str | None, kind: str, name: str) -> Any:
    """Return a ``"view"`` or a ``"controller"`` of a world by name.

    Raises:
        UsageError: there is none, or no world is named.
    """
    if world is None:
        raise UsageError(f"{kind} {name!r} is a world's, but the policy names no world")
    found = get_world(world)
    return found.view(name) if kind == "view" else found.controller(name)
