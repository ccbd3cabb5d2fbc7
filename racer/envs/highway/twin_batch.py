"""What a batch of twins is made of: one configuration, its generators, its environments one by one, its states."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from racer.core.errors import UsageError
from racer.envs.highway.simulator.generator import pack, unpack
from racer.envs.highway.simulator.readers import not_covered
from racer.envs.highway.twin_common import VIDEO_SPEED, action_space, merge_config, observation_space, refused
from racer.envs.highway.twin_keys import live_keys, same_config, warn_of_unknown_keys
from racer.envs.highway.twin_simulator import TwinSimulator

if TYPE_CHECKING:
    from racer.envs.highway.twin_slots import Slot

__all__ = ["Batch"]


class Batch(VectorEnv):
    """A vector environment over one compiled simulator; :class:`HighwayVectorTwin` steps it."""

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": VIDEO_SPEED,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    fast = False

    def __init__(
        self,
        num_envs: int = 1,
        config: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        num_threads: int = 1,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UsageError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.config = merge_config(config, self.fast)
        self.num_envs = num_envs
        self.num_threads = num_threads
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self._warned: set[str] = set()
        self._slots: dict[int, Slot] = {}
        self._lent: dict[int, np.random.Generator] = {}
        self._seeds: list[int] = [-1] * num_envs
        self._info_rng = np.random.default_rng()
        self._ended = np.zeros(num_envs, dtype=bool)
        self._build()

    def _build(self) -> None:
        """Make a simulator of the configuration."""
        warn_of_unknown_keys(self.config, (), self._warned, only_misspelt=False)
        try:
            simulator = TwinSimulator(
                copy.deepcopy(self.config), self.num_envs, fast=self.fast, num_threads=self.num_threads
            )
            parameters = simulator.parameters
            if parameters.observation.rows == 1:
                # highway-env returns all perceived cars then: the rows of a batch would differ
                raise not_covered("observation.vehicles_count (of a vector environment)", 1)
        except UsageError as error:
            raise refused(error) from None
        self.simulator = simulator
        self._seen = copy.deepcopy(self.config)
        self._slots = {}
        self.metadata = {
            **self.metadata,
            "render_fps": VIDEO_SPEED * self.config["policy_frequency"],
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space = observation_space(parameters.observation)
        self.single_action_space = action_space(parameters.action)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _change_at_reset(self, mask: np.ndarray) -> None:
        """Take over what has changed in ``self.config``.

        Raises:
            UsageError: if the environments that are not reset would need another road or another kind of agent.
        """
        if same_config(self.simulator.config, self.config):
            return
        if not mask.all():
            raise UsageError(
                "the configuration has changed: reset all environments together, "
                'or use vectorization_mode="sync", where each has its own'
            )
        self._take_generators()
        before = self.simulator
        self._build()
        before.close()
        for index in range(self.num_envs):
            self.simulator.set_generator_state(index, before.get_generator_state(index))

    def _follow_config(self) -> None:
        """Take over the keys of ``self.config`` that act at once, if any key has changed."""
        if not same_config(self._seen, self.config):
            warn_of_unknown_keys(self.config, (), self._warned, only_misspelt=False)
            self._seen = copy.deepcopy(self.config)
            try:
                self.simulator.adopt({**self.simulator.config, **live_keys(self._seen)})
            except UsageError as error:
                raise refused(error) from None

    # one environment of the batch

    def _slot(self, index: int) -> Slot:
        if index not in self._slots:
            # brings highway-env, which stepping does not need
            from racer.envs.highway.twin_slots import make_slot

            self._slots[index] = make_slot(self, index)
        return self._slots[index]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or read an attribute, as a SyncVectorEnv of single twins.

        What is read shows the present state; the environments are stepped and reset together only.
        """
        values = (self._slot(i).get_wrapper_attr(name) for i in range(self.num_envs))
        return tuple(value(*args, **kwargs) if callable(value) else value for value in values)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment, to one value or to a list of one for each.

        Raises:
            UsageError: for a part of the compiled scene, and for configurations that differ.
        """
        listed = list(values) if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(listed) != self.num_envs:
            raise UsageError(f"{len(listed)} values were given for {self.num_envs} environments")
        if name == "config":
            if not all(same_config(listed[0], other) for other in listed[1:]):
                raise UsageError('a batch has one configuration; use vectorization_mode="sync" for different ones')
            self.config = listed[0]
            self._slots = {}
            return
        for i, value in enumerate(listed):
            self._slot(i).set_wrapper_attr(name, value)

    @property  # type: ignore[misc]
    def np_random(self) -> Any:
        """The environments' generators, as a SyncVectorEnv's."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> Any:
        """The seed that each generator was last made from, -1 where none was given."""
        return tuple(self._seeds)

    def generator(self, index: int) -> np.random.Generator:
        """Return environment ``index``'s generator: what is drawn from it is drawn from the environment's stream."""
        if index not in self._lent:
            self._lent[index] = np.random.Generator(np.random.PCG64())
            self._give_generators()
        return self._lent[index]

    def _take_generators(self) -> None:
        for index, generator in self._lent.items():
            self.simulator.set_generator_state(index, pack(generator.bit_generator.state))

    def _give_generators(self) -> None:
        for index, generator in self._lent.items():
            generator.bit_generator.state = unpack(self.simulator.get_generator_state(index))

    def _leave_views(self, chosen: np.ndarray) -> None:
        """Let what shows the ended episodes keep its values."""
        for index, slot in self._slots.items():
            if index in chosen:
                slot.leave_views()

    # states

    def get_state(self) -> dict[str, Any]:
        """Return everything that decides the future, as copies."""
        self._take_generators()
        return {
            "engine": "compiled",
            "config": copy.deepcopy(self.simulator.config),
            "ended": self._ended.copy(),
            "info_generator": self._info_rng.bit_generator.state,
            **self.simulator.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of :meth:`get_state`, exactly; the configuration becomes the state's.

        Raises:
            UsageError: for the state of another batch, or one that is not a state.
        """
        for name in ("config", "ended", "info_generator"):
            if name not in state:
                raise UsageError(f"the state lacks {name!r}; it must come from get_state() of such a batch")
        simulator = self.simulator
        if not same_config(simulator.config, state["config"]):
            simulator = TwinSimulator(
                copy.deepcopy(state["config"]), self.num_envs, fast=self.fast, num_threads=self.num_threads
            )
        self._leave_views(np.arange(self.num_envs))
        simulator.set_state(state)
        if simulator is not self.simulator:
            self.config.clear()
            self.config.update(copy.deepcopy(state["config"]))
            self._seen = copy.deepcopy(self.config)
            self._slots = {}
        self.simulator = simulator
        self._ended = np.array(state["ended"])
        self._info_rng.bit_generator.state = state["info_generator"]
        self._give_generators()
