"""What a run may be told of its length, its workers and its data, and how that is read from flags."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from absl import flags

from racer.agents.registry import check_num_envs, check_utd_ratio
from racer.core.cli import WholeNumber
from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.distributed.config import BackendConfig, OffPolicyConfig, RolloutConfig, ServiceConfig
from racer.evaluation.episodes import MAX_EPISODES
from racer.training.run_spec import RunSpec, wants_rollouts

__all__ = [
    "FLAG_GROUPS",
    "ONE_PROCESS",
    "OPTION_CLASSES",
    "Keeping",
    "ManyProcesses",
    "Options",
    "Schedule",
    "Setup",
    "SingleProcess",
    "Workers",
    "define_dataclass_flags",
    "single_process",
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


OPTION_CLASSES = (
    Schedule, SingleProcess, ManyProcesses, Workers, ServiceConfig, BackendConfig, OffPolicyConfig, RolloutConfig,
)  # fmt: skip


ONE_PROCESS = {"batch_size": 128, "utd_ratio": 8}
"""What a run in one process learns with, where no flag says it."""

FLAG_GROUPS = {
    "The run": (
        "world", "agent", "config", "max_steps", "seed", "run_name", "policy_dir", "resume", "start_from", "device",
        "learner_threads",
    ),
    "Learning": (
        "num_envs", "batch_size", "utd_ratio", "replay_buffer_size", "start_training", "max_nonfinite_updates",
    ),
    "Evaluation during training": ("eval_interval", "eval_episodes"),
    "Checkpoints and logging": ("save_interval", "keep_checkpoints", "log_interval", "progress", "debug"),
    "Worker processes": (
        "workers", "num_workers", "envs_per_worker", "worker_steps_per_iteration", "policy_update_frequency",
        "experience_batch_size", "learner_update_ratio", "max_policy_lag", "max_queue_size", "deterministic",
        "step_timeout", "startup_timeout", "restart_backoff", "restart_backoff_max", "max_restarts", "restart_window",
        "max_start_failures", "max_nonfinite_transitions", "stop_grace",
    ),
    "Cluster": ("backend", "ray_address", "min_workers", "worker_cpus"),
}  # fmt: skip
"""How ``--help`` orders the flags of the training programs."""


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

    def said(self, name: str) -> Any:
        """Return an option that was given, or that the resumed run had; None where neither says it."""
        return self._values[name].value if self.given(name) else self._stored.get(name)

    def given(self, name: str) -> bool:
        """Whether a flag was given, rather than left to its default."""
        return name in self._values and bool(self._values[name].present)

    def refuse_others(self, agent: str, classes: Collection[type]) -> None:
        """Raise UsageError where a flag of ``classes`` was given that was not read and so would do nothing."""
        known = sorted(self.read)
        for name in (field.name for cls in classes for field in dataclasses.fields(cls)):
            if name not in self.read and self.given(name) and name != "seed":
                raise UsageError(f"flag --{name} has no meaning for {agent}; its own are {', '.join(known)}")


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
    define = {float: flags.DEFINE_float, bool: flags.DEFINE_bool}
    for field in dataclasses.fields(cls):
        if field.name in values or field.name in without:
            continue
        default = defaults.get(field.name, field.default)
        doc = field.metadata.get("doc", "")
        if kinds[field.name] is int:
            whole = WholeNumber(), field.name, default, doc
            flags.DEFINE(*whole, flag_values=values, serializer=flags.ArgumentSerializer())
            continue
        define_flag: Any = define.get(kinds[field.name], flags.DEFINE_string)
        define_flag(field.name, default, doc, flag_values=values)


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
        learning = options(OffPolicyConfig, fixed=ratio, **ONE_PROCESS)
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
    elif not options.given("max_queue_size"):
        # Room for one batch that waits and one under way; a few workers have more by default.
        wanted, held = options.said("num_workers"), options.said("max_queue_size")
        usual = ServiceConfig().max_queue_size if held is None else held
        if isinstance(wanted, int) and wanted > usual:
            fixed["max_queue_size"] = 2 * wanted
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
    check_num_envs(spec.agent_name, spec.agent_config, setup.service.num_workers * setup.envs_per_worker)
    if isinstance(learning, OffPolicyConfig):
        check_utd_ratio(spec.agent_name, spec.agent_config, learning.utd_ratio)
        if learning.start_training >= steps:
            raise UsageError(f"option 'start_training' ({learning.start_training}) must be below 'max_steps' ({steps})")
    return setup
