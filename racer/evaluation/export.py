"""``python -m racer export RUN FOLDER``: a trained policy to give away, with a card that says what it is.

The folder holds the acting policy only, no optimizer, critics or replay: what ``python -m racer evaluate`` needs and
nothing that training could go on from.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from racer.core.checkpoint import read_checkpoint, write_checkpoint
from racer.core.errors import UsageError
from racer.core.run_dir import check_writable
from racer.envs.world import World
from racer.evaluation.checkpoints import TrainedPolicy, load_policy
from racer.evaluation.command import add_world
from racer.evaluation.episodes import FIRST_UNWATCHED_SEED, EvaluationResult, evaluate_policy, evaluation_seeds
from racer.evaluation.film import film_episodes
from racer.evaluation.onnx_export import export_onnx
from racer.evaluation.report import format_table
from racer.evaluation.video import check_encoder

__all__ = ["add_arguments", "export"]

FILM_FILE = "film.mp4"

_KEPT = ("policy_spec", "world", "env_config", "agent_name", "agent_config", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line of ``export``."""
    parser.add_argument("run", metavar="RUN", help="checkpoint folder, or run folder for its newest valid checkpoint")
    parser.add_argument("folder", metavar="FOLDER", help="new folder for the policy and its card, as policies/<name>")
    add_world(parser)
    parser.add_argument(
        "--episodes", type=int, default=1000, help="held-out episodes of the card (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=FIRST_UNWATCHED_SEED, help="first held-out seed of the card (default: %(default)s)"
    )
    parser.add_argument(
        "--default_keys", nargs="+", default=[], metavar="KEY",
        help="keys of the world that are set back to their defaults, in the card's evaluation and in the policy's own "
        "world (where training used another reward, say)",
    )  # fmt: skip
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write policy.onnx, for any number of observations at once, checked against onnxruntime",
    )
    parser.add_argument(
        "--film", action="store_true", help="also film the first of these episodes, as film.mp4 beside the card"
    )
    parser.add_argument("--trained_by", default="", metavar="COMMAND", help="command line to write into the card")


def export(arguments: argparse.Namespace) -> list[Path]:
    """Write the policy and its card; returns the new files.

    Raises:
        UsageError: there is no valid checkpoint, a key is unknown, or the folder is taken or cannot be written.
    """
    trained = load_policy(arguments.run, arguments.world)
    env_config = trained.world.with_defaults(trained.env_config, arguments.default_keys)
    seeds = evaluation_seeds(arguments.episodes, arguments.seed)
    folder = Path(arguments.folder)
    if folder.resolve() == trained.path.parent.resolve():
        raise UsageError(f"{str(folder)!r} is the run itself; name another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"folder {str(folder)!r} exists and is not empty; name another")
    check_writable(folder.parent, "folder for policies")
    if arguments.film:
        trained.world.get_film()
        check_encoder()
    if arguments.onnx:
        with tempfile.TemporaryDirectory() as trial:
            # What cannot be written is found before the episodes of the card are run.
            export_onnx(trained, Path(trial) / "policy.onnx")
    held_out = trained.world.held_out(env_config)
    result = evaluate_policy(trained.policy, trained.params, trained.world, held_out, seeds)
    metadata = read_checkpoint(trained.path, groups=["policy"]).metadata
    kept = {**{key: metadata[key] for key in _KEPT if key in metadata}, "env_config": env_config}
    checkpoint = write_checkpoint(folder, trained.step, {"policy": trained.params}, kept)
    card, more = folder / "README.md", []
    if arguments.film:
        ((film, _),) = film_episodes(trained, held_out, seeds[:1], folder)
        more.append(film.replace(folder / FILM_FILE))
    if arguments.onnx:
        more.append(export_onnx(trained, folder / "policy.onnx"))
    text = model_card(folder.name, trained, result, arguments.default_keys, arguments.trained_by, film=arguments.film)
    card.write_text(text, encoding="utf-8")
    return [checkpoint, card, *more]


def model_card(
    name: str,
    trained: TrainedPolicy,
    result: EvaluationResult,
    default_keys: Sequence[str],
    trained_by: str,
    *,
    film: bool = False,
) -> str:
    """Return the card as Markdown: what was trained, where, how, and how it drives."""
    seeds = [episode.seed for episode in result.episodes]
    keys = ", ".join(f"`{key}`" for key in default_keys)
    but = f", but with the default {keys}" if keys else ""
    parts = [
        f"# {name}",
        f"`{trained.agent_name}` after {trained.step:,} transitions, training seed {trained.seed}. Try it:",
        f"    python -m racer evaluate policies/{name}",
        "## How it drives",
        f"Deterministic policy, {len(seeds)} held-out episodes (seeds {seeds[0]} to {seeds[-1]}) of the world it was "
        f"trained in{but}; one training run, intervals are over episodes.",
        "```\n" + format_table({name: result}) + "\n```",
    ]
    exploits = result.worst_exploits.items()
    if exploits:
        worst = ", ".join(f"{exploit.removesuffix('_share')} {share:.1%}" for exploit, share in exploits)
        parts.append(f"Largest share of an episode's steps spent in an exploit: {worst}.")
    if film:
        parts.append(f"[A film]({FILM_FILE}) of the episode of seed {seeds[0]}.")
    parts += [
        "## What it was trained on",
        f"World `{trained.world.name}` with these keys unlike its defaults:",
        _json(_differences(trained.env_config, trained.world)),
        "Agent:",
        _json(trained.agent_config),
    ]
    if trained_by:
        parts += ["## Trained by", f"    {trained_by}"]
    parts.append(
        "It was trained in a simulation whose rules are simple. It is an example and a starting point for research, "
        "and must not control anything that is not simulated. MIT licence, as the code."
    )
    return "\n\n".join(parts) + "\n"


def _json(values: Mapping[str, Any]) -> str:
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
    return "```json\n{\n" + ",\n".join(lines) + "\n}\n```"


def _differences(config: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Return what differs from the defaults, JSON-able; the keys that those depend on are always told."""
    told, usual = (json.loads(json.dumps(dict(values))) for values in (config, world.defaults(config)))
    return {key: told[key] for key in told if key in usual and (key in world.base_keys or told[key] != usual[key])}
