"""One YAML file for a whole PPO run, for programs that train in one world: sections ``env``, ``ppo``, ``training``.

The names of its keys are those of many reinforcement learning scripts. They are translated to the names of this house
here and nowhere else; from there on the run is one as any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from racer.core.config import check_fields, from_mapping, option
from racer.core.errors import UsageError, unknown_name
from racer.core.run_dir import check_run_name, check_vacant
from racer.core.shipped import find_policy
from racer.core.yaml_file import parse_yaml
from racer.distributed.config import RolloutConfig, ServiceConfig
from racer.envs.registry import get_world
from racer.networks.layers import ACTIVATIONS
from racer.training.options import Schedule, Setup
from racer.training.plan import RunPlan
from racer.training.run_spec import RunSpec, read_run, spec_from_config

__all__ = [
    "DEVICES",
    "Imagination",
    "PPOSection",
    "Settings",
    "TrainingSection",
    "WarmStart",
    "overridden",
    "plan_new",
    "plan_resumed",
]

DEVICES = ("auto", "cpu", "gpu")
_MAX_WORKERS = 1024


@dataclass(frozen=True)
class PPOSection:
    """Section ``ppo``."""

    hidden_sizes: tuple[int, ...] = option((256, 256), "widths of the hidden layers of policy and value", empty=False)
    activation: str = option("tanh", "of the hidden layers", choices=tuple(ACTIVATIONS))
    view: str | None = option(None, "observation transform of the world that policy and value see through, by name")
    shared_extractor: bool = option(False, "one extractor with two heads, instead of two networks")
    learning_rate: float = option(3e-4, "Adam's step size, of both networks", low=0.0)
    lr_schedule: str = option("cosine", "how it falls over the run", choices=("constant", "linear", "cosine"))
    final_lr_fraction: float = option(1 / 6, "what it falls to, as a share", low=0.0, high=1.0)
    gamma: float = option(0.95, "discount", above=0.0, high=1.0)
    gae_lambda: float = option(0.9, "decay of later temporal differences in the advantage", low=0.0, high=1.0)
    clip_ratio: float = option(0.2, "how far the probability ratio may leave 1", above=0.0)
    value_coef: float = option(0.5, "weight of the value loss", low=0.0)
    entropy_coef: float = option(0.003, "weight of the entropy", low=0.0)
    max_grad_norm: float = option(0.5, "joint norm above which gradients are scaled down", above=0.0)
    num_steps: int = option(256, "steps of every environment between two updates", low=1)
    num_epochs: int = option(10, "times an update goes over its rollout", low=1)
    batch_size: int = option(256, "transitions in a gradient step; must divide num_envs * num_steps", low=1)
    distribution: str = option("beta", "of the actions", choices=("beta", "tanh_gaussian"))
    initial_std: float = option(0.3, "first deviation of an action, as a share of half its range", above=0.0, high=0.57)
    normalize_values: bool = option(True, "whether returns are learnt relative to their running mean and deviation")
    target_kl: float | None = option(None, "divergence at which the rest of an update is skipped", above=0.0)
    critic_warmup: int = option(0, "first updates, in which the value network learns alone", low=0)

    def __post_init__(self) -> None:
        check_fields(self, "config key 'ppo':")


@dataclass(frozen=True)
class TrainingSection:
    """Section ``training``; counts are transitions, over all environments."""

    total_timesteps: int = option(1_000_000, "transitions of the run", low=1)
    model_save_path: str | None = option(
        None, "folder of the run: checkpoints, final_model, training_stats.npz; None: models/<world>"
    )
    log_dir: str = option("runs", "folder of TensorBoard's files, in a folder of the program's name")
    log_freq: int = option(10_000, "between two lines of metrics", low=1)
    save_freq: int = option(100_000, "between two checkpoints; 0 for one at the end only", low=0)
    eval_freq: int = option(100_000, "between two evaluations; 0 for none", low=0)
    eval_episodes: int = option(10, "episodes of an evaluation", low=1)
    keep_checkpoints: int = option(3, "checkpoints that are kept", low=1)
    start_from: str | None = option(None, "run or checkpoint whose networks a new run begins with")

    def __post_init__(self) -> None:
        check_fields(self, "config key 'training':")


@dataclass(frozen=True)
class WarmStart:
    """Section ``warm_start``: demonstrations that the policy learns from before it acts."""

    source: str = option("none", '"none", "logged" actions, or the name of a controller')
    routes: int = option(200, "recordings that are taken", low=1, high=100_000)
    samples: int = option(10, "steps of each", low=1, high=1000)
    epochs: int = option(20, "times over all of them", low=1)
    learning_rate: float = option(1e-3, "Adam's first step size", above=0.0)

    def __post_init__(self) -> None:
        check_fields(self, "config key 'warm_start':")


@dataclass(frozen=True)
class Imagination:
    """Section ``imagination``: a model of the world is learnt, and the policy follows the gradient of the cost in it.

    A round lets the policy act, learns the model from all that was seen, and follows the gradient.
    """

    rounds: int = option(0, "how often; 0 for not at all", low=0, high=1000)
    routes: int = option(96, "episodes that the policy acts in, in every round", low=1, high=100_000)
    hardness: float = option(
        1.0, "1 draws all episodes alike; with h the hardest share q has probability q^(1/h)", low=1.0, high=100.0
    )
    noise: float = option(0.05, "greatest deviation of what is added to its actions there", low=0.0)
    epochs: int = option(20, "times that the model learns from all that was seen", low=1)
    lanes: int = option(64, "imagined episodes side by side", low=1, high=100_000)
    horizon: int = option(50, "steps that a gradient reaches", low=1)
    steps: int = option(1000, "of the gradient, in every round", low=1)
    learning_rate: float = option(2e-3, "Adam's first step size for the policy", above=0.0)

    def __post_init__(self) -> None:
        check_fields(self, "config key 'imagination':")


@dataclass(frozen=True)
class Settings:
    """The whole file.

    Attributes:
        env: ``num_envs``, and keys of the world.
    """

    seed: int = option(42, "of everything random", low=0)
    device: str = option("auto", "where the learner runs", choices=DEVICES)
    env: Mapping[str, Any] = option({}, "num_envs, and keys of the world")
    ppo: PPOSection = field(default_factory=PPOSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    warm_start: WarmStart = field(default_factory=WarmStart)
    imagination: Imagination = field(default_factory=Imagination)

    def __post_init__(self) -> None:
        check_fields(self, "config key")
        count = self.env.get("num_envs", 8)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"config key 'env': 'num_envs' must be a whole number at least 1, not {count!r}")
        rows = count * self.ppo.num_steps
        if rows % self.ppo.batch_size:
            raise UsageError(
                f"config key 'ppo': 'batch_size' {self.ppo.batch_size} does not divide the {rows} transitions of a "
                f"rollout ({count} environments x {self.ppo.num_steps} steps)"
            )
        if self.warm_start.source != "none" and self.training.start_from is not None:
            raise UsageError("config key 'warm_start': a run begins with demonstrations or with training.start_from")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Check the contents of a file.

        Raises:
            UsageError: an unknown key (with the nearest one), or a value of the wrong type or out of range.
        """
        sections: dict[str, type[Any]] = {
            "ppo": PPOSection,
            "training": TrainingSection,
            "warm_start": WarmStart,
            "imagination": Imagination,
        }
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise unknown_name("config key", str(key), known)
        built: dict[str, Any] = {
            name: from_mapping(section, {} if values[name] is None else values[name], f"config key '{name}':")
            for name, section in sections.items()
            if name in values
        }
        return cls(**{**values, **built})

    @property
    def num_envs(self) -> int:
        """Environments, over all workers."""
        return int(self.env.get("num_envs", 8))

    def as_dict(self) -> dict[str, Any]:
        """Return the whole file, as JSON knows it."""
        return dataclasses.asdict(self)

    def spec(self, world: str, aliases: Mapping[str, str]) -> RunSpec:
        """Return world, agent and seed.

        Args:
            world: its name.
            aliases: further names of the world's keys.

        Raises:
            UsageError: a key that the world does not have.
        """
        env = {aliases.get(key, key): value for key, value in self.env.items() if key != "num_envs"}
        ppo, rows = self.ppo, self.num_envs * self.ppo.num_steps
        agent = {
            "rollout_length": ppo.num_steps,
            "num_epochs": ppo.num_epochs,
            "num_minibatches": rows // ppo.batch_size,
            "actor_lr": ppo.learning_rate,
            "critic_lr": ppo.learning_rate,
            "lr_schedule": ppo.lr_schedule,
            "lr_decay_transitions": self.training.total_timesteps,
            "final_lr_fraction": ppo.final_lr_fraction,
            "discount": ppo.gamma,
            "shared_trunk": ppo.shared_extractor,
            "hidden_dims": ppo.hidden_sizes,
            "value_hidden_dims": ppo.hidden_sizes,
        }
        same = (
            "activation", "clip_ratio", "critic_warmup", "distribution", "entropy_coef", "gae_lambda", "initial_std",
            "max_grad_norm", "normalize_values", "target_kl", "value_coef", "view",
        )  # fmt: skip
        agent |= {name: getattr(ppo, name) for name in same}
        return spec_from_config({"model_cls": "ppo", "world": world, "env": env, **agent}, self.seed)

    def setup(self, workers: int) -> Setup:
        """Return how the work is spread: in the learner's own process, or over worker processes.

        Raises:
            UsageError: the environments do not divide among the workers.
        """
        training = self.training
        schedule = Schedule(training.total_timesteps, training.log_freq, training.eval_freq, training.save_freq)
        if not 0 <= workers <= _MAX_WORKERS or self.num_envs % max(workers, 1):
            raise UsageError(f"the {self.num_envs} environments of 'num_envs' do not divide among {workers} workers")
        if not workers:
            service = ServiceConfig(num_workers=1, worker_steps_per_iteration=1, deterministic=True, seed=self.seed)
            return Setup(schedule, service, RolloutConfig(max_policy_lag=0), self.num_envs, inline=True)
        service = ServiceConfig(num_workers=workers, max_queue_size=max(16, workers), seed=self.seed)
        return Setup(schedule, service, RolloutConfig(), self.num_envs // workers, inline=False)


def overridden(values: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the contents of a file with ``section.key=value`` words put over them; values are YAML.

    Raises:
        UsageError: a word without a key or a value.
    """
    found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for word in words:
        path, equals, text = word.partition("=")
        *parents, last = path.split(".")
        if not equals or not last or len(parents) > 1:
            raise UsageError(f"{word!r} must be written section.key=value")
        level = found
        for part in parents:
            level = level.setdefault(part, {})
            if not isinstance(level, dict):
                raise UsageError(f"{word!r}: {part!r} is no section")
        level[last] = parse_yaml(text, repr(word))
    return found


def plan_new(program: str, settings: Settings, spec: RunSpec, workers: int) -> RunPlan:
    """Plan a new run in ``training.model_save_path``.

    Raises:
        UsageError: the folder is occupied, or something does not fit.
    """
    folder = Path(settings.training.model_save_path or f"models/{get_world(spec.world).file_name}")
    check_run_name(folder.name)
    setup = settings.setup(workers)
    check_vacant(folder)
    return RunPlan(folder, spec, setup, _options(program, settings, workers), resumed=False)


def plan_resumed(program: str, folder: Path, words: Sequence[str], workers: int | None) -> tuple[RunPlan, Settings]:
    """Plan to go on with a run; ``words`` may change how long it goes and how often what.

    Raises:
        UsageError: there is no run of this program, or a word would make it another run.
    """
    folder = find_policy(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no run to resume at {str(folder)!r}")
    spec, stored = read_run(folder)
    if stored.get("program") != program or not isinstance(stored.get("settings"), dict):
        raise UsageError(f"run {str(folder)!r} was begun by {stored.get('program')}; resume it with that program")
    for word in words:
        if not word.startswith("training.") or word.startswith(("training.model_save_path", "training.start_from")):
            raise UsageError(f"{word!r} would make run {str(folder)!r} another run: start a new one instead")
    settings = Settings.of(overridden(stored["settings"], words))
    count = int(stored.get("workers", 0)) if workers is None else workers
    if bool(count) != bool(stored.get("workers")):
        raise UsageError(f"flag --workers is {count}, but the resumed run has {stored.get('workers')!r}")
    options = _options(program, settings, count)
    return RunPlan(folder, spec, settings.setup(count), options, resumed=True), settings


def _options(program: str, settings: Settings, workers: int) -> dict[str, Any]:
    training = settings.training
    return {
        "program": program,
        "settings": settings.as_dict(),
        "workers": workers,
        "keep_checkpoints": training.keep_checkpoints,
        "eval_episodes": training.eval_episodes,
        "start_from": training.start_from,
    }
