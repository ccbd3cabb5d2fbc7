"""``racer.train``: a training run from Python, the same as ``racer train`` makes of a command line."""

from __future__ import annotations

import os
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from racer.core.errors import UsageError, shown, unknown_name
from racer.core.files import open_regular
from racer.core.metrics import METRICS_FILE, read_metrics
from racer.core.shipped import find_config
from racer.evaluation.checkpoints import TrainedPolicy, load_policy
from racer.evaluation.episodes import EvaluationResult
from racer.evaluation.library import evaluate
from racer.training.command import define_flags, make_plan
from racer.training.device import choose_device

__all__ = ["Run", "train"]


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        folder: that holds it, ``policies/<run name>``.
        finished: whether it reached its goal, rather than being stopped by a signal (Ctrl-C, a notebook's stop button).
    """

    folder: Path
    finished: bool

    def metrics(self) -> list[dict[str, Any]]:
        """Return every line of numbers that was logged: ``step`` (transitions), ``time``, and numbers by name."""
        return read_metrics(self.folder / METRICS_FILE)

    def policy(self) -> TrainedPolicy:
        """Return the policy of the newest checkpoint."""
        return load_policy(self.folder)

    def evaluate(self, num_episodes: int = 20, **options: Any) -> EvaluationResult:
        """Run held-out episodes with the newest policy; options as of :func:`racer.evaluate`."""
        return evaluate(self.policy(), num_episodes, **options)

    def resume(self, **options: Any) -> Run:
        """Go on as if the run had never stopped; options as of :func:`train`, as ``max_steps``."""
        return train(resume=self.folder, **options)


def train(
    world: str | None = None,
    agent: str | None = None,
    *,
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    env: Mapping[str, Any] | None = None,
    resume: str | os.PathLike[str] | None = None,
    device: str = "auto",
    **options: Any,
) -> Run:
    """Train an agent in a world and return the run; ``racer train`` of the same flags does the same.

    ``racer.train("gym:Pendulum-v1", "ppo", max_steps=100_000)``, or
    ``racer.train(config="my_config.py", max_steps=500_000, workers=2)``.

    Args:
        world: name of a world, or ``gym:<id>`` of any gymnasium environment.
        agent: "ppo", "sac", "cvar", or "package.module:Class".
        config: keys of the agent that differ from its defaults; or a config file, which is executed, or the name of one
            that comes along.
        env: keys of the world that differ from its defaults, or from the config file's.
        resume: folder of a run to go on with. What it is stays: keys of ``config`` and ``env`` that are given again
            must be the run's own.
        device: "auto", "cpu" or "gpu", where the learner computes; it counts before anything else uses JAX.
        options: every other flag of ``racer train``: ``max_steps``, ``workers``, ``seed``, ``run_name``,
            ``start_from``, ``num_envs``, ``progress``, ...

    Raises:
        UsageError: wrong or unknown options, a run folder that is taken, or a resumed run that is another one.
    """
    choose_device(device)
    values = flags.FlagValues()
    define_flags(values)
    flags.DEFINE_string("config", None, "", flag_values=values)
    repeated: dict[str, Any] = {}
    if resume is not None and (config is None or isinstance(config, Mapping)):
        repeated = {**(config or {}), **({} if env is None else {"env": env})}
    else:
        _check_named(agent, config)
        values["config"].value = _content(config, env)
        values["config"].present = 1
    for name, value in {"world": world, "agent": agent, "resume": resume, "device": device, **options}.items():
        if name not in values or name == "config":
            raise unknown_name("option of racer.train", name, [name for name in values if name != "config"])
        if value is None:
            continue
        try:
            values[name].parse(os.fspath(value) if isinstance(value, os.PathLike) else value)
        except (flags.Error, TypeError, ValueError) as error:
            raise UsageError(f"option {name!r} of racer.train cannot be {shown(value)}") from error
    values.mark_as_parsed()
    plan = make_plan(values, agent, repeated)
    from racer.training.run import run_training  # after choose_device: brings JAX

    code = run_training(plan, progress=values.progress)
    return Run(plan.folder, finished=code == 0)


def _check_named(agent: str | None, config: Mapping[str, Any] | str | os.PathLike[str] | None) -> None:
    """Raise UsageError where nothing says which agent is to be trained."""
    if agent is None and (config is None or (isinstance(config, Mapping) and "model_cls" not in config)):
        raise UsageError(
            'which agent is missing: agent="ppo", "sac", "cvar" or "package.module:Class", or config= a config file'
        )


def _content(config: Mapping[str, Any] | str | os.PathLike[str] | None, env: Mapping[str, Any] | None) -> ConfigDict:
    """Return the keys of agent and world as a config file gives them."""
    if config is None or isinstance(config, Mapping):
        content = ConfigDict({str(key): value for key, value in (config or {}).items()})
    else:
        content = _from_file(find_config(os.fspath(config)))
    with content.unlocked():
        if env is not None:
            content.env = ConfigDict({**dict(content.get("env") or {}), **env})
    return content


def _from_file(path: str) -> ConfigDict:
    """Execute a config file, which the caller named; an error in it is the caller's to see whole."""
    with open_regular(path, 1 << 20):
        pass
    make = runpy.run_path(path).get("get_config")
    content = make() if callable(make) else None
    if not isinstance(content, ConfigDict):
        raise UsageError(f"config file {path!r} must have get_config(), which gives an ml_collections.ConfigDict")
    return content
