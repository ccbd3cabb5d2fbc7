"""The safety-shaped training reward, as array functions.

One implementation serves both training programs, online evaluation and policy evaluation, for one
environment or many: every function broadcasts over leading dimensions and draws nothing at random.

Rows are kinematic observation rows ``[presence, x, y, vx, vy, heading]`` in metres, m/s and rad. Row 0 is the
ego in road coordinates; the rows after it hold positions and velocities *relative to the ego* already
(highway_env/vehicle/kinematics.py, ``Vehicle.to_dict``), while their headings stay absolute.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from racer.envs.highway.geometry import PERCEPTION_DISTANCE, VEHICLE_LENGTH, wrap_to_pi

__all__ = [
    "ROW_FEATURES",
    "Neighbours",
    "RewardComponents",
    "SafetyConfig",
    "collision_risk",
    "linear_share",
    "minimum_distance",
    "neighbours_of",
    "proximity_risk",
    "safety_reward",
    "time_to_collision",
    "training_reward",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ROW_FEATURES = ("presence", "x", "y", "vx", "vy", "heading")


@dataclass(frozen=True)
class SafetyConfig:
    """What counts as dangerous."""

    mode: str = "ttc"  # "ttc" (time to collision in a forward cone) or "proximity" (distance in any direction)
    ttc_threshold: float = 2.0  # s; a longer time to collision is no risk
    ttc_critical: float = 1.0  # s; at or below it the risk is full
    gap_threshold: float = 1.0  # m, bumper to bumper; a wider gap is no risk
    cone_half_angle: float = float(np.deg2rad(11.25))  # rad, on each side of the ego's heading
    near_distance: float = 2.0  # m, centre to centre; full risk below it (proximity)
    far_distance: float = 10.0  # m; no risk beyond it (proximity)
    offroad_penalty: float = 0.5  # taken off the safety reward while the ego is off the road


@dataclass(frozen=True)
class Neighbours:
    """The other vehicles as the ego meets them; arrays ``[..., V-1]``.

    ``distance`` is centre to centre (m, infinite where no vehicle is), ``gap`` bumper to bumper (m, at least 0),
    ``bearing`` is measured from the ego's heading (rad), ``closing_speed`` is positive while the distance
    shrinks (m/s).
    """

    present: Bools
    distance: Floats
    gap: Floats
    bearing: Floats
    closing_speed: Floats


@dataclass(frozen=True)
class RewardComponents:
    """The parts of the reward, each ``[...]``, as they enter the sum.

    ``training_reward == base_reward - speed_weight * original_speed + speed_weight * forward_speed
    + safety_coeff * safety_reward`` holds for these arrays in every setting: the two speed terms already carry
    the factors that highway-env applied to its own (see :func:`training_reward`).
    """

    base_reward: Floats
    original_speed: Floats
    forward_speed: Floats
    safety_reward: Floats
    training_reward: Floats

    def as_dict(self) -> dict[str, Floats]:
        """Return the parts by name, for ``info["reward_components"]``."""
        return dict(vars(self))


def linear_share(value: Floats, low: float, high: float) -> Floats:
    """Map ``[low, high]`` to [0, 1] and clip (highway_env/utils.py ``lmap``, then ``np.clip``)."""
    return np.clip((value - low) / (high - low), 0.0, 1.0)


def neighbours_of(rows: NDArray[np.floating]) -> Neighbours:
    """Read the other vehicles from kinematic rows ``[..., V, 6]`` (features as in ``ROW_FEATURES``)."""
    rows = np.asarray(rows, dtype=np.float64)
    others = rows[..., 1:, :]
    heading = rows[..., :1, 5]
    present = others[..., 0] > 0.5
    dx, dy, dvx, dvy = (others[..., i] for i in range(1, 5))
    distance = np.where(present, np.hypot(dx, dy), np.inf)
    # The velocity is relative too: its part along the line of sight shrinks the distance where it is negative.
    with np.errstate(invalid="ignore", divide="ignore"):
        closing = np.where(present & (distance > 0), -(dx * dvx + dy * dvy) / distance, 0.0)
    return Neighbours(
        present=present,
        distance=distance,
        gap=np.maximum(distance - VEHICLE_LENGTH, 0.0),
        bearing=wrap_to_pi(np.arctan2(dy, dx) - heading),
        closing_speed=closing,
    )


def time_to_collision(neighbours: Neighbours, config: SafetyConfig) -> Floats:
    """Seconds until the gap to each vehicle is closed, ``[..., V-1]``.

    Infinite for vehicles outside the forward cone and for those that are not closing: a car that pulls away is
    no danger however near it is.
    """
    ahead = neighbours.present & (np.abs(neighbours.bearing) <= config.cone_half_angle)
    closing = ahead & (neighbours.closing_speed > 0)
    safe_speed = np.where(closing, neighbours.closing_speed, 1.0)
    return np.where(closing, np.where(closing, neighbours.gap, np.inf) / safe_speed, np.inf)


def collision_risk(neighbours: Neighbours, config: SafetyConfig) -> Floats:
    """Risk in [-1, 0] from time to collision, the worst vehicle counting; shape ``[...]``.

    -1 at or below ``ttc_critical``; otherwise ``-exp(-3 (1 - urgency))`` with urgency running from 0 at
    ``ttc_threshold`` to 1 at ``ttc_critical``; 0 unless the time is below the threshold *and* the gap is below
    ``gap_threshold``.
    """
    ttc = time_to_collision(neighbours, config)
    dangerous = (ttc < config.ttc_threshold) & (neighbours.gap < config.gap_threshold)
    finite = np.where(dangerous, ttc, config.ttc_threshold)
    urgency = (config.ttc_threshold - finite) / (config.ttc_threshold - config.ttc_critical)
    risk = -np.exp(-3.0 * (1.0 - np.minimum(urgency, 1.0)))
    return np.min(np.where(dangerous, risk, 0.0), axis=-1, initial=0.0)


def proximity_risk(neighbours: Neighbours, config: SafetyConfig) -> Floats:
    """Risk in [-1, 0] from the distance (centre to centre) to the nearest vehicle; shape ``[...]``."""
    nearest = np.min(neighbours.distance, axis=-1, initial=np.inf)
    inside = nearest <= config.far_distance
    beyond = np.maximum(np.where(inside, nearest, config.far_distance) - config.near_distance, 0.0)
    return np.where(inside, -np.exp(-beyond / (config.far_distance - config.near_distance)), 0.0)


def safety_reward(rows: NDArray[np.floating], off_road: Bools, config: SafetyConfig) -> Floats:
    """Collision risk in [-1, 0], minus ``offroad_penalty`` while off the road.

    Args:
        rows: kinematic rows ``[..., V, 6]``.
        off_road: ``[...]``, true where the lateral offset from the closest lane's centre exceeds half a lane.
        config: thresholds and mode.
    """
    neighbours = neighbours_of(rows)
    risk = proximity_risk if config.mode == "proximity" else collision_risk
    return risk(neighbours, config) - config.offroad_penalty * np.asarray(off_road, dtype=np.float64)


def minimum_distance(neighbours: Neighbours) -> Floats:
    """Centre-to-centre distance to the nearest observed vehicle (m), at most the perception distance."""
    return np.min(neighbours.distance, axis=-1, initial=PERCEPTION_DISTANCE)


def training_reward(
    base_reward: Floats,
    forward_speed: Floats,
    on_road: Bools,
    safety: Floats,
    *,
    reward_speed_range: tuple[float, float],
    forward_speed_range: tuple[float, float],
    speed_weight: float,
    safety_coeff: float,
    normalizer: float,
) -> RewardComponents:
    """Replace highway-env's speed term by one that pays for driving fast *forward*, and add safety.

    ``training = base - speed_weight * original + speed_weight * forward + safety_coeff * safety``.
    highway-env multiplies its sum by on_road and, with ``normalize_reward``, divides it by the width of the
    reward's range (highway_env/envs/highway_env.py ``_reward``). The speed terms are given the same factors, so
    that the subtraction removes exactly what was added.

    Args:
        base_reward: highway-env's own reward ``[...]``.
        forward_speed: velocity along the road (m/s), speed times the cosine of the heading.
        on_road: highway-env's on_road flag.
        safety: :func:`safety_reward`.
        reward_speed_range: (low, high) in m/s of highway-env's own speed term.
        forward_speed_range: (low, high) in m/s of the term that replaces it.
        speed_weight: weight of both speed terms.
        safety_coeff: weight of the safety reward.
        normalizer: width of highway-env's reward range where ``normalize_reward`` is on, else 1.
    """
    factor = np.asarray(on_road, dtype=np.float64) / normalizer
    original = linear_share(forward_speed, *reward_speed_range) * factor
    forward = linear_share(forward_speed, *forward_speed_range) * factor
    total = base_reward - original * speed_weight + forward * speed_weight + safety * safety_coeff
    return RewardComponents(base_reward, original, forward, safety, total)
