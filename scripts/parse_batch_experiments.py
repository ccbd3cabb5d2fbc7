"""Put a study's results into one tensor, for notebooks.

    python scripts/parse_batch_experiments.py results/tmaze_10_ppo
    python scripts/parse_batch_experiments.py results/tmaze_10_ppo --discounted

``parsed_hparam_scores[_discounted].pkl`` is written into the study's folder: ``envs``, ``swept_hyperparams``,
``all_hyperparams``, ``dim_ref`` (swept_hparams, num_update, num_steps, seeds), ``scores`` and ``final_scores`` by
environment, ``discounted``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from racer.core.cli import OneLineParser, guarded
from racer.sweeps.analysis.tensor import parsed_study, write_pickle
from racer.sweeps.study import load_study_folder


def main() -> None:
    """Read the command line, parse and write."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a study's results")
    parser.add_argument("--discounted", action="store_true", help="discounted returns")
    parser.add_argument("--allow_missing", action="store_true", help="go on without jobs that are not finished")
    parser.add_argument("--any_version", action="store_true", help="take results of another version of the code")
    arguments = parser.parse_args()

    study = load_study_folder(
        arguments.study, allow_missing=arguments.allow_missing, any_version=arguments.any_version
    )
    parsed = parsed_study(study, discounted=arguments.discounted)
    name = "parsed_hparam_scores_discounted.pkl" if arguments.discounted else "parsed_hparam_scores.pkl"
    write_pickle(study.folder / name, parsed)
    for env, found in parsed["scores"].items():
        print(f"{env}: scores {found['scores'].shape}, final_scores {found['final_scores'].shape}")
    print(study.folder / name)


if __name__ == "__main__":
    sys.exit(guarded(main))
