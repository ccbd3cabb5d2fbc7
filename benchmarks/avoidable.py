"""Which crashes of a policy could have been avoided, by a planner that knows exactly what comes?

    python benchmarks/avoidable.py --policy policies/highway-ppo --episodes 200

runs a policy on held-out seeds. For each crash the planner in copies of the simulator takes over 5, 10 and 20 policy
steps before it, in the very same scene; the crash counts as avoidable from there if the planner drives on for 8
seconds, or to the episode's end. Prints the shares with 95 % Wilson intervals. Episodes are shared among all cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

# One thread a process: every core has one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from racer.core.errors import UsageError
from racer.envs.highway.drivers.avoidable import STEPS_BEFORE, Crash, crash_of
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.drivers import DriverPolicy
from racer.evaluation.episodes import FIRST_EVALUATION_SEED, evaluation_seeds
from racer.evaluation.summary import proportion_interval


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", required=True, help="checkpoint folder, or a run folder")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=FIRST_EVALUATION_SEED, help="first of the seeds")
    parser.add_argument("--sample", action="store_true", help="sample actions instead of taking the mode")
    parser.add_argument("--steps_before", type=int, nargs="+", default=list(STEPS_BEFORE))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side")
    args = parser.parse_args()
    try:
        if min(args.steps_before) < 1 or args.jobs < 1:
            raise UsageError("steps_before and jobs must be at least 1")
        seeds = evaluation_seeds(args.episodes, args.seed)
        if isinstance(load_policy(args.policy).policy, DriverPolicy):
            raise UsageError(f"--policy {args.policy} is no checkpoint: name the policy whose crashes are examined")
        crashes = list(find(args.policy, seeds, args.steps_before, not args.sample, args.jobs))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(args.policy, len(seeds), crashes, args.steps_before))
    return 0


def find(
    policy: str, seeds: Sequence[int], steps_before: Sequence[int], deterministic: bool, jobs: int
) -> Iterator[Crash]:
    """Yield the crashes of a policy, in the order of the seeds."""
    run = partial(examine, policy, tuple(steps_before), deterministic)
    with ProcessPoolExecutor(min(jobs, len(seeds)), multiprocessing.get_context("spawn")) as pool:
        for crash in pool.map(run, seeds):
            if crash is not None:
                print(f"seed {crash.seed}: crash in step {crash.step}, avoidable {describe(crash)}", file=sys.stderr)
                yield crash


def examine(policy: str, steps_before: tuple[int, ...], deterministic: bool, seed: int) -> Crash | None:
    """Run one episode, in a process of its own."""
    trained = load_policy(policy)
    return crash_of(
        trained.policy,
        trained.params,
        {**trained.env_config, "engine": "compiled"},
        seed,
        deterministic=deterministic,
        steps_before=steps_before,
    )


def describe(crash: Crash) -> str:
    """Say from when on a crash was avoidable."""
    return ", ".join(f"{k} steps before: {'yes' if saved else 'no'}" for k, saved in crash.avoidable.items())


def report(policy: str, episodes: int, crashes: Sequence[Crash], steps_before: Sequence[int]) -> str:
    """Return the table of shares."""
    low, high = proportion_interval(len(crashes), episodes)
    share = len(crashes) / episodes
    lines = [f"{policy}: {len(crashes)} crashes in {episodes} episodes, {share:.1%} [{low:.1%}, {high:.1%}]"]
    for k in steps_before if crashes else ():
        saved = sum(crash.avoidable[k] for crash in crashes)
        low, high = proportion_interval(saved, len(crashes))
        share = saved / len(crashes)
        lines.append(f"avoidable {k:3d} steps before: {saved} of {len(crashes)}, {share:.1%} [{low:.1%}, {high:.1%}]")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
