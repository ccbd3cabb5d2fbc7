"""Rewards, infos and episode metrics by one compiled pass over the simulator's arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.episode import (
    EPISODE_METRICS,
    REVERSE_SPEED,
    SPIN_RATE,
    STANDSTILL_SPEED,
    SUMS,
    checked_accounts,
)
from racer.envs.highway.scoring import Scoring, WorldStep
from racer.envs.highway.simulator import scoring as at

if TYPE_CHECKING:
    from racer.envs.highway.compiled import CompiledEngine

__all__ = ["CompiledScorer"]

_ACCOUNTS = (*(f"episode/sum/{name}" for name in SUMS), "episode/min_distance", "episode/heading")
"""The state's name of every row of the accounts."""


class CompiledScorer:
    """Scores the compiled engine: the numbers of :class:`racer.envs.highway.scoring.ArrayScorer`.

    Args:
        engine: whose scenes are read.
        scoring: what counts.
    """

    def __init__(self, engine: CompiledEngine, scoring: Scoring) -> None:
        self._engine = engine
        self._shape = scoring.observation_shape
        self._bound = np.float32(scoring.observation_clip)
        self._reals = _reals(scoring)
        self._wholes = np.zeros(at.SCORE_WHOLES, dtype=np.int64)
        self._wholes[at.PROXIMITY] = scoring.safety.mode == "proximity"
        self._wholes[at.BASE_ONLY] = scoring.reward == "base"
        self._wholes[at.MOST_STEPS] = scoring.max_episode_steps
        self._all = np.arange(engine.num_envs)
        self._accounts = np.zeros((at.ACCOUNTS, engine.num_envs))
        self._accounts[at.LEAST_DISTANCE] = np.inf
        self._steps = np.zeros(engine.num_envs, dtype=np.int64)

    def start(self, indices: NDArray[np.intp]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        observations, figures, flags, _ = self._score(np.asarray(indices, dtype=np.int64), begin=True)
        return observations, _description(figures, flags)

    def step(self) -> WorldStep:
        observations, figures, flags, ended = self._score(self._all, begin=False)
        info = _description(figures, flags)
        info["reward_components"] = {
            "base_reward": figures[at.BASE_OUT],
            "original_speed": figures[at.ORIGINAL_OUT],
            "forward_speed": figures[at.FORWARD_TERM_OUT],
            "safety_reward": figures[at.SAFETY_OUT],
            "training_reward": figures[at.TRAINING_OUT],
            "offroad_penalty": figures[at.PENALTY_OUT],
        }
        metrics = dict(zip(EPISODE_METRICS, figures[at.METRICS_OUT :], strict=True)) if ended else {}
        rewards, terminated, truncated = figures[at.REWARD_OUT], flags[at.TERMINATED_OUT], flags[at.TRUNCATED_OUT]
        return WorldStep(observations, rewards, terminated, truncated, info, metrics)

    def observations(self) -> NDArray[np.float32]:
        shown = self._engine.simulator.observe()
        return np.clip(shown.reshape(len(shown), *self._shape), -self._bound, self._bound, dtype=np.float32)

    def get_state(self) -> dict[str, NDArray[Any]]:
        accounts = self._accounts.copy()
        return {"steps": self._steps.copy(), **dict(zip(_ACCOUNTS, accounts, strict=True))}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        accounts = checked_accounts(state, len(self._steps))
        self._steps[:] = accounts["steps"]
        for row, name in enumerate(_ACCOUNTS):
            self._accounts[row] = accounts[name]

    def _score(
        self, indices: NDArray[np.int64], *, begin: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], int]:
        """Return clipped observations ``[M, ...]``, figures ``[FIGURES, M]`` and flags ``[FLAGS, M]``, all fresh.

        Last comes how many episodes have ended.
        """
        count = len(indices)
        rows, shown = self._engine.arrays(indices)
        figures = np.empty((at.FIGURES, count))
        flags = np.empty((at.FLAGS, count), dtype=bool)
        observations = np.empty((count, *shown.shape[1:]), dtype=np.float32)
        ended = at.score_batch(
            indices, begin, self._engine.simulator.results, rows, shown, self._bound, self._reals, self._wholes,
            self._accounts, self._steps, figures, flags, observations,
        )  # fmt: skip
        return observations.reshape(count, *self._shape), figures, flags, ended


def _description(figures: NDArray[np.float64], flags: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "speed": figures[at.SPEED_OUT],
        "forward_speed": figures[at.FORWARD_OUT],
        "crashed": flags[at.CRASHED_OUT],
        "on_road": flags[at.ON_ROAD_OUT],
        "lateral_offset": figures[at.OFFSET_OUT],
        "min_distance": figures[at.DISTANCE_OUT],
        "time_to_collision": figures[at.TTC_OUT],
    }


def _reals(scoring: Scoring) -> NDArray[np.float64]:
    """Return what counts as the kernels take it."""
    safety, reals = scoring.safety, np.zeros(at.SCORE_REALS)
    reals[at.TTC_THRESHOLD], reals[at.TTC_CRITICAL] = safety.ttc_threshold, safety.ttc_critical
    reals[at.GAP_THRESHOLD], reals[at.CONE] = safety.gap_threshold, safety.cone_half_angle
    reals[at.NEAR], reals[at.FAR] = safety.near_distance, safety.far_distance
    reals[at.OFFROAD_SAFETY] = safety.offroad_penalty
    reals[at.REWARD_LOW], reals[at.REWARD_HIGH] = scoring.reward_speed_range
    reals[at.FORWARD_LOW], reals[at.FORWARD_HIGH] = scoring.forward_speed_range
    reals[at.SPEED_WEIGHT], reals[at.SAFETY_COEFFICIENT] = scoring.speed_weight, scoring.safety_coeff
    reals[at.NORMALIZER], reals[at.OFFROAD_PENALTY] = scoring.normalizer, scoring.offroad_penalty
    reals[at.FREQUENCY] = scoring.policy_frequency
    reals[at.REVERSE_BELOW], reals[at.SPIN_ABOVE] = REVERSE_SPEED, SPIN_RATE
    reals[at.STANDSTILL_BELOW] = STANDSTILL_SPEED
    return reals
