"""``python -m racer <command>``: what is not a training or an evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from racer.core.errors import RacerError, UsageError, unknown_name

COMMANDS = ("export", "plot")


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that wrong input is one line like everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code, 2 for wrong input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
            raise unknown_name("command", arguments[0], COMMANDS)
        return _run(arguments)
    except RacerError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str]) -> int:
    from racer.evaluation import export
    from racer.plotting import command as plotting

    parser = _Parser(prog="python -m racer", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    parsers = {
        name: commands.add_parser(name, help=text, allow_abbrev=False)
        for name, text in (("plot", "draw runs as PNG files"), ("export", "make a policy to give away, with a card"))
    }
    plotting.add_arguments(parsers["plot"])
    export.add_arguments(parsers["export"])
    known, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        options = [option for action in parsers[known.command]._actions for option in action.option_strings]
        raise unknown_name("flag", unknown[0].split("=")[0], options)
    run = {"plot": plotting.plot, "export": export.export}[known.command]
    for path in run(known):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
