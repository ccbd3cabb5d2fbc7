"""Print the tables of the study of positional encodings, beside the published ones.

    python scripts/rope/analysis.py                                  # results/rope_pilot
    python scripts/rope/analysis.py results/rope_compare             # five conditions and the anchor, compared
    python scripts/rope/analysis.py --csv published.csv              # the published format of 162 rows

Tables: Overall, By features, By lr, By epochs, By hidden, By batch, By condition; with several conditions every two of
them are compared, paired by all that they share.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from racer.core.cli import OneLineParser, guarded
from racer.sweeps.analysis.tables import by_key, comparison, overall
from racer.sweeps.early import read_decisions
from racer.sweeps.study import load_study_folder

sys.path.insert(0, str(Path(__file__).parent))
from common import read_csv, study_rows, write_csv

KEYS = {"features": "features", "lr": "lr", "epochs": "epochs", "hidden": "hidden_dim", "batch": "batch",
        "condition": "condition"}  # fmt: skip

PUBLISHED = """Published, final_reward, mean +- SD
  pilot of 162 runs: overall 114.38 +- 23.05
    features  presence,x,y,vx,vy 112.94   x,y,vx,vy 115.92   x,y,vx,vy,cos_h,sin_h 114.28
    lr        1e-4 112.93   3e-4 115.82
    epochs    4 112.83   6 112.11   8 118.19
    hidden    64 101.47   128 119.00   256 122.67
    batch     32 119.43   64 111.58   128 112.12
  conditions, as run: sorted = shuffled 117.97 +- 13.21 (n = 18), rank 116.88 +- 16.48, rotary 114.05 +- 14.56,
    distance 111.70 +- 15.28 (n = 54 each); no difference is significant"""


def tables(rows: list[dict[str, Any]], value: str) -> str:
    """Return all tables of rows."""
    parts = [overall(rows, value)]
    parts += [by_key(rows, key, value, f"By {name}") for name, key in KEYS.items() if any(key in row for row in rows)]
    conditions = {row.get("condition") for row in rows}
    if len(conditions) > 1:
        pairs = [key for key in ("features", "lr", "epochs", "hidden_dim", "batch", "seed") if key in rows[0]]
        parts.append(comparison(rows, "condition", value, pairs))
    reached = [row["reached_thr"] for row in rows if "reached_thr" in row]
    if reached:
        steps = np.array([row["steps_to_thr"] for row in rows if row["reached_thr"]])
        first = f", after {np.median(steps):,.0f} transitions (median of those)" if len(steps) else ""
        parts.append(f"Share of runs with an evaluation of at least 120: {np.mean(reached):.1%}{first}")
    return "\n\n".join(parts)


def main() -> None:
    """Read the command line and print."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", default=Path("results/rope_pilot"), help="folder of results")
    parser.add_argument("--csv", type=Path, default=None, help="read rows in the published format instead")
    parser.add_argument("--metric", default="final_reward", help="column (default: final_reward)")
    parser.add_argument("--write_csv", type=Path, default=None, help="write the rows in the published format")
    parser.add_argument("--allow_missing", action="store_true", help="go on without jobs that are not finished")
    parser.add_argument("--any_version", action="store_true", help="take results of another version of the code")
    arguments = parser.parse_args()

    if arguments.csv is not None:
        rows = read_csv(arguments.csv)
    else:
        study = load_study_folder(
            arguments.study, allow_missing=arguments.allow_missing, any_version=arguments.any_version
        )
        rows = study_rows(study)
        for reason in read_decisions(study.folder):
            print(f"stopped early: {reason}")
    print(tables(rows, arguments.metric))
    print(f"\n{PUBLISHED}")
    if arguments.write_csv is not None:
        write_csv(arguments.write_csv, rows)
        print(arguments.write_csv)


if __name__ == "__main__":
    sys.exit(guarded(main))
