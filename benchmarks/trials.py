"""How fast does trial mode train with a transformer, and what share is that of the floor of its matrix products?

    python benchmarks/trials.py                          # both variants, about 8 minutes on two cores
    python benchmarks/trials.py --variants one-process --processes 1   # pinned to a core, beside the floor of one core

K trials of L steps, one ego, 20 cars, a transformer of width 64 and 2 layers whose cache holds an episode, PPO over
rollouts of K * L steps. ``one-process`` collects and learns in turn; ``service`` has a worker that steps all
environments while the learner updates. Each runs in a process of its own. ``decisions/s`` counts collecting and
learning without the first iteration, which compiles. Limbo steps are not decisions: the environments are built so that
an episode that ends early is followed by the next one.

The floor is time on matrix products alone, each in its best form in NumPy: in acting, a pass of the layers on a row an
environment and attention over the mean cache; in every epoch, three passes of the layers (forwards, the weights'
gradient, the inputs' gradient) and of attention, of which the half that causality leaves is counted. It has no
simulator, normalisation, softmax, gate, optimiser or pass for the values of successors. ``--processes`` of it run at
once, before and after the variants, in the same run.

Prints a table and writes ``benchmarks/results/trials.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ppo_floor
from ppo_floor import Product, backward, forward, median_time, microseconds
from result_file import RESULTS, write_result

VARIANTS = ("one-process", "service")
WIDTH, LAYERS, HEADS, HIDDEN, EPOCHS = 64, 2, 4, 256, 6
OUTPUTS = 6
"""Five choices and a value."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--envs", type=int, default=16, help="environments (default: 16)")
    parser.add_argument("--minibatches", type=int, default=4, help="of an epoch, whole rows each (default: 4)")
    parser.add_argument("--trials", type=int, default=4, help="K (default: 4)")
    parser.add_argument("--length", type=int, default=201, help="L (default: 201)")
    parser.add_argument("--seconds", type=float, default=90.0, help="measure at least so long (default: 90 s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of the floor (default: cores)")
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/trials.json")
    parser.add_argument("--child", choices=(*VARIANTS, "floor"), default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def agent_config(window: int, minibatches: int) -> dict[str, Any]:
    """Return the agent's keys, for rollouts of ``window`` steps."""
    return {
        "rollout_length": window, "num_epochs": EPOCHS, "num_minibatches": minibatches,
        "memory": {
            "kind": "transformer", "embed": WIDTH, "layers": LAYERS, "heads": HEADS, "hidden": HIDDEN, "length": window,
        },
        "hidden_dims": (WIDTH,), "value_hidden_dims": (WIDTH,), "shared_trunk": True,
        "initial_choices": (0.05, 0.7, 0.05, 0.1, 0.1),
    }  # fmt: skip


def run_training(args: argparse.Namespace, variant: str) -> dict[str, float]:
    """Train for ``args.seconds`` after the first iteration; returns decisions a second."""
    from racer.distributed.config import RolloutConfig, ServiceConfig
    from racer.distributed.service import ActorLearnerService, Periodic
    from racer.training.device import choose_device
    from racer.training.options import Schedule, Setup
    from racer.training.run import TrainingRun
    from racer.training.run_spec import spec_from_config

    choose_device("cpu")
    window, alone = args.trials * args.length, variant == "one-process"
    spec = spec_from_config(
        {
            "model_cls": "PPOLearner", "world": "trials", **agent_config(window, args.minibatches),
            "env": {"k_scenarios": args.trials, "scenario_length": args.length, "fill_window": False},
        },
        1,
    )  # fmt: skip
    service = ServiceConfig(num_workers=1, deterministic=alone, seed=1)
    setup = Setup(Schedule(max_steps=10**12), service, RolloutConfig(), args.envs, alone)
    enough, iteration = threading.Event(), window * args.envs
    marks: list[tuple[int, float]] = []

    def look(service: ActorLearnerService) -> None:
        if service.transitions >= iteration * (len(marks) + 1):
            marks.append((service.transitions, time.monotonic()))
        # The first iteration compiles, and with a worker a second one is under way by then.
        if len(marks) > 3 and marks[-1][1] - marks[1][1] >= args.seconds:
            enough.set()

    TrainingRun(spec, setup).service.run(10**12, periodic=[Periodic(1, look)], stop_event=enough)
    decisions, seconds = marks[-1][0] - marks[1][0], marks[-1][1] - marks[1][1]
    return {"decisions_per_second": decisions / seconds, "decisions": decisions, "seconds": seconds}


def layer_products(rows: int, inputs: int) -> list[tuple[int, list[int]]]:
    """Return rows and widths of every chain of products in a pass of the network on ``rows`` rows."""
    layer = [
        [WIDTH, 3 * WIDTH], [WIDTH, WIDTH],  # query, key and value in one; out
        *2 * [[WIDTH, 3 * WIDTH], [WIDTH, 2 * WIDTH], [WIDTH, WIDTH]],  # two gates
        [WIDTH, HIDDEN], [HIDDEN, WIDTH],
    ]  # fmt: skip
    return [(rows, sizes) for sizes in ([inputs, WIDTH], *LAYERS * layer, [WIDTH, WIDTH, OUTPUTS])]


def floor_part(args: argparse.Namespace, seconds: float = 4.0) -> dict[str, float]:
    """Return what a decision costs in this process (us), by part."""
    from racer.envs.trials.config import trials_config
    from racer.envs.trials.observation import observation_names

    window, envs, key = args.trials * args.length, args.envs, WIDTH // HEADS
    inputs = len(observation_names(trials_config({"k_scenarios": args.trials, "scenario_length": args.length})))
    acting = [product for rows, sizes in layer_products(envs, inputs) for product in forward(rows, sizes)]
    rows = window * envs // args.minibatches
    learning: list[Product] = []
    for number, (count, sizes) in enumerate(layer_products(rows, inputs)):
        learning += forward(count, sizes) + backward(count, sizes)
        # The inputs' gradient of a chain's first layer, which ``backward`` leaves out; the observation has none.
        learning += [(count, sizes[1], sizes[0])] if number else []
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    # Acting reads half an episode on average.
    query, keys, values = (draw(envs, HEADS, *size) for size in ((1, key), (key, window // 2), (window // 2, key)))
    looking = LAYERS * median_time(lambda: (query @ keys) @ values, seconds / 4) / envs
    # Scores and their mixture over one episode, with two gradients each: causality leaves half of them.
    long, wide, square = draw(HEADS, window, key), draw(HEADS, key, window), draw(HEADS, window, window)
    attention = 3 * LAYERS * median_time(lambda: (long @ wide, square @ long), seconds / 4) / window / 2
    return {
        "acting, layers": microseconds(acting, seconds / 4) / envs,
        "acting, attention": looking,
        "update, layers": EPOCHS * microseconds(learning, seconds / 4) / rows,
        "update, attention": EPOCHS * attention,
    }


def floor(args: argparse.Namespace) -> dict[str, Any]:
    """Return the floor (decisions/s) of all processes together, and its parts (us a decision, their mean)."""
    command = [*_command(args), "--child=floor"]
    env = {**os.environ, **ppo_floor.ONE_THREAD}
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(args.processes)]
    parts = [json.loads(child.communicate()[0].strip().splitlines()[-1]) for child in children]
    rate = sum(1e6 / sum(part.values()) for part in parts)
    means = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
    told = ", ".join(f"{name} {value:.0f}" for name, value in means.items())
    print(f"floor: {rate:,.0f} decisions/s with {args.processes} processes (us a decision: {told})", flush=True)
    return {"decisions_per_second": rate, "microseconds": means}


def table(reports: dict[str, dict[str, float]], floor_rate: float) -> str:
    """Return the Markdown table."""
    lines = ["| variant | decisions/s | floor | share of floor |", "|---|---:|---:|---:|"]
    for name, report in reports.items():
        rate = report["decisions_per_second"]
        lines.append(f"| {name} | {rate:,.0f} | {floor_rate:,.0f} | {rate / floor_rate:.0%} |")
    return "\n".join(lines)


def _command(args: argparse.Namespace) -> list[str]:
    names = ("envs", "minibatches", "trials", "length", "seconds")
    return [sys.executable, str(Path(__file__).resolve()), *(f"--{name}={getattr(args, name)}" for name in names)]


def main() -> int:
    """Measure the floor, every variant in a process of its own, and the floor again; print and write."""
    args = parse_arguments()
    if args.child is not None:
        print(json.dumps(floor_part(args) if args.child == "floor" else run_training(args, args.child)))
        return 0
    floors, reports = [floor(args)], {}
    for variant in args.variants:
        print(f"running {variant}", flush=True)
        command = [*_command(args), f"--child={variant}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(f"{variant} failed with exit code {done.returncode}", file=sys.stderr)
            return 1
        reports[variant] = json.loads(done.stdout.strip().splitlines()[-1])
    floors.append(floor(args))
    print(table(reports, float(np.mean([found["decisions_per_second"] for found in floors]))))
    names = ("envs", "minibatches", "trials", "length", "seconds", "processes")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "epochs": EPOCHS}
    figures = {"settings": settings, "variants": reports, "floors": floors}
    write_result(args.output or RESULTS / "trials.json", "trials", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
