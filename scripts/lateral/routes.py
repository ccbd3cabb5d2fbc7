"""Make up routes and write them as the CSV files of comma.ai's controls challenge v2.

    python scripts/lateral/routes.py --num 5000 --seed 0 --output routes

Routes of the three splits have none in common, whatever their numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags
from tqdm import tqdm

from racer.core.cli import run_program
from racer.core.errors import UsageError
from racer.core.run_dir import check_writable
from racer.envs.lateral.generator import GENERATED_SPLITS, MAX_ROUTES, generate_route
from racer.envs.lateral.routes import write_route

FLAGS = flags.FLAGS

flags.DEFINE_integer("num", 5000, "Routes to make.")
flags.DEFINE_integer("seed", 0, "Equal seeds give equal routes.")
flags.DEFINE_enum("split", "test", GENERATED_SPLITS, "Which of the three sequences of routes.")
flags.DEFINE_string("output", None, "Folder for the files, which must not hold any CSV file yet.")


def main() -> int:
    """Write what the flags ask for."""
    if FLAGS.output is None:
        raise UsageError("--output is missing: name a folder for the routes")
    if not 1 <= FLAGS.num <= MAX_ROUTES or FLAGS.seed < 0:
        raise UsageError(f"--num is at least 1 and --seed at least 0, not {FLAGS.num} and {FLAGS.seed}")
    folder = Path(FLAGS.output)
    if folder.is_dir() and any(folder.glob("*.csv")):
        raise UsageError(f"--output {FLAGS.output!r} holds routes already; name another folder")
    check_writable(folder, "folder of routes")
    for number in tqdm(range(FLAGS.num), desc="routes", unit="route", disable=None, leave=False):
        route = generate_route(FLAGS.seed, FLAGS.split, number)
        write_route(folder / route.name, route)
    print(f"{FLAGS.num} routes of seed {FLAGS.seed}, split {FLAGS.split}: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main, doc=__doc__ or ""))
