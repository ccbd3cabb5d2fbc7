"""Members of one process against a process for each: how much sooner is a sweep done?

    python benchmarks/sweeps.py                      # PPO, SAC and the CVaR actor-critic on the compiled highway
    python benchmarks/sweeps.py --agents ppo --members 8 --steps 16384

Both ways train the same members, to the same bits. ``CPU`` is the processor time of all processes of a way, which other
work on the machine does not change much; ``wall`` is with ``--jobs`` processes at a time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

AGENTS = {
    "ppo": {"agent": "ppo", "num_envs": 8, "rollout_length": 128, "hidden_dims": (128, 128), "num_epochs": 5},
    "sac": {"agent": "sac", "num_envs": 8, "batch_size": 128, "utd_ratio": 2, "start_training": 256},
    "cvar": {"agent": "cvar", "num_envs": 8, "batch_size": 128, "utd_ratio": 2, "start_training": 256},
}


def plan(folder: Path, agent: str, steps: int, seeds: str) -> tuple[Path, int]:
    """Write the manifest of a job, or of a job for each seed; returns it and how many jobs there are."""
    values = {**AGENTS[agent], "world": "highway", "max_steps": steps, "eval_interval": 0, "save_interval": 0}
    source, manifest = folder / f"{agent}.py", folder / f"{agent}.jsonl"
    source.write_text(f"hparams = {{'args': [{{**{values!r}, 'seed': {seeds}}}]}}\n")
    command = [sys.executable, "-m", "racer", "sweep", "plan", str(source), "--output", str(manifest)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return manifest, manifest.read_text().count("\n")


def train(manifest: Path, count: int, at_once: int) -> tuple[float, float]:
    """Run the jobs of a manifest; returns wall clock and processor time, s."""
    used, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()

    def one(index: int) -> None:
        words = ["--manifest", str(manifest), "--index", str(index), "--results", str(manifest.parent / "results")]
        command = [sys.executable, "-m", "racer", "sweep", "run", *words]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(count)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return time.monotonic() - begun, cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8192, help="transitions of every member")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time (default: cores)")
    arguments = parser.parse_args()

    print(f"{arguments.members} members, {arguments.steps:,} transitions each, {arguments.jobs} processes at a time")
    titles = ("one process, wall", "CPU", "separate, wall", "CPU", "ratio, wall", "CPU")
    widths = (20, 8, 18, 8, 14, 8)
    print("agent " + "".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True)))
    for agent in arguments.agents:
        with tempfile.TemporaryDirectory(prefix="racer-sweeps-") as folder:
            seeds = ", ".join(str(seed) for seed in range(arguments.members))
            (Path(folder) / "a").mkdir()
            (Path(folder) / "b").mkdir()
            together = train(*plan(Path(folder) / "a", agent, arguments.steps, f"vmapped({seeds})"), arguments.jobs)
            alone = train(*plan(Path(folder) / "b", agent, arguments.steps, f"jobs({seeds})"), arguments.jobs)
        ratios = alone[0] / together[0], alone[1] / together[1]
        print(f"{agent:<6}{together[0]:>18.1f} s{together[1]:>6.1f} s{alone[0]:>16.1f} s{alone[1]:>6.1f} s"
              f"{ratios[0]:>14.2f}{ratios[1]:>8.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
