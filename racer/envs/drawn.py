"""What environments that draw themselves have in common."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from racer.core.errors import unknown_name

__all__ = ["DrawnEnv"]


class DrawnEnv(gymnasium.Env):
    """Draws one picture when asked, or keeps one of every moment.

    A subclass draws in :meth:`_drawn`, and calls :meth:`_film` after its reset and each simulated moment.

    Args:
        render_mode: "rgb_array" for one frame, "rgb_array_list" for all frames since the last call.

    Raises:
        UsageError: another render mode.
    """

    def __init__(self, render_mode: str | None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown_name("render mode", str(render_mode), self.metadata["render_modes"])
        self.render_mode = render_mode
        self._frames: list[NDArray[np.uint8]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Seed the environment's random numbers and forget its frames."""
        super().reset(seed=seed)
        self._frames = []

    def render(self) -> Any:
        if self.render_mode == "rgb_array":
            return self._drawn()
        if self.render_mode == "rgb_array_list":
            frames, self._frames = self._frames, []
            return frames
        return None

    def _drawn(self) -> NDArray[np.uint8]:
        """Return a picture of this moment, ``[H, W, 3]``, in memory of its own."""
        raise NotImplementedError

    def _film(self) -> None:
        if self.render_mode == "rgb_array_list":
            self._frames.append(self._drawn())
