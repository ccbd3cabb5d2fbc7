"""What a policy sees: 256 numbers, scaled to about one and clipped to [-5, 5]."""

from __future__ import annotations

from typing import Any

import numpy as np

from racer.envs.lateral.generator import steady_gain
from racer.envs.lateral.rules import CONTEXT, GRAVITY, PLAN, STEP
from racer.envs.lateral.simulation import Signals

__all__ = ["CORE", "SIZE", "observe", "parts"]

CORE = (
    "target", "lataccel", "error", "target_curvature", "curvature", "speed", "acceleration", "roll", "steer",
    "integral", "target_rate", "lataccel_rate", "error_rate", "steer_rate", "friction", "settled_steer",
)  # fmt: skip
"""Names of the first numbers; the last 20 steers, the last 20 lateral accelerations and the future follow."""

SIZE = len(CORE) + 2 * CONTEXT + 4 * (PLAN + 1)

_LATACCEL, _STEER, _SPEED, _ACCELERATION, _ROLL, _CURVATURE = 5.0, 2.0, 40.0, 4.0, 2.0, 0.02
_LIMIT = 5.0
_FUTURE_SCALES = np.array([_LATACCEL, _ROLL, _SPEED, _ACCELERATION])


def observe(signals: Signals) -> Any:
    """Return observations, float32 ``[N, 256]``, of signals in NumPy or JAX arrays.

    Scales: lateral accelerations 5 m/s^2, steers 2, speed 40 m/s, acceleration 4 m/s^2, roll 2 m/s^2, curvatures
    0.02 1/m; rates are those of a step of 0.1 s over the same scales. The future is the target, the roll, the speed
    and the acceleration of this step and the 49 after it, one after the other.
    """
    s, future = signals, signals.future
    xp = future.__array_namespace__()
    roll, speed, acceleration = future[:, 0, 1], future[:, 0, 2], future[:, 0, 3]
    square = xp.maximum(xp.square(speed), 1.0)
    core = (
        s.target / _LATACCEL,
        s.lataccel / _LATACCEL,
        s.error,
        (s.target - roll) / square / _CURVATURE,
        (s.lataccel - roll) / square / _CURVATURE,
        speed / _SPEED,
        acceleration / _ACCELERATION,
        roll / _ROLL,
        s.actions[:, -1] / _STEER,
        s.clamped_integral / _LATACCEL,
        (future[:, 1, 0] - s.target) / STEP / _LATACCEL,
        s.change / STEP / _LATACCEL,
        (s.error - s.previous_error) / STEP / _LATACCEL,
        (s.actions[:, -1] - s.actions[:, -2]) / STEP / _STEER,
        xp.hypot(s.lataccel, acceleration) / GRAVITY,
        (s.target - roll) / steady_gain(speed) / _STEER,
    )
    scaled = (future / _FUTURE_SCALES).transpose(0, 2, 1).reshape(len(future), -1)
    whole = xp.concatenate([xp.stack(core, axis=1), s.actions / _STEER, s.lataccels / _LATACCEL, scaled], axis=1)
    return xp.clip(whole, -_LIMIT, _LIMIT).astype(np.float32)


def parts(observations: Any) -> tuple[Any, Any, Any, tuple[Any, ...]]:
    """Return what observations ``[..., 256]`` hold, on NumPy or JAX arrays.

    Returns:
        The numbers of :data:`CORE` as they are, ``[..., 16]``; the last steers and the last lateral accelerations
        (m/s^2), ``[..., 20]`` each; and of this step and the 49 after it the target, the roll (m/s^2), the speed (m/s)
        and the acceleration (m/s^2), ``[..., 50]`` each. What was clipped stays clipped.
    """
    first, second, third = len(CORE), len(CORE) + CONTEXT, len(CORE) + 2 * CONTEXT
    lead, future = observations.shape[:-1], observations[..., third:]
    rows = future.reshape(*lead, len(_FUTURE_SCALES), PLAN + 1)
    scaled = tuple(rows[..., i, :] * np.float32(scale) for i, scale in enumerate(_FUTURE_SCALES))
    steers, lataccels = observations[..., first:second] * _STEER, observations[..., second:third] * _LATACCEL
    return observations[..., :first], steers, lataccels, scaled
