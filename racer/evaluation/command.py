"""``python -m racer evaluate RUN``: what a policy reaches on held-out seeds of its world, with films."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

from tqdm import tqdm

from racer.core.trust import offer_flags
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.episodes import FIRST_EVALUATION_SEED, EpisodeResult
from racer.evaluation.program import EvaluationOptions, evaluate_checkpoint

__all__ = ["add_arguments", "add_world", "evaluate", "progress_bar", "world_keys"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line of ``evaluate``; ``--env.<key>=<value>`` changes the world."""

    def flag(name: str, kind: Callable[[str], object], default: object, text: str) -> None:
        described = f"{text} (default: {default})"
        extra = {"nargs": "?", "const": True, "metavar": "true|false"} if kind is bool else {}
        kind = _boolean(name) if kind is bool else kind
        parser.add_argument(f"--{name}", type=kind, default=default, help=described, **extra)  # type: ignore[arg-type]

    what = "checkpoint folder, run folder for its newest valid checkpoint, or driver:<name>"
    parser.add_argument("run", metavar="RUN", help=what)
    add_world(parser)
    flag("num_episodes", int, 20, "episodes to run, one for each held-out seed")
    flag("render", bool, True, "film episodes")
    flag("video_output_dir", Path, Path("evaluation_videos"), "folder for evaluation_metrics.json and the videos")
    flag("num_videos", int, 3, "how many episodes to film, from the first seed on")
    flag(
        "seed", int, FIRST_EVALUATION_SEED,
        "first seed of the list: episode i starts from seed + i; evaluations during training watched the first ones "
        f"from {FIRST_EVALUATION_SEED} on, so figures to be published take --seed 30000",
    )  # fmt: skip
    flag("num_envs", int, 8, "environments stepped side by side; changes the speed, not the numbers")
    flag("deterministic", bool, True, "take the policy's most likely action; false samples from it")
    flag("cvar_level", float, 0.8, "level of the lower tail of returns, counted as cvar_risk")
    parser.add_argument(
        "--against", default=None, metavar="RUN",
        help="a second policy, on the same seeds and side by side in table and report",
    )  # fmt: skip
    flag("report", bool, False, "write evaluation_report.html, one file with the worst episodes to play again")
    flag("mine", int, 0, "search so many further held-out episodes for the worst and say what they have in common")
    parser.add_argument(
        "--cvar_risk", type=float, default=None, metavar="LEVEL",
        help="risk level to act at, of a policy that was trained for all of them (risk_conditioned)",
    )  # fmt: skip
    flag("memory_controls", bool, False, "also evaluate with the memory wiped, and swapped, between trials")
    flag("compare_random", bool, False, "also run uniformly random actions on the same seeds, side by side")


def add_world(parser: argparse.ArgumentParser) -> None:
    """Define ``--world``, by which a person names the code of a checkpoint's world."""
    offer_flags(world="--world")
    parser.add_argument(
        "--world", default=None, metavar="NAME",
        help="the checkpoint's world again, which a world of other people's code needs (gym:<module>:<id>)",
    )  # fmt: skip


def evaluate(arguments: argparse.Namespace) -> list[Path]:
    """Evaluate as the arguments say; prints the table and returns the new files.

    Raises:
        UsageError: there is no valid checkpoint, or an argument is wrong.
    """
    options = EvaluationOptions(
        output_dir=arguments.video_output_dir,
        num_episodes=arguments.num_episodes,
        first_seed=arguments.seed,
        num_envs=arguments.num_envs,
        deterministic=arguments.deterministic,
        cvar_level=arguments.cvar_level,
        num_videos=arguments.num_videos if arguments.render else 0,
        compare_random=arguments.compare_random,
        env_overrides=arguments.overrides,
        against=None if arguments.against is None else load_policy(arguments.against, arguments.world),
        report=arguments.report,
        mine=arguments.mine,
        memory_controls=arguments.memory_controls,
    )
    trained = load_policy(arguments.run, arguments.world)
    if arguments.cvar_risk is not None:
        trained = trained.at_risk(arguments.cvar_risk)
    outcome = evaluate_checkpoint(trained, options, on_table=print, progress=progress_bar)
    return [path for path in (outcome.metrics_path, outcome.report, *outcome.videos) if path is not None]


def progress_bar(name: str, total: int) -> Callable[[EpisodeResult], None]:
    """A progress bar on a terminal, and nothing elsewhere."""
    bar = tqdm(total=total, desc=name, unit="episode", disable=None if total else True, leave=False)

    def advance(episode: EpisodeResult) -> None:
        bar.set_postfix_str(f"seed {episode.seed} {episode.end_reason} {episode.metrics['return']:.1f}")
        bar.update()

    return advance


def world_keys(arguments: argparse.Namespace) -> tuple[str, Collection[str]]:
    """Return the world of the policy, its name and its keys.

    Raises:
        UsageError: there is no such policy.
    """
    trained = load_policy(arguments.run, arguments.world)
    return trained.world.name, trained.env_config.keys()


def _boolean(flag: str) -> Callable[[str], bool]:
    words = {"true": True, "1": True, "false": False, "0": False}

    def read(text: str) -> bool:
        if text.lower() not in words:
            wrong = f"expected true or false, got {text!r}; before another word write --{flag}=true"
            raise argparse.ArgumentTypeError(wrong)
        return words[text.lower()]

    return read
