"""Single-threaded off-policy training: step, insert, sample, update, in one process and in one order.

One **iteration** steps every environment once, inserts those transitions, and, once ``start_training`` transitions
are there, calls ``agent.update`` once with ``utd_ratio`` minibatches of ``batch_size``. The update-to-data ratio is
gradient steps over transitions, ``utd_ratio / num_envs``.

Everything the next iteration depends on is in the checkpoint, so a run that was stopped and resumed is the run that
never stopped, bit for bit on a CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from racer.agents.policy import build_policy
from racer.agents.policy.noise import exploration_generator
from racer.agents.protocol import Agent
from racer.core.checkpoint import Checkpoint
from racer.core.config import check_fields, option
from racer.core.errors import RacerError, UsageError
from racer.core.metrics import MetricsLogger
from racer.envs.highway import make_vector_env
from racer.replay.collector import Collector
from racer.replay.exploration import exploration_state, restore_exploration
from racer.replay.ring_buffer import RingReplayBuffer
from racer.training.checkpointing import CheckpointSaver
from racer.training.loop import run_iterations
from racer.training.progress import EpisodeWindow
from racer.training.run_spec import RunSpec, create_agent

__all__ = ["OffPolicyConfig", "OffPolicyTrainer"]

Evaluate = Callable[[int, Agent], Mapping[str, float]]


@dataclass(frozen=True)
class OffPolicyConfig:
    """How much, how often."""

    max_steps: int = option(100_000, "Transitions to collect in all.", low=1)
    start_training: int = option(1_000, "Transitions collected at random before the first update.", low=0)
    num_envs: int = option(8, "Environments stepped side by side (8; 16 for on-policy agents).", low=1)
    batch_size: int = option(128, "Transitions a minibatch.", low=1)
    utd_ratio: int = option(8, "Gradient steps (minibatches) an update() call.", low=1)
    replay_buffer_size: int = option(200_000, "Transitions kept for replay; the oldest go first.", low=1)
    log_interval: int = option(1_000, "Transitions between two lines of metrics.", low=1)
    eval_interval: int = option(10_000, "Transitions between two evaluations; 0 for none.", low=0)
    save_interval: int = option(10_000, "Transitions between two checkpoints; 0 for one at the end only.", low=0)
    max_nonfinite_updates: int = option(20, "Updates with non-finite gradients in a row that stop the run.", low=1)

    def __post_init__(self) -> None:
        check_fields(self, "option")
        if self.batch_size > self.replay_buffer_size:
            raise UsageError(
                f"option 'batch_size' ({self.batch_size}) must not exceed 'replay_buffer_size' "
                f"({self.replay_buffer_size})"
            )
        if self.start_training >= self.max_steps:
            raise UsageError(
                f"option 'start_training' ({self.start_training}) must be below 'max_steps' ({self.max_steps})"
            )


class OffPolicyTrainer:
    """A single-threaded run.

    Args:
        spec: agent, environment, seed.
        config: amounts and intervals.
        checkpoint: where to go on; None starts anew.
        learnt: state of the agent that a new run begins with; None draws a fresh one.

    Raises:
        UsageError: if the checkpoint does not fit the specification.
    """

    def __init__(
        self,
        spec: RunSpec,
        config: OffPolicyConfig,
        checkpoint: Checkpoint | None = None,
        learnt: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.spec, self.config = spec, config
        env_seed, act_seed, replay_seed, agent_seed = np.random.SeedSequence(spec.seed).generate_state(4)
        env = make_vector_env(spec.env_config, config.num_envs)
        self.collector = Collector(env, seed=int(env_seed))
        spaces = (env.single_observation_space, env.single_action_space)
        self.agent = create_agent(spec, *spaces, seed=int(agent_seed), learnt=learnt)
        self.policy = build_policy(self.agent.policy_spec)
        action_space = env.single_action_space
        self._params = self.agent.policy_params
        self._random_policy = build_policy(random_policy_spec(action_space, self._params))
        self.buffer = RingReplayBuffer(
            config.replay_buffer_size,
            env.single_observation_space.shape or (),
            action_space.shape or (),
            seed=int(replay_seed),
        )
        self._rng = exploration_generator(self.agent.policy_spec, np.random.default_rng(act_seed))
        self.step = self.updates = self.gradient_steps = self._nonfinite_run = 0
        self.episodes = EpisodeWindow()
        self._info: dict[str, Any] = {}
        if checkpoint is not None:
            self._restore(checkpoint)

    def iterate(self) -> None:
        """Step every environment once, and update once if it is time."""
        training = self.step >= self.config.start_training
        policy = self.policy if training else self._random_policy

        def act(observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            return policy.act_with_extras(self._params, observations, self._rng)

        experience = self.collector.collect(1, act)
        self.buffer.insert(experience.flat())
        self.episodes.extend(experience.episodes)
        self.step += self.collector.num_envs
        if self.step >= self.config.start_training and len(self.buffer) > 0:
            self._update()

    def run(
        self,
        metrics: MetricsLogger,
        saver: CheckpointSaver,
        *,
        stop: threading.Event,
        evaluate: Evaluate | None = None,
        progress: bool = True,
    ) -> None:
        """Iterate until ``max_steps`` or until ``stop`` is set, logging, evaluating and saving on the way."""
        run_iterations(self, self.config, metrics, saver, stop=stop, evaluate=evaluate, progress=progress)

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the moment; none of them depends on the clock."""
        ratio = self.gradient_steps / max(self.step - self.config.start_training, 1)
        return {
            **self.episodes.means(),
            **{f"agent/{name}": float(np.asarray(value)) for name, value in self._info.items()},
            "training/updates": self.updates,
            "training/gradient_steps": self.gradient_steps,
            "training/update_to_data": ratio,
            "training/update_to_data_target": self.config.utd_ratio / self.config.num_envs,
            "training/replay_size": len(self.buffer),
            "training/nonfinite_transitions": self.collector.nonfinite_total,
        }

    def save(self, saver: CheckpointSaver, *, final: bool = False) -> Path | None:
        """Write a checkpoint of everything; the ``final`` one must succeed."""
        groups = {
            "replay": self.buffer.state_arrays(),
            "collector": {**self.collector.state(), **exploration_state(self._rng)},
        }
        counters = {
            "step": self.step,
            "updates": self.updates,
            "gradient_steps": self.gradient_steps,
            "nonfinite_run": self._nonfinite_run,
        }
        metadata = {"counters": counters, "episodes": self.episodes.get_state()}
        return saver.save(self.step, self.agent, groups, metadata, final=final)

    def _update(self) -> None:
        config = self.config
        batch = self.buffer.sample(config.batch_size * config.utd_ratio)
        self.agent, self._info = self.agent.update(batch, config.utd_ratio)
        self.updates += 1
        self.gradient_steps += config.utd_ratio
        self._params = self.agent.policy_params
        nonfinite = float(np.asarray(self._info.get("nonfinite_updates", 0.0)))
        self._nonfinite_run = self._nonfinite_run + 1 if nonfinite > 0 else 0
        if self._nonfinite_run >= config.max_nonfinite_updates:
            raise RacerError(
                f"{self._nonfinite_run} updates in a row had non-finite gradients, the last at step {self.step}; "
                "the newest checkpoint is from before"
            )

    def _restore(self, checkpoint: Checkpoint) -> None:
        counters = checkpoint.metadata["counters"]
        self.step, self.updates = int(counters["step"]), int(counters["updates"])
        self.gradient_steps, self._nonfinite_run = int(counters["gradient_steps"]), int(counters["nonfinite_run"])
        self.episodes.set_state(checkpoint.metadata["episodes"])
        self.agent = self.agent.with_state_arrays(checkpoint.groups["agent"])
        self._params = self.agent.policy_params
        self.buffer.load_state_arrays(checkpoint.groups["replay"])
        collector = dict(checkpoint.groups["collector"])
        self._rng = restore_exploration(self.agent.policy_spec, collector)
        self.collector.restore(collector)


def random_policy_spec(action_space: Any, policy_params: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Describe the policy of the warm-up: uniform over the actions that the agent's own policy may take.

    A learned limit that confines the policy confines the warm-up too; full random steering leaves the road within
    two steps and shows nothing of driving.
    """
    low = policy_params.get("action_low", action_space.low)
    high = policy_params.get("action_high", action_space.high)
    return {"kind": "uniform", "action_low": np.asarray(low).tolist(), "action_high": np.asarray(high).tolist()}
