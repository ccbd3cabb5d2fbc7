"""Record the other cars of trial mode's highway as a CSV file, to be replayed with ``population=recorded``.

    python scripts/sim/record_traffic.py traffic.csv --seconds 120 --seed 1
    python -m racer evaluate policies/trials-hidden-lane --env.population=recorded --env.recording=traffic.csv
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from racer.core.cli import guarded
from racer.envs.trials.recorded import record_traffic


def main() -> int:
    """Write the file; returns the exit code, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="FILE", help="CSV file to write: t, id, x, y, heading, speed")
    parser.add_argument("--seconds", type=float, default=120.0, help="to record (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the scene (default: %(default)s)")
    arguments = parser.parse_args()

    def record() -> int:
        lines = record_traffic(arguments.output, arguments.seconds, arguments.seed)
        print(f"{arguments.output}: {lines} lines")
        return 0

    return guarded(record)


if __name__ == "__main__":
    sys.exit(main())
