"""What a run is made of, independent of how its work is spread over processes.

The specification is written to ``run.json`` in the run's folder as data. A resumed run is built from it alone; nothing
of it is ever executed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import racer
from racer.agents.registry import agent_class, agent_settings, fitted_settings, full_name
from racer.core.checkpoint import list_checkpoints
from racer.core.errors import UsageError
from racer.core.files import strict
from racer.core.run_dir import read_json, write_json
from racer.envs.registry import DEFAULT_WORLD, get_world, stored_world
from racer.training.past import upgraded_agent_config

__all__ = [
    "DESCRIPTION",
    "RUN_FILE",
    "RunSpec",
    "create_agent",
    "described_spec",
    "describes",
    "plain",
    "read_run",
    "spec_from_config",
    "wants_rollouts",
    "write_run",
]

RUN_FILE = "run.json"

ACTOR_PARAMS = "actor/params/"
"""What the names of an agent's arrays begin with that a policy acts by."""
DESCRIPTION = ("world", "agent_name", "agent_config", "env_config", "seed")
"""Parts of a run's description, in its ``run.json`` and in each of its checkpoints."""


@dataclass(frozen=True)
class RunSpec:
    """World, agent and seed of a run.

    Attributes:
        agent_name: as :func:`racer.agents.registry.agent_class` takes it.
        agent_config: every key of the agent's configuration.
        env_config: every key of the world's configuration.
        seed: of everything random.
        world: as :func:`racer.envs.registry.get_world` takes it.
    """

    agent_name: str
    agent_config: dict[str, Any]
    env_config: dict[str, Any]
    seed: int
    world: str = field(default=DEFAULT_WORLD)

    @property
    def description(self) -> dict[str, Any]:
        """What the run is, as JSON gives it back; its sum (:func:`racer.core.manifest.json_sum`) is its name."""
        return {part: plain(getattr(self, part)) for part in DESCRIPTION}

    def fitted(self, transitions: int, gradient_steps: int) -> RunSpec:
        """Return the specification with what follows from the length of the run filled in."""
        settings = fitted_settings(self.agent_name, self.agent_config, transitions, gradient_steps)
        return dataclasses.replace(self, agent_config=plain(settings))

    def changed(self, keys: Mapping[str, Any]) -> RunSpec:
        """Return the specification with some keys of a config file, its ``env`` among them, put over its own.

        Raises:
            UsageError: as :func:`spec_from_config`.
        """
        env = keys.get("env") or {}
        if not isinstance(env, Mapping):
            raise UsageError(f"config key 'env' must hold keys of the world, not {env!r}")
        own = {"model_cls": self.agent_name, "world": self.world, **self.agent_config}
        return spec_from_config({**own, **keys, "env": {**self.env_config, **env}}, self.seed)

    def differences(self, other: RunSpec, given: str = "--config") -> list[str]:
        """Say field by field where ``other``, fitted to the same length and ``given`` so, differs from this one."""
        found = []
        if self.agent_name == other.agent_name:
            filled = other.fitted(1, 1).agent_config
            missing = {key for key, value in other.agent_config.items() if value is None and filled[key] is not None}
            config = {key: self.agent_config[key] if key in missing else v for key, v in other.agent_config.items()}
            other = dataclasses.replace(other, agent_config=config)
        for part in DESCRIPTION[:-1]:
            mine, theirs = getattr(self, part), getattr(other, part)
            if not isinstance(mine, dict):
                mine, theirs = {part: mine}, {part: theirs}
            for key in sorted({*mine, *theirs}):
                if plain(mine.get(key)) != plain(theirs.get(key)):
                    found.append(f"{key}: the run has {mine.get(key)!r}, {given} has {theirs.get(key)!r}")
        return found


def plain(value: Any) -> Any:
    """Turn tuples and mappings into what JSON gives back, so that both compare equal."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def spec_from_config(config: Mapping[str, Any], seed: int, env_overrides: Mapping[str, Any] | None = None) -> RunSpec:
    """Check the contents of a ``--config`` file and sort them to their rooms.

    Keys: ``model_cls`` names the agent, ``world`` the world, ``env`` holds overrides of its configuration, as do the
    world's aliases (:attr:`racer.envs.world.World.aliases`); everything else belongs to the agent's configuration.

    Args:
        config: the contents.
        seed: of the run.
        env_overrides: further keys of the world's configuration, which count.

    Raises:
        UsageError: an unknown key (with the nearest one) or a value out of range.
    """
    if not isinstance(config, Mapping) and not hasattr(config, "items"):
        raise UsageError(f"a config holds keys and values, not a {type(config).__name__}")
    try:
        values = {str(k): plain(v.to_dict() if hasattr(v, "to_dict") else v) for k, v in config.items()}
    except RecursionError as error:
        raise UsageError("config file is nested too deeply") from error
    name = values.pop("model_cls", None)
    if not isinstance(name, str):
        raise UsageError("config file has no 'model_cls', the name of the agent; e.g. 'DistributionalSACLearner'")
    world_name = values.pop("world", DEFAULT_WORLD)
    if not isinstance(world_name, str):
        raise UsageError(f"config key 'world' must be the name of a world, not {world_name!r}")
    world = get_world(world_name)
    environment = values.pop("env", None) or {}
    if not isinstance(environment, Mapping):
        raise UsageError(f"config key 'env' must hold keys of the world, not {environment!r}")
    aliased = {key: values.pop(alias) for alias, key in world.aliases.items() if alias in values}
    resolved = world.resolve({**environment, **aliased, **(env_overrides or {})})
    if values.get("positional_encoding") is not None and world.row_layout is not None:
        values["positional_encoding"] = _placed(values["positional_encoding"], world.row_layout(resolved))
    return RunSpec(full_name(name), plain(agent_settings(name, values)), resolved, seed, world_name)


def _placed(encoding: Any, layout: Mapping[str, Any]) -> Any:
    """Return a positional encoding with the columns of its world, where it does not name its own."""
    if encoding == "none":
        return None
    if isinstance(encoding, str):
        encoding = {"kind": encoding}
    return {**layout, **encoding} if isinstance(encoding, Mapping) else encoding


def wants_rollouts(agent_name: str) -> bool:
    """Return whether an agent learns from rollouts of its own recent policies, rather than from replay."""
    return agent_class(agent_name).wants == "rollout"


def create_agent(
    spec: RunSpec,
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    *,
    seed: int | None = None,
    learnt: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """Create the agent of a run for the spaces of its environment, with another one's components if given.

    Raises:
        UsageError: ``learnt`` is the state of an agent of other sizes, or the agent cannot begin with another's.
    """
    agent: Any = agent_class(spec.agent_name).create(
        spec.seed if seed is None else seed,
        observation_space,
        action_space,
        action_names=get_world(spec.world).action_names(spec.env_config),
        world=spec.world,
        **{key: tuple(v) if isinstance(v, list) else v for key, v in spec.agent_config.items()},
    )
    if learnt is None:
        return agent
    if not hasattr(agent, "with_components"):
        raise UsageError(f"{spec.agent_name} cannot begin with another agent's networks")
    if learnt and all(name.startswith(ACTOR_PARAMS) for name in learnt):
        # An exported policy's actor; the rest of the agent stays as it was drawn.
        learnt = {**agent.state_arrays(), **learnt}
    return agent.with_components(learnt)


def write_run(run_dir: Path, spec: RunSpec, options: Mapping[str, Any]) -> None:
    """Write ``run.json``: the specification and the program's options."""
    write_json(run_dir / RUN_FILE, _document(spec, options))


def describes(path: Path, spec: RunSpec, options: Mapping[str, Any]) -> bool:
    """Whether a ``run.json`` says what :func:`write_run` writes of this run."""
    try:
        return bool(read_json(path) == plain(strict(_document(spec, options))))
    except UsageError:
        return False


def _document(spec: RunSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"racer_version": racer.__version__, **dataclasses.asdict(spec), "options": dict(options)}


def read_run(run_dir: Path) -> tuple[RunSpec, dict[str, Any]]:
    """Read ``run.json``; returns the specification and the options. One without a world is of the default world.

    Raises:
        UsageError: if it is missing, or as :func:`described_spec`.
    """
    path = run_dir / RUN_FILE
    if not os.path.lexists(path) and list_checkpoints(run_dir):
        raise UsageError(
            f"{str(run_dir)!r} is an exported policy, without what training goes on from (optimizer, counts, random "
            f"state): begin a new run with its actor: --start_from {run_dir}"
        )
    document = read_json(path)
    options = document.get("options", {}) if isinstance(document, dict) else None
    if not isinstance(options, dict):
        raise UsageError(f"{str(path)!r} does not describe a run: its options are malformed")
    return described_spec(document, str(path)), dict(options)


def described_spec(described: Mapping[str, Any], where: str) -> RunSpec:
    """Return the specification that a description from a disk gives, completed with what has come since.

    Args:
        described: its parts (:data:`DESCRIPTION`) by name, among others; without a world it is the default one.
        where: the file, for errors.

    Raises:
        UsageError: it is malformed, or its world or its agent is unknown, wrongly configured or runs code that nobody
            named.
    """
    kinds: dict[str, type] = {"agent_name": str, "agent_config": dict, "env_config": dict, "seed": int}
    if not all(isinstance(described.get(name), kind) for name, kind in kinds.items()):
        raise UsageError(f"{where!r} does not describe a run: it needs {', '.join(kinds)}")
    seed, world_name = described["seed"], described.get("world", DEFAULT_WORLD)
    if isinstance(seed, bool) or seed < 0 or not isinstance(world_name, str):
        raise UsageError(f"{where!r} does not describe a run: its seed or its world is malformed")
    try:
        _, env_config = stored_world(world_name, described["env_config"])
    except UsageError as error:
        raise UsageError(f"the world in {where!r}: {error}") from error
    name = described["agent_name"]
    try:
        agent_config = plain(agent_settings(name, upgraded_agent_config(described["agent_config"])))
    except UsageError as error:
        raise UsageError(f"the agent in {where!r}: {error}") from error
    return RunSpec(full_name(name), agent_config, env_config, seed, world_name)
