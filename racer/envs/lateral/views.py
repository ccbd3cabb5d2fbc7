"""Views of the observation, on NumPy or JAX arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.core.errors import UsageError
from racer.envs.lateral.generator import steady_gain
from racer.envs.lateral.observation import CORE, SIZE, parts

__all__ = ["VIEWS", "Ahead"]

_NEAR, _FAR = 11, tuple(range(12, 31, 2))
_LATACCELS, _STEERS = 8, 12
"""Latest changes that are shown."""

_LIMIT = 8.0


@dataclass(frozen=True)
class Ahead:
    """What is to change, at a size that small networks learn from: 78 numbers of about one.

    The targets of the next three seconds and the steers that would settle there, relative to the lateral acceleration
    and the steer of now; changes of the targets, of the last lateral accelerations and of the last steers; errors, and
    where the car is. The observation has the same as absolute numbers, whose differences are small.
    """

    def shape(self, observation_shape: tuple[int, ...]) -> tuple[int, ...]:
        """See :class:`racer.envs.world.View`."""
        if tuple(observation_shape) != (SIZE,):
            raise UsageError(f"view 'ahead' is for observations [{SIZE}], not {list(observation_shape)}")
        places = _NEAR + len(_FAR)
        return (2 * places + _NEAR - 1 + 4 + _LATACCELS + _STEERS + 5,)

    def __call__(self, observations: Any) -> Any:
        """Map ``[..., 256]`` to ``[..., 78]``."""
        xp = observations.__array_namespace__()
        core, steers, lataccels, future = parts(observations)
        target, roll, speed, acceleration = future
        places = np.array([*range(_NEAR), *_FAR])
        settled = (target - roll) / steady_gain(speed)
        last, now = steers[..., -1:], lataccels[..., -1:]
        named = {name: core[..., i : i + 1] for i, name in enumerate(CORE)}
        shown = (
            2.0 * (target[..., places] - now),
            3.0 * (settled[..., places] - last),
            8.0 * xp.diff(target[..., :_NEAR], axis=-1),
            4.0 * named["error"],
            5.0 * named["integral"],
            5.0 * named["lataccel_rate"],
            5.0 * named["error_rate"],
            10.0 * xp.diff(lataccels[..., -_LATACCELS - 1 :], axis=-1),
            10.0 * xp.diff(steers[..., -_STEERS - 1 :], axis=-1),
            2.0 * last,
            0.5 * now,
            0.1 * (speed[..., :1] - 25.0),
            acceleration[..., :1],
            roll[..., :1],
        )
        return xp.clip(xp.concatenate(shown, axis=-1), -_LIMIT, _LIMIT)


VIEWS = {"ahead": Ahead()}
