"""Single-threaded on-policy training: collect a rollout, update on it, in one process and in one order.

One **iteration** steps every environment ``rollout_length`` times (a key of the agent's configuration) with the newest
policy and calls ``agent.update`` once with those transitions.

Everything the next iteration depends on is in the checkpoint, so a run that was stopped and resumed is the run that
never stopped, bit for bit on a CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from racer.agents.policy import build_policy
from racer.agents.protocol import OnPolicyAgent
from racer.agents.registry import agent_class
from racer.core.checkpoint import Checkpoint
from racer.core.config import check_fields, option
from racer.core.errors import RacerError, UsageError
from racer.core.metrics import MetricsLogger
from racer.envs.highway import make_vector_env
from racer.replay.collector import Collector
from racer.replay.experience import BATCH_FIELDS, Experience
from racer.replay.ring_buffer import generator_from_array, generator_to_array
from racer.training.checkpointing import CheckpointSaver
from racer.training.loop import run_iterations
from racer.training.progress import EpisodeWindow
from racer.training.run_spec import RunSpec, create_agent

__all__ = ["OnPolicyConfig", "OnPolicyTrainer", "is_on_policy", "join_rollouts"]

Evaluate = Callable[[int, Any], Mapping[str, float]]


def is_on_policy(agent_name: str) -> bool:
    """Return whether the agent called ``agent_name`` learns from rollouts (:class:`OnPolicyAgent`)."""
    return bool(getattr(agent_class(agent_name), "on_policy", False))


def join_rollouts(experiences: Sequence[Experience]) -> dict[str, np.ndarray]:
    """Put collections of equal length side by side, as ``OnPolicyAgent.update`` takes them.

    Args:
        experiences: ``[T, N_i, ...]`` each, with the same extras.

    Returns:
        Arrays ``[T, sum N_i, ...]``: the transition fields, ``valid`` and the policy's extras, all by name.

    Raises:
        UsageError: there are none, or their lengths or extras differ.
    """
    if not experiences:
        raise UsageError("there are no rollouts to join")
    first = experiences[0]
    for experience in experiences:
        if len(experience.rewards) != len(first.rewards) or experience.extras.keys() != first.extras.keys():
            raise UsageError(
                f"rollouts of {len(first.rewards)} steps with {sorted(first.extras)} do not go together with "
                f"{len(experience.rewards)} steps with {sorted(experience.extras)}"
            )
    joined = {}
    for name in (*BATCH_FIELDS, "valid"):
        arrays = [getattr(experience, name) for experience in experiences]
        joined[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
    for name in first.extras:
        arrays = [experience.extras[name] for experience in experiences]
        joined[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
    return joined


@dataclass(frozen=True)
class OnPolicyConfig:
    """How much, how often."""

    max_steps: int = option(100_000, "Transitions to collect in all; the last rollout is finished.", low=1)
    num_envs: int = option(16, "Environments stepped side by side.", low=1)
    log_interval: int = option(1_000, "Transitions between two lines of metrics.", low=1)
    eval_interval: int = option(10_000, "Transitions between two evaluations; 0 for none.", low=0)
    save_interval: int = option(10_000, "Transitions between two checkpoints; 0 for one at the end only.", low=0)
    max_nonfinite_updates: int = option(20, "Updates with non-finite gradients in a row that stop the run.", low=1)

    def __post_init__(self) -> None:
        check_fields(self, "option")


class OnPolicyTrainer:
    """A single-threaded run.

    Args:
        spec: agent, environment, seed.
        config: amounts and intervals.
        checkpoint: where to go on; None starts anew.
        learnt: state of the agent that a new run begins with; None draws a fresh one.

    Raises:
        UsageError: rollouts of so many environments do not divide into the agent's minibatches, or the checkpoint does
            not fit the specification.
    """

    def __init__(
        self,
        spec: RunSpec,
        config: OnPolicyConfig,
        checkpoint: Checkpoint | None = None,
        learnt: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.spec, self.config = spec, config
        env_seed, act_seed, agent_seed = np.random.SeedSequence(spec.seed).generate_state(3)
        env = make_vector_env(spec.env_config, config.num_envs)
        spaces = (env.single_observation_space, env.single_action_space)
        created = create_agent(spec, *spaces, seed=int(agent_seed), learnt=learnt)
        self.agent = cast(OnPolicyAgent, created)
        self.agent.check_num_envs(config.num_envs)
        self.collector = Collector(env, seed=int(env_seed))
        self.policy = build_policy(self.agent.policy_spec)
        self._params = self.agent.policy_params
        self._rng = np.random.default_rng(act_seed)
        self.step = self.updates = self.gradient_steps = self._nonfinite_run = 0
        self.episodes = EpisodeWindow()
        self._info: dict[str, Any] = {}
        if checkpoint is not None:
            self._restore(checkpoint)

    def iterate(self) -> None:
        """Collect one rollout and update once."""

        def act(observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            return self.policy.act_with_extras(self._params, observations, self._rng)

        experience = self.collector.collect(self.agent.rollout_length, act)
        self.episodes.extend(experience.episodes)
        self.step += experience.valid.size
        self._update(experience)

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
        return {
            **self.episodes.means(),
            **{f"agent/{name}": float(np.asarray(value)) for name, value in self._info.items()},
            "training/updates": self.updates,
            "training/gradient_steps": self.gradient_steps,
            "training/update_to_data": self.gradient_steps / max(self.step, 1),
            "training/nonfinite_transitions": self.collector.nonfinite_total,
        }

    def save(self, saver: CheckpointSaver, *, final: bool = False) -> Path | None:
        """Write a checkpoint of everything; the ``final`` one must succeed."""
        groups = {"collector": {**self.collector.state(), "rng": generator_to_array(self._rng)}}
        counters = {
            "step": self.step,
            "updates": self.updates,
            "gradient_steps": self.gradient_steps,
            "nonfinite_run": self._nonfinite_run,
        }
        metadata = {"counters": counters, "episodes": self.episodes.get_state()}
        return saver.save(self.step, cast(Any, self.agent), groups, metadata, final=final)

    def _update(self, experience: Experience) -> None:
        self.agent, self._info = self.agent.update(join_rollouts([experience]))
        self.updates += 1
        self.gradient_steps += int(np.asarray(self._info.get("minibatches", 0)))
        self._params = self.agent.policy_params
        nonfinite = float(np.asarray(self._info.get("nonfinite_updates", 0.0)))
        self._nonfinite_run = self._nonfinite_run + 1 if nonfinite > 0 else 0
        if self._nonfinite_run >= self.config.max_nonfinite_updates:
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
        collector = dict(checkpoint.groups["collector"])
        self._rng = generator_from_array(collector.pop("rng"))
        self.collector.restore(collector)
