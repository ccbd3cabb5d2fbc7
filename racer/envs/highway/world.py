"""The RACER highway, batched and without automatic resets: engine, shaped reward and episode metrics joined.

Both gymnasium faces, the single environment and the vector one, are thin layers over :class:`RiskWorld`, so they
cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from racer.core.errors import unknown_name
from racer.envs.highway.config import action_names, resolve_config
from racer.envs.highway.engine import Engine, make_engine
from racer.envs.highway.episode import checked_accounts
from racer.envs.highway.scoring import ArrayScorer, Scorer, Scoring, WorldStep
from racer.envs.rows import permuted_rows

__all__ = ["SCORINGS", "RiskWorld", "WorldStep"]

SCORINGS = ("compiled", "arrays")


class RiskWorld:
    """N highway scenes with RACER's observation, reward and episode ends.

    Args:
        config: overrides of :func:`racer.envs.highway.config.default_config`.
        num_envs: N.
        num_threads: threads that share a step of the compiled engine; results do not depend on it.
        scoring: "compiled", or "arrays" for the NumPy functions, slowly; the results are equal. The highway-env
            engine is always scored by arrays.

    Raises:
        UsageError: for a configuration that is wrong, or that the chosen engine does not cover.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None,
        num_envs: int,
        *,
        num_threads: int = 1,
        scoring: str = "compiled",
    ) -> None:
        if scoring not in SCORINGS:
            raise unknown_name("scoring", str(scoring), SCORINGS)
        self.config = resolve_config(config)
        self.num_envs = num_envs
        self.action_names = action_names(self.config["action"])
        self.engine: Engine = make_engine(self.config, num_envs, num_threads)
        self.action_space = self._action_space()
        self.observation_space = self._observation_space()
        shuffled = self.config["row_order"] == "shuffled"
        self._rows = self._row_shape() if shuffled else None
        parsed = Scoring.parse(self.config, self.observation_space.shape)
        compiled = scoring == "compiled" and self.config["engine"] == "compiled"
        self._scorer: Scorer = _compiled_scorer(self.engine, parsed) if compiled else ArrayScorer(self.engine, parsed)

    def reset(
        self, seeds: Sequence[int | None], indices: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start episodes in ``indices`` (all by default); returns their observations and info arrays."""
        indices = np.arange(self.num_envs) if indices is None else indices
        self.engine.reset(seeds, indices)
        observations, info = self._scorer.start(indices)
        return self._ordered(observations), info

    def step(self, actions: NDArray[Any], on_frame: Callable[[], None] | None = None) -> WorldStep:
        """Take one policy step in every environment.

        Args:
            actions: ``[N, A]`` in [-1, 1] for continuous control (order as in ``action_names``), else ``[N]``.
            on_frame: called after every simulation frame but the last, for filming.
        """
        self.engine.step(actions, on_frame)
        step = self._scorer.step()
        return step if self._rows is None else replace(step, observations=self._ordered(step.observations))

    def observe(self) -> NDArray[np.float32]:
        """Return what all environments show now, ``[N, ...]``."""
        return self._ordered(self._scorer.observations())

    def _ordered(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return observations with their rows in the order that the configuration says."""
        if self._rows is None:
            return observations
        return permuted_rows(observations.reshape(-1, *self._rows)).reshape(observations.shape)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides how the environments go on, as flat named arrays."""
        return {
            **self._scorer.get_state(),
            **{f"engine/{key}": value for key, value in self.engine.get_state().items()},
        }

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return to :meth:`get_state` exactly; returns the observations there.

        Raises:
            UsageError: an array is missing, belongs to other environments, or holds what no state can hold; nothing
                has changed then.
        """
        checked_accounts(state, self.num_envs)
        self.engine.set_state(
            {key.removeprefix("engine/"): value for key, value in state.items() if key.startswith("engine/")}
        )
        self._scorer.set_state(state)
        return self.observe()

    def _action_space(self) -> spaces.Space:
        space = self.engine.single_action_space
        return space if isinstance(space, spaces.Discrete) else spaces.Box(-1.0, 1.0, space.shape, np.float32)

    def _row_shape(self) -> tuple[int, int]:
        observation = self.config["observation"]
        features = observation.get("features") or ("presence", "x", "y", "vx", "vy")
        return int(observation.get("vehicles_count", 5)), len(features)

    def _observation_space(self) -> spaces.Box:
        rows, columns = self._row_shape()
        shape = (rows * columns,) if self.config["flatten_observation"] else (rows, columns)
        bound = float(self.config["observation_clip"])
        return spaces.Box(-bound, bound, shape, np.float32)


def _compiled_scorer(engine: Any, scoring: Scoring) -> Scorer:
    """Build the compiled scorer; imported late, as the compiled engine is."""
    from racer.envs.highway.compiled_scoring import CompiledScorer

    return CompiledScorer(engine, scoring)
