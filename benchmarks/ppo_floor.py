"""The floor under a training run of PPO: what no program with this simulator and these networks can leave out.

    python benchmarks/ppo_floor.py --seconds 5

A transition costs at least a step of the compiled simulator, one pass through the policy's matrices in acting, and, in
every epoch of an update, three products a layer of policy and value (forwards, the weights' gradient, the inputs'
gradient; the first layer has no third). Each of the three is timed by itself in its best form (the simulator bare, the
products in NumPy one call each, at the batch sizes that the run has), in as many processes at once as the machine has
cores, so that what cores share (caches, clock rate, execution units) counts as it does for the run. The floor is the
sum of the processes' rates: every core busy with nothing but these, all the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Product = tuple[int, int, int]
"""Rows, inputs and outputs of ``[m, k] @ [k, n]``."""


def forward(rows: int, sizes: Sequence[int]) -> list[Product]:
    """Return the products of a perceptron on ``rows`` rows."""
    return [(rows, below, above) for below, above in itertools.pairwise(sizes)]


def backward(rows: int, sizes: Sequence[int]) -> list[Product]:
    """Return the products of its gradient: of all weights, and of every layer's inputs but the first's."""
    layers = forward(rows, sizes)
    return [(k, m, n) for m, k, n in layers] + [(m, n, k) for m, k, n in layers[1:]]


def microseconds(products: Sequence[Product], seconds: float) -> float:
    """Return the time of one round of products, the median of what fits into ``seconds``."""
    import numpy as np

    rng = np.random.default_rng(0)
    pairs = [
        (rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32))
        for m, k, n in products
    ]
    return median_time(lambda: [left @ right for left, right in pairs], seconds)


def median_time(call: Callable[[], Any], seconds: float) -> float:
    """Return the median time of a call (us)."""
    call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2] * 1e6


def measure(run: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return what a transition costs in this process, in microseconds.

    Args:
        run: ``envs`` stepped at once, ``minibatch`` rows, ``epochs``, and ``networks``: the widths of the policy and of
            the value, observation first.
        seconds: to measure.
    """
    import numpy as np

    from racer.envs.highway import make_vector_env

    envs, minibatch = run["envs"], run["minibatch"]
    world = make_vector_env(run["world"], envs, num_threads=1)
    world.reset(seed=0)
    simulator = world.world.engine.simulator
    noise = np.random.default_rng(0).normal(size=(256, envs, 2))
    actions = (noise * [0.3, 0.02]).astype(np.float32)
    turn = 0

    def step() -> None:
        nonlocal turn
        simulator.step(actions[turn % len(actions)])
        turn += 1
        ended = np.flatnonzero(simulator.terminated | simulator.truncated)
        if len(ended):
            simulator.reset(indices=ended)

    for _ in range(256):
        step()
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds / 3:
        step()
        steps += 1
    simulated = (time.perf_counter() - begin) / steps / envs * 1e6
    policy, _ = run["networks"]
    acting = microseconds(forward(envs, policy), seconds / 3) / envs
    rows = [product for sizes in run["networks"] for both in (forward, backward) for product in both(minibatch, sizes)]
    learning = microseconds(rows, seconds / 3) / minibatch * run["epochs"]
    return {"simulator": simulated, "acting": acting, "update": learning}


def floor(run: dict[str, Any], seconds: float = 6.0, processes: int | None = None) -> dict[str, Any]:
    """Return the floor of a run (transitions/s) and the parts of it (us a transition, the mean over processes)."""
    processes = processes or os.cpu_count() or 1
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(run), "--seconds", str(seconds)]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD})
        for _ in range(processes)
    ]
    parts = [json.loads(child.communicate()[0].strip().splitlines()[-1]) for child in children]
    rate = sum(1e6 / sum(part.values()) for part in parts)
    means = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
    return {"transitions_per_second": rate, "processes": processes, "microseconds": means}


def main() -> int:
    """Print the floor under ``benchmarks/ppo.py``, or a child's part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="to measure (default: 6)")
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(measure(json.loads(args.child), args.seconds)))
        return 0
    import ppo

    print(ppo.describe_floor(floor(ppo.floor_run(16), args.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
