"""Where compiled kernels are kept between runs: in a folder that nobody else writes to, each file with its sum.

What Numba keeps are pickles and machine code, which run when they are loaded. So they lie neither beside the sources
nor beside a policy that somebody sent, but in ``~/.cache/racer/numba`` (``XDG_CACHE_HOME`` and ``NUMBA_CACHE_DIR`` name
others). Whatever is wrong with the folder or a file, the kernels are compiled, and a run goes on.
"""

from __future__ import annotations

import logging
import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

from racer.core.files import cache_home, private_folder, summed, unsummed
from racer.core.terminal import write_line

__all__ = ["KernelCache", "cache_folder"]

log = logging.getLogger(__name__)

_SAID = "RACER_KERNEL_CACHE_REPORTED"


@cache
def cache_folder() -> Path | None:
    """Return the folder of compiled kernels, or None, after a warning, where there can be none."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(named) if named else cache_home() / "numba"
    reason = private_folder(folder)
    if reason is not None:
        _warn(f"{str(folder)!r} {reason}")
    return folder if reason is None else None


def _warn(reason: str) -> None:
    """Say once, for this process and those that it starts, that kernels are not kept."""
    if os.environ.get(_SAID) != "1":
        os.environ[_SAID] = "1"
        log.warning("compiled kernels are not kept, so every start compiles them again: %s", reason)


class _SummedFiles(IndexDataCacheFile):
    """Numba's index and data files, each behind the SHA-256 of what follows."""

    def _load_index(self) -> dict[Any, str]:
        try:
            version, stamp, overloads = pickle.loads(_read(self._index_path))
        except FileNotFoundError:
            return {}
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._version, self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        return pickle.loads(_read(self._data_path(name)))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _write(self, path: str, value: Any) -> None:
        data = self._dump(value)
        with self._open_for_write(path) as file:
            file.write(summed(data))


class KernelCache(FunctionCache):
    """Keeps the compiled forms of one function; what cannot be read is compiled, what cannot be written is not kept.

    Args:
        function: that Python calls.
        stamp: of everything that its machine code was made from.
    """

    def __init__(self, function: Any, stamp: str) -> None:
        super().__init__(function)
        files = self._cache_file
        base = files._index_name.removesuffix(".nbi")
        self._cache_file = _SummedFiles(cache_path=self._cache_path, filename_base=base, source_stamp=stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled form, or None where there is none that is whole."""
        try:
            kept = super().load_overload(sig, target_context)
            if kept is None:
                _announce()
            return kept
        except Exception as error:  # noqa: BLE001 - damaged files raise anything
            log.info("%s is compiled again: %s", self._name, error)
            self._forget()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled form."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn(f"{self._cache_path!r}: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - a damaged index raises anything
            log.info("the index of %s is written again: %s", self._name, error)
            self._forget()

    def _forget(self) -> None:
        try:
            self.flush()
        except OSError as error:
            _warn(f"{self._cache_path!r}: {error.strerror or error}")


@cache
def _announce() -> None:
    """Say once a process why it takes so long."""
    write_line("compiling the simulator, once for this machine: about 15 s", error=True)


def _read(path: str) -> bytes:
    """Return what a file holds behind its sum.

    Raises:
        ValueError: the sum does not match.
    """
    with open(path, "rb") as file:
        data = unsummed(file.read())
    if data is None:
        raise ValueError(f"{path!r} is damaged")
    return data
