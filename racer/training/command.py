"""Train an agent in any world, in one process or with workers.

    python -m racer train --world gym:Pendulum-v1 --agent ppo
    python -m racer train --world gym:Pendulum-v1 --agent sac --workers 2 --config.discount=0.98
    python -m racer train --config NAME_OR_FILE.py --max_steps 1000000
    python -m racer train --resume policies/Pendulum-v1_run_42 --max_steps 200000

--config names a file of yours, or one that comes along. Without it every key of the agent (--config.key=value) and of
the world (--config.env.key=value) has its default; --help lists the keys of those that are named beside it. A stopped
run goes on with --resume policies/<run>.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from racer.agents.registry import agent_config, agents_described, full_name
from racer.core.cli import run_program, unknown_config_key
from racer.core.config import sentences
from racer.core.errors import UsageError
from racer.core.flag_help import keys_text
from racer.core.metrics import wandb_mode
from racer.core.trust import name_code, offer_flags
from racer.distributed.config import BackendConfig, OffPolicyConfig, RolloutConfig, ServiceConfig
from racer.envs.registry import DEFAULT_WORLD, get_world
from racer.training.device import choose_device
from racer.training.options import (
    FLAG_GROUPS,
    ONE_PROCESS,
    ManyProcesses,
    Schedule,
    SingleProcess,
    Workers,
    define_dataclass_flags,
    workers_or_none,
)
from racer.training.plan import RunPlan, define_run_flags, plan_run

__all__ = ["PROGRAM", "default_config", "define_flags", "main", "make_plan"]

PROGRAM = "racer train"
_FILE_HELP = "Config file: Python with get_config(), whose keys are checked; --agent and --world replace its own."


def main(words: Sequence[str]) -> int:
    """Run what the words after ``train`` say; returns the exit code."""
    values, words = flags.FlagValues(), _with_named_agent(words)
    given = _given(words, ("agent", "world", "config", "resume", "device", "learner_threads", "config.model_cls"))
    _check_keys_have_an_agent(words, given)
    # Before the agent's module is imported, which brings JAX.
    threads = given.get("learner_threads", "1")
    choose_device(given.get("device", "auto"), int(threads) if threads.isdecimal() else 1)
    define_flags(values)
    name_code(given.get("agent"), given.get("world"), given.get("config.model_cls"))
    agent, command = given.get("agent") or given.get("config.model_cls"), [f"-m {PROGRAM}", *words]
    if "config" in given or "resume" in given or agent is None:
        config_flags.DEFINE_config_file("config", None, _FILE_HELP, flag_values=values, sys_argv=command)
    else:
        config = default_config(agent, given.get("world", DEFAULT_WORLD), words)
        help_text = _FILE_HELP
        try:
            config_flags.DEFINE_config_dict("config", config, help_text, flag_values=values, sys_argv=command)
        except AttributeError as error:
            raise unknown_config_key(error) from error
    logging.captureWarnings(True)
    return run_program(
        lambda: _train(values, agent), command, values=values, doc=__doc__ or "", groups=FLAG_GROUPS,
        more=lambda: _keys(agent, given.get("world")),
    )  # fmt: skip


def _keys(agent: str | None, world: str | None) -> str:
    """Say which keys an agent and a world have; None for one that nobody named."""
    parts = []
    cls = None if agent is None else agent_config(agent)
    if cls is not None:
        usual = dataclasses.asdict(cls())
        keys = [(name, usual[name], sentence) for name, sentence in sentences(cls).items()]
        parts.append(keys_text(f"Keys of agent {agent}", "--config.", keys))
    if agent is not None or world is not None:
        named = get_world(world or DEFAULT_WORLD)
        usual = named.resolve({})
        keys = [(name, usual[name], sentence) for name, sentence in named.sentences.items()]
        parts.append(keys_text(f"Keys of world {named.name}", "--config.env.", keys))
    missing = [f"--{flag} NAME" for flag, name in (("agent", agent), ("world", world)) if name is None]
    if missing:
        whose = "its" if len(missing) == 1 else "their"
        parts.append(f"With {' and '.join(missing)}, --help lists {whose} keys too.")
    return "".join(f"\n\n{part}" for part in parts)


def default_config(agent: str, world: str, words: Sequence[str] = ()) -> ConfigDict:
    """Return every key of an agent and of a world with its default.

    Args:
        agent: name of the agent.
        world: name of the world.
        words: of the command line: an agent that tells nobody its keys has those that are set there.

    Raises:
        UsageError: there is no such agent or world.
    """
    cls = agent_config(agent)
    if cls is None:
        own = {name.split("=")[0].removeprefix("--config.") for name in words if name.startswith("--config.")}
        keys: dict[str, Any] = {name: None for name in own if not name.startswith(("env.", "model_cls", "world"))}
    else:
        keys = dataclasses.asdict(cls())
    everything = {"model_cls": full_name(agent), "world": world, **keys}
    return ConfigDict({**_leaves(everything), "env": ConfigDict(_tree(get_world(world).resolve({})))})


def _leaves(values: Mapping[str, Any]) -> dict[str, Any]:
    """Let a command line replace each value by any other; the agent's configuration checks it."""
    return {name: config_dict.FieldReference(value, field_type=object) for name, value in values.items()}


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    branches = {name: ConfigDict(_tree(v)) for name, v in values.items() if isinstance(v, Mapping) and v}
    return {**_leaves({name: v for name, v in values.items() if name not in branches}), **branches}


def define_flags(values: flags.FlagValues) -> None:
    """Define every flag of ``train`` but ``--config``, which depends on what is trained."""
    define_run_flags(values, config=False)
    offer_flags(agent="--agent", world="--world")
    flags.DEFINE_string("agent", None, "ppo, sac, cvar, or package.module:Class.", flag_values=values)
    flags.DEFINE_string(
        "world", None, f"A world's name, or gym:<id> of any gymnasium environment; {DEFAULT_WORLD} if not given.",
        flag_values=values,
    )  # fmt: skip
    define_dataclass_flags(Workers, values)
    define_dataclass_flags(Schedule, values)
    define_dataclass_flags(SingleProcess, values, num_envs=None)
    define_dataclass_flags(ManyProcesses, values)
    define_dataclass_flags(ServiceConfig, values, without=("num_workers",))
    define_dataclass_flags(BackendConfig, values)
    define_dataclass_flags(OffPolicyConfig, values, batch_size=None, utd_ratio=None)
    for name, number in ONE_PROCESS.items():
        values[name].help += f"; {number} if not given, {getattr(OffPolicyConfig, name)} with workers"
    define_dataclass_flags(RolloutConfig, values)


def _train(values: flags.FlagValues, agent: str | None) -> int:
    plan = make_plan(values, agent)
    from racer.training.run import run_training  # after choose_device: brings JAX

    return run_training(plan, progress=values.progress)


def make_plan(values: flags.FlagValues, agent: str | None, repeated: Mapping[str, Any] | None = None) -> RunPlan:
    """Return the run that the flags mean; ``agent`` counts instead of the config's, ``repeated`` as in ``plan_run``.

    Raises:
        UsageError: as :func:`racer.training.plan.plan_run`.
    """
    wandb_mode()
    if agent is None and values.resume is None and not values["config"].present:
        raise UsageError("--agent is missing: name one (ppo, sac, cvar, package.module:Class), or a --config file")
    named = {"model_cls": agent, "world": values.world}
    replaced = {key: name for key, name in named.items() if name is not None}
    plan = plan_run(PROGRAM, workers_or_none, values, replaced=replaced, repeated=repeated)
    if agent is not None and full_name(agent) != plan.spec.agent_name:
        raise UsageError(f"flag --agent is {agent!r}, but the resumed run has {plan.spec.agent_name!r}")
    if values.world is not None and values.world != plan.spec.world:
        raise UsageError(f"flag --world is {values.world!r}, but the resumed run has {plan.spec.world!r}")
    return plan


def _check_keys_have_an_agent(words: Sequence[str], given: Mapping[str, str]) -> None:
    """Refuse ``--config.key`` where nothing says whose key that is: there are no such flags then."""
    if {"agent", "config", "config.model_cls"} & given.keys():
        return
    for flag in (word.split("=")[0] for word in words if re.match("--?(no)?config[.]", word)):
        if "resume" in given:
            raise UsageError(f"{flag}: a resumed run keeps its keys; a new one (--agent or --config) may have others")
        raise UsageError(
            f"{flag} sets a key of an agent or its world: --agent is missing ({', '.join(agents_described())}), or a "
            "--config FILE"
        )


def _with_named_agent(words: Sequence[str]) -> list[str]:
    """Let ``--config.model_cls`` name the agent of a resumed run too, which has no config whose key it could be."""
    given = _given(words, ("agent", "config", "resume"))
    if "resume" not in given or len(given) > 1:
        return list(words)
    return [re.sub(r"^--?config\.model_cls(?==|$)", "--agent", word) for word in words]


def _given(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the values of some flags before any is defined: which keys there are depends on them."""
    found = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in names:
            found[name] = value if equals else following
    return found
