"""Score a trained policy beside PID on the same routes and random streams.

    python scripts/lateral/eval.py --model_path models/lateral/final_model
    python scripts/lateral/eval.py --model_path models/lateral/final_model --plant tinyphysics.onnx \\
      --data_path routes --num_segments 100 --report report.html

Streams are salted: nothing that a policy could know gives them away. Routes from files are scored under the official
streams as well, which follow from the files' paths. Writes evaluation_metrics.json and traces into --output_dir.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from racer.core.cli import run_program
from racer.core.errors import UsageError
from racer.core.files import replace_file, write_json
from racer.core.run_dir import check_writable
from racer.envs.lateral.actions import ActionMap
from racer.envs.lateral.config import lateral_config
from racer.envs.lateral.controllers import PID, Controller, PolicyController, make_controller
from racer.envs.lateral.generator import generate_route
from racer.envs.lateral.observation import SIZE
from racer.envs.lateral.plants import make_plant
from racer.envs.lateral.report import histogram_picture, page, trace_picture
from racer.envs.lateral.routes import Route, read_route, route_files
from racer.envs.lateral.rules import Costs
from racer.envs.lateral.scoring import Scores, official_draws, salted_draws, score
from racer.envs.lateral.simulation import Simulation
from racer.evaluation.checkpoints import TrainedPolicy, load_policy
from racer.evaluation.drivers import PREFIX, DriverPolicy
from racer.evaluation.summary import mean_interval
from racer.training.device import choose_device

FLAGS = flags.FLAGS
WORST = 10
MAX_REPORT = 5_000_000

flags.DEFINE_string("model_path", None, "final_model, a checkpoint or a run; or driver:lateral/<controller>.")
flags.DEFINE_string("plant", None, "synthetic, or the learned plant's ONNX file; the training's if not given.")
flags.DEFINE_string("data_path", None, "Folder of route files; generated test routes if not given.")
flags.DEFINE_integer("num_segments", 100, "Routes to score, the first ones by name or number.")
flags.DEFINE_integer("route_seed", 0, "Seed of generated routes.")
flags.DEFINE_integer("salt", 1, "First salt of the random streams.")
flags.DEFINE_integer("num_salts", 1, "Salted streams that every route is scored under.")
flags.DEFINE_integer("batch", 64, "Routes side by side. Changes the speed.")
flags.DEFINE_string("report", None, "File for a page with histogram and traces.")
flags.DEFINE_string("output_dir", "./evaluation_results", "Folder for evaluation_metrics.json and the traces.")


def main() -> int:
    """Score as the flags say."""
    trained = load(FLAGS.model_path)
    for name, least in (("num_segments", 1), ("num_salts", 1), ("batch", 1), ("salt", 0), ("route_seed", 0)):
        if FLAGS[name].value < least:
            raise UsageError(f"--{name} is at least {least}, not {FLAGS[name].value}")
    choose_device("cpu")
    plant = make_plant(FLAGS.plant or str(trained.env_config["plant"]))
    routes, paths = find_routes()
    folder = check_writable(Path(FLAGS.output_dir), "output folder")
    if FLAGS.report is not None:
        check_writable(Path(FLAGS.report).absolute().parent, "folder of the report")
    policy = controller_of(trained)

    def scored(make: Callable[[Simulation], Controller], draws: np.ndarray, what: str) -> Scores:
        with tqdm(total=len(routes), desc=what, unit="route", disable=None, leave=False) as bar:
            return score(plant, make, routes, draws, batch=FLAGS.batch, on_batch=lambda done: bar.update(done - bar.n))

    salts = [salted_draws(len(routes), FLAGS.salt + k) for k in range(FLAGS.num_salts)]
    mine = [scored(policy, draws, "policy") for draws in salts]
    pid = [scored(lambda simulation: PID(), draws, "PID") for draws in salts]
    summary: dict[str, Any] = {"salted": compared(routes, mean_costs(mine), mean_costs(pid))}
    if paths:
        official = official_draws(paths)
        both = scored(policy, official, "policy").costs, scored(lambda simulation: PID(), official, "PID").costs
        summary["official"] = compared(routes, *both)
    text = table(summary)
    print("\n".join("".join(f"{cell:<30}" if i == 0 else f"{cell:>26}" for i, cell in enumerate(row)) for row in text))
    worst = ", ".join(f"{name} {cost:.0f}" for name, cost in summary["salted"]["worst_routes"].items())
    print(f"worst routes: {worst}")
    described = {
        "model_path": str(FLAGS.model_path), "step": trained.step, "plant": FLAGS.plant or trained.env_config["plant"],
        "data_path": FLAGS.data_path, "num_segments": len(routes), "route_seed": FLAGS.route_seed,
        "salts": [FLAGS.salt + k for k in range(FLAGS.num_salts)],
    }  # fmt: skip
    write_json(folder / "evaluation_metrics.json", {**described, **summary})
    print(f"metrics: {folder / 'evaluation_metrics.json'}")
    pictures = traces(routes, mine[0], pid[0])
    for heading, data in pictures:
        path = folder / f"trace_{heading.split()[0].lower()}.png"
        replace_file(path, data)
        print(f"trace:   {path}")
    if FLAGS.report is not None:
        histogram = histogram_picture({"policy": mean_costs(mine).total, "PID": mean_costs(pid).total})
        notes = [f"{trained.path}, step {trained.step}. {len(routes)} routes, plant {described['plant']}.",
                 f"Worst routes: {worst}."]  # fmt: skip
        written = page("Lateral control", notes, text, [("Costs of all routes", histogram), *pictures]).encode()
        if len(written) > MAX_REPORT:
            raise UsageError(f"the report would have {len(written)} bytes, more than {MAX_REPORT}")
        replace_file(Path(FLAGS.report), written)
        print(f"report:  {FLAGS.report}")
    return 0


def load(path: str | None) -> TrainedPolicy:
    """Read the policy and check that it is one of this world."""
    if not path:
        raise UsageError("--model_path is missing: name a final_model folder, a checkpoint or a run")
    trained = load_policy(path)
    if trained.world.name != "lateral":
        raise UsageError(f"policy {path!r} was trained in the world {trained.world.name!r}, not in 'lateral'")
    shape = getattr(trained.policy, "observation_shape", (SIZE,))
    if tuple(shape) != (SIZE,):
        raise UsageError(f"policy {path!r} was trained on observations {list(shape)}, today's are [{SIZE}]")
    return trained


def controller_of(trained: TrainedPolicy) -> Callable[[Simulation], Controller]:
    """Return what makes the policy's controller for a batch of episodes."""
    if isinstance(trained.policy, DriverPolicy):
        name = str(trained.path).removeprefix(PREFIX).rpartition("/")[2]
        return lambda simulation: make_controller(name, simulation)
    action_map = ActionMap.of(lateral_config(trained.env_config))
    return lambda simulation: PolicyController(trained.policy, trained.params, action_map.steers, simulation.num)


def find_routes() -> tuple[list[Route], list[str]]:
    """Return the routes that the flags mean, and the paths of their files; no paths for generated ones."""
    if FLAGS.data_path is None:
        return [generate_route(FLAGS.route_seed, "test", number) for number in range(FLAGS.num_segments)], []
    files = route_files(FLAGS.data_path)
    if FLAGS.num_segments > len(files):
        raise UsageError(f"--num_segments is {FLAGS.num_segments}, but {FLAGS.data_path!r} holds {len(files)} routes")
    chosen = files[: FLAGS.num_segments]
    return [read_route(path) for path in chosen], [str(path) for path in chosen]


def mean_costs(scores: list[Scores]) -> Costs:
    """Return each route's costs, averaged over streams."""
    return Costs(*(np.mean(column, axis=0) for column in zip(*(one.costs for one in scores), strict=True)))


def compared(routes: list[Route], mine: Costs, pid: Costs) -> dict[str, Any]:
    """Return the figures of a policy beside PID's."""
    found: dict[str, Any] = {"policy": figures(mine), "pid": figures(pid)}
    found["share_won"] = float(np.mean(mine.total < pid.total))
    order = np.argsort(-mine.total)[:WORST]
    found["worst_routes"] = {routes[i].name: float(mine.total[i]) for i in order}
    return found


def figures(costs: Costs) -> dict[str, float]:
    """Return means over routes and the 95 % interval of the total's."""
    low, high = mean_interval(costs.total)
    means = {f"mean_{name}_cost": float(values.mean()) for name, values in costs._asdict().items()}
    return {**means, "mean_total_cost_low": low, "mean_total_cost_high": high}


def table(summary: dict[str, Any]) -> list[list[str]]:
    """Return rows: a heading, then a controller under a kind of streams each."""
    rows = [["streams, controller", "total cost [95% interval]", "lataccel", "jerk", "routes won"]]
    for streams, found in summary.items():
        for who in ("policy", "pid"):
            row = found[who]
            interval = f"[{row['mean_total_cost_low']:.2f}, {row['mean_total_cost_high']:.2f}]"
            won = f"{found['share_won']:.1%}" if who == "policy" else ""
            rows.append([
                f"{streams}, {'PID' if who == 'pid' else who}", f"{row['mean_total_cost']:.2f} {interval}",
                f"{row['mean_lataccel_cost']:.3f}", f"{row['mean_jerk_cost']:.2f}", won,
            ])  # fmt: skip
    return rows


def traces(routes: list[Route], mine: Scores, pid: Scores) -> list[tuple[str, bytes]]:
    """Return headings and pictures of the best, the median and the worst route."""
    order = np.argsort(mine.costs.total)
    found = []
    for name, place in (("Best", order[0]), ("Median", order[len(order) // 2]), ("Worst", order[-1])):
        costs = f"cost {mine.costs.total[place]:.1f}, PID {pid.costs.total[place]:.1f}"
        heading = f"{name} route, {routes[place].name}: {costs}"
        found.append((heading, trace_picture(mine, pid, int(place))))
    return found


if __name__ == "__main__":
    sys.exit(run_program(main, doc=__doc__ or ""))
