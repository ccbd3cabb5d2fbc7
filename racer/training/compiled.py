"""Compiled updates, kept between starts in ``~/.cache/racer/xla`` (``XDG_CACHE_HOME`` names another place).

JAX can keep what XLA compiled, but writes it without a lock, a sum or a bound, and what it reads back runs as machine
code. So it is given a folder of this process alone. Whole entries of the shared one, each behind its SHA-256, are
copied there at the start, and new ones go back by one rename each. The shared folder nobody else may write to, and it
is of one kind of processor and number of threads, on both of which machine code depends.

``JAX_ENABLE_COMPILATION_CACHE=false`` switches it off, and a ``JAX_COMPILATION_CACHE_DIR`` of one's own replaces it.
Whatever is wrong with the folder or a file, updates are compiled, and a run goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError
from racer.core.files import cache_home, private_folder, read_bytes, replace_file, summed, unsummed

__all__ = ["KeptCompilations", "keep_compilations"]

log = logging.getLogger(__name__)

_SUFFIX = ".xla"
_ALL_BYTES = 1 << 26


class KeptCompilations:
    """The entries of a shared folder, in one of this process alone while it lives.

    Args:
        shared: the folder that all processes share; made if it is missing.

    Attributes:
        own: what JAX reads and writes.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, shared: Path) -> None:
        reason = private_folder(shared)
        if reason is not None:
            raise OSError(f"{str(shared)!r} {reason}")
        self._shared = shared
        # A home may be shared by machines, which do not see each other's locks.
        prefix = f".own-{platform.node()}-"
        _remove_abandoned(shared, prefix)
        self.own = Path(tempfile.mkdtemp(prefix=prefix, dir=shared))
        # Held as long as the process lives: one without its lock was left by a process that was killed.
        self._lock = os.open(self.own, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in shared.glob(f"*{_SUFFIX}"):
            entry = _whole(path)
            if entry is None:
                path.unlink(missing_ok=True)
            else:
                (self.own / path.name.removesuffix(_SUFFIX)).write_bytes(entry)

    def share(self) -> None:
        """Give the others what was compiled since, and keep the shared folder within its bound, the oldest first out.

        Raises:
            OSError: the folder cannot be written.
        """
        for path in self.own.iterdir():
            target = self._shared / (path.name + _SUFFIX)
            if path.is_file() and not target.exists():
                data = path.read_bytes()
                replace_file(target, summed(data))
        found = sorted((p.stat().st_mtime_ns, p.stat().st_size, p) for p in self._shared.glob(f"*{_SUFFIX}"))
        size = sum(entry[1] for entry in found)
        for _, own_size, path in found:
            if size <= _ALL_BYTES:
                break
            path.unlink(missing_ok=True)
            size -= own_size

    def close(self) -> None:
        """Share, and remove this process's own folder."""
        try:
            self.share()
        finally:
            shutil.rmtree(self.own, ignore_errors=True)
            os.close(self._lock)


@cache
def keep_compilations() -> KeptCompilations | None:
    """Let JAX keep what it compiles for the CPU from here to the end of this process; None where it will not.

    Call it after :func:`racer.training.device.choose_device` and before anything large is compiled.
    """
    import jax

    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return None
    if jax.default_backend() != "cpu":
        return None
    try:
        kept = KeptCompilations(cache_home() / "xla" / _machine())
    except (OSError, ValueError) as error:
        log.info("compiled updates are not kept: %s", error)
        return None
    # XLA's own caches lie in the same folder, whose name would be part of every key.
    config.update("jax_persistent_cache_enable_xla_caches", "none")
    config.update("jax_compilation_cache_dir", str(kept.own))
    atexit.register(_close, kept)
    return kept


def _close(kept: KeptCompilations) -> None:
    with contextlib.suppress(OSError):
        kept.close()


def _machine() -> str:
    """Return a name for what compiled code depends on and JAX's own key leaves out."""
    from llvmlite import binding

    threads = os.environ.get("NPROC") or str(os.cpu_count())
    parts = (binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), threads)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _whole(path: Path) -> bytes | None:
    """Return an entry if its sum is right."""
    try:
        return unsummed(read_bytes(path, _ALL_BYTES))
    except UsageError:
        return None


def _remove_abandoned(shared: Path, prefix: str) -> None:
    for folder in shared.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
