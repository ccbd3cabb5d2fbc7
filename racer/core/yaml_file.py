"""Reads configuration files in YAML: plain data, each key once, numbers as people write them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from racer.core.errors import UsageError, shown
from racer.core.files import read_bytes

__all__ = ["parse_yaml", "read_yaml"]

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16

# YAML 1.1 takes 3e-4 for text: it wants a point before the exponent.
_EXPONENT = re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UsageError: naming the file and the line, if it cannot be read, is no YAML, no mapping, or has a key twice.
    """
    try:
        text = read_bytes(path, _MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown(str(path))} is not text: byte {error.start} is no UTF-8") from error
    found = parse_yaml(text, shown(str(path)))
    if not isinstance(found, dict):
        raise UsageError(f"{shown(str(path))} must hold keys with values, not {shown(found)}")
    return found


def parse_yaml(text: str, where: str) -> Any:
    """Return the data in YAML text: mappings with text keys, lists, text, numbers, booleans and nulls.

    Raises:
        UsageError: naming ``where`` and the line.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Builds plain data; what one name stands for may not be used again, lest a short file grow without limit."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise UsageError(f"{where}, line {mark.line + 1}: aliases (*name) are not read; write the value out")
            self.depth += 1
            if self.depth > _MAX_DEPTH:
                raise UsageError(f"{where} is nested more than {_MAX_DEPTH} levels deep")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                name, line = getattr(key, "value", None), key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                    raise UsageError(f"{where}, line {line}: keys must be text, not {shown(name)}")
                if name in seen:
                    raise UsageError(f"{where}, line {line}: key {shown(name)} is there twice")
                seen.add(str(name))
            return super().construct_mapping(node, deep=True)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789."))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{where}{line}: {' '.join(str(problem).split())}") from error
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{where}: {' '.join(str(error).split())}") from error
