"""Settings of the actor-learner service, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from racer.core.config import check_fields, option
from racer.core.errors import UsageError

__all__ = ["BackendConfig", "OffPolicyConfig", "RolloutConfig", "ServiceConfig"]


@dataclass(frozen=True)
class ServiceConfig:
    """Processes, channels and supervision.

    Raises:
        UsageError: a value is out of range, or two contradict each other.
    """

    num_workers: int = option(2, "environment worker processes", low=1)
    worker_steps_per_iteration: int = option(
        32, "steps that a worker takes in each of its environments between two messages", low=1
    )
    policy_update_frequency: float = option(2.0, "publications of the policy to the workers (Hz), at most", above=0.0)
    max_queue_size: int = option(
        16,
        "batches under way from workers to learner, in all; workers block at their equal share. Where the learner is "
        "the slower side, everything in the queue is old by the time it is taken: a long queue is a large policy lag",
        low=1,
    )
    deterministic: bool = option(
        False,
        "lock step: the result depends on the seed and the number of workers only, at the cost of speed",
    )
    seed: int = option(0, "of every stream of the service", low=0)
    step_timeout: float = option(
        8.0, "seconds without a sign of life after which a worker is killed and replaced", above=0.0
    )
    startup_timeout: float = option(
        120.0, "seconds that a worker may take to import, build, reset and step for the first time", above=0.0
    )
    restart_backoff: float = option(
        0.25, "seconds before the first restart of a worker; doubles with each failure in the window", low=0.0
    )
    restart_backoff_max: float = option(5.0, "longest wait before a restart (s)", low=0.0)
    max_restarts: int = option(
        10,
        "failures of one worker within restart_window that are answered with a restart; the next one stops the run",
        low=0,
    )
    restart_window: float = option(300.0, "seconds over which failures are counted", above=0.0)
    max_start_failures: int = option(
        3, "failures of one worker, before it ever delivered anything, that stop the run", low=1
    )
    max_nonfinite_transitions: int = option(
        1000, "transitions in a row of one worker with a value that is not finite, that stop the run", low=1
    )
    max_nonfinite_updates: int = option(
        20, "updates in a row with a loss or gradient that is not finite, that stop the run", low=1
    )
    stop_grace: float = option(3.0, "seconds that workers get to end by themselves before they are killed", low=0.0)

    def __post_init__(self) -> None:
        check_fields(self, "service setting")
        if self.max_queue_size < self.num_workers:
            raise UsageError(
                f"max_queue_size {self.max_queue_size} is less than one batch for each of {self.num_workers} workers"
            )

    @property
    def credits(self) -> int:
        """Batches that one worker may have under way."""
        return self.max_queue_size // self.num_workers


@dataclass(frozen=True)
class OffPolicyConfig:
    """Replay, and how much is learnt from each transition.

    For every ``experience_batch_size`` transitions inserted after warm-up the learner makes ``learner_update_ratio``
    calls of ``agent.update``, each of ``utd_ratio`` gradient steps on minibatches of ``batch_size``. The update-to-data
    ratio, gradient steps per transition, is thus
    ``learner_update_ratio * utd_ratio / experience_batch_size``.

    Raises:
        UsageError: a value is out of range, or two contradict each other.
    """

    replay_buffer_size: int = option(200_000, "transitions kept", low=1)
    batch_size: int = option(256, "transitions in one gradient step", low=1)
    utd_ratio: int = option(16, "gradient steps in one update() call", low=1)
    experience_batch_size: int = option(128, "transitions that pay for learner_update_ratio update() calls", low=1)
    learner_update_ratio: int = option(4, "update() calls for each experience_batch_size transitions", low=1)
    start_training: int = option(
        1000, "transitions of random actions inserted before the first update() call (warm-up)", low=0
    )

    def __post_init__(self) -> None:
        check_fields(self, "learner setting")
        if self.batch_size > self.replay_buffer_size:
            raise UsageError(
                f"option 'batch_size' ({self.batch_size}) must not exceed 'replay_buffer_size' "
                f"({self.replay_buffer_size})"
            )

    @property
    def update_to_data(self) -> float:
        """Gradient steps per transition that are aimed at."""
        return self.learner_update_ratio * self.utd_ratio / self.experience_batch_size


@dataclass(frozen=True)
class RolloutConfig:
    """Which rollouts the learner takes, of an agent that learns from its own recent policies."""

    max_policy_lag: int = option(
        1, "On-policy agents: versions by which a rollout's policy may lag behind the newest; older ones are dropped.",
        low=0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self, "learner setting")


@dataclass(frozen=True)
class BackendConfig:
    """Where the workers run; the last three concern Ray only.

    Raises:
        UsageError: a value is out of range.
    """

    backend: str = option(
        "local", "Where the workers run: local, as processes of this machine, or ray, as actors of a Ray cluster.",
        choices=("local", "ray"),
    )  # fmt: skip
    ray_address: str = option(
        "local", "Ray cluster to join: local starts one on this machine, behind loopback; auto takes the one that runs "
        "here or that RAY_ADDRESS names; HOST:PORT its head; ray://HOST:PORT its client server.",
    )  # fmt: skip
    min_workers: int = option(
        0, "Workers that must have a place in the cluster, to begin and to go on; 0: all to begin, one to go on.", low=0
    )
    worker_cpus: float = option(1.0, "CPUs of the cluster that a worker reserves; a fraction shares one.", above=0.0)

    def __post_init__(self) -> None:
        check_fields(self, "option")
