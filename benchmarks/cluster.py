"""What does Ray cost, and what would a cluster give?

Sets transitions/s of two workers behind Ray beside the same two workers behind sockets, taking turns in one run: each
pool waits, held by back-pressure, while the other collects. Then measures the constants of a model,

    throughput = min(workers x rate of a worker, intake of the learner, update rate of the learner, driver, network),

and prints what it predicts for 8, 64 and 512 workers with a core each. These are predictions: one machine is measured.
The driver is the process between learner and cluster. It spends processor time on every message, on every publication,
on telling each worker of it, and on nothing; the last three are measured with two and with six workers that wait,
with and without publications. The model gives it one core.

    python benchmarks/cluster.py --engine highway-env
    python benchmarks/cluster.py --engine compiled --envs 8 --steps 8 32 128

Needs Ray: pip install -e '.[ray]'. Prints tables and writes a JSON file.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from collection import Workers, bind_device, build_agent
from result_file import RESULTS, write_result

COUNT, MORE = 2, 6
PREDICTED = (8, 64, 512)
FAST = 20.0
"""Publications a second to workers that wait, so many that their cost is seen."""
LEAST = 1e-6
"""s a message, where it is lost in the noise."""
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


def driver_seconds() -> float:
    """Return the processor time of Ray's driver for us so far."""
    import psutil

    for process in psutil.Process().children():
        if "racer.distributed.cluster.driver" in " ".join(process.cmdline()):
            times = process.cpu_times()
            return float(times.user + times.system)
    raise RuntimeError("Ray's driver process is gone")


def make_workers(args: argparse.Namespace, steps: int, count: int = COUNT, make_pool: Any = None) -> Workers:
    """Return workers of the engine that is asked for."""
    from racer.envs.highway import make_vector_env

    factory = functools.partial(make_vector_env, {"engine": args.engine}, args.envs)
    env = factory()
    return Workers(factory, env, build_agent(env), count, steps, make_pool)


def waiting_share(args: argparse.Namespace, workers: Workers, frequency: float) -> float:
    """Return the share of a core that the driver takes while no batch moves and so many publications a second do."""
    from racer.distributed.pool import Parameters

    shares = []
    for _ in range(args.repetitions):
        start, spent = time.perf_counter(), driver_seconds()
        until = start + args.seconds
        while (now := time.perf_counter()) < until:
            if frequency:
                workers.version += 1
                workers.pool.publish(Parameters(workers.version, 0, workers.agent.policy_params))
                time.sleep(max(0.0, 1.0 / frequency - (time.perf_counter() - now)))
            else:
                time.sleep(until - now)
        shares.append((driver_seconds() - spent) / (time.perf_counter() - start))
    return statistics.median(shares)


def driver_costs(args: argparse.Namespace, address: str) -> dict[str, float]:
    """Return what the driver spends without a message: a share of a core, and s a publication and a worker told."""
    from racer.distributed.cluster.driver_pool import driven
    from racer.distributed.config import BackendConfig

    still, busy = {}, {}
    for count in (COUNT, MORE):
        backend = BackendConfig("ray", ray_address=address, worker_cpus=COUNT / MORE)
        with driven(backend, count) as on_ray:
            workers = make_workers(args, (args.steps or [32])[0], count, on_ray)
            try:
                workers.start()
                # Nobody takes their batches, so they wait.
                time.sleep(2.0 * args.seconds)
                still[count], busy[count] = waiting_share(args, workers, 0.0), waiting_share(args, workers, FAST)
            finally:
                workers.pool.stop()
    published = {count: (busy[count] - still[count]) / FAST for count in busy}
    told = max(0.0, (published[MORE] - published[COUNT]) / (MORE - COUNT))
    return {
        "idle_share": still[COUNT],
        "seconds_per_publication": max(0.0, published[COUNT] - COUNT * told),
        "seconds_per_worker_told": told,
    }


def compare(args: argparse.Namespace, on_ray: Any, steps: int) -> dict[str, Any]:
    """Let both pools take turns; return medians."""
    from racer.distributed.processes.messages import batch_to_bytes

    local = make_workers(args, steps)
    remote = make_workers(args, steps, make_pool=on_ray)
    turns: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    try:
        local.start()
        remote.start()
        for _ in range(args.repetitions):
            for name, workers in (("local", local), ("ray", remote)):
                # Let the other one run full, so that it waits.
                time.sleep(min(2.0, args.seconds / 2))
                start, spent = time.perf_counter(), driver_seconds()
                turn = workers.run(args.seconds)
                share = (driver_seconds() - spent) / (time.perf_counter() - start)
                turns[name].append({**turn, "driver_share": share})
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
        "parameter_bytes": sum(value.nbytes for value in remote.agent.policy_params.values()),
        "driver_share": statistics.median(turn["driver_share"] for turn in turns["ray"]),
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


def per_message(row: dict[str, Any], costs: dict[str, float], frequency: float) -> float:
    """Return the driver's s a message: what it spent in Ray's turns, less what it spends without messages."""
    messages = row["ray_transitions_per_second"] / row["transitions_per_message"]
    return max(LEAST, (row["driver_share"] - without_messages(costs, COUNT, frequency)) / messages)


def without_messages(costs: dict[str, float], workers: int, frequency: float) -> float:
    """Return the share of a core that the driver needs beside the messages."""
    told = costs["seconds_per_publication"] + workers * costs["seconds_per_worker_told"]
    return costs["idle_share"] + frequency * told


def predict(
    row: dict[str, Any], updates: float, network: float, costs: dict[str, float], frequency: float
) -> list[dict[str, Any]]:
    """Return the model's limits and their least, for each number of workers."""
    limits = {
        "intake": row["transitions_per_message"] / row["ray_learner_seconds_per_message"],
        "updates": updates,
        "network": network / row["bytes_per_transition"],
    }
    found = []
    for workers in PREDICTED:
        left = max(0.0, 1.0 - without_messages(costs, workers, frequency))
        each = {
            "workers": workers * row["ray_transitions_per_second"] / COUNT,
            "driver": left * row["transitions_per_message"] / row["driver_seconds_per_message"],
            **limits,
        }
        least = min(each, key=lambda name: each[name])
        found.append({"num_workers": workers, "transitions_per_second": each[least], "limit": least, **each})
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure in a cluster of two nodes on this machine."""
    from racer.distributed.cluster.connection import connect, prepare
    from racer.distributed.cluster.driver_pool import driven
    from racer.distributed.config import BackendConfig, ServiceConfig

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
        costs = driver_costs(args, nodes.address)
    finally:
        nodes.shutdown()
    updates, frequency = update_rate(args), ServiceConfig().policy_update_frequency
    for row in rows:
        row["driver_seconds_per_message"] = per_message(row, costs, frequency)
    network = min(args.link, transfer)
    return {
        "ray": ray.__version__,
        "rows": rows,
        "driver": costs,
        "policy_update_frequency": frequency,
        "update_transitions_per_second": updates,
        "transfer_bytes_per_second": transfer,
        "link_bytes_per_second": args.link,
        "predictions": predict(rows[-1], updates, network, costs, frequency),
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(
        f"engine {result['engine']}, {result['envs_per_worker']} environments a worker, {COUNT} workers, "
        f"Ray {result['ray']}"
    )
    titles = ("a message", "local /s", "ray /s", "ray/local", "us/message", "of local", "of driver", "bytes/tr.")
    print("".join(f"{title:>12}" for title in titles))
    for row in result["rows"]:
        print(
            f"{row['transitions_per_message']:>12}{row['local_transitions_per_second']:>12.1f}"
            f"{row['ray_transitions_per_second']:>12.1f}{row['ratio']:>12.1%}"
            f"{1e6 * row['ray_learner_seconds_per_message']:>12.0f}"
            f"{1e6 * row['local_learner_seconds_per_message']:>12.0f}{1e6 * row['driver_seconds_per_message']:>12.0f}"
            f"{row['bytes_per_transition']:>12.0f}"
        )
    last = result["rows"][-1]
    print(
        f"parameters {last['parameter_bytes'] / 1e3:.0f} kB; between two nodes of this machine objects move at "
        f"{result['transfer_bytes_per_second'] / 1e6:.0f} MB/s; the learner's updates keep up with "
        f"{result['update_transitions_per_second']:.0f} transitions/s at the default update-to-data ratio"
    )
    costs = result["driver"]
    print(
        f"the driver takes {costs['idle_share']:.1%} of a core for nothing, "
        f"{1e6 * costs['seconds_per_publication']:.0f} us a publication and "
        f"{1e6 * costs['seconds_per_worker_told']:.0f} us to tell a worker of it, "
        f"{result['policy_update_frequency']:g} times a second"
    )
    print("predictions, with a core for each worker (transitions/s):")
    names = ("workers", "intake", "driver", "updates", "network")
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
        "engine": args.engine,
        "device": args.device,
        "envs_per_worker": args.envs,
        **measure(args),
    }
    show(result)
    write_result(args.output or RESULTS / f"cluster_{args.engine}.json", "cluster", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
