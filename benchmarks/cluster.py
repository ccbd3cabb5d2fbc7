"""What does Ray cost, and what would a cluster give?

Sets transitions/s of two workers behind Ray beside the same two workers behind sockets, taking turns in one run: each
pool waits, held by back-pressure, while the other collects. Then measures the constants of a model,

    throughput = min(workers x rate of a worker, intake of the learner, update rate of the learner, network),

and prints what it predicts for 8, 64 and 512 workers with a core each. These are predictions: one machine is measured.

    python benchmarks/cluster.py --engine highway-env
    python benchmarks/cluster.py --engine compiled --envs 8 --steps 8 32 128

Needs Ray: pip install -e '.[ray]'. Prints tables and writes a JSON file.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from collection import Workers, bind_device, build_agent

COUNT = 2
PREDICTED = (8, 64, 512)
STORE = 256 << 20
PROBE = 32 << 20


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("highway-env", "compiled"), default="compiled", help="simulator")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where the learner is (default: cpu)")
    parser.add_argument("--envs", type=int, default=4, help="environments of each worker (default: 4)")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=None, help="steps between messages, several to compare (default: 32)"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each pool (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one turn (default: 4 s)")
    parser.add_argument(
        "--link", type=float, default=1.25e9, help="network of the cluster (bytes/s; default: 10 Gbit/s)"
    )
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/cluster_ENGINE.json")
    return parser.parse_args()


class FarNode:
    """A second node on this machine, to which one thing only is sent: the probe of the object store's transfer."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

        def make(size: int) -> Any:
            import numpy as np

            return np.ones(size, np.uint8)

        self._make = ray.remote(num_cpus=0, resources={"far": 1})(make)

    def bytes_per_second(self, repetitions: int) -> float:
        """Return the rate at which an object of 32 MiB comes from the far node's store to ours."""
        rates = []
        for _ in range(repetitions + 1):
            reference = self._make.remote(PROBE)
            self._ray.wait([reference], fetch_local=False, timeout=60.0)
            start = time.perf_counter()
            self._ray.get(reference, timeout=60.0)
            rates.append(PROBE / (time.perf_counter() - start))
            del reference
        return statistics.median(rates[1:])


def compare(args: argparse.Namespace, on_ray: Any, steps: int) -> dict[str, Any]:
    """Let both pools take turns; return medians."""
    from racer.distributed.processes.messages import batch_to_bytes
    from racer.envs.highway import make_vector_env

    factory = functools.partial(make_vector_env, {"engine": args.engine}, args.envs)
    env = factory()
    agent = build_agent(env)
    local = Workers(factory, env, agent, COUNT, steps)
    remote = Workers(factory, env, agent, COUNT, steps, on_ray)
    turns: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    try:
        local.start()
        remote.start()
        for _ in range(args.repetitions):
            for name, workers in (("local", local), ("ray", remote)):
                # Let the other one run full, so that it waits.
                time.sleep(min(2.0, args.seconds / 2))
                turns[name].append(workers.run(args.seconds))
        batch = next(batch for batch in iter(lambda: remote.pool.get(60.0), None))
    finally:
        local.pool.stop()
        remote.pool.stop()
    ratios = [behind["rate"] / beside["rate"] for beside, behind in zip(turns["local"], turns["ray"], strict=True)]
    transitions = batch.experience.num_transitions
    return {
        "steps_per_message": steps,
        "transitions_per_message": steps * args.envs,
        "bytes_per_transition": len(batch_to_bytes(batch)) / transitions,
        "parameter_bytes": sum(value.nbytes for value in agent.policy_params.values()),
        "local_transitions_per_second": statistics.median(turn["rate"] for turn in turns["local"]),
        "ray_transitions_per_second": statistics.median(turn["rate"] for turn in turns["ray"]),
        "ratio": statistics.median(ratios),
        "ratio_each_turn": ratios,
        **{
            f"{name}_learner_seconds_per_message": steps
            * args.envs
            * statistics.median(t["learner_cpu"] for t in found)
            for name, found in turns.items()
        },
    }


def update_rate(args: argparse.Namespace) -> float:
    """Return transitions/s that the learner's updates keep up with, at the default update-to-data ratio."""
    import numpy as np

    from racer.distributed.config import OffPolicyConfig
    from racer.distributed.consumers import OffPolicyConsumer
    from racer.envs.highway import make_vector_env

    env = make_vector_env({"engine": "compiled"}, 1)
    agent, config, shape = build_agent(env), OffPolicyConfig(), env.single_observation_space.shape
    consumer = OffPolicyConsumer(config, shape, agent.policy.action_shape)
    rows, generator = 4096, np.random.default_rng(0)
    ones = np.ones(rows, np.float32)
    observations = generator.normal(size=(rows, *shape)).astype(np.float32)
    actions = generator.uniform(-1.0, 1.0, (rows, *agent.policy.action_shape)).astype(np.float32)
    consumer.buffer.insert(
        {"observations": observations, "actions": actions, "rewards": ones, "masks": ones, "dones": 0 * ones,
         "next_observations": observations}
    )  # fmt: skip
    spent = []
    for _ in range(args.repetitions + 2):
        start = time.perf_counter()
        agent, info = consumer.update(agent)
        {name: float(np.asarray(value)) for name, value in info.items() if np.ndim(value) == 0}
        spent.append(time.perf_counter() - start)
    return config.experience_batch_size / (config.learner_update_ratio * statistics.median(spent[2:]))


def predict(row: dict[str, Any], updates: float, network: float) -> list[dict[str, Any]]:
    """Return the model's limits and their least, for each number of workers."""
    limits = {
        "intake": row["transitions_per_message"] / row["ray_learner_seconds_per_message"],
        "updates": updates,
        "network": network / row["bytes_per_transition"],
    }
    found = []
    for workers in PREDICTED:
        each = {"workers": workers * row["ray_transitions_per_second"] / COUNT, **limits}
        least = min(each, key=lambda name: each[name])
        found.append({"num_workers": workers, "transitions_per_second": each[least], "limit": least, **each})
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure in a cluster of two nodes on this machine."""
    from racer.distributed.cluster.connection import connect, prepare
    from racer.distributed.cluster.driver_pool import driven
    from racer.distributed.config import BackendConfig

    prepare(None)
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": COUNT, "object_store_memory": STORE, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes.add_node(num_cpus=0, resources={"far": 1}, object_store_memory=STORE)
        with connect(nodes.address):
            transfer = FarNode(ray).bytes_per_second(args.repetitions)
        rows = []
        for steps in args.steps or [32]:
            with driven(BackendConfig("ray", ray_address=nodes.address), COUNT) as on_ray:
                rows.append(compare(args, on_ray, steps))
    finally:
        nodes.shutdown()
    updates = update_rate(args)
    network = min(args.link, transfer)
    return {
        "ray": ray.__version__,
        "rows": rows,
        "update_transitions_per_second": updates,
        "transfer_bytes_per_second": transfer,
        "link_bytes_per_second": args.link,
        "predictions": predict(rows[-1], updates, network),
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(
        f"engine {result['engine']}, {result['envs_per_worker']} environments a worker, {COUNT} workers, "
        f"Ray {result['ray']}"
    )
    titles = ("a message", "local /s", "ray /s", "ray/local", "us/message", "of local", "bytes/tr.")
    print("".join(f"{title:>12}" for title in titles))
    for row in result["rows"]:
        print(
            f"{row['transitions_per_message']:>12}{row['local_transitions_per_second']:>12.1f}"
            f"{row['ray_transitions_per_second']:>12.1f}{row['ratio']:>12.1%}"
            f"{1e6 * row['ray_learner_seconds_per_message']:>12.0f}"
            f"{1e6 * row['local_learner_seconds_per_message']:>12.0f}{row['bytes_per_transition']:>12.0f}"
        )
    last = result["rows"][-1]
    print(
        f"parameters {last['parameter_bytes'] / 1e3:.0f} kB; between two nodes of this machine objects move at "
        f"{result['transfer_bytes_per_second'] / 1e6:.0f} MB/s; the learner's updates keep up with "
        f"{result['update_transitions_per_second']:.0f} transitions/s at the default update-to-data ratio"
    )
    print("predictions, with a core for each worker (transitions/s):")
    names = ("workers", "intake", "updates", "network")
    print(f"{'num_workers':>12}" + "".join(f"{name:>12}" for name in names) + f"{'least':>12}  limit")
    for each in result["predictions"]:
        print(
            f"{each['num_workers']:>12}" + "".join(f"{each[name]:>12.0f}" for name in names)
            + f"{each['transitions_per_second']:>12.0f}  {each['limit']}"
        )  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    args = parse_arguments()
    bind_device(args.device)
    result = {
        "benchmark": "cluster",
        "engine": args.engine,
        "device": args.device,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "envs_per_worker": args.envs,
        **measure(args),
    }
    show(result)
    output = args.output or Path(__file__).parent / "results" / f"cluster_{args.engine}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
