"""onager's prelaunch command: an array of the one command that runs a job, over the indices of a manifest.

Combinations that a file excludes are not in its manifest, so that nothing is left to onager's own ``+exclude``, which
its releases ignore.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

__all__ = ["prelaunch_words"]


def prelaunch_words(study: str, manifest: Path, results: Path, count: int, python: str = "python") -> Sequence[str]:
    """Return the words of ``onager prelaunch`` for ``count`` jobs."""
    command = [python, "-m", "racer", "sweep", "run", "--manifest", str(manifest), "--results", str(results)]
    indices = [str(index) for index in range(count)]
    return ["onager", "prelaunch", "+jobname", study, "+command", shlex.join(command), "+arg", "--index", *indices]
