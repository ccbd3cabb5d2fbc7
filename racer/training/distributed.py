"""Distributed training: the actor-learner service, joined to a run's folder, metrics, evaluations and checkpoints."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from racer.agents.protocol import Agent
from racer.core.checkpoint import Checkpoint
from racer.core.config import check_fields, option
from racer.core.errors import UsageError
from racer.core.metrics import MetricsLogger
from racer.distributed.config import OffPolicyConfig, ServiceConfig
from racer.distributed.consumers import Consumer, OffPolicyConsumer
from racer.distributed.service import ActorLearnerService, Periodic, ServiceState
from racer.envs.highway import make_vector_env
from racer.training.checkpointing import CheckpointSaver
from racer.training.off_policy import random_policy_spec
from racer.training.on_policy_distributed import RolloutConfig, on_policy_consumer, on_policy_service
from racer.training.progress import ProgressBar
from racer.training.run_spec import RunSpec, create_agent

__all__ = ["DistributedRun", "DistributedRunConfig", "environment_factory"]

Evaluate = Callable[[int, Agent], Mapping[str, float]]

_EPISODE_NAMES = {"crashed": "collision_rate", "off_road": "off_road_rate", "success": "success_rate"}


@dataclass(frozen=True)
class DistributedRunConfig:
    """How long, and how often what."""

    max_steps: int = option(1_000_000, "Transitions to take in, over all workers.", low=1)
    envs_per_worker: int = option(4, "Environments that each worker steps side by side.", low=1)
    log_interval: int = option(1_000, "Transitions between two lines of metrics.", low=1)
    eval_interval: int = option(10_000, "Transitions between two evaluations; 0 for none.", low=0)
    save_interval: int = option(10_000, "Transitions between two checkpoints; 0 for one at the end only.", low=0)

    def __post_init__(self) -> None:
        check_fields(self, "option")


def environment_factory(env_config: Mapping[str, Any], num_envs: int) -> Callable[[], VectorEnv]:
    """Return what builds a worker's environments, in the worker."""
    return functools.partial(make_vector_env, dict(env_config), num_envs)


class DistributedRun:
    """A run of the actor-learner service.

    Args:
        spec: agent, environment, seed.
        config: amounts and intervals.
        service_config: processes and channels.
        learner_config: replay and ratios, or, for an on-policy agent, which rollouts are taken.
        checkpoint: where to go on; None starts anew.
        learnt: state of the agent that a new run begins with; None draws a fresh one.

    Raises:
        UsageError: options that contradict each other, or a checkpoint that does not fit.
    """

    def __init__(
        self,
        spec: RunSpec,
        config: DistributedRunConfig,
        service_config: ServiceConfig,
        learner_config: OffPolicyConfig | RolloutConfig,
        checkpoint: Checkpoint | None = None,
        learnt: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.spec, self.config = spec, config
        self._factory = environment_factory(spec.env_config, config.envs_per_worker)
        # Built here once: a wrong configuration is an error of this process, before any worker starts.
        env = make_vector_env(spec.env_config, 1)
        agent_seed, replay_seed = (int(s) for s in np.random.SeedSequence([spec.seed, 1]).generate_state(2))
        agent = create_agent(
            spec, env.single_observation_space, env.single_action_space, seed=agent_seed, learnt=learnt
        )
        warmup = None
        if isinstance(learner_config, RolloutConfig):
            service_config = on_policy_service(agent, service_config)  # type: ignore[arg-type]
            consumer: Consumer = on_policy_consumer(
                agent, learner_config, service_config, config.envs_per_worker  # type: ignore[arg-type]
            )
        else:
            _check_warmup(learner_config, config)
            warmup = random_policy_spec(env.single_action_space, agent.policy_params)
            shapes = (env.single_observation_space.shape or (), env.single_action_space.shape or ())
            consumer = OffPolicyConsumer(learner_config, *shapes, seed=replay_seed)
        env.close()
        state = None
        if checkpoint is not None:
            agent = agent.with_state_arrays(checkpoint.groups["agent"])
            state = ServiceState(
                checkpoint.metadata["service"], checkpoint.groups["replay"], checkpoint.groups["collector"]
            )
        self.service = ActorLearnerService(
            self._factory, agent, consumer, service_config, warmup_policy_spec=warmup, state=state
        )

    @property
    def step(self) -> int:
        """Transitions taken in so far."""
        return self.service.transitions

    def run(
        self,
        metrics: MetricsLogger,
        saver: CheckpointSaver,
        *,
        stop: threading.Event,
        evaluate: Evaluate | None = None,
        progress: bool = True,
    ) -> bool:
        """Train until ``max_steps`` or until ``stop`` is set; returns whether the goal was reached.

        A checkpoint is written at the end in either case, and also when a worker's failure ends the run.
        """
        config, start = self.config, self.step

        def save(service: ActorLearnerService, final: bool = False) -> None:
            state = service.state()
            groups = {"replay": state.replay, "collector": state.collector}
            saver.save(service.transitions, service.agent, groups, {"service": state.counters}, final=final)

        with ProgressBar(config.max_steps, start, enabled=progress) as bar:

            def log(values: dict[str, float]) -> None:
                named = rename_metrics(values)
                metrics.log(self.step, named)
                bar.show(self.step, _bar_values(named))

            def evaluate_and_log(service: ActorLearnerService) -> None:
                assert evaluate is not None
                metrics.log(service.transitions, evaluate(service.transitions, service.agent))

            duties = []
            if evaluate is not None and config.eval_interval:
                duties.append(Periodic(config.eval_interval, evaluate_and_log))
            if config.save_interval:
                duties.append(Periodic(config.save_interval, save))
            try:
                reached = self.service.run(
                    config.max_steps,
                    on_log=log,
                    log_interval=config.log_interval,
                    periodic=duties,
                    stop_event=stop,
                )
            except BaseException:
                if self.step > start:
                    save(self.service)
                raise
            if self.step > start:
                save(self.service, final=True)
            return reached


def _check_warmup(learner: OffPolicyConfig, config: DistributedRunConfig) -> None:
    if learner.start_training >= config.max_steps:
        raise UsageError(
            f"option 'start_training' ({learner.start_training}) must be below 'max_steps' ({config.max_steps})"
        )


def rename_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Give the service's numbers the names that the single-threaded program uses for the same things."""
    named = {}
    for name, value in values.items():
        room, _, rest = name.rpartition("/")
        if room == "episode":
            named[f"training/{_EPISODE_NAMES.get(rest, rest)}"] = value
        elif room == "learner":
            named[f"agent/{rest}"] = value
        elif name.startswith("steps_per_second"):
            named[f"speed/{name}"] = value
        else:
            named[f"training/{_RENAMED.get(name, name)}"] = value
    return named


_RENAMED = {"utd_target": "update_to_data_target", "utd_achieved": "update_to_data"}


def _bar_values(values: Mapping[str, float]) -> dict[str, Any]:
    ratio = {"utd": values["training/update_to_data"]} if "training/update_to_data" in values else {}
    return {
        "steps/s": values.get("speed/steps_per_second_10s", 0.0),
        "return": values.get("training/return", 0.0),
        "speed": values.get("training/mean_speed", 0.0),
        "collisions": values.get("training/collision_rate", 0.0),
        **ratio,
        "queue": int(values.get("training/queue_depth", 0)),
        "lag": values.get("training/policy_lag_mean", 0.0),
    }
