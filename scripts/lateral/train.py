"""Train PPO to steer, in one process or with workers.

    python scripts/lateral/train.py --config scripts/lateral/config.yaml
    python scripts/lateral/train.py --config scripts/lateral/config.yaml --set seed=7 --set env.plant=tinyphysics.onnx
    python scripts/lateral/train.py --config scripts/lateral/config.yaml --workers 2
    python scripts/lateral/train.py --resume models/lateral

Writes checkpoint_*, final_model and training_stats.npz into training.model_save_path, and TensorBoard's files into
training.log_dir. A stopped run goes on with --resume; --set training.total_timesteps=... lets it go further.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from racer.core.cli import run_program
from racer.core.errors import UsageError
from racer.core.metrics import wandb_mode
from racer.core.yaml_file import read_yaml
from racer.training.device import choose_device
from racer.training.plan import RunPlan
from racer.training.run_spec import RunSpec
from racer.training.settings import Imagination, Settings, WarmStart, overridden, plan_new, plan_resumed

PROGRAM = "lateral train"
WORLD = "lateral"
LOG_NAME = "ppo_lateral_control"
ALIASES = {"data_path": "routes"}
"""Further names of the world's keys in the section env."""

EPISODE_TAGS = {
    "training/return": "episode/mean_reward",
    "training/total_cost": "episode/mean_cost",
    "training/length": "episode/mean_length",
    "training/episodes": "episode/num_episodes",
}

flags.DEFINE_string("config", None, "YAML file with the sections env, ppo, training and warm_start.")
flags.DEFINE_multi_string("set", [], "section.key=value, put over the file's; may be given several times.")
flags.DEFINE_string("resume", None, "Folder of a run to go on with.")
flags.DEFINE_integer("workers", None, "Worker processes that step the plant; 0 steps it in the learner's own.")
flags.DEFINE_bool("progress", True, "Show a progress bar.")


def main() -> int:
    """Run what the flags describe; returns the exit code."""
    values = flags.FLAGS
    wandb_mode()
    plan, settings = make_plan(values)
    choose_device(settings.device)
    from racer.training.results import write_final_model, write_stats
    from racer.training.run import Extras, run_training  # after choose_device: brings JAX

    def finish(plan: RunPlan) -> None:
        print(f"model {write_final_model(plan.folder)}")
        write_stats(plan.folder)

    nothing = settings.warm_start.source == "none" and not settings.imagination.rounds
    extras = Extras(
        prepare=None if nothing else functools.partial(prepare, settings=settings),
        tensorboard=Path(settings.training.log_dir) / LOG_NAME,
        tags=tag,
        finish=finish,
    )
    return run_training(plan, progress=values.progress, extras=extras)


def make_plan(values: flags.FlagValues) -> tuple[RunPlan, Settings]:
    """Return the run that the flags mean, new or resumed."""
    if values.resume is not None:
        if values.config is not None:
            raise UsageError("--resume needs no --config: a run is resumed with its own settings")
        return plan_resumed(PROGRAM, Path(values.resume), values.set, values.workers)
    if values.config is None:
        raise UsageError("--config is missing: name a YAML file, e.g. scripts/lateral/config.yaml")
    settings = Settings.of(overridden(read_yaml(values.config), values.set))
    spec = settings.spec(WORLD, ALIASES)
    return plan_new(PROGRAM, settings, spec, values.workers or 0), settings


def tag(name: str) -> str:
    """Return a number's name in TensorBoard from its name in metrics.jsonl."""
    return EPISODE_TAGS.get(name, f"train/{name.removeprefix('agent/')}" if name.startswith("agent/") else name)


def prepare(spec: RunSpec, learnt: Mapping[str, Any] | None, *, settings: Settings) -> dict[str, Any]:
    """Return the state of an agent that has learnt from demonstrations, or in a model of the plant, or both."""
    from racer.envs.lateral.config import lateral_config
    from racer.envs.lateral.plants import make_plant
    from racer.envs.lateral.world import lateral_spaces, make_routes
    from racer.training.run_spec import create_agent

    # Files that cannot be read are an error before anything is learnt, not after.
    config = lateral_config(spec.env_config)
    make_plant(config.plant)
    make_routes(config)
    agent = create_agent(spec, *lateral_spaces(), learnt=learnt)
    if settings.warm_start.source != "none":
        agent = cloned(agent, spec, settings.warm_start)
    if settings.imagination.rounds:
        agent = imagined(agent, spec, settings.imagination)
    state: dict[str, Any] = agent.state_arrays()
    return state


def cloned(agent: Any, spec: RunSpec, warm: WarmStart) -> Any:
    """Return an agent that has learnt from demonstrations."""
    from racer.agents.cloning import clone_actions
    from racer.envs.lateral.actions import ActionMap
    from racer.envs.lateral.config import lateral_config
    from racer.envs.lateral.controllers import make_controller
    from racer.envs.lateral.demonstrations import controller_steers, logged_steers
    from racer.envs.lateral.plants import make_plant
    from racer.envs.lateral.simulation import Simulation
    from racer.envs.lateral.world import make_routes

    config = lateral_config(spec.env_config)
    routes = make_routes(config)
    chosen = [routes[number] for number in range(min(warm.routes, len(routes)))]
    action_map = ActionMap.of(config)
    if warm.source == "logged":
        seen, done = logged_steers(chosen, action_map, warm.samples, spec.seed)
    else:
        plant = make_plant(config.plant)
        controller = make_controller(warm.source, Simulation(plant, len(chosen)))
        seen, done = controller_steers(plant, controller, chosen, action_map, warm.samples, spec.seed)
    learnt, loss = clone_actions(
        agent, seen, done, epochs=warm.epochs, learning_rate=warm.learning_rate, seed=spec.seed
    )
    print(f"warm start: {len(seen)} steps of {len(chosen)} routes, mean squared error {loss:.2g} of half the range")
    return learnt


def imagined(agent: Any, spec: RunSpec, settings: Imagination) -> Any:
    """Return an agent that has followed the gradient of the cost in a model of the plant."""
    from racer.agents.descent import descend
    from racer.envs.lateral.config import lateral_config
    from racer.envs.lateral.imagination import Imaginer

    imaginer = Imaginer(lateral_config(spec.env_config), settings, spec.seed)
    for number in range(settings.rounds):
        seen = imaginer.learn(agent.policy, agent.policy_params, number)
        print(f"imagination {number + 1} of {settings.rounds}: {seen}", flush=True)
        agent, costs = descend(
            agent, imaginer.cost, imaginer.lanes(number), steps=settings.steps,
            learning_rate=settings.learning_rate, seed=spec.seed + number,
        )  # fmt: skip
        tenth = max(len(costs) // 10, 1)
        print(f"  imagined cost {costs[:tenth].mean():.1f} at first, {costs[-tenth:].mean():.1f} at last", flush=True)
    return agent


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(run_program(main, doc=__doc__ or ""))
