"""What the training programs' flags mean together: which run, of what, with how many workers."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from absl import flags
from ml_collections import config_flags

from racer.agents.registry import check_utd_ratio
from racer.core.config import check_fields, option
from racer.core.errors import UsageError, shown
from racer.core.run_dir import HeldRun, check_run_name, check_vacant, check_writable, lock_run, open_run
from racer.core.trust import name_code, offer_flags, require_named
from racer.distributed.config import BackendConfig, OffPolicyConfig, RolloutConfig, ServiceConfig
from racer.evaluation.episodes import MAX_EPISODES
from racer.training.run_spec import RunSpec, read_run, spec_from_config, wants_rollouts, write_run

__all__ = [
    "Keeping",
    "ManyProcesses",
    "Options",
    "RunPlan",
    "Schedule",
    "Setup",
    "SingleProcess",
    "Workers",
    "config_from_flags",
    "define_dataclass_flags",
    "define_run_flags",
    "plan_run",
    "single_process",
    "trust_config",
    "worker_processes",
    "workers_or_none",
]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long, and how often what."""

    max_steps: int = option(100_000, "Transitions to take in, over all workers; the last round is finished.", low=1)
    log_interval: int = option(1_000, "Transitions between two lines of metrics.", low=1)
    eval_interval: int = option(10_000, "Transitions between two evaluations; 0 for none.", low=0)
    save_interval: int = option(10_000, "Transitions between two checkpoints; 0 for one at the end only.", low=0)

    def __post_init__(self) -> None:
        check_fields(self, "option")


@dataclasses.dataclass(frozen=True)
class Keeping:
    """What a run keeps, measures, and begins with."""

    keep_checkpoints: int = option(3, "Checkpoints kept; older ones are deleted.", low=1)
    eval_episodes: int = option(10, "Episodes an evaluation during training.", low=1, high=MAX_EPISODES)
    start_from: str | None = option(
        None, "Run or checkpoint of the same agent whose networks a new run begins with, in whatever world --config "
        "describes.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self, "option")


@dataclasses.dataclass(frozen=True)
class SingleProcess:
    """A run whose environments are stepped by the learner's own thread."""

    num_envs: int = option(8, "Environments stepped side by side (8; 16 for on-policy agents).", low=1)
    max_nonfinite_updates: int = option(20, "Updates with non-finite gradients in a row that stop the run.", low=1)

    def __post_init__(self) -> None:
        check_fields(self, "option")


@dataclasses.dataclass(frozen=True)
class ManyProcesses:
    """A run whose environments are stepped by worker processes."""

    envs_per_worker: int = option(4, "Environments that each worker steps side by side.", low=1)

    def __post_init__(self) -> None:
        check_fields(self, "option")


@dataclasses.dataclass(frozen=True)
class Workers:
    """Whether there are worker processes, where the program does not decide that."""

    workers: int = option(0, "Worker processes; 0 steps the environments in the learner's own.", low=0)

    def __post_init__(self) -> None:
        check_fields(self, "option")


@dataclasses.dataclass(frozen=True)
class Setup:
    """How the work of a run is spread.

    Attributes:
        schedule: how long, and how often what.
        service: workers and their supervision.
        learning: replay and ratios, or which rollouts are taken.
        envs_per_worker: environments of each worker.
        inline: whether the workers live in the learner's thread.
        backend: where they live otherwise.
    """

    schedule: Schedule
    service: ServiceConfig
    learning: OffPolicyConfig | RolloutConfig
    envs_per_worker: int
    inline: bool
    backend: BackendConfig = dataclasses.field(default_factory=BackendConfig)

    @property
    def gradient_steps(self) -> int:
        """Gradient steps that replay pays for over the whole run; 0 for agents that decide it themselves."""
        if isinstance(self.learning, RolloutConfig):
            return 0
        return int(self.schedule.max_steps * self.learning.update_to_data)


class Options:
    """Reads configuration dataclasses from flags; a resumed run's options stand in for flags that were not given.

    Args:
        values: the flags.
        stored: of a resumed run, empty for a new one.

    Attributes:
        read: every option that was read, by name.
    """

    def __init__(self, values: flags.FlagValues, stored: Mapping[str, Any]) -> None:
        self._values, self._stored = values, stored
        self.read: dict[str, Any] = {}

    def __call__(self, cls: type[T], *, fixed: Mapping[str, Any] | None = None, **defaults: Any) -> T:
        """Build ``cls``.

        Args:
            cls: a dataclass of :func:`racer.core.config.option` fields.
            fixed: fields that no flag decides.
            defaults: what stands for flags whose default is None.
        """
        found: dict[str, Any] = {**(fixed or {})}
        for name in (field.name for field in dataclasses.fields(cls) if field.name not in found):  # type: ignore[arg-type]
            flag: flags.Flag | None = self._values[name] if name in self._values else None  # noqa: SIM401
            if flag is not None and flag.present:
                found[name] = flag.value
            elif name in self._stored:
                found[name] = self._stored[name]
            elif flag is not None and flag.value is not None:
                found[name] = flag.value
            elif name in defaults:
                found[name] = defaults[name]
            if name in found:
                self.read[name] = found[name]
        return cls(**found)

    def given(self, name: str) -> bool:
        """Whether a flag was given, rather than left to its default."""
        return name in self._values and bool(self._values[name].present)

    def refuse_others(self, agent: str, classes: Collection[type]) -> None:
        """Raise UsageError where a flag of ``classes`` was given that was not read and so would do nothing."""
        known = sorted(self.read)
        for name in (field.name for cls in classes for field in dataclasses.fields(cls)):
            if name not in self.read and self.given(name) and name != "seed":
                raise UsageError(f"flag --{name} has no meaning for {agent}; its own are {', '.join(known)}")


MakeSetup = Callable[[Options, RunSpec], Setup]
_OPTION_CLASSES = (
    Schedule, SingleProcess, ManyProcesses, Workers, ServiceConfig, BackendConfig, OffPolicyConfig, RolloutConfig,
)  # fmt: skip


def single_process(options: Options, spec: RunSpec) -> Setup:
    """Read the options of a run in one process: lock step with one worker in the learner's thread.

    Off-policy, every step of all environments pays for one update() call.
    """
    rollouts = wants_rollouts(spec.agent_name)
    schedule, single = options(Schedule), options(SingleProcess, num_envs=16 if rollouts else 8)
    learning: OffPolicyConfig | RolloutConfig
    if rollouts:
        learning = RolloutConfig(max_policy_lag=0)
    else:
        ratio = {"experience_batch_size": single.num_envs, "learner_update_ratio": 1}
        learning = options(OffPolicyConfig, fixed=ratio, batch_size=128, utd_ratio=8)
    service = ServiceConfig(
        num_workers=1,
        worker_steps_per_iteration=1,
        deterministic=True,
        seed=spec.seed,
        max_nonfinite_updates=single.max_nonfinite_updates,
    )
    return _checked(Setup(schedule, service, learning, single.num_envs, inline=True), spec)


def worker_processes(options: Options, spec: RunSpec, num_workers: int | None = None) -> Setup:
    """Read the options of a run with worker processes. What rollouts decide is no option for on-policy agents.

    Args:
        options: of the run.
        spec: of the run.
        num_workers: how many, where no option says it.
    """
    rollouts = wants_rollouts(spec.agent_name)
    schedule, many = options(Schedule), options(ManyProcesses)
    fixed: dict[str, Any] = {"seed": spec.seed}
    if num_workers is not None:
        fixed["num_workers"] = num_workers
        fixed["max_queue_size"] = max(ServiceConfig().max_queue_size, num_workers)
    if rollouts:
        decided = ("worker_steps_per_iteration", "max_queue_size", "policy_update_frequency")
        defaults = {field.name: field.default for field in dataclasses.fields(ServiceConfig)}
        # As many as there may be workers: the queue is fitted to the workers where the run is built.
        fixed |= {name: defaults[name] for name in decided} | {"max_queue_size": 1 << 30}
    service = options(ServiceConfig, fixed=fixed)
    learning = options(RolloutConfig) if rollouts else options(OffPolicyConfig)
    backend = _backend(options, service)
    return _checked(Setup(schedule, service, learning, many.envs_per_worker, inline=False, backend=backend), spec)


def _backend(options: Options, service: ServiceConfig) -> BackendConfig:
    """Read where the workers run.

    Raises:
        UsageError: flags for Ray without Ray, more workers needed than wanted, or fewer than lock step needs.
    """
    chosen = options(BackendConfig)
    if chosen.backend != "ray":
        for name in ("ray_address", "min_workers", "worker_cpus"):
            if options.given(name):
                raise UsageError(f"flag --{name} concerns a Ray cluster: it needs --backend ray")
    elif chosen.min_workers > service.num_workers:
        raise UsageError(f"option 'min_workers' ({chosen.min_workers}) exceeds 'num_workers' ({service.num_workers})")
    elif service.deterministic and chosen.min_workers not in (0, service.num_workers):
        raise UsageError(
            f"option 'min_workers' ({chosen.min_workers}) must be 'num_workers' ({service.num_workers}) in a "
            "deterministic run: every round needs all workers"
        )
    return chosen


def workers_or_none(options: Options, spec: RunSpec) -> Setup:
    """Read the options of a run that says itself whether it has worker processes."""
    count = options(Workers).workers
    return worker_processes(options, spec, count) if count else single_process(options, spec)


def _checked(setup: Setup, spec: RunSpec) -> Setup:
    learning, steps = setup.learning, setup.schedule.max_steps
    if isinstance(learning, OffPolicyConfig):
        check_utd_ratio(spec.agent_name, spec.agent_config, learning.utd_ratio)
        if learning.start_training >= steps:
            raise UsageError(f"option 'start_training' ({learning.start_training}) must be below 'max_steps' ({steps})")
    return setup


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


def define_dataclass_flags(
    cls: type, values: flags.FlagValues = flags.FLAGS, *, without: Collection[str] = (), **defaults: Any
) -> None:
    """Define a flag for every field of a configuration dataclass that has none yet.

    Args:
        cls: the dataclass.
        values: where the flags are defined.
        without: fields that are no flags.
        defaults: replace the dataclass's own; None leaves the choice to whom the options are read for.
    """
    kinds = typing.get_type_hints(cls)
    define = {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool}
    for field in dataclasses.fields(cls):
        if field.name in values or field.name in without:
            continue
        default = defaults.get(field.name, field.default)
        define_flag: Any = define.get(kinds[field.name], flags.DEFINE_string)
        define_flag(field.name, default, field.metadata.get("doc", ""), flag_values=values)


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
) -> RunPlan:
    """Read from the flags which run is meant, new or resumed.

    Args:
        program: name of the calling program; a run is resumed by the program that began it.
        make_setup: how this program spreads the work.
        values: the flags.
        env_flags: flags that replace the keys of the world's configuration of the same names.
        replaced: keys that count instead of the config file's; a resumed run may run the code of the agent
            (``model_cls``) that they or the config file name.

    Raises:
        UsageError: wrong flags, an occupied folder, or a run that does not fit.
    """
    if values.resume is not None:
        return _plan_resume(program, make_setup, values, env_flags, replaced or {})
    config = config_from_flags(values, replaced)
    if config is None:
        raise UsageError("--config is missing: name a config file, e.g. one of scripts/sim/configs")
    if values.seed < 0:
        raise UsageError(f"flag --seed must be at least 0, not {values.seed}")
    overrides = {name: values[name].value for name in env_flags if values[name].value is not None}
    trust_config(config)
    spec = spec_from_config(config, values.seed, overrides)
    folder = Path(values.policy_dir) / check_run_name(values.run_name or _default_name(spec))
    check_vacant(folder)
    options = Options(values, {})
    setup = make_setup(options, spec)
    options.refuse_others(spec.agent_name, _OPTION_CLASSES)
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
) -> RunPlan:
    folder = Path(values.resume)
    if values.start_from is not None:
        raise UsageError("flag --start_from is for new runs; --resume goes on with the run's own networks")
    if not folder.is_dir():
        raise UsageError(f"there is no run to resume at {str(folder)!r}")
    config = config_from_flags(values, replaced)
    # What a person names here is trusted, before the run's own description is looked into.
    name_code(*replaced.values())
    if config is not None:
        trust_config(config)
    spec, stored = read_run(folder)
    if stored.get("program") != program:
        begun_by = shown(stored.get("program"))
        raise UsageError(f"run {str(folder)!r} was begun by {begun_by}; resume it with that program")
    _check_same(spec, folder, values, env_flags, config)
    if "workers" in values and values["workers"].present and bool(values.workers) != bool(stored.get("workers")):
        raise UsageError(f"flag --workers is {values.workers}, but the resumed run has {stored.get('workers')!r}")
    options = Options(values, stored)
    setup = make_setup(options, spec)
    options.refuse_others(spec.agent_name, _OPTION_CLASSES)
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
