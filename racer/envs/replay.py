"""How a world says what its moments look like in numbers, so that a page can draw them again without the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import gymnasium

    from racer.envs.world import Step

__all__ = ["Kind", "Line", "Replay", "Scene", "Shapes", "Trace"]


class Shapes(NamedTuple):
    """One moment, in the world's own unit of length; x points right and y down.

    Attributes:
        boxes: ``[N, 6]`` centre x, centre y, heading (rad, from x towards y), length, width, and kind, a number into
            :attr:`Scene.kinds`. A row is the same thing throughout an episode; later rows are drawn over earlier ones.
        eye: ``[2]`` x and y of what the picture is centred on.
    """

    boxes: NDArray[np.float64]
    eye: NDArray[np.float64]


class Line(NamedTuple):
    """A line that never moves; ``dash`` is the length of its dashes and of the gaps between them, 0 for none."""

    x0: float
    y0: float
    x1: float
    y1: float
    dash: float = 0.0


class Kind(NamedTuple):
    """A kind of box: its name (empty: left out of the legend), red, green and blue, and whether its front is marked."""

    name: str
    color: tuple[int, int, int]
    front: bool = True


@dataclass(frozen=True)
class Scene:
    """A picture from above.

    Attributes:
        shapes: reads a moment from the environment, after its reset and after every step.
        lines: what never moves, from a whole configuration.
        kinds: of boxes.
        extent: width and height of what a picture shows, in the world's unit of length.
    """

    shapes: Callable[[Any], Shapes]
    lines: Callable[[Mapping[str, Any]], Sequence[Line]]
    kinds: Sequence[Kind]
    extent: tuple[float, float]


class Trace(NamedTuple):
    """A number of every step that a page draws over time, or several in one diagram.

    Attributes:
        label: what it is, with its unit.
        value: reads it from a step: a number, or ``[K]``, as many in every step.
        top: greater values are drawn there, None for no bound.
        names: of the K numbers; they are counted where there are none.
    """

    label: str
    value: Callable[[Step], ArrayLike]
    top: float | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replay:
    """How episodes of a world are drawn from recorded numbers.

    Attributes:
        make: builds one environment from a whole configuration; it draws no pictures.
        scene: the picture, or None where a page is to draw the traces alone.
        traces: drawn below the picture.
        facts: what can be said of an episode's end, by name with unit, from its steps [T], its moments [T + 1] (none
            without a scene) and the configuration; NaN where there is nothing to say.
    """

    make: Callable[[Mapping[str, Any]], gymnasium.Env]
    scene: Scene | None = None
    traces: Sequence[Trace] = ()
    facts: Callable[[Sequence[Step], Sequence[Shapes], Mapping[str, Any]], dict[str, float]] | None = None
