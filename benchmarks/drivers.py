"""How well do the world's own drivers drive, and what share of the planner's return do policies reach?

    python benchmarks/drivers.py                                             # the three drivers
    python benchmarks/drivers.py --policies policies/highway-ppo RUN ...     # policies beside them
    python benchmarks/drivers.py --drivers observation-planner --episodes 1000 --output FILE

Every row runs the same held-out seeds in the default world, whatever it was trained in. Episodes are shared among all
cores. Prints everything that was measured, and a Markdown table with each mean return as a share of the first row's.
With ``--output`` the aggregates are written as JSON, beside the other rows that the file holds, which may be over fewer
or more of the seeds (the planner in the exact simulator takes minutes where the others take seconds), and the table is
of all of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

# One thread a process: every core has one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from result_file import write_result

from racer.core.errors import UsageError
from racer.envs.registry import get_world
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import (
    FIRST_UNWATCHED_SEED,
    EpisodeResult,
    EvaluationResult,
    evaluate_policy,
    evaluation_seeds,
)
from racer.evaluation.report import format_table
from racer.evaluation.summary import aggregate_episodes

WORLD = "highway"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    drivers = list(get_world(WORLD).drivers)
    parser.add_argument("--drivers", nargs="+", default=drivers, help="the first is what the others are shares of")
    parser.add_argument("--policies", nargs="+", default=[], help="checkpoint or run folders")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=FIRST_UNWATCHED_SEED, help="first of the seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--output", type=Path, default=None, help="JSON file of the aggregates")
    args = parser.parse_args()
    try:
        kept = kept_rows(args.output, args.seed)
        names = [*(f"driver:{name}" for name in args.drivers), *args.policies]
        for name in names:
            load_policy(name)
        seeds = evaluation_seeds(args.episodes, args.seed)
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
            results = {
                name.removeprefix("driver:"): summed(list(pool.map(partial(episode, name), seeds))) for name in names
            }
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = {name: {"episodes": args.episodes, **result.aggregate} for name, result in results.items()}
    rows = {**kept, **found}
    print(format_table(results))
    print(table(rows))
    if args.output is not None:
        write_result(args.output, "drivers", {"first_seed": args.seed, "rows": rows})
    return 0


def kept_rows(path: Path | None, first_seed: int) -> dict[str, Any]:
    """Return the rows in the file to add to.

    Raises:
        UsageError: it is of another benchmark, or of other seeds.
    """
    if path is None or not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows: dict[str, Any] = document["rows"]
        found = document["benchmark"], document["first_seed"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"--output {path} holds no rows of this benchmark; name another file") from None
    if found != ("drivers", first_seed):
        raise UsageError(f"--output {path} holds {found[0]!r} from seed {found[1]} on; name another file")
    return rows


def episode(name: str, seed: int) -> EpisodeResult:
    """Run one episode of a driver or policy in the default world, in a process of its own."""
    trained = load_policy(name)
    world = get_world(WORLD)
    return evaluate_policy(trained.policy, trained.params, world, world.resolve(None), [seed], num_envs=1).episodes[0]


def summed(episodes: list[EpisodeResult]) -> EvaluationResult:
    """Join episodes."""
    world = get_world(WORLD)
    return EvaluationResult(
        world, tuple(episodes), aggregate_episodes([e.metrics for e in episodes], world.metrics, cvar_level=0.8)
    )


def table(rows: dict[str, Any]) -> str:
    """Return the Markdown table; intervals (95 %) are over episodes, shares are of the first row's mean return."""
    whole = next(iter(rows.values()))["mean_return"]
    names = ("driver", "episodes", "return", "worst 20 %", "speed, m/s", "collisions", "share")
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for name, row in rows.items():
        low, high = (row[f"mean_return_{end}"] for end in ("low", "high"))
        few, many = (100 * row[f"collision_rate_{end}"] for end in ("low", "high"))
        lines.append(
            f"| {name} | {row['episodes']} | {row['mean_return']:.1f} ± {(high - low) / 2:.1f} | "
            f"{row['cvar_return']:.1f} | {row['mean_forward_speed']:.1f} | "
            f"{row['collision_rate']:.1%} [{few:.1f}, {many:.1f}] | {row['mean_return'] / whole:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
