"""Does distributed training go on while its workers are killed, stopped, made to fail and fed with NaN?

Trains with worker processes at full speed for a given time and harms its own child processes only. Calm stretches and
stretches with faults take turns, so that a load of the machine that comes and goes meets both; what is asked of the
faulty ones is the throughput they keep beside the calm ones of the same run. In a faulty stretch one of these is
injected after a random time, drawn from ``--seed``:

    kill   SIGKILL of a worker process
    stop   SIGSTOP of a worker process, which then gives no sign of life
    all    SIGKILL of every worker at once
    raise  an environment's step raises
    nan    an environment's observation turns into NaN

    python benchmarks/soak.py                    # 20 minutes
    python benchmarks/soak.py --seconds 120

Prints a table and writes a JSON file: throughput kept, recoveries and how long they took, growth of memory, and what
was left behind (processes, file descriptors, shared memory). Ends with code 1 where something was lost or left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from result_file import RESULTS, write_result

KINDS = ("kill", "stop", "all", "raise", "nan")
PERIOD = 0.05
MEMORY_PERIOD = 1.0
WARM_UP_LIMIT = 300.0
RECOVERY_LIMIT = 120.0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1200.0, help="length of all stretches (default: 1200 s)")
    parser.add_argument("--stretch", type=float, default=30.0, help="length of one stretch (default: 30 s)")
    parser.add_argument("--fault_every", type=float, default=8.0, help="mean seconds between faults (default: 8 s)")
    parser.add_argument("--seed", type=int, default=0, help="of faults, agent and environments (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--envs", type=int, default=4, help="environments of each worker (default: 4)")
    parser.add_argument("--engine", choices=("compiled", "highway-env"), default="compiled", help="simulator")
    parser.add_argument("--step_timeout", type=float, default=8.0, help="silence that is a hang (default: 8 s)")
    parser.add_argument("--utd_ratio", type=int, default=8, help="gradient steps for each 128 transitions (default: 8)")
    parser.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/soak.json")
    return parser.parse_args()


class FaultyVectorEnv(VectorWrapper):
    """Fails once for each request that it finds.

    Args:
        env: the vector environment.
        request: a file; whoever renames it away first does what it says.
    """

    def __init__(self, env: VectorEnv, request: str) -> None:
        super().__init__(env)
        self.request = request

    def step(self, actions: Any) -> Any:
        """Step, or fail as asked."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        if os.path.exists(self.request):
            mine = f"{self.request}.{os.getpid()}"
            try:
                os.rename(self.request, mine)
            except FileNotFoundError:
                return observations, rewards, terminated, truncated, infos
            with open(mine, encoding="utf-8") as file:
                kind = file.read()
            os.unlink(mine)
            if kind == "raise":
                raise RuntimeError("fault injected into step")
            observations = np.array(observations)
            observations[0] = np.nan
        return observations, rewards, terminated, truncated, infos


def build_environments(env_config: dict[str, Any], count: int, request: str) -> VectorEnv:
    """Build one worker's environments, in the worker."""
    from racer.envs.highway import make_vector_env

    return FaultyVectorEnv(make_vector_env(env_config, count), request)


class Injector(threading.Thread):
    """Injects faults, waits for recoveries, and keeps the books, beside the service's own threads.

    Args:
        service: what is trained; only its public counters and process ids are looked at.
        args: of the command line.
        request: see :class:`FaultyVectorEnv`.
    """

    def __init__(self, service: Any, args: argparse.Namespace, request: Path) -> None:
        super().__init__(name="injector", daemon=True)
        self.service, self.args, self.request = service, args, request
        self.random = random.Random(args.seed)
        self.done = threading.Event()
        self.failure: str | None = None
        self.stretches: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []
        self.memory: list[dict[str, Any]] = []
        self.counts_fell = 0
        self._last_counts = (0.0, 0.0, 0.0)
        self._next_memory = 0.0

    def run(self) -> None:
        """Go through the stretches, then ask the service to end."""
        try:
            self._wait(lambda: self.service.learner.updates >= 20 and self._all_alive(), WARM_UP_LIMIT, "warm-up")
            self.start_time = time.monotonic()
            kinds = [kind for _ in range(max(1, round(self.args.seconds / self.args.stretch / 2))) for kind in (0, 1)]
            length = self.args.seconds / len(kinds)
            for faulty in kinds:
                self._stretch(length, bool(faulty))
        except (TimeoutError, OSError) as error:
            self.failure = str(error)
        finally:
            self.done.set()

    def _stretch(self, length: float, faulty: bool) -> None:
        start, before, faults = time.monotonic(), self.service.transitions, len(self.faults)
        next_fault = start + self._pause() if faulty else float("inf")
        while (now := time.monotonic()) - start < length:
            if now >= next_fault:
                self._inject(self.random.choice(KINDS))
                next_fault = time.monotonic() + self._pause()
            self._look()
            time.sleep(PERIOD)
        seconds = time.monotonic() - start
        transitions = self.service.transitions - before
        self.stretches.append(
            {
                "faulty": faulty,
                "seconds": seconds,
                "transitions": transitions,
                "transitions_per_second": transitions / seconds,
                "faults": len(self.faults) - faults,
                "file_descriptors": len(os.listdir("/proc/self/fd")),
            }
        )
        rate = transitions / seconds
        print(f"{'faults' if faulty else 'calm  '} {seconds:6.1f} s {rate:8.0f} transitions/s", flush=True)

    def _pause(self) -> float:
        return min(self.random.expovariate(1.0 / self.args.fault_every), 4.0 * self.args.fault_every)

    def _inject(self, kind: str) -> None:
        """Injure, and wait until all workers are at work again."""
        pool = self.service.pool
        pids = pool.worker_pids()
        failures, dropped = pool.metrics()["worker_failures"], self._nonfinite()
        start, expected = time.monotonic(), 1
        if kind == "kill":
            os.kill(self.random.choice(pids), signal.SIGKILL)
        elif kind == "stop":
            os.kill(self.random.choice(pids), signal.SIGSTOP)
        elif kind == "all":
            expected = len(pids)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        else:
            temporary = self.request.with_suffix(".new")
            temporary.write_text(kind, encoding="utf-8")
            temporary.rename(self.request)

        def over() -> bool:
            if kind == "nan":
                return self._nonfinite() > dropped
            return pool.metrics()["worker_failures"] >= failures + expected and self._all_alive()

        self._wait(over, RECOVERY_LIMIT, f"recovery from {kind!r}")
        self.faults.append({"kind": kind, "recovery_seconds": time.monotonic() - start})

    def _nonfinite(self) -> float:
        return float(self.service.consumer.nonfinite)

    def _all_alive(self) -> bool:
        pool = self.service.pool
        return pool is not None and pool.metrics()["workers_alive"] == self.args.workers

    def _wait(self, condition: Any, limit: float, what: str) -> None:
        deadline = time.monotonic() + limit
        while not condition():
            if self.done.is_set():
                raise TimeoutError(f"the service ended during {what}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} within {limit:g} s")
            self._look()
            time.sleep(PERIOD)

    def _look(self) -> None:
        """Watch the counters, and the memory now and then."""
        import psutil

        learner = self.service.learner
        counts = (learner.transitions, learner.updates, learner.version)
        self.counts_fell += any(new < old for new, old in zip(counts, self._last_counts, strict=True))
        self._last_counts = counts
        now = time.monotonic()
        if now < self._next_memory:
            return
        self._next_memory = now + MEMORY_PERIOD
        workers = []
        for pid in self.service.pool.worker_pids() if self.service.pool is not None else ():
            with contextlib.suppress(psutil.Error):
                if pid is not None:
                    workers.append(psutil.Process(pid).memory_info().rss)
        own = psutil.Process().memory_info().rss
        replay = len(self.service.consumer.buffer)
        self.memory.append({"at": now, "learner": own, "workers": workers, "replay": replay})


def train(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the service under the injector; return everything that was measured."""
    from racer.core.checkpoint import latest_valid_checkpoint, read_checkpoint
    from racer.distributed.config import OffPolicyConfig, ServiceConfig
    from racer.distributed.consumers import OffPolicyConsumer
    from racer.distributed.pool import PoolTask
    from racer.distributed.processes.supervisor import ProcessPool
    from racer.distributed.service import ActorLearnerService, Periodic
    from racer.distributed.warmup import warmup_policy
    from racer.envs.highway import make_vector_env
    from racer.training.run_spec import create_agent, spec_from_config
    from racer.training.saving import CheckpointSaver

    before = resources()
    spec = spec_from_config({"model_cls": "DistributionalSACLearner", "env": {"engine": args.engine}}, args.seed)
    env = make_vector_env(spec.env_config, 1)
    spaces = env.single_observation_space, env.single_action_space
    env.close()
    agent = create_agent(spec, *spaces, seed=args.seed)
    learning = OffPolicyConfig(
        replay_buffer_size=20_000, utd_ratio=args.utd_ratio, learner_update_ratio=1, experience_batch_size=128
    )
    # Faults here come far more often than the limits on restarts are made for.
    config = ServiceConfig(
        num_workers=args.workers, seed=args.seed, step_timeout=args.step_timeout, max_restarts=1_000_000,
        max_queue_size=max(16, 2 * args.workers), restart_backoff_max=1.0,
    )  # fmt: skip
    request = folder / "request"
    factory = functools.partial(build_environments, spec.env_config, args.envs, str(request))
    warmup = warmup_policy(agent.policy, agent.policy_params, spaces[1])
    task = PoolTask(factory, agent.policy, warmup, config, spaces[0].shape)
    consumer = OffPolicyConsumer(learning, spaces[0].shape, agent.policy.action_shape, seed=args.seed)
    service = ActorLearnerService(ProcessPool, task, agent, consumer)
    saver, saved = CheckpointSaver(folder, spec, keep=2), []

    def save(service: Any) -> None:
        state = service.state()
        groups = {"replay": state.replay, "collector": state.collector}
        saved.append(saver.save(service.transitions, service.agent, groups, {"loop": state.counters}))

    injector = Injector(service, args, request)
    injector.start()
    try:
        service.run(10**12, periodic=[Periodic(50_000, save)], stop_event=injector.done)
    finally:
        injector.done.set()
        injector.join(timeout=10.0)
    save(service)
    read_back = read_checkpoint(latest_valid_checkpoint(folder))
    return {
        "failure": injector.failure,
        "stretches": injector.stretches,
        "faults": injector.faults,
        "memory": summarize_memory(injector.memory),
        "metrics": service.metrics(),
        "counters_fell": injector.counts_fell,
        "counted_but_not_in_replay": service.transitions - service.consumer.buffer.total_inserted,
        "checkpoints": len([path for path in saved if path is not None]),
        "checkpoint_behind_by": service.transitions - read_back.step,
        "left": left_behind(before, injector.stretches),
    }


def resources() -> dict[str, Any]:
    """Return what this process holds."""
    import psutil

    return {
        "children": {child.pid for child in psutil.Process().children(recursive=True)},
        "shared_memory": set(os.listdir("/dev/shm")),
    }


def left_behind(before: dict[str, Any], stretches: list[dict[str, Any]]) -> dict[str, int]:
    """Count what is there now and was not before; descriptors from the first to the last stretch."""
    now = resources()
    descriptors = [stretch["file_descriptors"] for stretch in stretches]
    return {
        "processes": len(now["children"] - before["children"]),
        "shared_memory": len(now["shared_memory"] - before["shared_memory"]),
        "file_descriptors": descriptors[-1] - descriptors[0] if descriptors else 0,
    }


def summarize_memory(samples: list[dict[str, Any]]) -> dict[str, float]:
    """Compare memory (MB) once the replay buffer is full with the end; medians over a tenth of the time each."""
    full = max((sample["replay"] for sample in samples), default=0)
    samples = [sample for sample in samples if sample["replay"] == full]
    if len(samples) < 10:
        return {}
    tenth = len(samples) // 10
    megabyte = 1e6

    def middle(part: list[dict[str, Any]], who: str) -> float:
        values = [sample["learner"] if who == "learner" else max(sample["workers"], default=0) for sample in part]
        return statistics.median(values) / megabyte

    found: dict[str, float] = {"hours": (samples[-1]["at"] - samples[0]["at"]) / 3600.0}
    for who in ("learner", "workers"):
        first, last = middle(samples[:tenth], who), middle(samples[-tenth:], who)
        found |= {f"{who}_first_mb": first, f"{who}_last_mb": last, f"{who}_growth": last / first - 1.0}
    return found


def summarize(result: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the table."""
    rates = {}
    for name, faulty in (("calm", False), ("faulty", True)):
        of_kind = [stretch for stretch in result["stretches"] if stretch["faulty"] == faulty]
        seconds = sum(stretch["seconds"] for stretch in of_kind)
        rates[name] = sum(stretch["transitions"] for stretch in of_kind) / seconds if seconds else float("nan")
    by_kind = {}
    for kind in KINDS:
        times = [fault["recovery_seconds"] for fault in result["faults"] if fault["kind"] == kind]
        if times:
            by_kind[kind] = {"count": len(times), "median_s": statistics.median(times), "longest_s": max(times)}
    return {
        "calm_transitions_per_second": rates["calm"],
        "faulty_transitions_per_second": rates["faulty"],
        "throughput_kept": rates["faulty"] / rates["calm"],
        "recoveries": by_kind,
    }


def print_table(result: dict[str, Any], summary: dict[str, Any]) -> None:
    """Print what was measured."""
    print(f"\ncalm {summary['calm_transitions_per_second']:.0f} transitions/s, with faults "
          f"{summary['faulty_transitions_per_second']:.0f}: {summary['throughput_kept']:.1%} kept")  # fmt: skip
    print(f"{'fault':<8}{'count':>7}{'median s':>10}{'longest s':>11}")
    for kind, row in summary["recoveries"].items():
        print(f"{kind:<8}{row['count']:>7}{row['median_s']:>10.2f}{row['longest_s']:>11.2f}")
    memory = result["memory"]
    if memory:
        for who in ("learner", "workers"):
            print(f"{who:<8} {memory[f'{who}_first_mb']:.1f} MB, at the end {memory[f'{who}_last_mb']:.1f} MB "
                  f"({memory[f'{who}_growth']:+.2%} in {memory['hours']:.3f} h)")  # fmt: skip
    metrics = result["metrics"]
    ratio, target, dropped = (
        metrics[f"training/{name}"] for name in ("update_to_data", "update_to_data_target", "nonfinite_transitions")
    )
    print(f"update-to-data {ratio:.5f} of {target:.5f}; {dropped:.0f} transitions with NaN dropped; "
          f"{result['checkpoints']} checkpoints, the last one {result['checkpoint_behind_by']} transitions behind"
    )  # fmt: skip
    print(f"left behind: {result['left']}; counters fell {result['counters_fell']} times; "
          f"{result['counted_but_not_in_replay']} transitions counted but not in the buffer")  # fmt: skip


def is_sound(result: dict[str, Any]) -> bool:
    """Return whether nothing was lost and nothing left behind."""
    lost = result["counters_fell"] or result["counted_but_not_in_replay"] or result["checkpoint_behind_by"]
    return not (result["failure"] or lost or any(count > 0 for count in result["left"].values()))


def main() -> int:
    """Soak, print, write."""
    args = parse_arguments()
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Every fault is reported by the service; here they are wanted, and counted.
    logging.getLogger("racer.distributed").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="racer-soak-") as folder:
        result = train(args, Path(folder))
    summary = summarize(result)
    print_table(result, summary)
    if result["failure"]:
        print(f"failed: {result['failure']}")
    settings = {k: v for k, v in vars(args).items() if k != "output"}
    write_result(args.output or RESULTS / "soak.json", "soak", {"settings": settings, **summary, **result})
    return 0 if is_sound(result) else 1


if __name__ == "__main__":
    sys.exit(main())
