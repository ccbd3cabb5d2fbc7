"""How the kernels are compiled: plain IEEE float64, no fast-math, no contraction, one cache for all of them.

Only the entry points are cached on disk; the functions that they call are compiled into them. Numba decides
whether a cache entry is fresh from the file of the entry point alone, so an edit of a *called* function would
leave stale machine code behind. The entry points are therefore stamped with a digest of every source file of
this package and of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from racer.envs.highway.simulator.cache import KernelCache, cache_folder

__all__ = ["entry", "inlined", "kernel", "merged", "source_digest"]


HERE = Path(__file__).parent


@cache
def source_digest(package: Path = HERE) -> str:
    """Return the digest of the source files of this package and of another, the stamp of the other's compiled code."""
    digest = hashlib.sha256()
    for folder in dict.fromkeys((HERE, package)):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


# The arrays belong to the caller. Without Numba's run time (_nrt) compiled code can allocate nothing and counts no
# references, which would cost an atomic operation for every array and call.
OPTIONS: dict[str, Any] = {"fastmath": False, "error_model": "numpy", "nogil": True, "_nrt": False}
# nobody calls a kernel from Python or C, so it needs no wrapper for that
KERNEL_OPTIONS: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that only other compiled functions call."""
    return numba.njit(**KERNEL_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like :func:`kernel`, for what runs for every car and frame: the call itself would be a good part of it."""
    return numba.njit(**KERNEL_OPTIONS, forceinline=True)(function)


def merged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like :func:`kernel`, for a function with one caller: it becomes part of that one before compilation.

    LLVM optimizes every function again with each of its callers; a long chain of them takes long to compile.
    """
    return numba.njit(**KERNEL_OPTIONS, inline="always")(function)


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls: it releases the GIL and is cached on disk."""
    dispatcher: Any = numba.njit(**OPTIONS)(function)
    folder = cache_folder()
    if folder is not None:
        settings: Any = numba.config
        before, settings.CACHE_DIR = settings.CACHE_DIR, str(folder)
        try:
            stamp = source_digest(Path(function.__code__.co_filename).parent)
            dispatcher._cache = KernelCache(function, stamp)
        finally:
            settings.CACHE_DIR = before
    return dispatcher
