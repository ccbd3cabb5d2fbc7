"""What every program of RACER does with its command line: flags in, one call, exit code out.

Wrong input ends with exit code 2 and one line on standard error; ``--debug`` shows where it came from. An
interrupted run ends with 130 (SIGINT) or 143 (SIGTERM), as a shell expects. A terminal, pipe or disk behind the
output that goes away ends nothing.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags
from absl import logging as absl_logging

from racer.core.ending import Ended, begun, ended_by_signals
from racer.core.errors import SYNONYMS, RacerError, UsageError, shown, unknown_name
from racer.core.files import open_regular
from racer.core.flag_help import NO_GROUPS, Groups, help_text, own_flags
from racer.core.shipped import find_config
from racer.core.terminal import outlived_streams, write_line

__all__ = [
    "EXIT_USAGE",
    "HelpText",
    "OneLineParser",
    "WholeNumber",
    "guarded",
    "parse_bool_tokens",
    "run_program",
    "unknown_config_key",
    "whole_number",
]

EXIT_USAGE = 2
EXIT_FAILURE = 1

_CONFIG_BYTES = 1 << 20
_WORD, _LINE = 400, 2_000


class OneLineParser(argparse.ArgumentParser):
    """Raises UsageError instead of printing its usage, so that wrong input is one line like everywhere else."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register("type", int, whole_number)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def whole_number(text: str) -> int:
    """Read a whole number, also as ``1e6``.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


class WholeNumber(flags.IntegerParser):
    """A flag's whole number, also as ``1e6``."""

    def convert(self, argument: Any) -> int:
        """Return the number.

        Raises:
            ValueError: a text that is none.
            TypeError: something else than a text or a whole number.
        """
        try:
            return whole_number(argument) if isinstance(argument, str) else super().convert(argument)
        except ValueError as error:
            raise ValueError(f"it takes a whole number, not {shown(argument)}") from error


class HelpText(argparse.HelpFormatter):
    """Wraps the paragraphs of a description, and leaves those that are indented, commands, as they stand."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.strip("\n").split("\n\n")
        return "\n\n".join(part if part[:1] == " " else textwrap.fill(part, width) for part in parts)


def run_program(
    main: Callable[[], int | None],
    argv: Sequence[str] | None = None,
    *,
    values: flags.FlagValues = flags.FLAGS,
    doc: str = "",
    groups: Groups = NO_GROUPS,
    more: Callable[[], str] = str,
) -> int:
    """Parse flags, run ``main`` and return the exit code.

    Args:
        main: the program; it reads ``flags.FLAGS``.
        argv: the command line, ``sys.argv`` by default.
        values: where the flags were defined.
        doc: what ``--help`` says first.
        groups: see :func:`racer.core.flag_help.help_text`.
        more: what ``--help`` says last.
    """
    argv = list(sys.argv if argv is None else argv)
    debug = any(word in ("--debug", "--debug=true", "--debug=1") for word in argv[1:])

    def helping() -> str:
        return help_text(argv[0], values, doc, groups) + more()

    return guarded(lambda: _run(main, argv, values, helping), debug=debug)


def guarded(call: Callable[[], int | None], *, debug: bool = False) -> int:
    """Call a program and return its exit code: wrong input and failures become one line, signals their codes."""
    begun()
    _quiet_logs()
    with outlived_streams(), ended_by_signals():
        try:
            return call() or 0
        except UsageError as error:
            return _refuse(error, EXIT_USAGE, debug)
        except RacerError as error:
            return _refuse(error, EXIT_FAILURE, debug)
        except MemoryError as error:
            return _refuse(RacerError(f"not enough memory: {error}".rstrip(": ")), EXIT_FAILURE, debug)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return _refuse(UsageError(f"{shown(str(error.filename))}: {error.strerror}"), EXIT_USAGE, debug)
        except KeyboardInterrupt:
            return 130
        except Ended as ended:
            return ended.exit_code


def parse_bool_tokens(argv: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Join ``--flag true`` to ``--flag=true`` for boolean flags, which absl would read as two words."""
    words, out, i = list(argv), [], 0
    while i < len(words):
        word = words[i]
        name = word.lstrip("-")
        following = words[i + 1].lower() if i + 1 < len(words) else ""
        is_flag = word.startswith("-") and name in values and values[name].boolean
        if is_flag and following in ("true", "false", "1", "0"):
            out.append(f"{word}={following}")
            i += 2
        else:
            out.append(word)
            i += 1
    return out


def _run(
    main: Callable[[], int | None], argv: list[str], values: flags.FlagValues, helping: Callable[[], str]
) -> int | None:
    _define_common(values)
    if any(word in ("--help", "-help", "-h", "--helpshort", "--helpfull") for word in argv[1:]):
        write_line(helping())
        return 0
    _parse(argv, values)
    return main()


class _OrNone(flags.ArgumentParser):
    """Reads "None" as None and everything else as another parser does; the configuration's classes check the rest."""

    def __init__(self, parser: flags.ArgumentParser) -> None:
        self.syntactic_help = parser.syntactic_help
        self._parser = parser

    def parse(self, argument: Any) -> Any:
        return None if argument is None or argument == "None" else self._parser.parse(argument)

    def flag_type(self) -> str:
        return self._parser.flag_type()


def _parse(argv: Sequence[str], values: flags.FlagValues) -> None:
    if "config" in values:
        from ml_collections import config_flags

        argv = _with_shipped_config(argv)
        _check_config_file(argv)
        for kind, parser in ((float, flags.FloatParser()), (int, flags.IntegerParser()), (str, flags.ArgumentParser())):
            config_flags.register_flag_parser_for_type(kind, _OrNone(parser))
    try:
        rest = values(parse_bool_tokens(argv, values))
    except flags.UnrecognizedFlagError as error:
        raise _unknown_flag(error.flagname, values) from error
    except flags.Error as error:
        raise UsageError(_without_traceback(str(error))) from error
    except AttributeError as error:
        raise unknown_config_key(error) from error
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UsageError(_one_line(str(error))) from error
    except SyntaxError as error:
        raise UsageError(f"config file {error.filename}:{error.lineno}: {error.msg}") from error
    except SystemExit as error:
        raise UsageError(f"config file {_place_of(error)}: it ends the program, with {shown(error.code)}") from error
    except (Ended, KeyboardInterrupt):
        raise
    except BaseException as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"config file {_place_of(error)}: {shown(what)[1:-1]}") from error
    if rest[1:]:
        raise UsageError(f"unexpected argument {rest[1]!r}; every option begins with --")


def _unknown_flag(name: str, values: flags.FlagValues) -> UsageError:
    """Build the error for a flag that there is not; a key of the config lacks its prefix."""
    config: Any = values["config"].value if "config" in values else None
    if hasattr(config, "to_dict"):
        branches = {f"{key}.": part for key, part in config.items() if hasattr(part, "to_dict")}
        for branch, part in {"": config, **branches}.items():
            key = next((key for key in (name, *SYNONYMS.get(name, ())) if key.split(".")[0] in part), None)
            if key is not None:
                return UsageError(f"--{name} is no flag; {key!r} is a key: write --config.{branch}{key}=VALUE")
    return unknown_name("flag", f"--{name}", [f"--{own}" for own in own_flags(values)])


def _with_shipped_config(words: Sequence[str]) -> list[str]:
    """Let ``--config NAME`` mean a config file that comes with the code, where there is no such file."""
    found = list(words)
    for i, word in enumerate(found):
        if word.startswith(("--config=", "-config=")):
            name, _, value = word.partition("=")
            found[i] = f"{name}={find_config(value)}"
        elif word in ("--config", "-config") and i + 1 < len(found):
            found[i + 1] = find_config(found[i + 1])
    return found


def _check_config_file(argv: Sequence[str]) -> None:
    """Refuse a ``--config`` that is no regular file of a fit size, which would be executed or waited for."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.lstrip("-").partition("=")
        path = value if equals else following
        if word.startswith("-") and name == "config" and path:
            # "file.py:argument" passes the argument to the file.
            path = path if os.path.lexists(path) else path.partition(":")[0]
            with open_regular(path, _CONFIG_BYTES):
                pass


def _define_common(values: flags.FlagValues) -> None:
    if "debug" not in values:
        help_text = "Show the traceback of an error, in the input or in code of yours."
        flags.DEFINE_bool("debug", False, help_text, flag_values=values)


def _refuse(error: Exception, code: int, debug: bool) -> int:
    if debug:
        write_line("".join(traceback.format_exception(error)).rstrip(), error=True)
    write_line(f"error: {_one_line(str(error))}", error=True)
    return code


def _one_line(text: str) -> str:
    """Return a text on one line, long words cut in the middle and what is longer than a screen at its end."""
    words = (word if len(word) <= _WORD else f"{word[: _WORD // 2]}...{word[-_WORD // 4 :]}" for word in text.split())
    line = " ".join(words)
    return line if len(line) <= _LINE else f"{line[:_LINE]}..."


def _without_traceback(text: str) -> str:
    """Shorten a message that quotes a whole traceback, as ml_collections' about ``--config file.py:argument``."""
    before, found, quoted = text.partition("Traceback (most recent call last):")
    if not found:
        return _one_line(text)
    last = quoted.strip().splitlines()[-1]
    # An error that is meant for the one who typed says all by itself.
    own = last.partition(f"{UsageError.__name__}: ")[2]
    return _one_line(own or f"{before.rstrip().rstrip(':')}: {last}")


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "(unknown place)"


def unknown_config_key(error: AttributeError) -> UsageError:
    """Build the error for a key that a config does not have, from ml_collections' own, which names the key alone."""
    # The message is quoted twice, so that a quotation mark may be escaped.
    found = re.search(r"['\"]([\w.]+)\\?['\"]", str(error))
    if not found:
        return UsageError(_one_line(str(error)))
    # It is raised by the config that was asked for the key.
    asked: Any = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    known = [str(key) for key in asked] if hasattr(asked, "to_dict") else []
    return unknown_name("config key", found[1], known) if known else UsageError(f"unknown config key {found[1]!r}")


def _quiet_logs() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    absl_logging.set_verbosity(absl_logging.WARNING)
