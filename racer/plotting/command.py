"""``python -m racer plot RUN...``: pictures of runs, as PNG files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError, unknown_name
from racer.core.run_dir import check_writable
from racer.core.terminal import write_line
from racer.core.trust import name_code, offer_flags
from racer.evaluation.episodes import FIRST_EVALUATION_SEED
from racer.evaluation.summary import check_cvar_level
from racer.plotting.runs import RunGroup, group_runs, has_checkpoint, load_run

__all__ = ["FIGURES", "add_arguments", "plot"]

FIGURES = (
    "learning_curves", "return_histograms", "trade_offs", "critic_distribution", "trial_scores", "adaptation",
    "attention",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line of ``plot``."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder (policies/<run>), evaluation folder, or an evaluation_metrics.json; runs that differ by the "
        "seed only are drawn as one",
    )
    offer_flags(world="--world", agent="--agent")
    parser.add_argument(
        "--world", action="append", default=[], metavar="NAME",
        help="a run's world again, which a world of other people's code needs (gym:<module>:<id>); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--agent", action="append", default=[], metavar="NAME",
        help="a run's agent again, which the critic of an agent of other people's code needs; may be repeated",
    )  # fmt: skip
    parser.add_argument("--output_dir", default="plots", help="folder for the PNG files (default: %(default)s)")
    parser.add_argument(
        "--figure", action="append", metavar="NAME",
        help=f"draw only this one of {', '.join(FIGURES)}; may be repeated (default: all that the runs allow)",
    )  # fmt: skip
    parser.add_argument(
        "--metric", action="append", default=[], metavar="NAME",
        help="metric for the learning curves, a panel each; may be repeated (default: the usual ones)",
    )  # fmt: skip
    parser.add_argument(
        "--cvar_level", type=float, default=None,
        help="level marked in the histograms, counted as cvar_risk (default: the evaluation's own)",
    )  # fmt: skip
    parser.add_argument(
        "--smoothing", type=float, default=0.05,
        help="share of a training curve's points in its running mean (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=FIRST_EVALUATION_SEED,
        help="episode of the pictures of a critic and of attention (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--across", default=None, metavar="KEY",
        help="key of the world over which the gain from trial to trial is drawn (adaptation)",
    )  # fmt: skip


def plot(arguments: argparse.Namespace) -> list[Path]:
    """Draw what the arguments ask for; returns the files.

    A figure that was named, or learning curves whose metrics were named, that cannot be drawn are an error; of the
    others, what the runs do not allow is left out, with a line on standard error that says why.

    Raises:
        UsageError: a run is missing, a name is unknown, a value out of range, or nothing can be drawn.
    """
    from racer.plotting.style import pyplot, save

    wanted = arguments.figure or list(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            raise unknown_name("figure", name, FIGURES)
    if arguments.cvar_level is not None:
        check_cvar_level(arguments.cvar_level)
    if not 0.0 <= arguments.smoothing < 1.0:
        raise UsageError(f"smoothing must lie in [0, 1), got {arguments.smoothing}")
    if arguments.seed < 0:
        raise UsageError(f"seed must not be negative, got {arguments.seed}")
    pyplot()
    name_code(*arguments.world, *arguments.agent)
    groups = group_runs([load_run(path) for path in arguments.runs])
    folder = Path(arguments.output_dir)
    paths: list[Path] = []
    for name in wanted:
        try:
            figures = _draw(name, groups, arguments)
        except UsageError as error:
            if arguments.figure or (arguments.metric and name == "learning_curves"):
                raise
            _left_out(name, error)
            continue
        check_writable(folder, "output folder")
        paths += [save(figure, folder / f"{stem}.png") for stem, figure in figures]
    if not paths:
        raise UsageError("the runs allow none of the figures")
    return paths


def _left_out(figure: str, reason: object) -> None:
    write_line(f"{figure} is left out: {' '.join(str(reason).split())}", error=True)


def _draw(name: str, groups: Sequence[RunGroup], arguments: argparse.Namespace) -> list[tuple[str, Any]]:
    from racer.plotting import adaptation, figures

    if name == "critic_distribution":
        return _draw_critics(groups, arguments.seed)
    if name == "attention":
        return _draw_attention(groups, arguments.seed)
    draw: dict[str, Callable[[], Any]] = {
        "learning_curves": lambda: figures.learning_curves(groups, arguments.metric, smoothing=arguments.smoothing),
        "return_histograms": lambda: figures.return_histograms(groups, arguments.cvar_level),
        "trade_offs": lambda: figures.trade_offs(groups),
        "trial_scores": lambda: adaptation.trial_scores(groups),
        "adaptation": lambda: adaptation.adaptation(groups, arguments.across),
    }
    return [(name, draw[name]())]


def _draw_attention(groups: Sequence[RunGroup], seed: int) -> list[tuple[str, Any]]:
    """One picture a run that holds a checkpoint with a transformer."""
    from racer.evaluation.attention import record_attention
    from racer.evaluation.checkpoints import load_policy
    from racer.plotting.adaptation import attention_map

    def draw(path: Path) -> tuple[str, Any]:
        trained = load_policy(path)
        episode = record_attention(trained, trained.world.resolve(trained.env_config), seed)
        return episode.name, attention_map(episode)

    return _of_checkpoints(groups, "attention", draw)


def _draw_critics(groups: Sequence[RunGroup], seed: int) -> list[tuple[str, Any]]:
    """One picture a run that holds a checkpoint with critics."""
    from racer.plotting.critic import critic_figure, record_critic

    def draw(path: Path) -> tuple[str, Any]:
        episode = record_critic(path, seed)
        return episode.name, critic_figure(episode)

    return _of_checkpoints(groups, "critic_distribution", draw)


def _of_checkpoints(
    groups: Sequence[RunGroup], stem: str, draw: Callable[[Path], tuple[str, Any]]
) -> list[tuple[str, Any]]:
    """Draw a picture, with the checkpoint's name, of every run whose checkpoint allows it.

    Raises:
        UsageError: none does.
    """
    found, reasons = [], []
    for run in (run for group in groups for run in group.runs):
        try:
            if not has_checkpoint(run.path):
                raise UsageError("it has no checkpoint")
            name, figure = draw(run.path)
        except UsageError as error:
            reasons.append((run.name, error))
            continue
        found.append((f"{stem}_{run.name}_{name}", figure))
    if not found:
        raise UsageError("; ".join(f"{name}: {reason}" for name, reason in reasons))
    for name, reason in reasons:
        _left_out(f"{stem} of {name}", reason)
    return found
