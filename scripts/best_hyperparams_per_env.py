"""Find the best setting of every environment of a study.

    python scripts/best_hyperparams_per_env.py results/tmaze_10_ppo/parsed_hparam_scores_discounted.pkl
    python scripts/best_hyperparams_per_env.py                  # the pickle that was written last below results/

The pickle only names the study and whether returns are discounted: it is not loaded, since loading one runs what is in
it; the scores are read from the study's tables again. ``best_hyperparam_per_env_res[_discounted].pkl`` is written
beside it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from racer.core.cli import OneLineParser, guarded
from racer.core.errors import UsageError
from racer.sweeps.analysis.tensor import MEASURES, best_settings, write_pickle
from racer.sweeps.study import load_study_folder


def newest(results: Path) -> Path:
    """Return the parsed scores that were written last."""
    found = sorted(results.glob("*/parsed_hparam_scores*.pkl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(f"no parsed scores lie below {str(results)!r}: run scripts/parse_batch_experiments.py first")
    return found[-1]


def main() -> None:
    """Read the command line, choose and write."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=None, help="parsed scores, or a study's folder")
    parser.add_argument("--measure", choices=MEASURES, default="auc", help="mean over training, or the end's")
    parser.add_argument("--discounted", action="store_true", help="discounted returns, where a folder is given")
    parser.add_argument("--allow_missing", action="store_true", help="go on without jobs that are not finished")
    parser.add_argument("--any_version", action="store_true", help="take results of another version of the code")
    arguments = parser.parse_args()

    path = arguments.file or newest(Path("results"))
    if not path.exists():
        raise UsageError(f"there is no {str(path)!r}")
    discounted = arguments.discounted or path.stem.endswith("_discounted")
    folder = path if path.is_dir() else path.parent
    study = load_study_folder(folder, allow_missing=arguments.allow_missing, any_version=arguments.any_version)
    best = best_settings(study, discounted=discounted, measure=arguments.measure)
    target = folder / f"best_hyperparam_per_env_res{'_discounted' if discounted else ''}.pkl"
    write_pickle(target, best)
    for env, values in best["hyperparams"].items():
        score = float(np.nanmean(best["scores"][env]))
        print(f"{env}: {values or 'the only setting'}, mean {score:.3f}")
    print(target)


if __name__ == "__main__":
    sys.exit(guarded(main))
