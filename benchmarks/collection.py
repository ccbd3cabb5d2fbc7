"""What do transport and policy cost, and do two workers collect twice as much as one?

Sets transitions/s through worker -> queue -> replay buffer beside the same environments stepped in one loop with
nothing else: no policy (the actions of a recorded policy run are replayed, so both see the same kind of traffic), no
channel, no buffer. Loop and workers take turns in the same run, workers being held by back-pressure meanwhile, so
that a load of the machine that comes and goes meets both.

    python benchmarks/collection.py --engine highway-env
    python benchmarks/collection.py --engine compiled --envs 8

Two workers share the machine's cores and caches with each other, so beside them *two* loops run in two processes;
``loop /s`` is the rate of one of them. ``speed-up`` is the workers' rate over that of a single loop alone.

Prints a table and writes a JSON file. ``cost`` is the share of the loop's rate that is lost per worker, in wall time;
``CPU cost`` compares the processor time that the loop and the worker processes spend on a transition, which other
programs on the machine disturb less; ``learner`` is what receiving and inserting takes on the learner's side.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from result_file import RESULTS, write_result

WORKERS = (1, 2)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("highway-env", "compiled"), default="highway-env", help="simulator")
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="where the agent lives that publishes (default: cpu)"
    )
    parser.add_argument("--envs", type=int, default=4, help="environments of each worker (default: 4)")
    parser.add_argument("--steps", type=int, default=None, help="steps between messages (default: 32; highway-env 4)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of loop and workers (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one turn (default: 4 s)")
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/collection_ENGINE.json")
    return parser.parse_args()


def bind_device(device: str) -> None:
    """Choose JAX's backend and one thread for NumPy; must run before either is imported."""
    os.environ["JAX_PLATFORMS"] = "cuda" if device == "gpu" else "cpu"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def build_agent(env: Any) -> Any:
    """Return the agent of the main job, untrained."""
    from racer.agents.registry import agent_class

    return agent_class("DistributionalSACLearner").create(
        0, env.single_observation_space, env.single_action_space, action_names=env.action_names
    )


class Loop:
    """The environments in one loop, replaying recorded actions.

    Args:
        env: the vector environment.
        agent: whose policy is recorded.
        length: steps recorded; the recording is replayed from its seed over and over.
    """

    def __init__(self, env: Any, agent: Any, length: int) -> None:
        import numpy as np

        from racer.replay import Collector

        policy, params, rng = agent.policy, agent.policy_params, np.random.default_rng(0)
        collector = Collector(env, seed=0, memory=policy.initial_memory(env.num_envs))
        recorded = collector.collect(length, lambda seen, memory: policy.act(params, seen, memory, rng))
        self.env, self.actions, self.position = env, recorded.actions, length

    def run(self, seconds: float) -> dict[str, float]:
        """Step for so long; return the figures of the turn. Restarting the recording is not timed."""
        transitions, spent, processor = 0, 0.0, 0.0
        while spent < seconds:
            if self.position == len(self.actions):
                self.env.reset(seed=0)
                self.position = 0
            start, start_processor = time.perf_counter(), time.thread_time()
            self.env.step(self.actions[self.position])
            spent += time.perf_counter() - start
            processor += time.thread_time() - start_processor
            self.position += 1
            transitions += self.env.num_envs
        return {"rate": transitions / spent, "cpu": processor / transitions}


def step_forever(factory: Any, actions: Any) -> None:
    """Body of a further loop process: replay the recording until killed."""
    env = factory()
    while True:
        env.reset(seed=0)
        for chosen in actions:
            env.step(chosen)


class OtherLoops:
    """Loop processes beside ours; stopped (not ended) whenever it is the workers' turn.

    Args:
        factory: builds the environments.
        actions: the recording.
        count: processes.
    """

    def __init__(self, factory: Any, actions: Any, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes = [
            context.Process(target=step_forever, args=(factory, actions), daemon=True) for _ in range(count)
        ]
        for process in self.processes:
            process.start()
        if count:
            # Time to import, compile and begin.
            time.sleep(15.0)

    def send(self, number: signal.Signals) -> None:
        """Stop, continue or kill them."""
        for process in self.processes:
            os.kill(process.pid, number)

    def end(self) -> None:
        """Kill them and wait."""
        self.send(signal.SIGKILL)
        for process in self.processes:
            process.join()


class Workers:
    """Worker processes that fill a replay buffer.

    Args:
        factory: builds one worker's environments.
        env: one of them, for its spaces.
        agent: whose policy they run; published twice a second as in training.
        count: number of workers.
        steps: steps between two messages.
        make_pool: builds another kind of pool than worker processes.
    """

    def __init__(self, factory: Any, env: Any, agent: Any, count: int, steps: int, make_pool: Any = None) -> None:
        from racer.distributed.config import OffPolicyConfig, ServiceConfig
        from racer.distributed.consumers import OffPolicyConsumer
        from racer.distributed.pool import PoolTask, WorkerHistory
        from racer.distributed.processes.supervisor import ProcessPool
        from racer.distributed.warmup import warmup_policy

        config = ServiceConfig(
            num_workers=count, worker_steps_per_iteration=steps, max_queue_size=2 * count, step_timeout=60.0
        )
        self.agent, self.count = agent, count
        warmup = warmup_policy(agent.policy, agent.policy_params, env.single_action_space)
        shape = env.single_observation_space.shape
        task = PoolTask(factory, agent.policy, warmup, config, shape)
        self.pool = (make_pool or ProcessPool)(task, [WorkerHistory()] * count)
        self.consumer = OffPolicyConsumer(OffPolicyConfig(), shape, agent.policy.action_shape)
        self.heard: set[int] = set()
        self.version, self.next_publication = 0, 0.0

    def start(self) -> None:
        """Start the processes and wait until each has delivered."""
        self.pool.start()
        self.publish()
        deadline = time.monotonic() + 120.0
        while len(self.heard) < self.count:
            if time.monotonic() > deadline:
                raise TimeoutError("workers delivered nothing within 120 s")
            self.take(0.5)

    def publish(self) -> None:
        """Publish the policy, if it is time."""
        from racer.distributed.pool import Parameters

        if time.monotonic() >= self.next_publication:
            self.next_publication = time.monotonic() + 0.5
            self.version += 1
            self.pool.publish(Parameters(self.version, 0, self.agent.policy_params))

    def take(self, timeout: float) -> int:
        """Insert one batch; return its transitions."""
        self.publish()
        batch = self.pool.get(timeout)
        if batch is None:
            return 0
        self.heard.add(batch.worker)
        return self.consumer.accept(batch, self.version)

    def processor_seconds(self) -> float:
        """Return the processor time of all worker processes so far."""
        import psutil

        times = [psutil.Process(pid).cpu_times() for pid in self.pool.worker_pids() if pid is not None]
        return sum(each.user + each.system for each in times)

    def run(self, seconds: float) -> dict[str, float]:
        """Collect for so long; return the figures of the turn. What had waited in the queue is taken out before.

        The clock starts and stops at the arrival of a batch, so that no part of one is counted.
        """
        for _ in range(3 * self.count):
            self.take(10.0)
        transitions, start = 0, time.perf_counter()
        workers_start, learner_start = self.processor_seconds(), time.process_time()
        while (now := time.perf_counter()) - start < seconds or transitions == 0:
            transitions += self.take(10.0)
            now = time.perf_counter()
        return {
            "rate": transitions / (now - start),
            "cpu": (self.processor_seconds() - workers_start) / transitions,
            "learner_cpu": (time.process_time() - learner_start) / transitions,
        }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run loop and workers in turns."""
    from racer.envs.highway import make_vector_env

    steps = args.steps or (4 if args.engine == "highway-env" else 32)
    factory = functools.partial(make_vector_env, {"engine": args.engine}, args.envs)
    env = factory()
    agent = build_agent(env)
    loop = Loop(env, agent, 60 if args.engine == "highway-env" else 1000)
    loop.run(args.seconds / 4)
    rows = []
    for count in WORKERS:
        workers = Workers(factory, env, agent, count, steps)
        others = OtherLoops(factory, loop.actions, count - 1)
        others.send(signal.SIGSTOP)
        try:
            workers.start()
            alone, together = [], []
            for _ in range(args.repetitions):
                time.sleep(min(2.0, args.seconds / 2))
                others.send(signal.SIGCONT)
                alone.append(loop.run(args.seconds))
                others.send(signal.SIGSTOP)
                together.append(workers.run(args.seconds))
        finally:
            workers.pool.stop()
            others.end()
        rows.append(summarize(count, alone, together))
    for row in rows:
        row["speed_up"] = row["worker_transitions_per_second"] / rows[0]["loop_transitions_per_second"]
    return {"rows": rows, "envs_per_worker": args.envs, "steps_per_message": steps}


def summarize(count: int, alone: list[dict[str, float]], together: list[dict[str, float]]) -> dict[str, Any]:
    """Return one row of the table: medians over the turns."""
    turns = list(zip(alone, together, strict=True))
    ratios = [workers["rate"] / (count * loop["rate"]) for loop, workers in turns]
    processor = [loop["cpu"] / workers["cpu"] for loop, workers in turns]
    return {
        "workers": count,
        "loop_transitions_per_second": statistics.median(turn["rate"] for turn in alone),
        "worker_transitions_per_second": statistics.median(turn["rate"] for turn in together),
        "ratio_per_worker": statistics.median(ratios),
        "ratio_per_worker_each_turn": ratios,
        "cost": 1.0 - statistics.median(ratios),
        "cpu_cost": 1.0 - statistics.median(processor),
        "cpu_ratio_each_turn": processor,
        "learner_cpu_seconds_per_transition": statistics.median(turn["learner_cpu"] for turn in together),
    }


def main() -> int:
    """Measure, print, write."""
    args = parse_arguments()
    bind_device(args.device)
    from racer.training.device import learner_device

    result = {
        "engine": args.engine,
        "device": learner_device(),
        **measure(args),
    }
    print(f"engine {args.engine}, {args.envs} environments a worker, learner on {result['device']}")
    titles = ("loop /s", "workers /s", "per worker", "speed-up", "cost", "CPU cost", "learner us")
    print("workers" + "".join(f"{title:>12}" for title in titles))
    for row in result["rows"]:
        print(
            f"{row['workers']:>7}{row['loop_transitions_per_second']:>12.1f}"
            f"{row['worker_transitions_per_second']:>12.1f}{row['ratio_per_worker']:>11.3f}x{row['speed_up']:>11.2f}x{row['cost']:>12.1%}"
            f"{row['cpu_cost']:>12.1%}{1e6 * row['learner_cpu_seconds_per_transition']:>12.1f}"
        )
    write_result(args.output or RESULTS / f"collection_{args.engine}_{args.device}.json", "collection", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
