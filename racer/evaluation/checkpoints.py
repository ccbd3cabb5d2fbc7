"""A checkpoint as an evaluation sees it: the acting policy, its arrays and the world it was trained in."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from racer.core.checkpoint import CheckpointError, read_checkpoint
from racer.core.errors import UsageError, shown
from racer.core.shipped import resolve_checkpoint
from racer.core.trust import name_code
from racer.envs.registry import stored_world
from racer.envs.world import World
from racer.evaluation.drivers import PREFIX, DriverPolicy, find_driver
from racer.networks.frozen import built_policy
from racer.networks.memory import Memory, cleared
from racer.networks.policy import AnyPolicy, Policy

__all__ = ["TrainedPolicy", "config_differences", "load_policy", "resolve_checkpoint"]

REQUIRED_METADATA = ("policy_spec", "env_config")


@dataclass(frozen=True)
class TrainedPolicy:
    """What a checkpoint says about its policy; enough to act without training flags, a config file or JAX.

    Attributes:
        policy: acts; what it draws has no memory from step to step, which is for collecting only. A driver is yet to
            be made for its environment.
        params: the policy's arrays.
        world: that it was trained in.
        env_config: the complete configuration of the training environment.
        agent_name: the learner's class name, or None where the checkpoint does not say.
        agent_config: the learner's complete configuration.
        path: of the checkpoint folder.
        step: transitions that the policy had learnt from.
        seed: of the training run, or None.
    """

    policy: AnyPolicy | DriverPolicy
    params: Mapping[str, np.ndarray]
    world: World
    env_config: Mapping[str, Any]
    agent_name: str | None
    agent_config: Mapping[str, Any]
    path: Path
    step: int
    seed: int | None

    def __repr__(self) -> str:
        """One line: which policy this is."""
        return f"TrainedPolicy({self.label}: {self.agent_name or 'a driver'} in {self.world.name}, step {self.step})"

    def at_risk(self, level: float) -> TrainedPolicy:
        """Return the policy at another risk level.

        Raises:
            UsageError: it was not trained for several, or there is no such level.
        """
        if not isinstance(self.policy, Policy):
            raise UsageError(f"{str(self.path)!r} has no risk level to be chosen")
        policy = self.policy.at_risk(level)
        return dataclasses.replace(self, policy=policy, agent_config={**self.agent_config, "cvar_risk": level})

    @property
    def name(self) -> str:
        """The checkpoint folder's name ("checkpoint_10000"), which videos are named after."""
        return self.path.name.replace(":", "-")

    @property
    def label(self) -> str:
        """Run and checkpoint ("run_42/checkpoint_10000"), which tell policies apart."""
        return "/".join(part for part in self.path.parts[-2:] if part)

    def predict(
        self,
        observation: Any,
        memory: Memory | None = None,
        deterministic: bool = True,
        *,
        state: Memory | None = None,
        episode_start: Any = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Choose an action as Stable-Baselines3's ``predict`` does, or actions for a batch.

        Args:
            observation: of the policy's world, ``[*observation_shape]`` or ``[N, *observation_shape]``, or flattened.
            memory: what the last call returned; None where an episode begins.
            deterministic: take the most likely action; otherwise one is drawn.
            state: ``memory`` under Stable-Baselines3's name, so that its ``evaluate_policy`` takes this policy.
            episode_start: ``[N]``, true where an episode begins and the memory is to be forgotten.
            rng: where draws come from; new each call if None.

        Returns:
            The action ``[A]`` float32 (a number for choices), with a leading axis ``[N]`` for a batch, and the memory
            for the next call, empty for policies without one.

        Raises:
            UsageError: an observation of another shape, a memory of another policy or batch, or a driver, which acts in
                its own environment only.
        """
        if isinstance(self.policy, DriverPolicy):
            raise UsageError(f"{str(self.path)!r} drives in an environment whose state it reads; use racer.evaluate")
        given = np.asarray(observation, np.float32)
        shape = self.policy.observation_shape
        single = shape is None or given.shape in (shape, (math.prod(shape),))
        rows = given[None] if single else given
        blank = self.policy.initial_memory(len(rows))
        before = memory if memory is not None else state
        before = blank if before is None else before
        for name, array in blank.items():
            if name not in before or np.shape(before[name]) != array.shape:
                raise UsageError(f"the memory is not one of this policy for {len(rows)} observations: see {name!r}")
        if episode_start is not None:
            before = cleared(before, np.broadcast_to(np.asarray(episode_start, bool), len(rows)))
        key = rng or np.random.default_rng()
        actions, after, _ = self.policy.act(self.params, rows, before, key, deterministic)
        return (actions[0] if single else actions), after


def load_policy(path: str | os.PathLike[str], named_world: str | None = None) -> TrainedPolicy:
    """Read the acting policy of a checkpoint or run folder; only the policy's own file is read.

    ``driver:<name>`` is no folder but a driver of the default world, in its default configuration. ``path`` is what a
    person typed: a driver's world is trusted as named by it, a checkpoint's is not.

    Args:
        path: checkpoint, run folder, name of a shipped policy, or driver.
        named_world: the checkpoint's world as a person names it, whose code is trusted therefore.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, newer than this version, no checkpoint at all, or its
            policy arrays do not fit its policy specification.
        UsageError: the policy is of an unknown kind or acts where it learns alone, its world is unknown, not installed
            or runs code that nobody named, or there is no such driver.
    """
    name_code(named_world)
    if os.fspath(path).startswith(PREFIX):
        world, driver = find_driver(os.fspath(path))
        return TrainedPolicy(driver, {}, world, world.resolve(world.driver_config), None, {}, Path(path), 0, None)
    folder = resolve_checkpoint(path, ["policy"])
    checkpoint = read_checkpoint(folder, groups=["policy"])
    metadata = checkpoint.metadata
    for key in REQUIRED_METADATA:
        if not isinstance(metadata.get(key), dict):
            raise CheckpointError(f"checkpoint {str(folder)!r} cannot be evaluated: its manifest has no {key!r}")
    try:
        world, env_config = stored_world(metadata.get("world"), metadata["env_config"])
    except UsageError as error:
        raise UsageError(f"the world of checkpoint {str(folder)!r}: {error}") from error
    if named_world not in (None, world.name):
        raise UsageError(f"--world is {shown(named_world)}, but checkpoint {str(folder)!r} is of {world.name!r}")
    spec = metadata["policy_spec"]
    if spec.get("kind") == "foreign":
        raise UsageError(
            f"checkpoint {str(folder)!r} is of agent {shown(spec.get('model_cls'))}, which acts where it learns alone; "
            "what it reached stands in the run's metrics.jsonl (--eval_interval)"
        )
    params = checkpoint.groups["policy"]
    policy = built_policy(folder, spec, params)
    return TrainedPolicy(
        policy=policy.without_exploration() if isinstance(policy, Policy) else policy,
        params=params,
        world=world,
        env_config=env_config,
        agent_name=metadata.get("agent_name"),
        agent_config=metadata.get("agent_config") or {},
        path=folder,
        step=checkpoint.step,
        seed=metadata.get("seed"),
    )


def config_differences(
    trained: TrainedPolicy,
    agent_name: str,
    agent_config: Mapping[str, Any],
    env_config: Mapping[str, Any],
    *,
    ignore: Collection[str] = (),
) -> list[str]:
    """Say key by key where a config file, completed with its defaults, differs from a checkpoint.

    Args:
        trained: the checkpoint.
        agent_name: the agent that the file is for.
        agent_config: its complete agent configuration.
        env_config: its complete environment configuration.
        ignore: environment keys to leave out, as they are overridden on purpose.
    """
    if trained.agent_name is not None and agent_name != trained.agent_name:
        return [f"--config is for {agent_name}, the checkpoint holds {trained.agent_name}"]
    found = []
    for label, file, stored, left_out in (
        ("", agent_config, trained.agent_config, ()),
        ("env.", env_config, trained.env_config, ignore),
    ):
        for key in sorted(file.keys() & stored.keys() - set(left_out)):
            if _comparable(file[key]) != _comparable(stored[key]):
                found.append(
                    f"--config has {label}{key} = {file[key]!r}, the checkpoint {stored[key]!r}, which counts"
                )
    return found


def _comparable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _comparable(item) for key, item in value.items()}
    return value
