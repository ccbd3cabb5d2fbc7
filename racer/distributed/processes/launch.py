"""Starting and ending worker processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import IO

__all__ = ["describe_exit", "kill_process", "start_process", "worker_variables"]

_PROGRAM = "from racer.distributed.processes.worker import main; main()"
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def worker_variables() -> dict[str, str]:
    """Return the environment variables that a worker needs: one thread, our import path, no accelerator."""
    return {
        # Threaded BLAS in many processes on few cores is slower by far than one thread each.
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "JAX_PLATFORMS": "cpu",
        "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    }


def start_process(program: str = _PROGRAM, stderr: IO[bytes] | None = None) -> tuple[
    subprocess.Popen[bytes], socket.socket
]:  # fmt: skip
    """Start a worker process; return it and our non-blocking end of its socket.

    The worker has a process group of its own: an interrupt from the keyboard reaches the learner only, and killing the
    group takes along whatever the environments started.

    Args:
        program: what it runs; its only argument is the number of the socket that it inherits.
        stderr: where its standard error goes; None: to ours.
    """
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, **worker_variables()},
            pass_fds=(theirs.fileno(),),
            process_group=0,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return process, ours


def kill_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and what it started, at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def describe_exit(code: int) -> str:
    """Put a process's return code into words."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"
