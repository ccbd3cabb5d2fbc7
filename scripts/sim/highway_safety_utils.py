"""The training reward as a function of an observation, to use in an environment of your own.

    from highway_safety_utils import calculate_training_reward

    reward = calculate_training_reward(observation, base_reward)["training_reward"]

The mathematics is :mod:`racer.envs.highway.reward`'s, which the environments use themselves; what counts (thresholds,
weights, ranges) is the configuration of ``racer/RiskHighway-v0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.envs.highway.config import resolve_config, safety_config
from racer.envs.highway.geometry import LANE_WIDTH
from racer.envs.highway.reward import ROW_FEATURES, neighbours_of, safety_reward, time_to_collision, training_reward
from racer.envs.highway.scoring import Scoring

__all__ = ["calculate_safety_reward", "calculate_time_to_collision", "calculate_training_reward"]


def calculate_training_reward(
    observation: Any,
    base_reward: Any,
    *,
    on_road: Any = True,
    lateral_offset: Any = 0.0,
    config: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Return the training reward and its parts.

    Args:
        observation: rows ``[..., V, 6]`` of presence, x, y, vx, vy, heading in m, m/s and rad, not normalized; row 0 is
            the ego in road coordinates, the others are relative to it (highway-env's Kinematics with ``normalize`` and
            ``absolute`` off).
        base_reward: highway-env's own reward ``[...]``.
        on_road: highway-env's ``vehicle.on_road``, ``[...]``.
        lateral_offset: of the ego from the centre of its lane, m, ``[...]``.
        config: keys of ``racer/RiskHighway-v0`` that differ from its defaults, as ``{"safety_coeff": 0.1}``.

    Returns:
        ``base_reward``, ``original_speed``, ``forward_speed``, ``safety_reward``, ``training_reward``, each ``[...]``:
        ``training = base - speed_weight * original + speed_weight * forward + safety_coeff * safety``.

    Raises:
        UsageError: an observation of another form, or a wrong key of the configuration.
    """
    resolved, rows = resolve_config(config), _rows(observation)
    scoring = Scoring.parse(resolved, rows.shape[-2:])
    parts = training_reward(
        np.asarray(base_reward, np.float64),
        rows[..., 0, ROW_FEATURES.index("vx")],
        np.asarray(on_road, bool),
        calculate_safety_reward(rows, lateral_offset=lateral_offset, config=config),
        reward_speed_range=scoring.reward_speed_range,
        forward_speed_range=scoring.forward_speed_range,
        speed_weight=scoring.speed_weight,
        safety_coeff=scoring.safety_coeff,
        normalizer=scoring.normalizer,
    )
    return parts.as_dict()


def calculate_safety_reward(
    observation: Any, *, lateral_offset: Any = 0.0, config: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Return the safety reward ``[...]``: collision risk in [-1, 0], less while off the road; see above."""
    off_lane = np.abs(np.asarray(lateral_offset, np.float64)) > LANE_WIDTH / 2
    return safety_reward(_rows(observation), off_lane, safety_config(resolve_config(config)))


def calculate_time_to_collision(observation: Any, *, config: Mapping[str, Any] | None = None) -> np.ndarray:
    """Return the shortest time to collision with a vehicle ahead, s ``[...]``; infinite where none is closing."""
    times = time_to_collision(neighbours_of(_rows(observation)), safety_config(resolve_config(config)))
    return np.min(times, axis=-1, initial=np.inf)


def _rows(observation: Any) -> np.ndarray:
    rows = np.asarray(observation, np.float64)
    if rows.ndim < 2 or rows.shape[-1] != len(ROW_FEATURES):
        features = ", ".join(ROW_FEATURES)
        raise UsageError(f"an observation has rows [..., V, {len(ROW_FEATURES)}] of {features}, got {list(rows.shape)}")
    return rows
