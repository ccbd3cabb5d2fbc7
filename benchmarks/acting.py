"""How long a policy takes to act, beside the matrix products alone that it cannot do without.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/acting.py

prints microseconds a call for N observations at once, drawing actions as a worker does, for the network of the shipped
on-policy drivers and its variants with a memory, and the floor: the same network's products of matrices in one call
each, in the same run.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from racer.networks.policy import Policy
from racer.networks.torso import build_torso

SHAPE = (15, 6)
COUNTS = (1, 8, 16, 64, 256)
NETWORK = {"hidden_dims": (128, 128), "encoder": {"kind": "pointnet", "widths": (32, 64)}}
MEMORIES = {"no memory": None, "gru": {"kind": "gru", "size": 64}, "transformer": {"kind": "transformer", "embed": 64}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="spent on every figure")
    seconds = parser.parse_args().seconds
    print(f"{'N':>5}  " + "  ".join(f"{name:>12}" for name in MEMORIES) + f"  {'products':>12}  share, no memory")
    acts = {name: actor(memory) for name, memory in MEMORIES.items()}
    for count in COUNTS:
        figures = {name: microseconds(act(count), seconds) for name, act in acts.items()}
        floor = microseconds(products(count), seconds)
        shown = "  ".join(f"{value:12.0f}" for value in (*figures.values(), floor))
        print(f"{count:5d}  {shown}  {floor / figures['no memory']:16.0%}")


def actor(memory: dict | None) -> Callable[[int], Callable[[], object]]:
    """Return what makes a call of the policy for a number of observations."""
    torso = build_torso(SHAPE, {**NETWORK, "memory": memory})
    policy = Policy("tanh_gaussian", SHAPE, torso=torso, size=2, log_std_min=-5.0)
    params = parameters(policy)

    def of(count: int) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        observations = rng.standard_normal((count, *SHAPE)).astype(np.float32)
        state = [policy.initial_memory(count)]

        def act() -> None:
            _, state[0], _ = policy.act(params, observations, state[0], rng)

        return act

    return of


def parameters(policy: Policy) -> dict[str, np.ndarray]:
    """First parameters of the policy, drawn once."""
    import jax

    found = {name: np.asarray(value) for name, value in policy.init(jax.random.PRNGKey(0)).items()}
    return {**found, "action_low": np.full(2, -1.0, np.float32), "action_high": np.full(2, 1.0, np.float32)}


def products(count: int) -> Callable[[], object]:
    """Return the products of the memoryless network, each over all rows at once."""
    rng = np.random.default_rng(0)
    rows, wide = SHAPE
    sizes = [(count * rows, wide, 32), (count * rows, 32, 64), (count, 70, 128), (count, 128, 128), (count, 128, 2)]
    pairs = [
        (rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32))
        for m, k, n in sizes
    ]
    return lambda: [left @ right for left, right in pairs]


def microseconds(call: Callable[[], object], seconds: float) -> float:
    """Return the best mean of calls within the given time."""
    for _ in range(10):
        call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(20):
            call()
        best = min(best, (time.perf_counter() - begin) / 20)
    return best * 1e6


if __name__ == "__main__":
    main()
