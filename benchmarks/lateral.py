"""Lateral control on the learned plant: what controllers and policies cost, and how fast the plant is.

    python benchmarks/lateral.py controllers --plant tinyphysics.onnx            # baselines on 1000 routes
    python benchmarks/lateral.py policies RUN [RUN ...] --plant tinyphysics.onnx # a run a training seed
    python benchmarks/lateral.py speed --plant tinyphysics.onnx                  # steps/s beside onnxruntime

Every figure of docs/lateral.md is printed by one of these. Results are kept in benchmarks/results/lateral.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("NPROC", "1")

import numpy as np

from racer.core.cli import guarded
from racer.core.errors import UsageError
from racer.core.files import write_json
from racer.envs.lateral.actions import ActionMap
from racer.envs.lateral.config import lateral_config
from racer.envs.lateral.controllers import PolicyController, make_controller
from racer.envs.lateral.generator import generate_route
from racer.envs.lateral.plants import make_plant
from racer.envs.lateral.rules import encode
from racer.envs.lateral.scoring import official_draws, salted_draws, score
from racer.envs.lateral.simulation import Simulation
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.summary import mean_interval

ROOT = Path(__file__).parents[1]
BATCHES = (1, 8, 64, 256)
STREAMS = ("salted", "official", "shuffled")
FLOOR = 6.88
"""What an open-loop optimum reaches on recorded routes when it may write the result: no controller."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("controllers", "policies", "speed"))
    parser.add_argument("runs", nargs="*", help="final_model folders, checkpoints or runs, one a training seed")
    parser.add_argument("--plant", default="synthetic", help="synthetic, or the learned plant's ONNX file")
    parser.add_argument("--routes", type=int, default=1000, help="unseen generated routes (default: 1000)")
    parser.add_argument("--salts", type=int, default=10, help="salted seed sets (default: 10)")
    parser.add_argument("--names", nargs="+", default=["zero", "pid", "feed-forward"], help="controllers")
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=STREAMS, help="random streams of policies")
    parser.add_argument("--reference", action=argparse.BooleanOptionalAction, default=True,
                        help="score feed-forward beside policies")  # fmt: skip
    parser.add_argument("--batch", type=int, default=128, help="routes side by side")
    parser.add_argument("--steps", type=int, default=100, help="plant steps of a timing (default: 100)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "lateral.json")
    return parser.parse_args()


class Bench:
    """Routes, plant and seed sets of a study.

    Args:
        args: the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.plant = args, make_plant(args.plant)
        self.routes = [generate_route(0, "test", number) for number in range(args.routes)]

    def costs(self, make: Callable[[Simulation], Any], draws: np.ndarray) -> np.ndarray:
        """Return total, lataccel and jerk cost of every route, ``[3, R]``."""
        return np.stack(score(self.plant, make, self.routes, draws, batch=self.args.batch).costs)

    def salted(self) -> np.ndarray:
        """Return draws ``[R, D]``: the routes are dealt out to the seed sets in turn."""
        sets = [salted_draws(len(self.routes), salt) for salt in range(1, self.args.salts + 1)]
        return np.stack([sets[place % len(sets)][place] for place in range(len(self.routes))])

    def official(self, shift: int = 0) -> np.ndarray:
        """Return the draws of files called as the official ones, each route under the name ``shift`` places on."""
        count = len(self.routes)
        return official_draws([f"data/{self.routes[(i + shift) % count].name}" for i in range(count)])


def row(name: str, costs: np.ndarray) -> dict[str, Any]:
    """Print a row of the table and return it."""
    low, high = mean_interval(costs[0])
    total, lataccel, jerk = costs.mean(axis=1)
    print(f"{name:<44}{total:>9.2f} [{low:6.2f}, {high:6.2f}]{np.median(costs[0]):>9.1f}{lataccel:>9.3f}{jerk:>8.2f}",
          flush=True)  # fmt: skip
    return {"total": total, "low": low, "high": high, "median": float(np.median(costs[0])), "lataccel": lataccel,
            "jerk": jerk}  # fmt: skip


def worst(totals: np.ndarray, count: int = 5) -> dict[str, float]:
    """Print the costliest routes, and return what each adds to the mean: a long tail rests on few of them."""
    places = np.argsort(-totals)[:count]
    shares = {f"test {place}": float(totals[place]) / len(totals) for place in places}
    listed = ", ".join(f"{name} ({share:.2f})" for name, share in shares.items())
    print(f"  costliest routes (share in the mean): {listed}", flush=True)
    return shares


def controllers(args: argparse.Namespace) -> dict[str, Any]:
    """Score the controllers that nobody trained."""
    bench = Bench(args)
    draws, found = bench.salted(), {}
    for name in args.names:
        started = time.monotonic()
        costs = bench.costs(lambda simulation, name=name: make_controller(name, simulation), draws)
        found[name] = {**row(name, costs), "seconds": time.monotonic() - started}
    return {"routes": args.routes, "salts": args.salts, "rows": found}


def policies(args: argparse.Namespace) -> dict[str, Any]:
    """Score one policy a training seed beside feed-forward: salted, under official seeds, and under shuffled names."""
    if not args.runs:
        raise UsageError("policies needs at least one run")
    bench, found = Bench(args), {}
    every = {"salted": bench.salted(), "official": bench.official(), "shuffled": bench.official(shift=7)}
    streams = {name: every[name] for name in STREAMS if name in {"salted", *args.streams}}
    reference, base = None, None
    if args.reference:
        reference = bench.costs(lambda simulation: make_controller("feed-forward", simulation), streams["salted"])
        base = row("feed-forward, salted", reference)
    for path in args.runs:
        trained = load_policy(path)
        action_map = ActionMap.of(lateral_config(trained.env_config))

        def make(simulation: Simulation, trained: Any = trained, action_map: ActionMap = action_map) -> Any:
            return PolicyController(trained.policy, trained.params, action_map.steers, simulation.num)

        rows = {}
        for name, draws in streams.items():
            costs = bench.costs(make, draws)
            rows[name] = {**row(f"{path}, {name}", costs), "worst": worst(costs[0])}
            if name == "salted" and reference is not None:
                less = reference[0] - costs[0]
                low, high = mean_interval(less)
                print(f"  {less.mean():.2f} [{low:.2f}, {high:.2f}] less than feed-forward on the same routes and "
                      f"streams, better on {(less > 0).mean():.0%} of them", flush=True)  # fmt: skip
        found[path] = {"seed": trained.seed, "step": trained.step, "rows": rows}
    means = [one["rows"]["salted"]["total"] for one in found.values()]
    # One seed says nothing of how seeds differ.
    interval = "" if len(means) == 1 else " [{:.2f}, {:.2f}]".format(*mean_interval(means))
    print(f"mean over {len(means)} training seeds: {np.mean(means):.2f}{interval}, "
          f"{np.mean(means) - FLOOR:.2f} above the cost's floor of {FLOOR}")  # fmt: skip
    return {"routes": args.routes, "salts": args.salts, "feed-forward": base, "policies": found, "mean": np.mean(means)}


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Measure control steps/s on one core, the environment's beside onnxruntime's in the same run."""
    runtime, plant, found = _runtime(args.plant), make_plant(args.plant), {}
    print(f"{'batch':>6}{'onnxruntime':>14}{'jax':>10}{'ratio':>8}{'environment':>14}{'plant share':>13}")
    for batch in BATCHES:
        simulation = Simulation(plant, batch)
        routes = [generate_route(0, "test", number) for number in range(batch)]
        simulation.start(range(batch), routes, salted_draws(batch, 1))
        rng = np.random.default_rng(0)
        states = rng.normal(0.0, 0.3, (batch, 20, 4)).astype(np.float32) + np.float32([0, 0, 25, 0])
        tokens = encode(rng.normal(0.0, 0.3, (batch, 20)))
        steps = max(5, args.steps // max(batch // 8, 1))
        # Taken in turns, so that what else the machine does falls on all of them alike.
        tasks = {
            "onnxruntime": lambda states=states, tokens=tokens: runtime(states, tokens),
            "jax": lambda states=states, tokens=tokens: plant.logits(states, tokens),
            "environment": lambda simulation=simulation: simulation.step(np.zeros(simulation.num)),
        }
        spent = dict.fromkeys(tasks, 0.0)
        for task in tasks.values():
            task()
        for _ in range(steps):
            for name, task in tasks.items():
                before = time.process_time()
                task()
                spent[name] += time.process_time() - before
        rates = {name: steps * batch / seconds for name, seconds in spent.items()}
        ratio, share = rates["jax"] / rates["onnxruntime"], spent["jax"] / spent["environment"]
        print(f"{batch:>6}{rates['onnxruntime']:>14.0f}{rates['jax']:>10.0f}{ratio:>8.2f}{rates['environment']:>14.0f}"
              f"{share:>13.0%}", flush=True)  # fmt: skip
        found[str(batch)] = {**rates, "ratio": ratio, "plant_share": share}
    found["ppo"] = ppo_shares(args)
    return found


class Clock:
    """Stands in for a run's metrics and checkpoints, and notes the CPU time at every line."""

    def __init__(self) -> None:
        self.plant, self.lines = 0.0, list[tuple[int, float, float]]()

    def log(self, step: int, values: Any) -> None:
        self.lines.append((step, time.process_time(), self.plant))

    def save(self, *args: Any, **options: Any) -> None:
        """Write nothing."""

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, whose CPU time is counted as the plant's."""

        def measured(*args: Any) -> Any:
            before = time.process_time()
            result = call(*args)
            self.plant += time.process_time() - before
            return result

        return measured


def ppo_shares(args: argparse.Namespace) -> dict[str, float]:
    """Train with scripts/lateral/residual.yaml for a while; print transitions/s and the plant's share of the time."""
    import threading

    from racer.core.yaml_file import read_yaml
    from racer.training.run import TrainingRun
    from racer.training.settings import Settings, overridden

    values = overridden(read_yaml(ROOT / "scripts" / "lateral" / "residual.yaml"), [f"env.plant={args.plant}"])
    rows = 64 * 32
    values["training"] = {"total_timesteps": 6 * rows, "log_freq": rows, "save_freq": 0, "eval_freq": 0}
    settings, clock, plant = Settings.of(values), Clock(), make_plant(args.plant)
    plant.logits = clock.timed(plant.logits)  # type: ignore[attr-defined]
    try:
        run = TrainingRun(settings.spec("lateral", {}), settings.setup(0))
        run.run(clock, clock, stop=threading.Event(), progress=False)  # type: ignore[arg-type]
    finally:
        del plant.logits  # type: ignore[attr-defined]
    # The first lines are of compiling.
    (first, began, before), (last, ended, after) = clock.lines[2], clock.lines[-1]
    rate, share = (last - first) / (ended - began), (after - before) / (ended - began)
    print(f"PPO end to end, 64 environments: {rate:.0f} transitions/s of CPU time, {share:.0%} of it in the plant")
    return {"rate": rate, "plant_share": share}


def _runtime(path: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Return the ONNX file as onnxruntime computes it on one thread."""
    if path == "synthetic":
        raise UsageError("speed compares the learned plant with onnxruntime: pass --plant tinyphysics.onnx")
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("the comparison needs onnxruntime: pip install '.[lateral]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda states, tokens: session.run(None, {"states": states, "tokens": tokens.astype(np.int64)})


def main() -> int:
    """Run the study that the command line names, and keep its figures."""
    args = parse_arguments()
    if min(args.routes, args.salts, args.batch, args.steps) < 1:
        raise UsageError("--routes, --salts, --batch and --steps are at least 1")
    found = {"controllers": controllers, "policies": policies, "speed": speed}[args.what](args)
    kept = json.loads(args.output.read_text()) if args.output.is_file() else {}
    kind = "synthetic" if args.plant == "synthetic" else "learned"
    routes = "" if args.what == "speed" or args.routes == 1000 else f", {args.routes} routes"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, {**kept, f"{args.what} {kind}{routes}": found})
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
