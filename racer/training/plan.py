"""What the training programs' flags mean together: which run, of what, with how many workers."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from racer.core.errors import UsageError, shown
from racer.core.run_dir import (
    HeldRun,
    check_can_be_made,
    check_run_name,
    check_vacant,
    check_writable,
    lock_run,
    open_run,
)
from racer.core.shipped import find_policy
from racer.core.trust import name_code, offer_flags, require_named
from racer.training.options import OPTION_CLASSES, Keeping, Options, Setup, define_dataclass_flags
from racer.training.run_spec import RunSpec, read_run, spec_from_config, write_run

__all__ = [
    "RunPlan",
    "config_from_flags",
    "define_run_flags",
    "plan_run",
    "trust_config",
]


MakeSetup = Callable[[Options, RunSpec], Setup]


def define_run_flags(values: flags.FlagValues = flags.FLAGS, *, config: bool = True) -> None:
    """Define the flags that say what run this is; ``config`` leaves ``--config`` to the caller."""
    offer_flags(agent="a --config file with model_cls", world="a --config file with world")
    if config:
        config_flags.DEFINE_config_file(
            "config",
            None,
            "Config file: Python with get_config(), whose keys are checked. Single keys are overridden with "
            "--config.key=value, those of the environment with --config.env.key=value.",
            flag_values=values,
        )
    flags.DEFINE_integer("seed", 42, "Seed of everything random.", flag_values=values)
    flags.DEFINE_string(
        "run_name", None, "Folder of the run below --policy_dir; <world>_run_<seed> if not given.", flag_values=values
    )
    flags.DEFINE_string("policy_dir", "policies", "Where runs are kept.", flag_values=values)
    flags.DEFINE_string(
        "resume", None, "Folder of a run to go on with; needs no other flag, those given replace the run's.",
        flag_values=values,
    )  # fmt: skip
    define_dataclass_flags(Keeping, values)
    flags.DEFINE_enum(
        "device", "auto", ["auto", "cpu", "gpu"], "Where the learner runs; auto takes a GPU when JAX sees one.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "learner_threads", 1, "Threads that share the learner's work on a CPU; the others are the workers'.", 1,
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool("progress", True, "Show a progress bar.", flag_values=values)


def config_from_flags(values: flags.FlagValues = flags.FLAGS, replaced: Mapping[str, Any] | None = None) -> Any:
    """Return the contents of ``--config``, or None where none was given.

    Args:
        values: the flags.
        replaced: keys that count instead of the file's.

    Raises:
        UsageError: the file cannot be read, or gives something else than a configuration.
    """
    try:
        # A file that failed to load is reported by ml_collections only when it is first looked into.
        config = values.config
        if config is None:
            if values["config"].present:
                raise UsageError("config file must give an ml_collections.ConfigDict, not None")
            return None
        copied = config.copy_and_resolve_references()
        with copied.unlocked():
            copied.update(replaced or {})
        return copied
    except OSError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(f"config file cannot be read: {reason}") from error
    except RecursionError as error:
        raise UsageError("config file is nested too deeply") from error
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"config file must give an ml_collections.ConfigDict, not {type(config).__name__}") from error


def trust_config(config: Mapping[str, Any]) -> None:
    """Trust the code of the agent and the world that a person's config names; a job or a run on a disk is no such."""
    name_code(config.get("model_cls"), config.get("world"))


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A run that was checked but not yet begun: nothing is on disk before :meth:`hold`."""

    folder: Path
    spec: RunSpec
    setup: Setup
    options: dict[str, Any]
    resumed: bool

    @contextlib.contextmanager
    def hold(self) -> Iterator[HeldRun]:
        """Make the run's folder, and keep every other process from it.

        Raises:
            UsageError: the folder cannot be written, was taken meanwhile, or is in use by another process.
        """
        check_writable(self.folder.parent, "policy folder")
        run_dir = open_run(self.folder.parent, self.folder.name, resume=self.resumed)
        with lock_run(run_dir) as held:
            yield held

    def write(self) -> None:
        """Write ``run.json`` into the folder that is held."""
        write_run(self.folder, self.spec, self.options)


def plan_run(
    program: str,
    make_setup: MakeSetup,
    values: flags.FlagValues = flags.FLAGS,
    *,
    env_flags: Collection[str] = (),
    replaced: Mapping[str, Any] | None = None,
    repeated: Mapping[str, Any] | None = None,
) -> RunPlan:
    """Read from the flags which run is meant, new or resumed.

    Args:
        program: name of the calling program; a run is resumed by the program that began it.
        make_setup: how this program spreads the work.
        values: the flags.
        env_flags: flags that replace the keys of the world's configuration of the same names.
        replaced: keys that count instead of the config file's; a resumed run may run the code of the agent
            (``model_cls``) that they or the config file name.
        repeated: some keys of a config file, for a resumed run only, which must have them already.

    Raises:
        UsageError: wrong flags, an occupied folder, or a run that does not fit.
    """
    if values.resume is not None:
        return _plan_resume(program, make_setup, values, env_flags, replaced or {}, repeated or {})
    config = config_from_flags(values, replaced)
    if config is None:
        raise UsageError("--config is missing: name a config file, e.g. one of scripts/sim/configs")
    if values.seed < 0:
        raise UsageError(f"flag --seed must be at least 0, not {values.seed}")
    check_can_be_made(Path(values.policy_dir), "policy folder")
    overrides = {name: values[name].value for name in env_flags if values[name].value is not None}
    trust_config(config)
    spec = spec_from_config(config, values.seed, overrides)
    folder = Path(values.policy_dir) / check_run_name(values.run_name or _default_name(spec))
    check_vacant(folder)
    options = Options(values, {})
    setup = make_setup(options, spec)
    options.refuse_others(spec.agent_name, OPTION_CLASSES)
    chosen = dataclasses.asdict(Options(values, {})(Keeping))
    spec = spec.fitted(setup.schedule.max_steps, setup.gradient_steps)
    return RunPlan(folder, spec, setup, {"program": program, **options.read, **chosen}, resumed=False)


def _default_name(spec: RunSpec) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{spec.world.rpartition(':')[2]}_run_{spec.seed}")


def _plan_resume(
    program: str,
    make_setup: MakeSetup,
    values: flags.FlagValues,
    env_flags: Collection[str],
    replaced: Mapping[str, Any],
    repeated: Mapping[str, Any],
) -> RunPlan:
    folder = find_policy(values.resume)
    if values.start_from is not None:
        raise UsageError("flag --start_from is for new runs; --resume goes on with the run's own networks")
    if not folder.is_dir():
        raise UsageError(f"there is no run to resume at {str(folder)!r}")
    config = config_from_flags(values, replaced)
    # What a person names here is trusted, before the run's own description is looked into.
    name_code(*replaced.values())
    if config is not None:
        trust_config(config)
    trust_config(repeated)
    spec, stored = read_run(folder)
    if stored.get("program") != program:
        begun_by = shown(stored.get("program"))
        raise UsageError(
            f"run {str(folder)!r} was begun by {begun_by}; resume it with that program, or begin a run with its "
            f"networks: --start_from {folder}"
        )
    _check_same(spec, folder, values, env_flags, config)
    _check_repeated(spec, repeated)
    if "workers" in values and values["workers"].present and bool(values.workers) != bool(stored.get("workers")):
        raise UsageError(f"flag --workers is {values.workers}, but the resumed run has {stored.get('workers')!r}")
    options = Options(values, stored)
    setup = make_setup(options, spec)
    options.refuse_others(spec.agent_name, OPTION_CLASSES)
    chosen = dataclasses.asdict(Options(values, stored)(Keeping))
    return RunPlan(folder, spec, setup, {**stored, **options.read, **chosen}, resumed=True)


def _check_same(
    spec: RunSpec, folder: Path, values: flags.FlagValues, env_flags: Collection[str], config: Any
) -> None:
    """Raise UsageError where the flags describe another run than the one to be resumed."""
    kept = {"seed": spec.seed, "run_name": folder.name, **{name: spec.env_config.get(name) for name in env_flags}}
    for name, value in kept.items():
        if values[name].present and values[name].value != value:
            raise UsageError(f"flag --{name} is {values[name].value!r}, but the resumed run has {value!r}")
    if ":" in spec.agent_name:
        require_named("agent", spec.agent_name, f"of run {str(folder)!r} is code")
    if config is not None:
        overrides = {name: spec.env_config[name] for name in env_flags if name in spec.env_config}
        differing = spec.differences(spec_from_config(config, spec.seed, overrides))
        if differing:
            raise UsageError(f"--config differs from the resumed run: {'; '.join(differing)}; start a new run instead")


def _check_repeated(spec: RunSpec, keys: Mapping[str, Any]) -> None:
    """Raise UsageError where a key that was given again has another value than the run to be resumed."""
    differing = spec.differences(spec.changed(keys), "the call") if keys else []
    if differing:
        raise UsageError(f"what a run is does not change: {'; '.join(differing)}; start a new run instead")
