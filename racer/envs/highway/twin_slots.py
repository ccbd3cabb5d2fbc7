"""One environment of a batch as an environment to look at: what ``envs.call`` and ``envs.get_attr`` reach."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from racer.core.errors import UsageError
from racer.envs.highway.twin_env import HighwayFastTwin, HighwayTwin
from racer.envs.highway.twin_simulator import TwinSimulator
from racer.envs.highway.twin_types import EpisodeViews

if TYPE_CHECKING:
    from racer.envs.highway.twin_batch import Batch

__all__ = ["Slot", "make_slot"]


class Slot(HighwayTwin):
    """Environment ``index`` of a batch. A copy is an environment of its own, in the same state."""

    _batch: Batch
    _index: int

    def __init__(self, batch: Batch, index: int) -> None:
        self.__dict__.update(
            _batch=batch, _index=index, engine="compiled", config=batch.config, render_mode=batch.render_mode,
            metadata=batch.metadata, observation_space=batch.single_observation_space,
            action_space=batch.single_action_space, done=False, viewer=None, enable_auto_render=False,
            _record_video_wrapper=None, _views=EpisodeViews(), _scene=None, _warned=set(), _seen=None, spec=batch.spec,
        )  # fmt: skip

    @property
    def simulator(self) -> TwinSimulator:  # type: ignore[override]
        return self._batch.simulator.environment(self._index)

    @property
    def np_random(self) -> np.random.Generator:
        return self._batch.generator(self._index)

    @property
    def np_random_seed(self) -> int:
        return self._batch.np_random_seed[self._index]

    def leave_views(self) -> None:
        """The episode is over: what was looked at keeps its values."""
        self._views = self._views.next_episode()

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        return self._batch.simulator.render(self._index)

    def _together(self, *arguments: Any, **keywords: Any) -> NoReturn:
        raise UsageError(
            "the environments of a batch are stepped, reset and closed together: use the vector environment's own "
            'methods, reset(options={"reset_mask": ...}) for some of them, or vectorization_mode="sync"'
        )

    reset = step = set_state = define_spaces = close = set_record_video_wrapper = _together

    def __deepcopy__(self, memo: dict[int, Any]) -> HighwayTwin:
        kind = HighwayFastTwin if self._batch.fast else HighwayTwin
        twin = kind.__new__(kind)
        memo[id(self)] = twin
        config = copy.deepcopy(self.config, memo)
        twin.__dict__.update(
            simulator=copy.deepcopy(self.simulator), engine="compiled", config=config, render_mode=self.render_mode,
            metadata=dict(kind.metadata), observation_space=copy.deepcopy(self.observation_space),
            action_space=copy.deepcopy(self.action_space), done=False, viewer=None, enable_auto_render=False,
            _record_video_wrapper=None, _views=EpisodeViews(), _scene=None, _warned=set(), _seen=copy.deepcopy(config),
            _np_random=copy.deepcopy(self.np_random), _np_random_seed=self.np_random_seed, spec=None,
        )  # fmt: skip
        return twin


class FastSlot(Slot, HighwayFastTwin):
    """Environment of a batch of highway-fast-v0."""


def make_slot(batch: Batch, index: int) -> Slot:
    """Make the view of environment ``index``."""
    return (FastSlot if batch.fast else Slot)(batch, index)
