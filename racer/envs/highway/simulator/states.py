"""What a state of the simulator can hold: checked before one that may come from a file reaches the kernels.

The kernels index memory with what the state says (the order of the vehicles, indices of speeds)
and check nothing themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from racer.core.errors import UsageError
from racer.envs.highway.simulator import layout as at
from racer.envs.highway.simulator.config import Parameters

__all__ = ["check_generator", "checked_state"]

# no episode comes near these; beyond 2^53 float64 no longer counts
MOST = 2.0**53
WHOLE_ROWS = {
    at.LANE: "LANE",
    at.TARGET_LANE: "TARGET_LANE",
    at.CRASHED: "CRASHED",
    at.HAS_IMPACT: "HAS_IMPACT",
    at.SPEED_INDEX: "SPEED_INDEX",
    at.ORDER: "ORDER",
    at.RANK: "RANK",
    at.CHANGING: "CHANGING",
    at.PAIR: "PAIR",
}


def checked_state(
    state: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray], parameters: Parameters
) -> dict[str, np.ndarray]:
    """Return the arrays of ``state`` after checking that a simulation can have left them.

    Args:
        state: name to array.
        like: the simulator's own arrays, whose shapes and types count.
        parameters: of the configuration.

    Raises:
        UsageError: an array is missing, has another shape or type, or a value that the kernels must not see.
    """
    arrays = {name: _array(state, name, own) for name, own in like.items()}
    flags = arrays["is_reset"].view(np.uint8)
    if (flags > 1).any():
        raise _bad("is_reset", "flags other than true and false")
    _check_whole(arrays["whole"], arrays["is_reset"], parameters)
    _check_real(arrays["real"], parameters)
    _check_order(arrays["real"], arrays["whole"], arrays["is_reset"])
    clock = arrays["clock"]
    if not ((clock >= 0) & (clock < MOST)).all() or (clock[:, at.STEPS] % 1 != 0).any():
        raise _bad("clock", "a time or a count that no episode reaches")
    for packed in arrays["rng"]:
        check_generator(packed)
    _check_result(arrays["result"], parameters, arrays["observations"].shape[1])
    if not np.isfinite(arrays["observations"]).all():
        raise _bad("observations", "values that are not finite")
    return arrays


def check_generator(packed: np.ndarray) -> None:
    """Check one packed PCG64 state ``[6]`` uint64.

    Raises:
        UsageError: NumPy's generator has no such state. With an even increment draws may never end, and a half draw
            of more than 32 bits would become a lane that the road lacks.
    """
    if packed.shape != (at.RNGS,) or packed.dtype != np.uint64:
        raise _bad("rng", f"{packed.dtype} {packed.shape}, not uint64 {(at.RNGS,)}")
    if int(packed[at.RNG_INC_LOW]) % 2 == 0:
        raise _bad("rng", "an even increment")
    if packed[at.RNG_HAS_32] > 1 or packed[at.RNG_32] >= 2**32:
        raise _bad("rng", "a half draw that is none")


def _bad(name: str, what: str) -> UsageError:
    return UsageError(f"the simulator state's {name!r} holds {what}")


def _array(state: Mapping[str, np.ndarray], name: str, own: np.ndarray) -> np.ndarray:
    if name not in state:
        raise UsageError(f"the simulator state lacks {name!r}")
    given = np.ascontiguousarray(state[name])
    if given.shape != own.shape or given.dtype != own.dtype:
        raise UsageError(f"the simulator state's {name!r} is {given.dtype} {given.shape}, not {own.dtype} {own.shape}")
    return given


def _check_whole(whole: np.ndarray, is_reset: np.ndarray, parameters: Parameters) -> None:
    lanes, vehicles = int(parameters.wholes[at.LANES]), whole.shape[2]
    limits = {
        at.LANE: lanes,
        at.TARGET_LANE: lanes,
        at.CRASHED: 2,
        at.HAS_IMPACT: 2,
        at.SPEED_INDEX: len(parameters.action.target_speeds),
        at.ORDER: vehicles,
        at.RANK: vehicles,
        at.CHANGING: vehicles,
        at.PAIR: vehicles * vehicles,
    }
    for row, limit in limits.items():
        values = whole[:, row]
        if not ((values >= 0) & (values < limit)).all():
            raise _bad("whole", f"{WHOLE_ROWS[row]} outside 0 to {limit - 1}")
    places = np.arange(vehicles)
    order, rank = whole[is_reset, at.ORDER], whole[is_reset, at.RANK]
    if (np.sort(order, axis=1) != places).any():
        raise _bad("whole", "an ORDER that is no permutation of the vehicles")
    if (np.take_along_axis(rank, order, axis=1) != places).any():
        raise _bad("whole", "a RANK that is not the inverse of ORDER")


def _check_real(real: np.ndarray, parameters: Parameters) -> None:
    finite = np.isfinite(real)
    # an ego without a target speed
    finite[:, at.TARGET_SPEED, 0] |= np.isneginf(real[:, at.TARGET_SPEED, 0])
    if not finite.all():
        raise _bad("real", f"a value that is not finite in row {int(np.argwhere(~finite)[0][1])}")
    if (np.abs(real[:, [at.COS, at.SIN]]) > 1).any():
        raise _bad("real", "a cosine or sine beyond 1")


def _check_order(real: np.ndarray, whole: np.ndarray, is_reset: np.ndarray) -> None:
    """Check that the rows which the search keeps are those of the positions."""
    order = whole[is_reset, at.ORDER]
    for row, kept, name in ((at.X, at.SORTED_X, "SORTED_X"), (at.Y, at.SORTED_Y, "SORTED_Y")):
        if (np.take_along_axis(real[is_reset, row], order, axis=1) != real[is_reset, kept]).any():
            raise _bad("real", f"{name} that is not the positions in ORDER")
    if (np.diff(real[is_reset, at.SORTED_X], axis=1) < 0).any():
        raise _bad("real", "SORTED_X that does not rise")


def _check_result(result: np.ndarray, parameters: Parameters, capacity: int) -> None:
    if not np.isfinite(result).all():
        raise _bad("result", "values that are not finite")
    flags = result[:, [at.TERMINATED, at.TRUNCATED, at.EGO_CRASHED, at.ON_ROAD_REWARD, at.COLLISION_REWARD]]
    if not np.isin(flags, (0.0, 1.0)).all():
        raise _bad("result", "a flag other than 0 and 1")
    for column, most in ((at.EGO_LANE, int(parameters.wholes[at.LANES]) - 1), (at.OBSERVED_ROWS, capacity)):
        values = result[:, column]
        if not ((values >= 0) & (values <= most) & (values % 1 == 0)).all():
            raise _bad("result", f"a lane or a number of rows outside 0 to {most}")
