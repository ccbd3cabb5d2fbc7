"""A training program in miniature, to be killed by the tests: prints its workers' process ids, then trains."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

from service_kit import make_service
from toy_envs import ToyEnv, toy_vector

from racer.distributed.service import Periodic


def main() -> int:
    """Train until a signal; exit code 0 after a clean end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # The second kind of worker is always in the middle of a long step.
    seconds, steps = {"quick": (0.0, 8), "slow": (0.5, 1)}[sys.argv[1]]
    factory = functools.partial(toy_vector, 2, cls=ToyEnv, step_seconds=seconds)
    service = make_service(factory, worker_steps_per_iteration=steps)

    def report(service) -> None:
        print("pids", *service.pool.worker_pids(), flush=True)

    service.run(10**9, periodic=[Periodic(2, report)], stop_event=stop)
    print("ended", service.transitions, service.state().counters["transitions"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
