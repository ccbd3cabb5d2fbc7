"""How long does PPO take here, and in a peer library, on the same highway?

    pip install -e '.[bench]'
    python benchmarks/ppo.py                      # all variants, about 20 minutes on two cores
    python benchmarks/ppo.py --variants racer/compiled sb3/compiled

RACER's single-threaded PPO and Stable-Baselines3's PPO with SubprocVecEnv, each on highway-env itself and on the
compiled engine, and RACER's actor-learner service too (``racer-workers``: on highway-env a worker process a core, on
the compiled engine one worker that steps all environments while the learner updates).
They share the world and reward, the networks (two of two tanh layers), the numbers of environments, rollout steps,
epochs and minibatches, step size, discount, clipping. What stays different: SB3 clips an unbounded Gaussian to the
action range, RACER squashes it; SB3 steps one environment a process, RACER all in one call; RACER's workers collect
the next rollout while the learner updates on the last one.

Every variant runs in a process of its own, one after another, with all cores of the machine. ``steps/s`` counts
collecting and learning, without what comes before the first step (imports, processes) and, on the compiled engine and
with workers, without the first iteration (compilation, the workers' start). ``time to return`` is wall clock from the
start of the process to the first moment when the mean return of the last 100 training episodes reaches ``--target``,
compilation included; on highway-env itself, where it would take hours, nobody waits for it.

``share of floor`` compares the compiled variants with what the simulator and the networks' matrix products alone would
allow on all cores (``benchmarks/ppo_floor.py``), measured in the same run before and after them.

Prints a table and writes ``benchmarks/results/ppo.json``.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import ppo_floor
from result_file import RESULTS, write_result

VARIANTS = (
    "racer/compiled", "racer-workers/compiled", "sb3/compiled",
    "racer/highway-env", "racer-workers/highway-env", "sb3/highway-env",
)  # fmt: skip
START = time.monotonic()

ROLLOUT, EPOCHS, MINIBATCHES, WIDTH = 128, 5, 4, 128
STEP_SIZE, DISCOUNT, GAE_LAMBDA, CLIP_RATIO, STD = 4e-4, 0.99, 0.95, 0.2, 0.5
SCALE = (1.0, 0.03, 0.25, 0.1, 0.25, 8.0)
# A fortieth of a right angle: what keeps a car at 30 m/s on the road while it does not know how to steer.
WORLD = {"action": {"type": "ContinuousAction", "steering_range": [-0.04, 0.04]}}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--envs", type=int, default=16, help="environments (default: 16)")
    parser.add_argument("--seconds", type=float, default=60.0, help="measure at least so long (default: 60 s)")
    parser.add_argument("--target", type=float, default=8.0, help="return that counts as reached (default: 8)")
    parser.add_argument("--limit", type=float, default=420.0, help="give up on the target after (default: 420 s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/ppo.json")
    parser.add_argument("--child", choices=VARIANTS, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


class Clock:
    """Measures steps a second after the warm-up, and when the target is reached.

    Args:
        args: of the command line.
        warm_up: steps that are not measured.
        tries: whether to wait for the target.
    """

    def __init__(self, args: argparse.Namespace, warm_up: int, tries: bool) -> None:
        self.args, self.warm_up, self.tries = args, warm_up, tries
        self.returns: deque[float] = deque(maxlen=100)
        self.first: tuple[int, float] | None = None
        self.last: tuple[int, float] = (0, 0.0)
        self.reached: dict[str, float] | None = None
        self.best: float | None = None

    def note(self, steps: int, returns: list[float]) -> bool:
        """Look at the clock after an iteration; returns whether to go on."""
        now = time.monotonic()
        self.returns.extend(returns)
        if self.first is None:
            if steps >= self.warm_up:
                self.first = (steps, now)
            return True
        self.last = (steps, now)
        if len(self.returns) == self.returns.maxlen:
            mean = float(np.mean(self.returns))
            self.best = mean if self.best is None else max(self.best, mean)
            if self.reached is None and mean >= self.args.target:
                self.reached = {"seconds": now - START, "steps": steps}
        measured = now - self.first[1] >= self.args.seconds
        waiting = self.tries and self.reached is None and now - START < self.args.limit
        return not measured or waiting

    def report(self) -> dict[str, Any]:
        """Return what was found."""
        assert self.first is not None
        steps, seconds = self.last[0] - self.first[0], self.last[1] - self.first[1]
        return {
            "steps_per_second": steps / seconds, "measured_steps": steps, "measured_seconds": seconds,
            "waited_for_target": self.tries, "reached": self.reached, "best_mean_return": self.best,
        }  # fmt: skip


def racer_spec(args: argparse.Namespace, engine: str) -> Any:
    """Return what RACER's programs would train."""
    from racer.training.run_spec import spec_from_config

    agent = {
        "model_cls": "PPOLearner", "rollout_length": ROLLOUT, "num_epochs": EPOCHS, "num_minibatches": MINIBATCHES,
        "actor_lr": STEP_SIZE, "critic_lr": STEP_SIZE, "discount": DISCOUNT, "gae_lambda": GAE_LAMBDA,
        "clip_ratio": CLIP_RATIO, "initial_std": STD, "hidden_dims": (WIDTH, WIDTH),
        "value_hidden_dims": (WIDTH, WIDTH), "activation": "tanh", "observation_scale": SCALE,
        "normalize_values": False,
    }  # fmt: skip
    return spec_from_config({**agent, "env": {**WORLD, "engine": engine}}, args.seed)


def racer_run(args: argparse.Namespace, engine: str, workers: int) -> Any:
    """Return RACER's run of ``args.envs`` environments, in this process alone where ``workers`` is 0."""
    from racer.distributed.config import RolloutConfig, ServiceConfig
    from racer.training.options import Schedule, Setup
    from racer.training.run import TrainingRun

    service = ServiceConfig(num_workers=max(workers, 1), deterministic=not workers, seed=args.seed)
    setup = Setup(Schedule(max_steps=10**12), service, RolloutConfig(), args.envs // max(workers, 1), not workers)
    return TrainingRun(racer_spec(args, engine), setup)


def run_racer(args: argparse.Namespace, engine: str) -> dict[str, Any]:
    """Train RACER's PPO in this process alone."""
    from racer.distributed.service import ActorLearnerService, Periodic

    service, compiled, enough = racer_run(args, engine, 0).service, engine == "compiled", threading.Event()
    clock, ended = Clock(args, ROLLOUT * args.envs if compiled else 0, compiled), []
    keep = service.learner.episodes.extend

    def extend(episodes: Any) -> None:
        ended.extend(episode["return"] for episode in episodes)
        keep(episodes)

    def look(service: ActorLearnerService) -> None:
        if not clock.note(service.transitions, list(ended)):
            enough.set()
        ended.clear()

    service.learner.episodes.extend = extend
    if not compiled:
        clock.note(0, [])
    service.run(10**12, periodic=[Periodic(1, look)], stop_event=enough)
    return clock.report()


def run_racer_workers(args: argparse.Namespace, engine: str) -> dict[str, Any]:
    """Train RACER's PPO in the actor-learner service, with a worker for each core."""
    from racer.distributed.service import ActorLearnerService, Periodic

    # Of what steps slowly a worker a core, or as many as divide the environments among them.
    workers = 1 if engine == "compiled" else math.gcd(os.cpu_count() or 1, args.envs)
    enough = threading.Event()
    iteration = ROLLOUT * (args.envs // workers) * workers
    clock = Clock(args, iteration, False)

    def look(service: ActorLearnerService) -> None:
        if not clock.note(service.transitions, []):
            enough.set()

    racer_run(args, engine, workers).service.run(10**12, periodic=[Periodic(iteration, look)], stop_event=enough)
    return clock.report()


def sb3_environment(engine: str, seed: int) -> Any:
    """Build one environment of SubprocVecEnv, with the observations scaled as RACER's networks scale them."""
    import gymnasium
    from stable_baselines3.common.monitor import Monitor

    import racer.envs  # noqa: F401 - registers the ids

    env = gymnasium.make("racer/RiskHighway-v0", config={**WORLD, "engine": engine})
    space = env.observation_space
    factors = np.asarray(SCALE, np.float32)
    scaled = gymnasium.spaces.Box(space.low * factors, space.high * factors, dtype=np.float32)
    env = gymnasium.wrappers.TransformObservation(env, lambda row: (row * factors).astype(np.float32), scaled)
    env.reset(seed=seed)
    return Monitor(env)


def run_sb3(args: argparse.Namespace, engine: str) -> dict[str, Any]:
    """Train Stable-Baselines3's PPO."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import SubprocVecEnv

    compiled = engine == "compiled"
    clock = Clock(args, ROLLOUT * args.envs if compiled else 0, compiled)

    class Watch(BaseCallback):
        """Looks at the clock when an iteration is over, which SB3 says by beginning the next rollout."""

        ended: list[float]

        def _on_rollout_start(self) -> None:
            if not hasattr(self, "ended"):
                self.ended, self.going = [], True
            self.going = clock.note(self.num_timesteps, self.ended)
            self.ended = []

        def _on_step(self) -> bool:
            self.ended += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            return self.going

    env = SubprocVecEnv([functools.partial(sb3_environment, engine, args.seed + i) for i in range(args.envs)])
    try:
        model = PPO(
            "MlpPolicy", env, n_steps=ROLLOUT, batch_size=ROLLOUT * args.envs // MINIBATCHES, n_epochs=EPOCHS,
            learning_rate=STEP_SIZE, gamma=DISCOUNT, gae_lambda=GAE_LAMBDA, clip_range=CLIP_RATIO, seed=args.seed,
            device="cpu",
            policy_kwargs={
                "net_arch": [WIDTH, WIDTH], "activation_fn": torch.nn.Tanh, "log_std_init": float(np.log(STD)),
            },
        )  # fmt: skip
        model.learn(10**12, callback=Watch())
    finally:
        env.close()
    return clock.report()


def run_child(args: argparse.Namespace) -> int:
    """Run one variant and print its report as the last line."""
    library, engine = args.child.split("/")
    if library != "sb3":
        from racer.training.device import choose_device

        choose_device("cpu")
    report = {"racer": run_racer, "racer-workers": run_racer_workers, "sb3": run_sb3}[library](args, engine)
    print(json.dumps(report))
    return 0


def floor_run(envs: int) -> dict[str, Any]:
    """Return what :func:`ppo_floor.floor` needs to know of the run that the variants share."""
    layers = [15 * len(SCALE), WIDTH, WIDTH]
    return {
        "world": {**WORLD, "engine": "compiled"}, "envs": envs, "epochs": EPOCHS,
        "minibatch": ROLLOUT * envs // MINIBATCHES, "networks": [[*layers, 2], [*layers, 1]],
    }  # fmt: skip


def describe_floor(found: dict[str, Any]) -> str:
    """Return the floor in a line."""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in found["microseconds"].items())
    rate, processes = found["transitions_per_second"], found["processes"]
    return f"floor: {rate:,.0f} transitions/s with {processes} processes at once (us a transition: {parts})"


def table(reports: dict[str, dict[str, Any]], target: float, floor: float | None) -> str:
    """Return the Markdown table; ratios are to the slowest variant."""
    slowest = min(report["steps_per_second"] for report in reports.values())
    lines = [
        f"| variant | steps/s | ratio | share of floor | time to return {target:g} | steps to it |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, report in reports.items():
        rate, reached = report["steps_per_second"], report["reached"]
        missing = "not reached" if report["waited_for_target"] else "not waited for"
        found = f"{reached['seconds']:.0f} s | {reached['steps']:,}" if reached else f"{missing} | "
        share = "" if floor is None or not name.endswith("/compiled") else f"{rate / floor:.0%}"
        lines.append(f"| {name} | {rate:,.1f} | {rate / slowest:,.1f} | {share} | {found} |")
    return "\n".join(lines)


def compiled_wanted(args: argparse.Namespace) -> bool:
    """Return whether a variant is to be compared with the floor."""
    return any(variant.endswith("/compiled") for variant in args.variants)


def measured_floor(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the floor and print it."""
    found = ppo_floor.floor(floor_run(args.envs))
    print(describe_floor(found), flush=True)
    return found


def main() -> int:
    """Run every variant in a process of its own, print, write."""
    args = parse_arguments()
    if args.child:
        return run_child(args)
    reports, floors = {}, [measured_floor(args)] if compiled_wanted(args) else []
    for variant in args.variants:
        print(f"running {variant}", flush=True)
        options = [f"--{name}={getattr(args, name)}" for name in ("envs", "seconds", "target", "limit", "seed")]
        command = [sys.executable, str(Path(__file__).resolve()), f"--child={variant}", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(f"{variant} failed with exit code {done.returncode}", file=sys.stderr)
            return 1
        reports[variant] = json.loads(done.stdout.strip().splitlines()[-1])
    if floors:
        floors.append(measured_floor(args))
    floor = float(np.mean([found["transitions_per_second"] for found in floors])) if floors else None
    print(table(reports, args.target, floor))
    settings = {name: getattr(args, name) for name in ("envs", "seconds", "target", "limit", "seed")}
    figures = {"settings": settings, "variants": reports, "floors": floors}
    write_result(args.output or RESULTS / "ppo.json", "ppo", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
