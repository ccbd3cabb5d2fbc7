"""``racer <command>``, or ``python -m racer <command>``: what can be done with any world."""

# ruff: noqa: E402 - an interrupt during the imports is heeded first
from __future__ import annotations

from racer.core.ending import quiet_start

quiet_start(__name__)

import argparse
import ast
import importlib
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

import racer
from racer.core.cli import EXIT_USAGE, HelpText, OneLineParser, guarded
from racer.core.errors import UsageError, shown, unknown_name


@dataclass(frozen=True)
class Command:
    """A command, imported when it is called.

    Attributes:
        module: holds ``add_arguments(parser)`` and a function, from the parsed arguments to the new files, which are
            printed; with ``overrides`` also ``world_keys(arguments)``, the world's name and its keys.
        help: a sentence.
        overrides: flags that begin so, as ``--env.key=value``, become the nested mapping ``arguments.overrides``.
        function: its name, the command's own where empty.
    """

    module: str
    help: str
    overrides: str | None = None
    function: str = ""


COMMANDS = {
    "evaluate": Command("racer.evaluation.command", "run a policy on held-out seeds, and film it", "--env."),
    "plot": Command("racer.plotting.command", "draw runs as PNG files"),
    "inspect": Command("racer.evaluation.inspect", "write what an agent saw and did, a JSON line a step", "--env."),
    "diverge": Command("racer.evaluation.diverge", "step a world beside the program that it stands for", "--env."),
    "export": Command("racer.evaluation.export", "make a policy to give away, with a card"),
    "faults": Command("racer.faults.command", "break an actor-learner program on purpose and see what is left"),
    "list": Command("racer.listing", "say which policies, config files, worlds and agents come along", function="show"),
}

_OVERRIDES = (
    "{0}KEY=VALUE changes a key of the world for this once, and may be repeated; 'python -m racer train --world NAME "
    "--help' lists the keys."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code, 2 for wrong input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments))


def program() -> NoReturn:
    """Run the command line and exit: what an installation calls ``racer``."""
    sys.exit(main())


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        sys.stdout.write(_overview().format_help())
        return EXIT_USAGE
    if arguments[0].startswith("-"):
        _overview().parse_args(arguments)
    if arguments[0] == "train":
        from racer.training.command import main as train

        return train(arguments[1:])
    if arguments[0] == "sweep":
        from racer.sweeps.command import main as sweep

        return sweep(arguments[1:])
    if arguments[0] not in COMMANDS:
        raise unknown_name("command", arguments[0], [*COMMANDS, "train", "sweep"])
    return _run(arguments[0], arguments[1:])


def _overview() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m racer", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"racer {racer.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=OneLineParser)
    commands.add_parser("train", help="train an agent in any world")
    commands.add_parser("sweep", help="many trainings from one file, on this machine or on a cluster")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help)
    return parser


def _run(name: str, words: Sequence[str]) -> int:
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    prefix = command.overrides
    parser = OneLineParser(
        prog=f"python -m racer {name}", description=module.__doc__, epilog=prefix and _OVERRIDES.format(prefix),
        allow_abbrev=False, formatter_class=HelpText,
    )  # fmt: skip
    module.add_arguments(parser)
    own = [word for word in words if prefix is None or not word.startswith(prefix)]
    known, unknown = parser.parse_known_args(own)
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        raise _unknown(unknown[0], options, (prefix, *_world_keys(module, known)) if prefix else None)
    known.overrides = parse_overrides([word for word in words if word not in own], prefix or "")
    for path in getattr(module, command.function or name)(known):
        sys.stdout.write(f"{path}\n")
    return 0


def _world_keys(module: ModuleType, known: argparse.Namespace) -> tuple[str, Collection[str]]:
    """Return the world that a command is about and its keys; none where that cannot be said."""
    try:
        return module.world_keys(known)
    except UsageError:
        return "", ()


def _unknown(word: str, options: Collection[str], world: tuple[str, str, Collection[str]] | None) -> UsageError:
    """Build the error for a word that no argument takes; ``world``: the prefix of its keys, its name, its keys."""
    flag = word.split("=")[0]
    key = flag.lstrip("-")
    if flag == key:
        hint = ": one policy is evaluated, and --against RUN compares it with another" if "--against" in options else ""
        return UsageError(f"unexpected argument {shown(word)}{hint}")
    if world and key.split(".")[0] in world[2]:
        return UsageError(f"{flag} is no flag; {key!r} is a key of world {world[1]!r}: write {world[0]}{key}=VALUE")
    return unknown_name("flag", flag, [*options, *(f"{world[0]}{key}" for key in world[2])] if world else options)


def parse_overrides(words: Sequence[str], prefix: str) -> dict[str, Any]:
    """Return ``<prefix>a.b=value`` words as nested mappings; values are Python literals, or else text.

    Raises:
        UsageError: a word without a key or a value.
    """
    found: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.removeprefix(prefix).partition("=")
        *parents, last = path.split(".")
        level = found
        for part in parents:
            level = level.setdefault(part, {}) if isinstance(level, dict) else level
        if not equals or not last or not isinstance(level, dict):
            raise UsageError(f"{shown(word)} must be written {prefix}key=value")
        level[last] = _literal(value)
    return found


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


if __name__ == "__main__":
    program()
