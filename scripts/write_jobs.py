"""Write the jobs of a hyperparameter file as commands, one a line, and as a manifest.

    python scripts/write_jobs.py scripts/hyperparams/tmaze/tmaze_10_ppo.py   # -> runs/runs_tmaze_10_ppo.txt

The name of the list is the file's ``file_name``; the manifest beside it, ``runs/<study>.jsonl``, is what
``python -m racer sweep run --manifest`` takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from racer.core.cli import OneLineParser, guarded
from racer.core.files import replace_file
from racer.sweeps.commands import OWN_ENTRY, command_lines
from racer.sweeps.manifest import plan_jobs, write_manifest
from racer.sweeps.reader import read_hyperfile


def main() -> None:
    """Read the command line and write both lists."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="hyperparameter file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the lists (default: runs)")
    parser.add_argument("--study_name", default=None, help="name of the study (default: the file's)")
    parser.add_argument("--entry", default=None, help="what follows 'python' in a command (default: the file's entry)")
    arguments = parser.parse_args()

    file = read_hyperfile(arguments.file)
    entry = file.entry if arguments.entry is None else arguments.entry
    lines = command_lines(file, arguments.study_name, entry)
    # Planned before anything is written: a file that is refused leaves no list behind.
    ours = entry.startswith(OWN_ENTRY) or "env" in file.args[0].values
    jobs = plan_jobs(file, arguments.study_name) if ours else []
    arguments.runs.mkdir(parents=True, exist_ok=True)
    path = arguments.runs / file.file_name
    replace_file(path, "".join(f"{line}\n" for line in lines).encode())
    print(f"{path}: {len(lines)} jobs")
    if jobs:
        manifest = arguments.runs / f"{jobs[0].study}.jsonl"
        write_manifest(manifest, jobs)
        print(f"{manifest}: {len(jobs)} jobs, {sum(len(job.members) for job in jobs)} members")


if __name__ == "__main__":
    sys.exit(guarded(main))
