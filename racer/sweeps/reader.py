"""The one reader of hyperparameter files: Python in form, but nothing in them is executed.

A file assigns names and ends in ``hparams = {"file_name", "entry", "args": [...], "exclude"}``. What may stand in it is
what such files consist of: literals, names assigned above, arithmetic, f-strings, ``Path(__file__).stem``,
``' '.join(map(str, values))``, ``int``, ``float``, ``str``, ``len``, ``list``, ``range``, ``dict``, list
comprehensions, and the markers :func:`jobs` and :func:`vmapped`. Everything else is an error that names its line.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError, shown, unknown_name
from racer.core.files import read_bytes

__all__ = ["Arguments", "HyperFile", "Marked", "read_hyperfile"]

_FILE_BYTES = 1 << 20
_ITEMS = 100_000
_DEPTH = 100
_TOP = ("file_name", "entry", "args", "exclude")
_MODULES = ("pathlib", "racer.sweeps", "__future__")


@dataclass(frozen=True)
class Marked:
    """Several values of one key.

    Attributes:
        kind: "jobs" (a job each) or "vmapped" (side by side in one process).
        values: what they are.
        only_if: other keys with the values, any of which they must have for this key to be there at all.
    """

    kind: str
    values: tuple[Any, ...]
    only_if: tuple[tuple[str, tuple[Any, ...]], ...] = ()


@dataclass(frozen=True)
class Arguments:
    """One dictionary of ``args``.

    Attributes:
        values: by key; a :class:`Marked` where there are several.
        lines: of the file, by key.
    """

    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class HyperFile:
    """What a hyperparameter file says.

    Attributes:
        path: of the file.
        file_name: of the list of jobs.
        entry: what follows ``python`` in a job's command.
        args: dictionaries, each expanded by itself.
        exclude: combinations that are left out: all of a mapping's keys have one of its values.
        line: of ``hparams``.
    """

    path: Path
    file_name: str
    entry: str
    args: tuple[Arguments, ...]
    exclude: tuple[dict[str, tuple[Any, ...]], ...]
    line: int

    @property
    def study(self) -> str:
        """The study's name."""
        return self.path.stem

    def where(self, line: int) -> str:
        """Return ``file:line``."""
        return f"{self.path}:{line}"


class _Wrong(Exception):
    """Something that cannot be read, at a line."""

    def __init__(self, node: Any, message: str) -> None:
        super().__init__(message)
        self.line = int(getattr(node, "lineno", 1))


class _Table(dict[str, Any]):
    """A dictionary that remembers the lines of its keys."""

    lines: dict[str, int]


def read_hyperfile(path: Path | str) -> HyperFile:
    """Read a hyperparameter file.

    Raises:
        UsageError: the file cannot be read, or holds something that no hyperparameter file holds (``file:line``).
    """
    path = Path(path)
    text = read_bytes(path, _FILE_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text, filename=str(path))
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno or 1}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path}:1: this is no Python text: {' '.join(str(error).split())}") from error
    try:
        names, line = _Reader(path).module(tree)
        return _hyperfile(path, names, line)
    except _Wrong as wrong:
        raise UsageError(f"{path}:{wrong.line}: {wrong}") from wrong
    except RecursionError as error:
        raise UsageError(f"{path}:1: nested too deeply") from error


def _hyperfile(path: Path, names: Mapping[str, Any], line: int) -> HyperFile:
    table = names.get("hparams")
    at = ast.Constant(None, lineno=line)
    if table is None:
        raise _Wrong(at, "there is no 'hparams', the dictionary that describes the jobs")
    if not isinstance(table, _Table):
        raise _Wrong(at, f"'hparams' must be a dictionary, not {shown(table)}")
    for key in table:
        if key not in _TOP:
            raise _Wrong(ast.Constant(None, lineno=table.lines[key]), str(unknown_name("key of hparams", key, _TOP)))
    args = table.get("args")
    if isinstance(args, _Table):
        args = [args]
    if not isinstance(args, list) or not args or not all(isinstance(item, _Table) for item in args):
        raise _Wrong(at, "'args' must be a list with at least one dictionary: this sweep is empty")
    name, entry = table.get("file_name", f"runs_{path.stem}.txt"), table.get("entry", "-m racer sweep job")
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise _Wrong(at, f"'file_name' must be the name of a file, not {shown(name)}")
    if not isinstance(entry, str) or not entry or not entry.isprintable():
        raise _Wrong(at, f"'entry' must be what follows 'python' in a command, not {shown(entry)}")
    found = tuple(Arguments(dict(item), item.lines) for item in args)
    for item in found:
        for key, value in item.values.items():
            if isinstance(value, list):
                if not value:
                    where = ast.Constant(None, lineno=item.lines[key])
                    raise _Wrong(where, f"{key!r} is an empty list: this sweep is empty")
                item.values[key] = Marked("jobs", tuple(value))
    return HyperFile(path, name, entry, found, _excluded(table.get("exclude"), at), line)


def _excluded(given: Any, at: Any) -> tuple[dict[str, tuple[Any, ...]], ...]:
    if given is None:
        return ()
    tables = [given] if isinstance(given, _Table) else given
    if not isinstance(tables, list) or not all(isinstance(table, _Table) for table in tables):
        raise _Wrong(at, f"'exclude' must be a dictionary, or a list of them, not {shown(given)}")
    return tuple({key: tuple(v) if isinstance(v, list) else (v,) for key, v in table.items()} for table in tables)


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


class _Reader:
    """Evaluates what hyperparameter files consist of."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, Any] = {"__file__": str(path), "Path": Path}
        self._depth = 0

    def module(self, tree: ast.Module) -> tuple[dict[str, Any], int]:
        """Return the names that a file assigns, and the line of ``hparams``."""
        line = 1
        for node in tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._imported(node)
                continue
            if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
                raise _Wrong(node, "only assignments 'name = value' may stand in a hyperparameter file")
            if node.targets[0].id == "hparams":
                line = node.lineno
            self._names[node.targets[0].id] = self._value(node.value)
        return self._names, line

    def _imported(self, node: ast.Import | ast.ImportFrom) -> None:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            if module not in _MODULES:
                raise _Wrong(node, f"a hyperparameter file is not executed and cannot import {module!r}")

    def _value(self, node: ast.expr) -> Any:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise _Wrong(node, f"{type(node).__name__} may not stand in a hyperparameter file, which is not executed")
        self._depth += 1
        if self._depth > _DEPTH:
            raise _Wrong(node, "nested too deeply")
        try:
            value = method(node)
        except _Wrong:
            raise
        except (ArithmeticError, TypeError, ValueError, LookupError) as error:
            raise _Wrong(node, f"this has no value: {error}") from error
        finally:
            self._depth -= 1
        large = isinstance(value, int) and abs(value) >= 2**63
        if large or (isinstance(value, float) and not math.isfinite(value)):
            raise _Wrong(node, "a number beyond what a configuration holds")
        if isinstance(value, str | list | tuple) and len(value) > _ITEMS:
            raise _Wrong(node, f"more than {_ITEMS} items")
        return value

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is not None and not isinstance(node.value, bool | int | float | str):
            raise _Wrong(node, f"a {type(node.value).__name__} is no value of a configuration")
        return node.value

    def _name(self, node: ast.Name) -> Any:
        if node.id not in self._names:
            raise _Wrong(node, str(unknown_name("name", node.id, [*self._names, *_CALLS])))
        return self._names[node.id]

    def _list(self, node: ast.List) -> list[Any]:
        return self._several(node, node.elts)

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._several(node, node.elts))

    def _several(self, node: ast.AST, items: list[ast.expr]) -> list[Any]:
        """Return values side by side; a starred one gives its own."""
        found: list[Any] = []
        for item in items:
            if isinstance(item, ast.Starred):
                found += self._items(self._value(item.value), node)
            else:
                found.append(self._value(item))
        return found

    def _dict(self, node: ast.Dict) -> _Table:
        table = _Table()
        table.lines = {}
        for key, value in zip(node.keys, node.values, strict=True):
            found = self._value(value)
            if key is None:
                if not isinstance(found, _Table):
                    raise _Wrong(value, "only a dictionary can be unpacked into one")
                table.update(found)
                table.lines.update(found.lines)
                continue
            name = self._value(key)
            if not isinstance(name, str):
                raise _Wrong(key, f"keys are names, not {shown(name)}")
            table[name], table.lines[name] = found, key.lineno
        return table

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        return "".join(str(self._value(part)) for part in node.values)

    def _formattedvalue(self, node: ast.FormattedValue) -> str:
        if node.format_spec is not None or node.conversion != -1:
            raise _Wrong(node, "an f-string takes names as they are, without a format")
        return str(self._value(node.value))

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self._value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        if not isinstance(node.op, ast.USub | ast.UAdd) or isinstance(value, bool):
            raise _Wrong(node, "this operator is not read")
        return -value if isinstance(node.op, ast.USub) else +value

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(node.op, ast.Pow):
            if not all(isinstance(v, int | float) and abs(v) <= 64 for v in (left, right)):
                raise _Wrong(node, "a power of numbers up to 64 only")
            return left**right
        if type(node.op) not in _OPERATORS:
            raise _Wrong(node, "this operator is not read")
        numbers = all(isinstance(value, int | float) for value in (left, right))
        same = isinstance(node.op, ast.Add) and isinstance(left, str | list | tuple) and type(left) is type(right)
        if not numbers and not same:
            raise _Wrong(node, "arithmetic is for two numbers, and + for two texts or two lists")
        return _OPERATORS[type(node.op)](left, right)

    def _attribute(self, node: ast.Attribute) -> Any:
        value = self._value(node.value)
        if isinstance(value, Path) and node.attr in ("stem", "name", "parent"):
            return getattr(value, node.attr)
        raise _Wrong(node, f"'.{node.attr}' is not read; of paths '.stem', '.name' and '.parent' are")

    def _subscript(self, node: ast.Subscript) -> Any:
        if isinstance(node.slice, ast.Slice):
            raise _Wrong(node, "slices are not read")
        return self._value(node.value)[self._value(node.slice)]

    def _listcomp(self, node: ast.ListComp) -> list[Any]:
        return list(self._comprehended(node))

    def _generatorexp(self, node: ast.GeneratorExp) -> list[Any]:
        return list(self._comprehended(node))

    def _comprehended(self, node: ast.ListComp | ast.GeneratorExp) -> list[Any]:
        kept, found = dict(self._names), list[Any]()

        def loop(depth: int) -> None:
            if depth == len(node.generators):
                found.append(self._value(node.elt))
                if len(found) > _ITEMS:
                    raise _Wrong(node, f"more than {_ITEMS} items")
                return
            generator = node.generators[depth]
            if generator.ifs or generator.is_async or not isinstance(generator.target, ast.Name):
                raise _Wrong(node, "a comprehension is 'for name in values', without a condition")
            for item in self._items(self._value(generator.iter), node):
                self._names[generator.target.id] = item
                loop(depth + 1)

        loop(0)
        self._names = kept
        return found

    def _items(self, values: Any, node: ast.AST) -> list[Any]:
        if not isinstance(values, list | tuple | range) or len(values) > _ITEMS:
            raise _Wrong(node, f"this needs a list of values, not {shown(values)}")
        return list(values)

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        if not isinstance(node.func, ast.Name) or node.func.id not in _CALLS:
            name = getattr(node.func, "id", type(node.func).__name__)
            raise _Wrong(node, f"{name!r} is not called: a hyperparameter file is not executed")
        if node.func.id == "map":
            return self._mapped(node)
        given = self._several(node, node.args)
        words = {word.arg: self._value(word.value) for word in node.keywords}
        if node.func.id in ("jobs", "vmapped"):
            return _marked(node, node.func.id, given, words)
        if node.func.id == "dict":
            table = _Table()
            table.update(*given, **{str(key): value for key, value in words.items()})
            table.lines = dict.fromkeys(table, node.lineno)
            return table
        if words:
            raise _Wrong(node, f"{node.func.id}() takes no names here")
        value = _CALLS[node.func.id](*given)
        return value if not isinstance(value, range) else self._items(value, node)

    def _mapped(self, node: ast.Call) -> list[Any]:
        if len(node.args) != 2 or not isinstance(node.args[0], ast.Name) or node.args[0].id not in _MAPPED:
            raise _Wrong(node, f"map takes one of {', '.join(_MAPPED)} and a list")
        return [_CALLS[node.args[0].id](item) for item in self._items(self._value(node.args[1]), node)]

    def _method(self, node: ast.Call, function: ast.Attribute) -> Any:
        owner = self._value(function.value)
        if isinstance(owner, str) and function.attr == "join" and len(node.args) == 1 and not node.keywords:
            items = self._items(self._value(node.args[0]), node)
            if all(isinstance(item, str) for item in items):
                return owner.join(items)
        if isinstance(owner, Path) and function.attr == "resolve" and not node.args:
            return owner
        raise _Wrong(node, f"'.{function.attr}()' is not called; \"' '.join(map(str, values))\" is")


_CALLS: dict[str, Callable[..., Any]] = {
    "Path": Path, "int": int, "float": float, "str": str, "len": len, "list": list, "tuple": tuple, "range": range,
    "round": round, "dict": dict, "map": map, "jobs": tuple, "vmapped": tuple,
}  # fmt: skip
_MAPPED = ("str", "int", "float")


def _marked(node: ast.Call, kind: str, values: list[Any], words: Mapping[str | None, Any]) -> Marked:
    """Return what ``jobs(1, 2, only_if={"key": value})`` says; a single list counts as its items."""
    for word in words:
        if word != "only_if":
            raise _Wrong(node, f"{kind}() takes values and only_if=, not {word!r}")
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not values:
        raise _Wrong(node, f"{kind}() needs a value at least: this sweep is empty")
    condition = words.get("only_if", _Table())
    if not isinstance(condition, _Table):
        raise _Wrong(node, f"only_if takes a dictionary of keys and values, not {shown(condition)}")
    pairs = tuple((key, tuple(v) if isinstance(v, list) else (v,)) for key, v in condition.items())
    return Marked(kind, tuple(values), pairs)
