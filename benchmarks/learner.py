"""How close is the learner to the arithmetic it has to do?

Measures gradient steps/s of the distributional learner on random transitions and sets them beside a *floor*:
the floating-point operations of the matrix products that an update cannot do without, over the rate at which
this machine multiplies matrices of that size, measured in the same process between the updates. On a CPU
everything runs on one core, and the rate is that of the faster of XLA and NumPy's BLAS.

    python benchmarks/learner.py --device cpu

Prints a table and writes a JSON file. Nothing else should run meanwhile. Of each repetition the best time of an
update and the best rate of a product count, measured alternately, so that a passing load shifts both alike; the
table shows the median over repetitions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result_file import RESULTS, machine, write_result

OBSERVATION_DIM = 90
ACTION_DIM = 2
HIDDEN_DIMS = (256, 256)
NUM_ATOMS = 101
NUM_QS = 2
SETTINGS = ((128, 8), (256, 16))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where to run (default: cpu)")
    parser.add_argument("--repetitions", type=int, default=9, help="timed repetitions of each row (default: 9)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one repetition (default: 2.0 s)")
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/learner_DEVICE.json")
    return parser.parse_args()


def bind_device(device: str) -> None:
    """Choose JAX's backend, and on a CPU one core and one thread; must run before JAX is imported."""
    if device == "gpu":
        os.environ["JAX_PLATFORMS"] = "cuda"
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def product_flops(batch_size: int, utd_ratio: int) -> dict[str, float]:
    """Return the operations of the matrix products of one gradient step, by part.

    A product ``[m, k] x [k, n]`` counts ``2 m k n``. Counted is what the method needs, not what the program
    does: the critics are asked about two actions of each observation (replayed, out-of-distribution), whose
    shared observation goes through the first layer once; the input needs no gradient; actor and limit share
    one pass, done once in ``utd_ratio`` gradient steps.
    """
    (first, second), critics, last = HIDDEN_DIMS, NUM_QS, NUM_ATOMS
    rows = 2.0 * batch_size
    features, action = rows * OBSERVATION_DIM * first, rows * ACTION_DIM * first
    hidden, output = rows * first * second, rows * second * last
    actor_body, actor_heads = features + hidden, rows * second * 2 * ACTION_DIM
    two_actions = 2 * (action + hidden + output)
    backward = features + 2 * (action + 2 * hidden + 2 * output)
    policy = (
        (actor_body + actor_heads)
        + (features + 2 * (hidden + actor_heads))
        + critics * (features + action + hidden + output)
        + critics * (action + hidden + output)
    )
    return {
        "critic forward": critics * (features + two_actions),
        "critic backward": critics * backward,
        "target critic forward": critics * (features + action + hidden + output),
        "policy forward (next and out-of-distribution actions)": 2 * (actor_body + actor_heads),
        "actor and limit, one step in utd_ratio": policy / utd_ratio,
    }


def random_batch(rows: int) -> dict[str, Any]:
    """Return transitions with the sizes of the highway environment."""
    import numpy as np

    rng = np.random.default_rng(0)
    terminated = rng.random(rows) < 0.05
    return {
        "observations": rng.normal(size=(rows, OBSERVATION_DIM)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, ACTION_DIM)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "masks": (~terminated).astype(np.float32),
        "dones": terminated.astype(np.float32),
        "next_observations": rng.normal(size=(rows, OBSERVATION_DIM)).astype(np.float32),
    }


def product_timers(rows: int, width: int) -> dict[str, Callable[[], float]]:
    """Return functions that measure the rate (operations/s) of ``[rows, width] x [width, width]``, by library."""
    import jax
    import numpy as np

    repeats = 64
    rng = np.random.default_rng(0)
    left = rng.normal(size=(rows, width)).astype(np.float32)
    right = np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    operations = 2.0 * rows * width * width * repeats

    @jax.jit
    def chain(x: jax.Array, w: jax.Array) -> jax.Array:
        for _ in range(repeats):
            x = x @ w
        return x

    device_left, device_right = jax.device_put(left), jax.device_put(right)
    jax.block_until_ready(chain(device_left, device_right))
    out = np.empty_like(left)

    def by_xla() -> float:
        start = time.perf_counter()
        jax.block_until_ready(chain(device_left, device_right))
        return operations / (time.perf_counter() - start)

    def by_numpy() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            np.matmul(left, right, out=out)
        return operations / (time.perf_counter() - start)

    return {"xla": by_xla} if jax.default_backend() == "gpu" else {"xla": by_xla, "numpy": by_numpy}


def measure(batch_size: int, utd_ratio: int, repetitions: int, seconds: float) -> dict[str, Any]:
    """Time one row of the table."""
    import gymnasium as gym
    import jax
    import numpy as np

    from racer.agents.distributional_sac import DistributionalSACLearner
    from racer.agents.learner import run_update

    agent = DistributionalSACLearner.create(
        0,
        gym.spaces.Box(-100, 100, (OBSERVATION_DIM,), np.float32),
        gym.spaces.Box(-1, 1, (ACTION_DIM,), np.float32),
        action_names=("acceleration", "steering"),
        actor_hidden_dims=HIDDEN_DIMS,
        critic_hidden_dims=HIDDEN_DIMS,
        num_atoms=NUM_ATOMS,
        num_qs=NUM_QS,
        learned_action="steering",
    )
    batch = random_batch(batch_size * utd_ratio)
    known = run_update._cache_size()
    start = time.perf_counter()
    agent, info = agent.update(batch, utd_ratio)
    jax.block_until_ready(info)
    compile_seconds = time.perf_counter() - start
    timers = product_timers(2 * batch_size, HIDDEN_DIMS[0])
    flops = product_flops(batch_size, utd_ratio)
    total = sum(flops.values())
    step_seconds, shares, rates = [], [], {name: [] for name in timers}
    for _ in range(repetitions):
        best = dict.fromkeys(timers, 0.0)
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            agent, info = agent.update(batch, utd_ratio)
            jax.block_until_ready(agent.state)
            times.append((time.perf_counter() - start) / utd_ratio)
            for name, timer in timers.items():
                best[name] = max(best[name], timer())
        for name, rate in best.items():
            rates[name].append(rate)
        step_seconds.append(min(times))
        shares.append(total / max(best.values()) / step_seconds[-1])
    median_step = statistics.median(step_seconds)
    return {
        "batch_size": batch_size,
        "utd_ratio": utd_ratio,
        "gradient_steps_per_second": 1.0 / median_step,
        "gradient_steps_per_second_range": [1.0 / max(step_seconds), 1.0 / min(step_seconds)],
        "floor_steps_per_second": statistics.median(max(r) for r in zip(*rates.values(), strict=True)) / total,
        "share_of_floor": statistics.median(shares),
        "share_of_floor_range": [min(shares), max(shares)],
        "megaflops_per_gradient_step": total / 1e6,
        "megaflops_by_part": {name: value / 1e6 for name, value in flops.items()},
        "product_gigaflops_per_second": {name: statistics.median(r) / 1e9 for name, r in rates.items()},
        "first_call_seconds": compile_seconds,
        "compilations": run_update._cache_size() - known,
    }


def main() -> int:
    """Run the benchmark."""
    arguments = parse_arguments()
    bind_device(arguments.device)
    import jax

    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        print(f"learner.py: --device {arguments.device}: {error}", file=sys.stderr)
        return 2
    report: dict[str, Any] = {
        "device": f"{device.platform}: {device.device_kind}",
        "jax": jax.__version__,
        "cores_used": 1 if arguments.device == "cpu" else None,
        "rows": [measure(b, u, arguments.repetitions, arguments.seconds) for b, u in SETTINGS],
    }
    report["load_after"] = os.getloadavg()[0]
    print(f"device {report['device']}, jax {jax.__version__}, load before {machine()['load_before']:.2f}")
    print(f"{'batch':>5} {'utd':>4} {'steps/s':>9} {'floor':>9} {'share':>7} {'first call':>11} {'compiled':>9}")
    for row in report["rows"]:
        print(
            f"{row['batch_size']:>5} {row['utd_ratio']:>4} {row['gradient_steps_per_second']:>9.1f} "
            f"{row['floor_steps_per_second']:>9.1f} {row['share_of_floor']:>7.1%} "
            f"{row['first_call_seconds']:>9.1f} s {row['compilations']:>8}x"
        )
    write_result(arguments.output or RESULTS / f"learner_{arguments.device}.json", "learner", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
