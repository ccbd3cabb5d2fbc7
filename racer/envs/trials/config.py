"""Configuration of trial mode: the scene, how many trials an episode has and how long one lasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from racer.core.config import check_fields, from_mapping, option
from racer.core.errors import UsageError

__all__ = [
    "ACTIONS", "ARMS", "CARS", "DECISIONS", "LENGTHS", "REDRAWS", "TrialsConfig", "memory_use", "resolve_config",
    "trials_config",
]  # fmt: skip

ARMS: Mapping[str, int] = {"hidden_lane": 4, "courteous": 8}
"""How many types of traffic a scene has."""

LENGTHS: Mapping[str, int] = {"hidden_lane": 140, "courteous": 130}
"""Steps of a trial at the highest decision rate, by scene, where the configuration names no length."""

CARS = 20
"""Cars in every scene beside the first ego's."""

DECISIONS = (1, 3, 5)
"""Hz at which an agent may decide; all divide the simulator's 15 Hz."""

REDRAWS = ("nothing", "arm", "scene")
POPULATIONS = ("idm", "recorded", "partners")
PARTNER_RNGS = ("rewind", "advance")
ACTIONS = ("choices", "continuous")
FOLLOWING = ("timeout", "trial_count", "resample_window")

_MOST_STEPS = 100_000


@dataclass(frozen=True)
class TrialsConfig:
    """Every key of the world."""

    scene: str = option(
        "hidden_lane",
        '"hidden_lane": one of four lanes counts, which the reward alone tells; "courteous": one of eight drivers of a '
        "platoon lets the ego in",
        choices=tuple(ARMS),
    )
    k_scenarios: int = option(4, "trials of an episode, K", low=1, high=64)
    scenario_length: int | None = option(
        None, "steps of a trial, L; None: as many as make 28 s on hidden_lane, 26 s on courteous", low=2, high=10_000
    )
    policy_frequency: int = option(
        5, "decisions a second (Hz); few make a trial short for a memory, and what is tried out hold: 1, 3 or 5"
    )
    timeout: int | None = option(None, "follows: L; another value is an error")
    trial_count: int | None = option(None, "follows: K; another value is an error")
    resample_window: int | None = option(None, "follows: K * L; another value is an error")
    redraw: str = option(
        "nothing",
        'what is drawn anew for every trial of an episode, as a control: "nothing"; "arm", the type of traffic, with '
        'the scene kept; "scene", all but the type',
        choices=REDRAWS,
    )
    egos: int = option(
        1,
        "agents of an environment, each a row of the vector environment with a memory of its own: the first car and "
        "the next ones ahead of it; several need scene hidden_lane, choices and cars that are not recorded",
        low=1,
        high=8,
    )
    population: str = option(
        "idm",
        'who the other cars are: "idm", highway-env\'s, with what the scene\'s type says; "recorded", trajectories of '
        'a file; "partners", some of them driven by frozen policies',
        choices=POPULATIONS,
    )
    recording: str | None = option(
        None, "CSV file of the recorded population: t, id, x, y, heading, speed (s, m, rad, m/s)"
    )
    partners: tuple[str, ...] = option(
        (), "checkpoints, runs or shipped policies of this world, one of which is drawn for each partner"
    )
    partner_count: int = option(6, "cars that partners drive, the next ones ahead of the ego's start", low=1, high=20)
    partner_rng: str = option(
        "rewind",
        '"rewind": partners draw the same random numbers in every trial of an episode; "advance": new ones',
        choices=PARTNER_RNGS,
    )
    arms: tuple[int, ...] = option((), "types that are drawn, counted from 0; none given: all of the scene", low=0)
    show_arm: bool = option(False, "whether the type is part of the observation, as an oracle sees it")
    show_reward: bool = option(True, "whether the last reward is part of the observation, its last number")
    carry_reward: bool = option(
        True,
        "whether the first observation of a later trial shows what the last step of the one before it paid; else it "
        "shows 0, as an episode's first does",
    )
    fill_window: bool = option(
        True,
        "whether an episode that ends early is followed by limbo up to K * L steps in the vector environment, so that "
        "rollouts of K * L steps hold one episode a row",
    )
    without_memory: bool = option(
        False, "whether an agent without a memory may be trained, as a control; else it is an error"
    )
    actions: str = option(
        "choices",
        '"choices": lane left, idle, lane right, faster, slower; "continuous": acceleration and steering in [-1, 1]',
        choices=ACTIONS,
    )
    vehicles_seen: int = option(8, "other cars that are shown, the nearest ones", low=1, high=20)
    goal_reward: float = option(1.0, "paid once for reaching the goal")
    crash_reward: float = option(-0.5, "paid once for a crash or for leaving the road", high=0.0)
    miss_reward: float = option(0.0, "paid once for being in another lane over the goal's length", high=0.0)
    hold_reward: float = option(
        0.5, "paid in parts for the last hold_length m of the way in the goal's lane; without it nearly no trial of a "
        "policy that still tries things out is ever paid", low=0.0,
    )  # fmt: skip
    hold_length: float = option(
        60.0, "m before the goal over which hold_reward is paid; the goal itself asks for the last 60 m whatever it is",
        low=1.0, high=500.0,
    )  # fmt: skip
    progress_reward: float = option(0.3, "paid in parts for the way to the goal", low=0.0)

    def __post_init__(self) -> None:
        check_fields(self, "environment config key")
        for name, value in zip(FOLLOWING, (self.length, self.k_scenarios, self.window), strict=True):
            given = getattr(self, name)
            if given not in (None, value):
                raise UsageError(
                    f"environment config key {name!r} = {given} conflicts with k_scenarios = {self.k_scenarios} and "
                    f"scenario_length = {self.length}, from which {value} follows: leave it out"
                )
        if self.window > _MOST_STEPS:
            raise UsageError(
                f"k_scenarios = {self.k_scenarios} trials of scenario_length = {self.length} steps are more than "
                f"{_MOST_STEPS} steps"
            )
        self._check_population()
        if self.policy_frequency not in DECISIONS:
            raise UsageError(
                f"environment config key 'policy_frequency' must be one of {', '.join(map(str, DECISIONS))} (Hz), not "
                f"{self.policy_frequency}"
            )
        count = ARMS[self.scene]
        if any(arm >= count for arm in self.arms) or len(set(self.arms)) != len(self.arms):
            raise UsageError(
                f"environment config key 'arms' must name different types of scene {self.scene!r}, 0 to {count - 1}, "
                f"not {list(self.arms)}"
            )

    def _check_population(self) -> None:
        for name, needed in (("recording", "recorded"), ("partners", "partners")):
            if bool(getattr(self, name)) != (self.population == needed):
                raise UsageError(
                    f"environment config key {name!r} goes with population={needed!r}, each with the other; population "
                    f"is {self.population!r} and {name} {getattr(self, name)!r}"
                )
        if self.population != "idm" and self.scene == "courteous":
            raise UsageError(f"scene 'courteous' is about IDM cars: population cannot be {self.population!r}")
        for name, needed in (("scene", "hidden_lane"), ("actions", "choices")):
            if self.egos > 1 and getattr(self, name) != needed:
                raise UsageError(f"egos = {self.egos} need {name}={needed!r}, not {getattr(self, name)!r}")
        if self.population == "partners" and self.egos + self.partner_count > CARS + 1:
            raise UsageError(
                f"egos = {self.egos} and partner_count = {self.partner_count} are more than the {CARS + 1} cars of a "
                "scene"
            )
        if self.egos > 1 and self.population == "recorded":
            raise UsageError(f"egos = {self.egos} cannot be in a recording, where an ego takes one car's place: set 1")

    @property
    def length(self) -> int:
        """Steps after which a trial times out, L."""
        if self.scenario_length is not None:
            return self.scenario_length
        return LENGTHS[self.scene] * self.policy_frequency // max(DECISIONS)

    @property
    def window(self) -> int:
        """Steps that an episode has room for, K * L."""
        return self.k_scenarios * self.length

    @property
    def arm_count(self) -> int:
        """Types of traffic that the scene has."""
        return ARMS[self.scene]


def trials_config(config: Mapping[str, Any] | None) -> TrialsConfig:
    """Complete and check a mapping.

    Raises:
        UsageError: an unknown key (with the nearest one), a value out of range, or one that conflicts with K and L.
    """
    return from_mapping(TrialsConfig, config or {}, "environment config key")


def resolve_config(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the whole configuration as JSON knows it; errors as :func:`trials_config`."""
    config = trials_config(overrides)
    return {**dataclasses.asdict(config), "arms": list(config.arms), "partners": list(config.partners)}


def memory_use(config: Mapping[str, Any]) -> tuple[str, str]:
    """See :attr:`racer.envs.world.World.memory_use`."""
    if config["k_scenarios"] == 1:
        return "useless", "episodes of one trial (k_scenarios = 1) leave nothing to be carried to a next one"
    if config["without_memory"] or config["show_arm"]:
        return "", ""
    return "needed", "--config.memory=gru; --config.env.without_memory=True trains without one, as a control"
