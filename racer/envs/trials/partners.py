"""Cars that frozen policies drive, all environments' at once.

A partner sees what an ego of this world would see in its place (:mod:`racer.envs.trials.observation`), on its own way
of the scene's length, and chooses as an ego does. Which policy drives which car follows from the scene; what it draws,
from the scene, the trial's clock and the car. Partners remember nothing from trial to trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError
from racer.core.frozen import FrozenPolicy, frozen_policy
from racer.envs.highway.simulator import HighwaySimulator
from racer.envs.highway.simulator import layout as at
from racer.envs.trials.chance import FoldedRows
from racer.envs.trials.config import TrialsConfig, trials_config
from racer.envs.trials.egos import obey, rows_around
from racer.envs.trials.observation import observation_space, observe
from racer.envs.trials.population import Population

__all__ = ["Partners"]

WORLD = "trials"


class Partners(Population):
    """The partners of N environments.

    Args:
        config: of the world, with partners.
        num_envs: N.
        distance: m of the scene's way.

    Raises:
        UsageError: a partner is missing, or sees or does something else than an ego of the scene.
    """

    def __init__(self, config: TrialsConfig, num_envs: int, distance: float) -> None:
        self.config, self.num_envs, self.distance = config, num_envs, distance
        self.cars = config.egos + np.arange(config.partner_count)
        self.members = [_fitting(path, config) for path in config.partners]
        count = num_envs * len(self.cars)
        shape = (num_envs, len(self.cars))
        self._whole = {"members": np.zeros(shape, np.int64), "seeds": np.zeros(num_envs, np.int64)}
        self._whole["turns"] = np.zeros(num_envs, np.int64)
        self._real = {"starts": np.zeros(shape)}
        self._memories = [dict(member.policy.initial_memory(count)) for member, _ in self.members]

    def arrays(self) -> dict[str, NDArray[Any]]:
        memories = {
            f"memory_{number}/{name}": value
            for number, memory in enumerate(self._memories)
            for name, value in memory.items()
        }
        return {f"partners/{name}": v for name, v in {**self._whole, **self._real, **memories}.items()}

    def limits(self) -> dict[str, tuple[float, float]]:
        turns = (0, self.config.k_scenarios)
        return {"partners/members": (0, len(self.members)), "partners/seeds": (0, 2**31), "partners/turns": turns}

    def begin(self, simulator: HighwaySimulator, index: int, seed: int, trial: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self._whole["members"][index] = rng.integers(len(self.members), size=len(self.cars))
        self._whole["seeds"][index], self._whole["turns"][index] = seed, trial
        scene = simulator.scene(index)
        guard, target = scene["guard"], scene["target_speed"]
        guard[self.cars] = at.DRIVEN
        target[self.cars] = scene["speed"][self.cars]
        simulator.set_scene(index, guard=guard, target_speed=target)
        self._real["starts"][index] = scene["x"][self.cars]
        rows = slice(index * len(self.cars), (index + 1) * len(self.cars))
        for memory in self._memories:
            for value in memory.values():
                value[rows] = 0

    def choose(self, simulator: HighwaySimulator, clock: NDArray[np.int64]) -> None:
        """Let every partner decide: one forward a policy, for all environments."""
        envs = np.repeat(np.arange(self.num_envs), len(self.cars))
        cars = np.tile(self.cars, self.num_envs)
        members = self._whole["members"].ravel()
        for number, (member, seen) in enumerate(self.members):
            rows = np.flatnonzero(members == number)
            if not len(rows):
                continue
            chosen = self._decided(number, member, seen, simulator, clock, rows, envs[rows], cars[rows])
            obey(simulator, envs[rows], cars[rows], chosen)

    def _decided(
        self, number: int, member: FrozenPolicy, seen: TrialsConfig, simulator: HighwaySimulator,
        clock: NDArray[np.int64], rows: NDArray[np.intp], envs: NDArray[np.intp], cars: NDArray[np.int64],
    ) -> NDArray[np.int64]:  # fmt: skip
        """Return the choices of the partners ``rows`` ``[M]``, which one policy drives, and remember."""
        real, whole = simulator.packed
        travelled = real[envs, at.X, cars] - self._real["starts"].ravel()[rows]
        nothing = np.zeros(len(rows))
        shown = observe(
            seen, rows_around(simulator, envs, cars, seen.vehicles_seen),
            np.maximum(1.0 - travelled / self.distance, 0.0), whole[envs, at.TARGET_LANE, cars],
            real[envs, at.TARGET_SPEED, cars], clock[envs], nothing.astype(np.int64), nothing,
        )  # fmt: skip
        memory = self._memories[number]
        turns = self._whole["turns"][envs] if self.config.partner_rng == "advance" else nothing
        key = FoldedRows(self._whole["seeds"][envs], turns, clock[envs], cars)
        actions, after, _ = member.policy.act(
            member.params, shown, {name: value[rows] for name, value in memory.items()}, key, False
        )
        for name, value in memory.items():
            value[rows] = after[name]
        return np.asarray(actions, np.int64)


def _fitting(path: str, config: TrialsConfig) -> tuple[FrozenPolicy, TrialsConfig]:
    """Return a partner's policy, and the configuration that says what it sees.

    Raises:
        UsageError: there is none, or it is of another world, observation or kind of action.
    """
    member = frozen_policy(path)
    if member.world != WORLD:
        raise UsageError(f"partner {path!r} was trained in another world, not in {WORLD!r}")
    seen = trials_config(_own(member.env_config))
    if seen.show_arm or seen.show_reward:
        raise UsageError(
            f"partner {path!r} was trained with show_arm={seen.show_arm} and show_reward={seen.show_reward}: a partner "
            "has neither a type nor a reward; train it with both false"
        )
    if not getattr(member.policy, "discrete", False) or seen.actions != "choices":
        raise UsageError(f"partner {path!r} was trained with actions={seen.actions!r}, not with 'choices'")
    wanted = tuple(observation_space(seen).shape or ())
    read = tuple(member.policy.observation_shape)
    if read != wanted:
        raise UsageError(f"partner {path!r} reads observations {list(read)}, its world's are {list(wanted)}")
    if seen.policy_frequency != config.policy_frequency:
        raise UsageError(
            f"partner {path!r} decides {seen.policy_frequency} times a second, the scene has policy_frequency="
            f"{config.policy_frequency}"
        )
    return member, seen


def _own(env_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration without the population that the partner itself was trained among."""
    apart = ("population", "recording", "partners")
    return {name: value for name, value in env_config.items() if name not in apart}
