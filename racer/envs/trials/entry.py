"""Trial mode as :class:`racer.envs.world.World`."""

from __future__ import annotations

from racer.core.config import sentences
from racer.core.drawing import AMBER, GREEN
from racer.envs.trials.config import TrialsConfig, memory_use, resolve_config, trials_config
from racer.envs.trials.drawing import panel
from racer.envs.trials.drivers import DRIVERS
from racer.envs.trials.env import HighwayTrialsEnv
from racer.envs.trials.metrics import end_reason, success_log, trial_metrics
from racer.envs.trials.replay import REPLAY
from racer.envs.trials.vector import HighwayTrialsVectorEnv
from racer.envs.world import Film, World

__all__ = ["WORLD"]

WORLD = World(
    name="trials",
    title="trial evaluation results",
    resolve=resolve_config,
    make=lambda config, num_envs: HighwayTrialsVectorEnv(num_envs, config),
    sentences=sentences(TrialsConfig),
    metrics=trial_metrics(4),
    metrics_for=lambda config: trial_metrics(int(config["k_scenarios"])),
    success_log=success_log,
    egos_for=lambda config: int(config["egos"]),
    action_names=lambda config: () if config["actions"] == "choices" else ("acceleration", "steering"),
    end_reason=end_reason,
    drivers=DRIVERS,
    memory_use=memory_use,
    remembered_steps=lambda config: trials_config(config).window,
    # Limbo up to the end of the window serves the learner's rows alone.
    held_out=lambda config: {**config, "fill_window": False},
    # The reward that a trial's first observation shows tells of the trial before it, whatever is remembered.
    forgetful=lambda config: {**config, "carry_reward": False},
    replay=REPLAY,
    film=Film(
        make=lambda config: HighwayTrialsEnv(config, render_mode="rgb_array_list"),
        clock=lambda config: (1.0 / config["policy_frequency"], trials_config(config).window),
        panel=panel,
        ends={"goal_reached": ("GOAL REACHED", GREEN), "failed": ("NOT REACHED", AMBER)},
    ),
)
