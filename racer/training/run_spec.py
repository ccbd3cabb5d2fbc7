"""What a run is made of, independent of how its work is spread over processes.

The specification is written to ``run.json`` in the run's folder as data. A resumed run is built from it alone; nothing
of it is ever executed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import racer
from racer.agents.protocol import Agent
from racer.agents.registry import agent_class, agent_config
from racer.core.config import from_mapping
from racer.core.errors import UsageError
from racer.core.run_dir import read_json, write_json
from racer.envs.highway.config import action_names, resolve_config

__all__ = ["RUN_FILE", "RunSpec", "create_agent", "plain", "read_run", "spec_from_config", "write_run"]

RUN_FILE = "run.json"


@dataclass(frozen=True)
class RunSpec:
    """Agent, environment and seed of a run."""

    agent_name: str
    agent_config: dict[str, Any]
    env_config: dict[str, Any]
    seed: int

    def differences(self, other: RunSpec) -> list[str]:
        """Say field by field where ``other`` differs from this one."""
        found = []
        for part in ("agent_name", "agent_config", "env_config"):
            mine, theirs = getattr(self, part), getattr(other, part)
            if not isinstance(mine, dict):
                mine, theirs = {part: mine}, {part: theirs}
            for key in sorted({*mine, *theirs}):
                if plain(mine.get(key)) != plain(theirs.get(key)):
                    found.append(f"{key}: the run has {mine.get(key)!r}, --config has {theirs.get(key)!r}")
        return found


def plain(value: Any) -> Any:
    """Turn tuples and mappings into what JSON gives back, so that both compare equal."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def spec_from_config(config: Mapping[str, Any], seed: int, engine: str | None = None) -> RunSpec:
    """Check the contents of a ``--config`` file and sort them to their rooms.

    Keys: ``model_cls`` names the agent, ``env`` holds environment overrides, ``safety_penalty`` is the weight of the
    safety reward (``safety_coeff`` of the environment), everything else belongs to the agent's configuration.

    Raises:
        UsageError: an unknown key (with the nearest one) or a value out of range.
    """
    values = {str(k): plain(v.to_dict() if hasattr(v, "to_dict") else v) for k, v in config.items()}
    if "model_cls" not in values:
        raise UsageError("config file has no 'model_cls', the name of the agent; e.g. 'DistributionalSACLearner'")
    name = values.pop("model_cls")
    environment = dict(values.pop("env", None) or {})
    if "safety_penalty" in values:
        environment["safety_coeff"] = values.pop("safety_penalty")
    if engine is not None:
        environment["engine"] = engine
    agent = from_mapping(agent_config(name), values, f"config key of {name}")
    return RunSpec(name, plain(dataclasses.asdict(agent)), resolve_config(environment), seed)


def create_agent(
    spec: RunSpec,
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    *,
    seed: int | None = None,
    learnt: Mapping[str, np.ndarray] | None = None,
) -> Agent:
    """Create the agent of a run for the spaces of its environment, with another one's components if given.

    Raises:
        UsageError: ``learnt`` is the state of an agent of other sizes.
    """
    agent: Agent = agent_class(spec.agent_name).create(
        spec.seed if seed is None else seed,
        observation_space,
        action_space,
        action_names=action_names(spec.env_config["action"]),
        **{key: tuple(v) if isinstance(v, list) else v for key, v in spec.agent_config.items()},
    )
    return agent if learnt is None else agent.with_components(learnt)


def write_run(run_dir: Path, spec: RunSpec, options: Mapping[str, Any]) -> None:
    """Write ``run.json``: the specification and the program's options."""
    document = {"racer_version": racer.__version__, **dataclasses.asdict(spec), "options": dict(options)}
    write_json(run_dir / RUN_FILE, document)


def read_run(run_dir: Path) -> tuple[RunSpec, dict[str, Any]]:
    """Read ``run.json``; returns the specification and the options.

    Raises:
        UsageError: if it is missing or malformed.
    """
    document = read_json(run_dir / RUN_FILE)
    names = [field.name for field in dataclasses.fields(RunSpec)]
    if not isinstance(document, dict) or not all(name in document for name in names):
        raise UsageError(f"{str(run_dir / RUN_FILE)!r} does not describe a run: it needs {', '.join(names)}")
    spec = RunSpec(**{name: document[name] for name in names})
    return dataclasses.replace(spec, env_config=resolve_config(spec.env_config)), dict(document.get("options") or {})
