"""Hand the jobs of a hyperparameter file to onager.

    python scripts/onager_write_jobs.py scripts/hyperparams/tmaze/tmaze_10_transformer.py
    scripts/launching/onager_slurm_launch.sh tmaze_10_transformer

Writes the manifest and runs ``onager prelaunch``; without onager the command is only printed.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from racer.core.cli import OneLineParser, guarded
from racer.core.errors import RacerError
from racer.sweeps.launchers.onager import prelaunch_words
from racer.sweeps.manifest import plan_jobs, write_manifest
from racer.sweeps.reader import read_hyperfile


def main() -> None:
    """Read the command line, plan, and prelaunch."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="hyperparameter file")
    parser.add_argument("--study_name", default=None, help="name of the study (default: the file's)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the manifest (default: runs)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all studies' results")
    parser.add_argument("--print_only", action="store_true", help="print the command and run nothing")
    arguments = parser.parse_args()

    jobs = plan_jobs(read_hyperfile(arguments.file), arguments.study_name)
    manifest = arguments.runs / f"{jobs[0].study}.jsonl"
    write_manifest(manifest, jobs)
    words = prelaunch_words(jobs[0].study, manifest, arguments.results, len(jobs))
    print(shlex.join(words))
    if arguments.print_only:
        return
    if shutil.which("onager") is None:
        print("onager is not installed: nothing was launched", file=sys.stderr)
        return
    code = subprocess.call(words)
    if code != 0:
        raise RacerError(f"onager prelaunch ended with code {code}")


if __name__ == "__main__":
    sys.exit(guarded(main))
