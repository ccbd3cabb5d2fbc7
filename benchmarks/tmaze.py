"""What is a memory worth? PPO without one, with one, and told everything, in the T-maze.

    python benchmarks/tmaze.py                                # every variant, five seeds, 1e6 transitions each
    python benchmarks/tmaze.py --variants gru transformer     # some; the others stay in the file as they are
    python benchmarks/tmaze.py --report_only                  # table and picture of what the file holds
    python benchmarks/tmaze.py --processes gru --steps 100000 # seeds side by side beside a process for each

The sign at the start of a corridor of ten cells says which way to turn at its end. Whoever remembers it earns 4 after
12 steps: 3.581, discounted by 0.99 a step. Without memory the turn is a coin's, 1.746, and 1.791 is the most that any
such policy earns (tests/envs/tmaze/test_tmaze.py derives both).

All seeds of a variant are trained side by side in one process and one compilation
(:mod:`racer.sweeps.population`). The figure of a seed is the mean discounted return of the episodes that ended in the
last twentieth of its training, with actions drawn as in training; the interval is a 95 % Student interval over seeds.
``minutes`` are the wall clock of all seeds together for 1e6 transitions each, without compiling.

Prints a table, writes ``benchmarks/results/tmaze.json`` and draws ``docs/pictures/tmaze.png``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

NUM_ENVS = 16
AGENT: dict[str, Any] = {
    "rollout_length": 128, "num_epochs": 4, "num_minibatches": 4, "actor_lr": 2.5e-3, "critic_lr": 1e-3,
    "lr_schedule": "linear", "gae_lambda": 0.95, "entropy_coef": 0.01, "normalize_values": False,
    "hidden_dims": (32,), "value_hidden_dims": (32,), "activation": "relu",
}  # fmt: skip
GRU = {"kind": "gru", "size": 32}
TRANSFORMER = {"kind": "transformer", "layers": 2, "heads": 8, "embed": 12, "head_size": 4, "length": 128}

VARIANTS: dict[str, dict[str, Any]] = {
    "gru": {"label": "GRU", "agent": {"memory": GRU}},
    "gru_ld": {
        "label": "GRU + lambda discrepancy",
        "agent": {"memory": GRU, "value_heads": 2, "second_gae_lambda": 0.5, "ld_weight": 0.25},
    },
    "perfect_memory": {"label": "perfect memory", "world": {"observation": "perfect_memory"}, "agent": {}},
    "memoryless": {"label": "no memory", "agent": {"actor_lr": 1e-3}},
    # Attention costs the square of a sequence: as many transitions an update in sequences half as long.
    "transformer": {
        "label": "gated transformer", "num_envs": 2 * NUM_ENVS,
        "agent": {"memory": TRANSFORMER, "actor_lr": 1e-3, "rollout_length": 64},
    },
}  # fmt: skip

WANTED = {
    "gru": (3.5, math.inf), "gru_ld": (3.5, math.inf), "perfect_memory": (3.5, math.inf),
    "transformer": (3.4, math.inf), "memoryless": (-math.inf, 1.80),
}  # fmt: skip
"""Where the mean of a variant should lie, for 1e6 transitions."""

POINTS = 50
METRICS = ("discounted_return", "return", "length", "success")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=1_000_000, help="transitions of every seed (default: 1e6)")
    parser.add_argument("--length", type=int, default=10, help="cells of the corridor (default: 10)")
    parser.add_argument("--processes", choices=VARIANTS, default=None, help="measure this variant both ways instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time (default: cores)")
    parser.add_argument("--report_only", action="store_true", help="train nothing")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "tmaze.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "tmaze.png")
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def train(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train all seeds of a variant side by side; return its figures, JSON-able."""
    from racer.agents.ppo import PPOLearner
    from racer.envs.registry import get_world
    from racer.sweeps.population import train_population

    variant, world = VARIANTS[name], get_world("tmaze")
    assert world.functional is not None
    config = world.resolve({"length": args.length, **variant.get("world", {})})
    agent = {**AGENT, "lr_decay_transitions": args.steps, **variant["agent"]}
    num_envs, last = variant.get("num_envs", NUM_ENVS), time.monotonic()

    def tell(transitions: int, seconds: float, means: Any) -> None:
        nonlocal last
        if time.monotonic() - last > 20.0 or transitions >= args.steps:
            last = time.monotonic()
            returns = " ".join(f"{value:6.3f}" for value in means["discounted_return"])
            print(f"  {name} {transitions:>9,} transitions {seconds:6.0f} s   {returns}", flush=True)

    result = train_population(
        PPOLearner, world.functional(config), [agent], args.seeds, num_envs=num_envs, num_transitions=args.steps,
        on_chunk=tell,
    )  # fmt: skip
    transitions, curve = result.curve("discounted_return", POINTS)
    tail = slice(-max(1, len(result.transitions) // 20), None)
    return {
        "world": config,
        "agent": agent,
        "num_envs": num_envs,
        "seeds": list(args.seeds),
        "transitions": int(result.transitions[-1]),
        "final": {metric: plain(result.mean(metric, tail)) for metric in METRICS},
        "curve": {"transitions": transitions.tolist(), "discounted_return": list(map(plain, curve))},
        "compile_seconds": result.compile_seconds,
        "train_seconds": result.train_seconds,
        "machine": machine(),
    }


def plain(values: Any) -> list[float | None]:
    """Return numbers as JSON knows them: None where no episode ended."""
    return [None if math.isnan(value) else float(value) for value in values]


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    import jax

    return {"platform": platform.platform(), "cores": os.cpu_count(), "jax": jax.__version__,
            "device": jax.devices()[0].device_kind}  # fmt: skip


def interval(values: list[float | None]) -> tuple[float, float]:
    """Return mean and half of the 95 % Student interval; NaN of fewer than two seeds."""
    from scipy import stats

    array = np.array(values, float)
    if len(array) < 2:
        return float(array.mean()), math.nan
    return float(array.mean()), float(stats.sem(array) * stats.t.ppf(0.975, len(array) - 1))


def report(results: dict[str, Any]) -> str:
    """Return the table."""
    lines = [
        f"{'variant':<26}{'seeds':>6}{'transitions':>13}{'discounted return':>20}{'worst':>8}{'right':>8}{'steps':>7}"
        f"{'minutes':>9}  wanted"
    ]
    for name, row in ((n, results[n]) for n in VARIANTS if n in results):
        final, minutes = row["final"], row["train_seconds"] / 60.0 * 1e6 / row["transitions"]
        mean, half = interval(final["discounted_return"])
        worst = np.min(np.array(final["discounted_return"], float))
        right, steps = (np.mean(np.array(final[metric], float)) for metric in ("success", "length"))
        low, high = WANTED[name]
        wanted = f"{'>=' if math.isinf(high) else '<='} {low if math.isinf(high) else high:.2f}"
        met = "yes" if low <= mean <= high else "NO"
        lines.append(
            f"{VARIANTS[name]['label']:<26}{len(row['seeds']):>6}{row['transitions']:>13,}{mean:>12.3f} +- {half:.3f}"
            f"{worst:>8.3f}{right:>8.1%}{steps:>7.1f}"
            f"{minutes:>9.1f}  {wanted} {met}"
        )
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the learning curves: mean over seeds, band from the worst to the best seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), dpi=150)
    for name in (n for n in VARIANTS if n in results):
        curve = results[name]["curve"]
        x, y = np.array(curve["transitions"]), np.array(curve["discounted_return"], float)
        (line,) = axis.plot(x, np.nanmean(y, axis=0), label=VARIANTS[name]["label"])
        axis.fill_between(x, np.nanmin(y, axis=0), np.nanmax(y, axis=0), color=line.get_color(), alpha=0.15, lw=0)
    first = next(iter(results.values()))
    world = first["world"]
    best = 4.0 * world["discount"] ** (world["length"] + 1)
    for value, label in ((best, "best"), (best / 2.0, "best without memory")):
        axis.axhline(value, color="black", lw=0.8, ls=":")
        axis.annotate(label, (0.0, value), xytext=(2, 3), textcoords="offset points", fontsize=8)
    axis.set(xlabel="transitions", ylabel="discounted return of training episodes")
    axis.set_title(f"T-maze of length {world['length']}: mean, worst and best of {len(first['seeds'])} seeds")
    axis.legend(loc="center right", bbox_to_anchor=(1.0, 0.6), frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def child(name: str, seeds: list[int], args: argparse.Namespace) -> dict[str, Any]:
    """Train ``seeds`` in a process of their own; return its figures and its whole wall clock."""
    with tempfile.TemporaryDirectory(prefix="racer-tmaze-") as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--variants", name, "--seeds", *map(str, seeds), "--child", str(path)]
        command += ["--steps", str(args.steps), "--length", str(args.length)]
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {**json.loads(path.read_text()), "wall_seconds": time.monotonic() - started}


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train the seeds of a variant in one process, then each in a process of its own, ``args.jobs`` at a time."""
    together = child(name, args.seeds, args)
    started = time.monotonic()
    with ThreadPoolExecutor(args.jobs) as pool:
        alone = list(pool.map(lambda seed: child(name, [seed], args), args.seeds))
    wall = time.monotonic() - started
    finals = [row["final"]["discounted_return"][0] for row in alone]
    print(f"{len(args.seeds)} seeds of {VARIANTS[name]['label']}, {args.steps:,} transitions each, wall clock, s")
    print(f"  one process          {together['wall_seconds']:7.1f}   compiling {together['compile_seconds']:.1f}")
    compiling = f"compiling {alone[0]['compile_seconds']:.1f} each, {args.jobs} at a time"
    print(f"  a process for each   {wall:7.1f}   {compiling}")
    print(f"  ratio                {wall / together['wall_seconds']:7.2f}")
    print(f"  discounted returns   {np.round(together['final']['discounted_return'], 3)} and {np.round(finals, 3)}")
    return {
        "variant": name, "steps": args.steps, "seeds": args.seeds, "jobs": args.jobs, "separate_seconds": wall,
        "together_seconds": together["wall_seconds"], "machine": together["machine"],
        "together_returns": together["final"]["discounted_return"], "separate_returns": finals,
    }  # fmt: skip


def main() -> None:
    """Run the study."""
    args = parse_arguments()
    if args.child is not None:
        args.child.write_text(json.dumps(train(args.variants[0], args)))
        return
    stored = json.loads(args.output.read_text()) if args.output.is_file() else {"variants": {}}

    def keep() -> None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(stored, indent=1) + "\n")

    if args.processes is not None:
        stored["processes"] = compare(args.processes, args)
        keep()
        return
    for name in [] if args.report_only else args.variants:
        stored["variants"][name] = train(name, args)
        keep()
    print(report(stored["variants"]))
    if stored["variants"]:
        draw(stored["variants"], args.picture)


if __name__ == "__main__":
    main()
