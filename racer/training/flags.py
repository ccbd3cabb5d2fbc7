"""Flags that both training programs share, and what they mean together."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from absl import flags
from ml_collections import config_flags

from racer.core.errors import UsageError
from racer.core.run_dir import check_run_name, check_vacant, check_writable, open_run
from racer.training.run_spec import RunSpec, read_run, spec_from_config, write_run

__all__ = [
    "OptionClasses",
    "RunPlan",
    "config_from_flags",
    "define_dataclass_flags",
    "define_run_flags",
    "options_from_flags",
    "plan_run",
    "refuse_flags",
]

T = TypeVar("T")

_RUN_OPTIONS = ("keep_checkpoints", "eval_episodes", "start_from")


def define_run_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags that say what run this is."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file: Python with get_config(), whose keys are checked. Single keys are overridden with "
        "--config.key=value, those of the environment with --config.env.key=value.",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 42, "Seed of everything random.", flag_values=values)
    flags.DEFINE_string(
        "run_name", None, "Folder of the run below --policy_dir; highway_run_<seed> if not given.", flag_values=values
    )
    flags.DEFINE_string("policy_dir", "policies", "Where runs are kept.", flag_values=values)
    flags.DEFINE_string(
        "resume", None, "Folder of a run to go on with; needs no other flag, those given replace the run's.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "start_from", None, "Run or checkpoint of the same agent whose networks a new run begins with, in whatever "
        "world --config describes.", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_enum(
        "engine", None, ["compiled", "highway-env"], "Simulator; the config's (compiled) if not given.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("keep_checkpoints", 3, "Checkpoints kept; older ones are deleted.", 1, flag_values=values)
    flags.DEFINE_integer("eval_episodes", 10, "Episodes an evaluation during training.", 1, flag_values=values)
    flags.DEFINE_enum(
        "device", "auto", ["auto", "cpu", "gpu"], "Where the learner runs; auto takes a GPU when JAX sees one.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool("progress", True, "Show a progress bar.", flag_values=values)


def define_dataclass_flags(cls: type, values: flags.FlagValues = flags.FLAGS, **defaults: Any) -> None:
    """Define a flag for every field of a configuration dataclass that has none yet.

    ``defaults`` replace the dataclass's own; None leaves the choice to the class that the options are built for.
    """
    kinds = typing.get_type_hints(cls)
    define = {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool}
    for field in dataclasses.fields(cls):
        if field.name in values:
            continue
        default = defaults.get(field.name, field.default)
        define_flag: Any = define.get(kinds[field.name], flags.DEFINE_string)
        define_flag(
            field.name, default, field.metadata.get("doc", ""), flag_values=values
        )


def options_from_flags(cls: type[T], stored: dict[str, Any], values: flags.FlagValues = flags.FLAGS) -> T:
    """Build a configuration dataclass from flags; a resumed run's options stand in for flags not given."""
    found = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        flag: flags.Flag | None = values[field.name] if field.name in values else None  # noqa: SIM401 - no .get here
        if flag is not None and flag.present:
            found[field.name] = flag.value
        elif field.name in stored:
            found[field.name] = stored[field.name]
        elif flag is not None and flag.value is not None:
            found[field.name] = flag.value
    return cls(**found)


def refuse_flags(chosen: type, others: tuple[type, ...], agent: str, values: flags.FlagValues = flags.FLAGS) -> None:
    """Raise UsageError where a flag was given that belongs to ``others`` only and so would do nothing."""
    known = {field.name for field in dataclasses.fields(chosen)}
    for name in (field.name for cls in others for field in dataclasses.fields(cls)):
        if name not in known and name in values and values[name].present:
            raise UsageError(f"flag --{name} has no meaning for {agent}; its own are {', '.join(sorted(known))}")


def config_from_flags(values: flags.FlagValues = flags.FLAGS) -> Any:
    """Return the contents of the ``--config`` file, or None where none was given.

    Raises:
        UsageError: the file cannot be read.
    """
    config = values.config
    try:
        # A file that failed to load is reported by ml_collections only when it is first looked into.
        return config if config is None else config.copy_and_resolve_references()
    except OSError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(f"config file cannot be read: {reason}") from error


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A run that was checked but not yet begun: nothing is on disk before :meth:`open`."""

    folder: Path
    spec: RunSpec
    options: dict[str, Any]
    resumed: bool

    def open(self) -> Path:
        """Make the run's folder and write ``run.json``; returns the folder.

        Raises:
            UsageError: the folder cannot be written, or was taken meanwhile.
        """
        check_writable(self.folder.parent, "policy folder")
        run_dir = open_run(self.folder.parent, self.folder.name, resume=self.resumed)
        write_run(run_dir, self.spec, self.options)
        return run_dir


OptionClasses = Callable[[RunSpec], tuple[type, ...]]


def plan_run(
    program: str, option_classes: tuple[type, ...] | OptionClasses, values: flags.FlagValues = flags.FLAGS
) -> RunPlan:
    """Read from the flags which run is meant, new or resumed.

    Args:
        program: name of the calling program; a run is resumed by the program that began it.
        option_classes: dataclasses whose flags belong to the run, or a function that picks them by its agent.

    Raises:
        UsageError: wrong flags, an occupied folder, or a run that does not fit.
    """
    if values.resume is not None:
        return _plan_resume(program, option_classes, values)
    config = config_from_flags(values)
    if config is None:
        raise UsageError(
            "--config is missing: name a config file, e.g. scripts/sim/configs/highway_distributional_config.py"
        )
    if values.seed < 0:
        raise UsageError(f"flag --seed must be at least 0, not {values.seed}")
    folder = Path(values.policy_dir) / check_run_name(values.run_name or f"highway_run_{values.seed}")
    check_vacant(folder)
    spec = spec_from_config(config, values.seed, values.engine)
    options: dict[str, Any] = {"program": program}
    for cls in _classes(option_classes, spec):
        options.update(dataclasses.asdict(options_from_flags(cls, {}, values)))
    for name in _RUN_OPTIONS:
        options[name] = values[name].value
    return RunPlan(folder, spec, options, resumed=False)


def _classes(given: tuple[type, ...] | OptionClasses, spec: RunSpec) -> tuple[type, ...]:
    return given(spec) if callable(given) else given


def _plan_resume(program: str, option_classes: tuple[type, ...] | OptionClasses, values: flags.FlagValues) -> RunPlan:
    folder = Path(values.resume)
    if values.start_from is not None:
        raise UsageError("flag --start_from is for new runs; --resume goes on with the run's own networks")
    if not folder.is_dir():
        raise UsageError(f"there is no run to resume at {str(folder)!r}")
    spec, stored = read_run(folder)
    if stored.get("program") != program:
        raise UsageError(f"run {str(folder)!r} was begun by {stored.get('program')}; resume it with that program")
    config = config_from_flags(values)
    if config is not None:
        differing = spec.differences(spec_from_config(config, spec.seed, spec.env_config["engine"]))
        if differing:
            raise UsageError(f"--config differs from the resumed run: {'; '.join(differing)}; start a new run instead")
    kept = {"seed": spec.seed, "engine": spec.env_config["engine"], "run_name": folder.name}
    for name, value in kept.items():
        if values[name].present and values[name].value != value:
            raise UsageError(f"flag --{name} is {values[name].value!r}, but the resumed run has {value!r}")
    options = dict(stored)
    for cls in _classes(option_classes, spec):
        options.update(dataclasses.asdict(options_from_flags(cls, stored, values)))
    for name in _RUN_OPTIONS:
        if values[name].present or name not in options:
            options[name] = values[name].value
    return RunPlan(folder, spec, options, resumed=True)
