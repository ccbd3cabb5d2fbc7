"""What do reward, metrics and infos cost beside the simulator itself?

Steps the vector environment with recorded actions three ways, in turns, so that a load of the machine that comes and
goes meets all of them: the simulator alone (with its resets), with everything else by NumPy functions (``arrays``), and
with everything else in one compiled pass (``compiled``).

    python benchmarks/environments.py
    python benchmarks/environments.py --envs 16 64 256 --threads 2

Prints a table of transitions per second of processor time (of wall time with several threads) and writes a JSON file.
``ratio`` is compiled over arrays, the median over the turns; ``share`` is the part of the simulator's own rate that is
left with the compiled pass.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from result_file import RESULTS, write_result

from racer.envs.highway import make_vector_env
from racer.envs.highway.simulator import HighwaySimulator


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, nargs="+", default=[16, 64, 256], help="environments (default: 16 64 256)")
    parser.add_argument("--vehicles", type=int, default=50, help="other cars of each (default: 50)")
    parser.add_argument("--threads", type=int, default=1, help="threads that share a step (default: 1)")
    parser.add_argument("--turns", type=int, default=7, help="turns of the three (default: 7)")
    parser.add_argument("--transitions", type=int, default=12_800, help="transitions of one turn (default: 12800)")
    parser.add_argument("--output", type=Path, default=RESULTS / "environments.json")
    return parser.parse_args()


def rate(step: Callable[[np.ndarray], Any], actions: np.ndarray, clock: Callable[[], float]) -> float:
    """Return transitions/s of playing ``actions [T, N, A]``."""
    start = clock()
    for action in actions:
        step(action)
    return actions.shape[0] * actions.shape[1] / (clock() - start)


def step_alone(simulator: HighwaySimulator, actions: np.ndarray) -> None:
    """Step the simulator and reset what has ended, nothing else."""
    simulator.step(actions)
    ended = np.flatnonzero(simulator.terminated | simulator.truncated)
    if len(ended):
        simulator.reset(indices=ended)


def measure(envs: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return one row of the table."""
    config = {"vehicles_count": args.vehicles}
    arrays, compiled = (
        make_vector_env(config, envs, scoring=scoring, num_threads=args.threads) for scoring in ("arrays", "compiled")
    )
    # A driver that keeps its lane for a while: episodes last some 10 s.
    noise = np.random.default_rng(0).normal(size=(max(args.transitions // envs, 1), envs, 2))
    actions = (noise * [0.3, 0.02]).astype(np.float32)
    alone = functools.partial(step_alone, compiled.world.engine.simulator)
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    steps = {"simulator": alone, "arrays": arrays.step, "compiled": compiled.step}
    turns: list[dict[str, float]] = []
    for turn in range(args.turns + 1):
        rates = {}
        for name, step in steps.items():
            for env in (arrays, compiled):
                env.reset(seed=turn)
            rates[name] = rate(step, actions, clock)
        turns.append(rates)
    # The first turn compiles.
    turns = turns[1:]
    row: dict[str, Any] = {name: statistics.median(turn[name] for turn in turns) for name in steps}
    row["ratio"] = statistics.median(turn["compiled"] / turn["arrays"] for turn in turns)
    row["share"] = statistics.median(turn["compiled"] / turn["simulator"] for turn in turns)
    for env in (arrays, compiled):
        env.close()
    return {"envs": envs, **row, "turns": turns}


def main() -> int:
    """Measure, print, write."""
    args = parse_arguments()
    kind = "processor" if args.threads == 1 else "wall"
    print(f"{args.vehicles} other cars, {args.threads} thread(s), transitions/s of {kind} time")
    print(f"{'envs':>5}{'simulator':>12}{'arrays':>12}{'compiled':>12}{'ratio':>9}{'share':>9}")
    rows = []
    for envs in args.envs:
        row = measure(envs, args)
        rows.append(row)
        figures = "".join(f"{row[name]:>12.0f}" for name in ("simulator", "arrays", "compiled"))
        print(f"{envs:>5}{figures}{row['ratio']:>8.2f}x{row['share']:>9.1%}", flush=True)
    result = {"vehicles": args.vehicles, "threads": args.threads, "rows": rows}
    write_result(args.output, "environments", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
