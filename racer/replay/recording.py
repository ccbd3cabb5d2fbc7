"""The arrays that a collection fills row by row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from racer.replay.experience import Experience

__all__ = ["Recording"]


class Recording:
    """``T`` rows of ``N`` environments under way. Flags begin as those of a row inside an episode.

    Args:
        steps: T.
        observations: ``[N, ...]``, what the policy sees first.
        action_shape: shape of one action.
        action_kind: dtype of the actions.
        memory: the policy's memory before the first row.
    """

    def __init__(
        self,
        steps: int,
        observations: np.ndarray,
        action_shape: tuple[int, ...],
        action_kind: type[np.generic],
        memory: Mapping[str, np.ndarray],
    ) -> None:
        lead = (steps, len(observations))
        self.observations = np.empty((steps + 1, *observations.shape), np.float32)
        self.observations[0] = observations
        self.actions = np.empty((*lead, *action_shape), action_kind)
        self.rewards = np.empty(lead, np.float32)
        self.bootstrap, self.valid = np.ones(lead, bool), np.ones(lead, bool)
        self.cut, self.forget = np.zeros(lead, bool), np.zeros(lead, bool)
        self.episodes: list[dict[str, float]] = []
        self._extras: dict[str, np.ndarray] = {}
        self._memory = {name: np.array(value) for name, value in memory.items()}
        self._finals: list[np.ndarray] = []
        self._final_index: list[tuple[int, int]] = []

    def choose(self, t: int, actions: np.ndarray, extras: Mapping[str, np.ndarray]) -> None:
        """Write down what the policy did in row ``t``."""
        self.actions[t] = actions
        for name, value in extras.items():
            value = np.asarray(value)
            if name not in self._extras:
                self._extras[name] = np.zeros((len(self.actions), *value.shape), value.dtype)
            self._extras[name][t] = value

    def successor(self, t: int, environment: int, observation: np.ndarray) -> None:
        """Write down a successor that is not the next row."""
        self._finals.append(np.array(observation, np.float32))
        self._final_index.append((t, environment))

    def finite(self, t: int) -> bool:
        """Whether rewards and next observations of row ``t`` are finite."""
        return bool(np.isfinite(self.observations[t + 1]).all() and np.isfinite(self.rewards[t]).all())

    def experience(self, nonfinite: int) -> Experience:
        """Return what was recorded."""
        shape = self.observations.shape[2:]
        return Experience(
            observations=self.observations,
            actions=self.actions,
            rewards=self.rewards,
            bootstrap=self.bootstrap,
            cut=self.cut,
            forget=self.forget,
            valid=self.valid,
            final_observations=np.array(self._finals, np.float32).reshape(-1, *shape),
            final_index=np.array(self._final_index, np.int32).reshape(-1, 2),
            extras=self._extras,
            memory=self._memory,
            episodes=self.episodes,
            nonfinite=nonfinite,
        )
