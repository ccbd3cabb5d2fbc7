"""What a study compares: the rows of each, and how their runs are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LEVEL", "STUDIES", "Row", "stages_before"]

CONFIGS = Path(__file__).resolve().parents[1] / "scripts" / "sim" / "configs"

LEVEL = " at "
"""Between a row's name and a risk level in the name of a line."""

REWARD = ("collision_reward", "offroad_penalty", "forward_speed_range")


@dataclass(frozen=True)
class Row:
    """One line of a study: how its runs are trained."""

    name: str
    flags: tuple[str, ...]
    steps: int
    steps_between: int
    """Transitions between two checkpoints that are evaluated."""
    evaluated_with_default: tuple[str, ...] = ()
    """Keys of the world that evaluations set back to their defaults."""
    starts_from: str | None = None
    """Row whose run of the same training seed it begins with."""
    also_at: tuple[int, ...] = ()
    """Transitions of further checkpoints that are evaluated, where the run has them."""
    is_stage: bool = False
    """Whether it is only there to be gone on from, and is not evaluated."""
    least: tuple[str, float] | None = None
    """Figure of the log and what it has to be, as the mean of the last tenth of the run; where it is less, the run is
    begun again with another seed."""
    levels: tuple[float, ...] = ()
    """Risk levels at which a policy that knows them all is evaluated, each a line of its own."""

    def line(self, level: float | None) -> str:
        """Name a line of the table."""
        return self.name if level is None else f"{self.name}{LEVEL}{level:g}"

    @property
    def lines(self) -> list[str]:
        """The lines of the table, in order."""
        return [self.line(level) for level in self.levels or (None,)]


def risk_rows() -> list[Row]:
    """CVaR levels and SAC in the published setting: 30,000 iterations of 8 environments, 8 gradient steps each.

    One more row is risk 0.25 for half as long again, with step sizes that fall from where the others end; the row
    without the fall is evaluated there too, where its run goes so far. The last is the learner of the default
    configuration (targets, attention, one policy for every level, the mean of its last weights), with a gradient step
    for eight transitions.
    """
    common = ("--num_envs=8", "--utd_ratio=8", "--batch_size=128", "--start_training=1000")
    config = f"--config={CONFIGS / 'highway_study_config.py'}"
    levels = ("0.0", "0.25", "0.5", "0.8")
    flags: dict[str, tuple[str, ...]] = {
        f"cvar-{level}": (config, f"--config.cvar_risk={level}", *common) for level in levels
    }
    flags["sac"] = (f"{config}:sac", *common)
    falling = (
        "--config.lr_schedule=linear", "--config.lr_decay_begin=240_000", "--config.lr_decay_steps=120_000",
        "--config.final_lr_fraction=0.1",
    )  # fmt: skip
    longer = Row("cvar-0.25-longer", (*flags["cvar-0.25"], *falling), 360_000, 360_000)
    rows = [
        Row(name, given, 240_000, 240_000, also_at=(360_000,) if name == "cvar-0.25" else ())
        for name, given in flags.items()
    ]
    house = Row("house", (f"{config}:house", "--num_envs=64", *common[1:]), 480_000, 480_000, levels=(0.25, 0.8))
    return [*rows, longer, house]


def highway_rows() -> list[Row]:
    """PPO on the default highway with 50 vehicles, where speed is paid for between 30 and 45 m/s.

    The second row goes on from the first where a crash costs 15 and nothing above 36 m/s is paid for, the third from
    the second where it costs 40. The last one chooses targets and attends to the cars, and its noise falls.
    """
    ppo = (
        f"--config={CONFIGS / 'highway_ppo_config.py'}", "--num_envs=16", "--config.lr_decay_transitions=4_000_000",
    )  # fmt: skip
    slower = ("--config.actor_lr=1e-4", "--config.env.forward_speed_range=(20.0, 36.0)")
    careful = (
        *slower, "--config.critic_lr=1e-4", "--config.env.collision_reward=-15", "--config.env.offroad_penalty=-15.0",
    )  # fmt: skip
    cautious = (
        *slower, "--config.critic_lr=2e-4", "--config.env.collision_reward=-40", "--config.env.offroad_penalty=-40.0",
        "--config.lr_decay_transitions=2_000_000",
    )  # fmt: skip
    targets = (
        f"--config={CONFIGS / 'highway_ppo_config.py'}", "--num_envs=64", "--config.num_minibatches=16",
        "--config.controller=targets", '--config.encoder={"kind": "attention"}', "--config.action_scale={}",
        '--config.initial_action={"target_speed": 0.5}', "--config.initial_std=0.15", "--config.final_std=0.02",
    )  # fmt: skip
    return [
        Row("ppo", ppo, 8_000_000, 2_000_000),
        Row("ppo-careful", (*ppo, *careful), 4_000_000, 2_000_000, REWARD, "ppo"),
        Row("ppo-cautious", (*ppo, *cautious), 4_000_000, 2_000_000, REWARD, "ppo-careful"),
        Row("ppo-targets", targets, 3_000_000, 1_500_000),
    ]


def levels_rows() -> list[Row]:
    """The CVaR actor-critic's default configuration on the default highway, which is told every risk level."""
    flags = (
        f"--config={CONFIGS / 'highway_distributional_config.py'}", "--num_envs=64", "--utd_ratio=8",
        "--batch_size=128", "--replay_buffer_size=1000000",
    )  # fmt: skip
    levels = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    return [Row("cvar", flags, 750_000, 750_000, levels=levels)]


def encoder_rows() -> list[Row]:
    """What reads the cars around: each encoder in the place of the default's attention, with all else the same."""
    (default,) = levels_rows()
    slots = ("--config.view=lane_slots", "--config.encoder=flat", "--config.observation_scale=None")
    pointnet = '--config.encoder={"kind": "pointnet", "widths": (32, 64)}'
    flags = {"attention": (), "lane-slots": slots, "pointnet": (pointnet,), "flat": ("--config.encoder=flat",)}
    steps, levels = 250_000, (0.2, 0.8)
    return [Row(name, (*default.flags, *extra), steps, steps, levels=levels) for name, extra in flags.items()]


TRIAL_FLAGS = ("--num_envs=256",)
TRANSFORMER_FLAGS = ("--num_envs=128", "--config.actor_lr=2e-3", "--config.critic_lr=2e-3")
EPISODES = {"hidden_lane": 112, "courteous": 312}
"""Steps of an episode at most, which a transformer is to remember."""

WITHOUT_MEMORY = ("--config.memory=None", "--config.env.without_memory=True")
PARTNERS = tuple(f"trials-partner-{coefficient}" for coefficient in (0.05, 0.1, 0.2, 0.5))
AMONG = {"population": "partners", "partners": PARTNERS}
TOLD = ("--config.memory=None", "--config.env.show_arm=True")
HIDDEN_LANE_STEPS = 2_500_000

STAGE = "--config.lr_schedule=constant"
FIRST_STAGE = (
    STAGE, "--config.entropy_coef=0.003", "--config.env.crash_reward=0.0", "--config.env.progress_reward=0.0"
)  # fmt: skip
COURTEOUS_STAGES: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("two-types", ("--config.env.arms=(0, 1)", *FIRST_STAGE), 1_500_000),
    ("three-types", ("--config.env.arms=(0, 1, 2)", STAGE), 1_200_000),
    ("four-types", ("--config.env.arms=(0, 1, 2, 3)", STAGE), 1_200_000),
    ("five-types", ("--config.env.arms=(0, 1, 2, 3, 4)", STAGE), 1_200_000),
    ("six-types", ("--config.env.arms=(0, 1, 2, 3, 4, 5)", STAGE), 1_200_000),
    ("seven-types", ("--config.env.arms=(0, 1, 2, 3, 4, 5, 6)", STAGE), 1_200_000),
    ("", (), 1_000_000),
)
"""Name, flags and transitions. In the first stage, where nothing has been learnt yet, staying where one is pays nothing
and a crash costs nothing: either one else keeps a policy out of the platoon for good. With one type a policy settles
for one gap, and then seldom looks for another; with two some do, which is seen at the end of the first stage."""

BOTH_GAPS = ("training/trial_3_score", 0.75)
"""What the last trial scores in the first stage: half for who knows one of the two gaps, nearly 1 for who knows both.
"""


def trial_rows() -> list[Row]:
    """PPO over several trials of one hidden type: with a memory of either kind, without one, told the type (oracle).

    ``unseen`` is trained on all types but the last, ``among`` where shipped partners drive the six cars ahead. On
    ``courteous`` each row goes through stages of more and more types.
    """
    config = f"--config={CONFIGS / 'highway_trials_config.py'}"

    def flags(scene: str, kind: str) -> tuple[str, ...]:
        memory = f'--config.memory={{"kind": "transformer", "embed": 64, "layers": 2, "length": {EPISODES[scene]}}}'
        kinds = {
            "gru": (), "transformer": (*TRANSFORMER_FLAGS, memory), "memoryless": WITHOUT_MEMORY, "oracle": TOLD,
            "unseen": ("--config.env.arms=(0, 1, 2)",),
            "among": tuple(f"--config.env.{key}={value}" for key, value in AMONG.items()),
        }  # fmt: skip
        return (f"{config}:{scene}", *TRIAL_FLAGS, *kinds[kind])

    rows = [
        Row(f"hidden_lane-{kind}", flags("hidden_lane", kind), HIDDEN_LANE_STEPS, HIDDEN_LANE_STEPS, alone)
        for kind, alone in (
            *((kind, ()) for kind in ("gru", "transformer", "memoryless", "oracle", "unseen")),
            ("among", tuple(AMONG)),
        )
    ]
    for kind in ("gru", "transformer", "memoryless", "oracle"):
        before: str | None = None
        for stage, types, steps in COURTEOUS_STAGES:
            name = "-".join(part for part in ("courteous", kind, stage) if part)
            given = (*flags("courteous", kind), *types)
            least = BOTH_GAPS if before is None else None
            rows.append(Row(name, given, steps, steps, starts_from=before, is_stage=bool(stage), least=least))
            before = name
    return rows


STUDIES: dict[str, Callable[[], list[Row]]] = {
    "risk": risk_rows, "highway": highway_rows, "levels": levels_rows, "encoders": encoder_rows, "trials": trial_rows,
}  # fmt: skip


def stages_before(row: Row, rows: list[Row]) -> list[Row]:
    """Return those of ``rows`` that have to be trained one after another before this one."""
    before = [other for other in rows if other.name == row.starts_from]
    return [*stages_before(before[0], rows), before[0]] if before else []
