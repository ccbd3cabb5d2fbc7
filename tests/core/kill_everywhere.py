"""Kills a save, and then the recovery from it, before each system call that they make; prints what was found.

Usage: kill_everywhere.py FOLDER STEP. FOLDER gets a run with one checkpoint, of step 5; STEP is saved on top of it and
one is kept. Every attempt is a forked child with an audit hook that kills it at its n-th event.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from racer.core import checkpoint

WATCHED = ("os.", "shutil.", "open")


def killed_at(number: int, action: Callable[[], object]) -> bool:
    """Run an action in a child that dies before its ``number``-th watched call; say whether it did."""
    child = os.fork()
    if child == 0:
        count = itertools.count(1)

        def strike() -> None:
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, _: object) -> None:
            if event.startswith(WATCHED) and event != "os.kill":
                strike()

        os.fsync = lambda _: strike()  # A kill loses nothing that was not synced.
        sys.addaudithook(hook)
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - a child must not come back from here
            print(error, file=sys.stderr)
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, status
    return False


def save(run: Path, step: int, word: str) -> None:
    groups = {"policy": {"word": np.frombuffer(word.encode(), np.uint8)}, "agent": {"x": np.arange(3)}}
    checkpoint.write_checkpoint(run, step, groups, {"word": word})


def word_of(run: Path) -> str:
    found = checkpoint.read_checkpoint(checkpoint.latest_valid_checkpoint(run))
    word = found.groups["policy"]["word"].tobytes().decode()
    assert found.metadata == {"word": word}
    return word


def main(folder: Path, step: int) -> None:
    logging.disable()
    os.fsync = lambda _: None
    template, run = folder / "template", folder / "run"
    save(template, 5, "old")

    def prepare() -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(template, run)
        checkpoint.verify_checkpoint(run / "checkpoint_5")

    def attempt() -> None:
        save(run, step, "new")
        checkpoint.prune_checkpoints(run, 1)

    found, recoveries = set(), 0
    for kill in itertools.count(1):
        prepare()
        if not killed_at(kill, attempt):
            break
        word_of(run)
        for second in itertools.count(1):
            if not killed_at(second, lambda: checkpoint.recover_checkpoints(run)):
                break
            recoveries += 1
            word_of(run)
            prepare()
            killed_at(kill, attempt)
        found.add(word_of(run))
        names = [path.name for path in run.iterdir()]
        assert all(name in ("checkpoint_5", f"checkpoint_{step}") for name in names), names
    assert word_of(run) == "new"
    assert [path.name for path in run.iterdir()] == [f"checkpoint_{step}"]
    print(json.dumps({"save": kill - 1, "recovery": recoveries, "found": sorted(found)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
