"""A training run: the actor-learner service, joined to a run's folder, metrics, evaluations and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from racer.agents.protocol import ROLLOUT
from racer.core.checkpoint import Checkpoint
from racer.core.errors import RacerError, UsageError
from racer.core.metrics import MetricsLogger
from racer.core.run_dir import HeldRun
from racer.core.trust import name_code
from racer.distributed.cluster.driver_pool import driven
from racer.distributed.config import RolloutConfig, ServiceConfig
from racer.distributed.consumers import Consumer, OffPolicyConsumer, OnPolicyConsumer
from racer.distributed.inline import InlinePool
from racer.distributed.learner import LearningDiverged
from racer.distributed.pool import PoolFactory, PoolTask, StateLost
from racer.distributed.processes.supervisor import ProcessPool
from racer.distributed.service import ActorLearnerService, Periodic, ServiceState
from racer.distributed.warmup import warmup_policy
from racer.envs.registry import get_world
from racer.envs.world import World
from racer.evaluation.episodes import evaluate_policy, evaluation_seeds
from racer.training.compiled import keep_compilations
from racer.training.device import learner_device
from racer.training.options import Setup
from racer.training.plan import RunPlan
from racer.training.progress import ProgressBar, bar_values, last_words
from racer.training.run_spec import RUN_FILE, RunSpec, create_agent, describes
from racer.training.saving import CheckpointSaver, learnt_arrays, resume_checkpoint
from racer.training.signals import StopSignals

__all__ = ["Extras", "TrainingRun", "make_evaluation", "run_training"]

Evaluate = Callable[[int, Any], Mapping[str, float]]

log = logging.getLogger(__name__)


def make_environments(world: str, env_config: Mapping[str, Any], num_envs: int) -> VectorEnv:
    """Build a worker's environments, in the worker; the learner trusts this world."""
    name_code(world)
    return get_world(world).make(env_config, num_envs)


class TrainingRun:
    """A run that can go to its end.

    Args:
        spec: world, agent, seed.
        setup: how the work is spread.
        checkpoint: where to go on; None starts anew.
        learnt: state of the agent that a new run begins with; None draws a fresh one.
        pool: another kind of pool than ``setup`` names.

    Raises:
        UsageError: options that contradict each other, or a checkpoint that does not fit.
    """

    def __init__(
        self,
        spec: RunSpec,
        setup: Setup,
        checkpoint: Checkpoint | None = None,
        learnt: Mapping[str, np.ndarray] | None = None,
        *,
        pool: PoolFactory | None = None,
    ) -> None:
        self.spec, self.setup, self.world = spec, setup, get_world(spec.world).fitted(spec.env_config)
        # Built here once: a wrong configuration is an error of this process, before any worker starts.
        env = self.world.make_one(spec.env_config)
        spaces = env.single_observation_space, env.single_action_space
        env.close()
        _check_rows(self.world, setup)
        agent_seed, replay_seed = (int(s) for s in np.random.SeedSequence([spec.seed, 1]).generate_state(2))
        agent = create_agent(spec, *spaces, seed=agent_seed, learnt=learnt)
        if agent.policy.spec["kind"] == "foreign" and not setup.inline:
            raise UsageError(f"{spec.agent_name} acts in the learner's process only: train it without worker processes")
        _check_memory(self.world, spec, agent.policy)
        state = None
        if checkpoint is not None:
            agent = agent.with_state_arrays(checkpoint.groups["agent"])
            state = ServiceState(
                checkpoint.metadata["loop"], checkpoint.groups["replay"], checkpoint.groups["collector"]
            )
        service = _fitted(setup.service, agent)
        observation_shape = tuple(spaces[0].shape or ())
        task = PoolTask(
            env_factory=functools.partial(make_environments, spec.world, dict(spec.env_config), setup.envs_per_worker),
            policy=agent.policy,
            warmup=warmup_policy(agent.policy, agent.policy_params, spaces[1]),
            config=service,
            observation_shape=observation_shape,
            max_batch_bytes=_batch_bytes(service, setup.envs_per_worker, observation_shape, agent.policy),
        )
        action_shape = tuple(getattr(agent.policy, "action_shape", spaces[1].shape or ()))
        consumer = _consumer(agent, setup, service, (observation_shape, action_shape), replay_seed)
        factory: PoolFactory = pool or (InlinePool if setup.inline else ProcessPool)
        self.service = ActorLearnerService(factory, task, agent, consumer, metrics=self.world.metrics, state=state)

    @property
    def evaluable(self) -> bool:
        """Whether the policy acts outside the learner's process too, from a checkpoint."""
        return bool(self.service.agent.policy.spec["kind"] != "foreign")

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
        restored: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until ``max_steps`` or until ``stop`` is set; returns whether the goal was reached.

        Where several things are due at one step, metrics are logged before the checkpoint that counts them. A
        checkpoint is written at the end, and also when a worker's failure ends the run.

        Args:
            metrics: where numbers go.
            saver: where checkpoints go.
            stop: ends the run in order.
            evaluate: measures the policy.
            progress: whether a bar is shown.
            restored: puts the run's folder back if it was deleted, and says whether it did; a checkpoint follows then.
        """
        schedule, start = self.setup.schedule, self.step

        def save(service: ActorLearnerService, final: bool = False) -> None:
            state = service.state()
            groups = {"replay": state.replay, "collector": state.collector}
            arguments = service.transitions, service.agent, groups, {"loop": state.counters}
            restored()
            try:
                saver.save(*arguments, final=final)
            except RacerError:
                # Deleted while it was written.
                if not restored():
                    raise
                saver.save(*arguments, final=final)

        with ProgressBar(schedule.max_steps, start, enabled=progress) as bar:

            def log(service: ActorLearnerService) -> None:
                values = service.metrics()
                if restored():
                    save(service)
                metrics.log(service.transitions, values)
                bar.show(service.transitions, bar_values(values, self.world.metrics))

            def evaluate_and_log(service: ActorLearnerService) -> None:
                assert evaluate is not None
                metrics.log(service.transitions, evaluate(service.transitions, service.agent))

            duties = [Periodic(schedule.log_interval, log)]
            if evaluate is not None and schedule.eval_interval:
                duties.append(Periodic(schedule.eval_interval, evaluate_and_log))
            if schedule.save_interval:
                duties.append(Periodic(schedule.save_interval, save))
            try:
                reached = self.service.run(schedule.max_steps, periodic=duties, stop_event=stop)
            except LearningDiverged:
                raise
            except BaseException:
                if self.step > start:
                    with contextlib.suppress(StateLost):
                        save(self.service)
                raise
            if self.step > start:
                save(self.service, final=True)
            return reached


def _check_memory(world: World, spec: RunSpec, policy: Any) -> None:
    """Compare what a world needs with what a policy has.

    Raises:
        UsageError: a policy without a memory where one is needed. The reverse is a warning, and so is one that is too
            short.
    """
    use, words = world.memory_use(spec.env_config)
    has = bool(getattr(policy, "has_memory", False))
    if use == "needed" and not has:
        raise UsageError(f"{spec.agent_name} has no memory, which {world.name} needs: {words}")
    if use == "useless" and has:
        log.warning("the memory of %s is of no use in %s: %s", spec.agent_name, world.name, words)
    wanted = world.remembered_steps(spec.env_config)
    held = getattr(policy.torso.core, "length", wanted) if has else wanted
    if use != "useless" and held < wanted:
        log.warning(
            'the memory of %s holds %d steps, an episode of %s asks for %d: set its "length"', spec.agent_name, held,
            world.name, wanted,
        )  # fmt: skip


def _check_rows(world: World, setup: Setup) -> None:
    """Raise UsageError unless the rows that are stepped side by side make whole environments."""
    if setup.envs_per_worker % world.egos:
        name = "num_envs" if setup.inline else "envs_per_worker"
        raise UsageError(
            f"{name} = {setup.envs_per_worker} rows do not make environments of {world.egos} egos each: choose a "
            "multiple"
        )


def make_evaluation(spec: RunSpec, num_episodes: int) -> Evaluate:
    """Return a function of (step, agent) that evaluates the deterministic policy on held-out seeds.

    Raises:
        UsageError: the configuration to evaluate in cannot be built.
    """
    world, seeds = get_world(spec.world), evaluation_seeds(num_episodes)
    config = world.held_out(spec.env_config)
    if config != spec.env_config:
        # What is held out may be missing, which is to be said before the training and not in the middle of it.
        world.make_one(config).close()

    def evaluate(step: int, agent: Any) -> Mapping[str, float]:
        return evaluate_policy(agent.policy, agent.policy_params, world, config, seeds).scalars()

    return evaluate


@dataclasses.dataclass(frozen=True)
class Extras:
    """What a program adds to a run.

    Attributes:
        prepare: gives the state of the agent that a new run begins with, from that of the run that it starts from
            (None if there is none).
        tensorboard: folder of TensorBoard's files; the run's own where None.
        tags: names of numbers there, from their names in ``metrics.jsonl``.
        finish: called with the plan when metrics and checkpoints are written.
    """

    prepare: Callable[[RunSpec, Mapping[str, np.ndarray] | None], Mapping[str, np.ndarray]] | None = None
    tensorboard: Path | None = None
    tags: Callable[[str], str] = lambda name: name
    finish: Callable[[RunPlan], None] = lambda plan: None


def run_training(plan: RunPlan, *, progress: bool = True, extras: Extras | None = None) -> int:
    """Train what was planned until the end or a stop signal, and return the exit code."""
    extras = extras or Extras()
    run_dir, checkpoint = plan.folder, None
    learnt: Mapping[str, np.ndarray] | None = None
    with StopSignals("stopping after this step, then saving") as stop, contextlib.ExitStack() as held:
        if plan.resumed:
            folder = held.enter_context(plan.hold())
            checkpoint = resume_checkpoint(plan.folder, plan.spec)
        else:
            if plan.options.get("start_from") is not None:
                learnt = learnt_arrays(plan.options["start_from"], plan.spec)
            if extras.prepare is not None:
                learnt = extras.prepare(plan.spec, learnt)
        kept = keep_compilations()
        backend, pool = plan.setup.backend, None
        if backend.backend == "ray":
            pool = held.enter_context(driven(backend, backend.min_workers or plan.setup.service.num_workers))
        run = TrainingRun(plan.spec, plan.setup, checkpoint, learnt, pool=pool)
        began = run.step
        evaluate = make_evaluation(plan.spec, plan.options["eval_episodes"])
        if stop.event.is_set():
            return stop.exit_code
        if not plan.resumed:
            # Only now: what cannot be trained leaves nothing on disk.
            folder = held.enter_context(plan.hold())
        plan.write()
        print(f"run {run_dir}: {_describe(plan)}")  # noqa: T201 - the program's output
        metrics = MetricsLogger(
            run_dir, plan.options, truncate_after=run.step if plan.resumed else None,
            tensorboard=extras.tensorboard, tags=extras.tags,
        )  # fmt: skip
        saver = CheckpointSaver(run_dir, plan.spec, keep=plan.options["keep_checkpoints"])
        try:
            restored = functools.partial(_restored, folder, plan, metrics)
            run.run(metrics, saver, stop=stop.event, evaluate=evaluate, progress=progress, restored=restored)
        finally:
            metrics.close()
            if kept is not None:
                with contextlib.suppress(OSError):
                    kept.share()
        extras.finish(plan)
    words = last_words(
        run_dir, run.step, began, metrics.latest, stopped=bool(stop.exit_code), evaluable=run.evaluable
    )  # fmt: skip
    print(words)  # noqa: T201 - the program's output
    return stop.exit_code


def _restored(folder: HeldRun, plan: RunPlan, metrics: MetricsLogger) -> bool:
    """Put a run's folder back where somebody deleted it while the run is at work; returns whether it was gone.

    Raises:
        RacerError: the folder cannot be made again, so that this run could not be resumed.
    """
    run_file = plan.folder / RUN_FILE
    if not folder.lost() and not metrics.lost() and os.path.lexists(run_file):
        return False
    gone = f"run folder {str(plan.folder)!r} was deleted and cannot be resumed"
    if folder.lost():
        if os.path.lexists(run_file) and not describes(run_file, plan.spec, plan.options):
            raise RacerError(f"{gone}: another run has its name now")
        folder.retake()
    try:
        plan.write()
        if metrics.lost():
            metrics.restore()
    except OSError as error:
        raise RacerError(f"{gone}: {error.strerror or error}") from error
    log.warning("run folder %s was deleted; it is back, with its metrics and a new checkpoint", plan.folder)
    return True


def _describe(plan: RunPlan) -> str:
    setup = plan.setup
    workers = f"{setup.service.num_workers} workers x {setup.envs_per_worker} environments"
    where = f"{setup.envs_per_worker} environments" if setup.inline else workers
    if setup.backend.backend == "ray":
        where += f" on Ray ({setup.backend.ray_address})"
    return f"{plan.spec.agent_name} in {plan.spec.world}, learner on {learner_device()}, {where}"


def _fitted(service: ServiceConfig, agent: Any) -> ServiceConfig:
    """Return the settings with those that an agent decides which learns from rollouts.

    A batch is then one rollout, and a worker may have one under way: with more, those that wait while the learner
    updates would be stale before they are read.
    """
    if agent.wants != ROLLOUT:
        return service
    return dataclasses.replace(
        service, worker_steps_per_iteration=agent.rollout_length, max_queue_size=service.num_workers
    )


def _consumer(
    agent: Any, setup: Setup, service: ServiceConfig, shapes: tuple[tuple[int, ...], tuple[int, ...]], seed: int
) -> Consumer:
    """Return what is done with experience.

    Raises:
        UsageError: rollouts of all workers' environments do not divide into the agent's minibatches.
    """
    learning = setup.learning
    if isinstance(learning, RolloutConfig):
        agent.check_num_envs(service.num_workers * setup.envs_per_worker)
        return OnPolicyConsumer(rollouts_per_update=service.num_workers, max_policy_lag=learning.max_policy_lag)
    return OffPolicyConsumer(learning, *shapes, seed=seed)


def _batch_bytes(service: ServiceConfig, num_envs: int, observation_shape: tuple[int, ...], policy: Any) -> int:
    """Return a size that no honest batch exceeds: four times its arrays, and room for a worker's state."""
    memory = sum(value.nbytes for value in policy.initial_memory(num_envs).values())
    row = 4 * (2 * math.prod(observation_shape) + 4 * getattr(policy, "size", 1) + 16)
    return 4 * (service.worker_steps_per_iteration + 1) * num_envs * row + 4 * memory + (1 << 26)
