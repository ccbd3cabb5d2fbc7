"""What ``--help`` prints of flags and of a configuration's keys: a line for the name and its default, a sentence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

__all__ = ["NO_GROUPS", "Groups", "help_text", "keys_text", "own_flags"]

Groups = Mapping[str, Sequence[str]]
"""Names of flags by the heading under which they stand, in order."""
NO_GROUPS: Groups = {}

_WIDTH = 92


def help_text(program: str, values: flags.FlagValues, doc: str, groups: Groups = NO_GROUPS) -> str:
    """Return the whole of ``--help``.

    Args:
        program: what follows ``python``.
        values: the flags.
        doc: comes first.
        groups: order and headings of the flags; those that it does not name come last, by name.
    """
    named = [name for names in groups.values() for name in names]
    rest = [name for name in own_flags(values) if name not in named]
    lines = [doc.strip(), "", f"usage: python {program} [--flag=value ...]"]
    for heading, names in {**groups, "Other" if groups else "Flags": rest}.items():
        known: list[flags.Flag] = [values[name] for name in names if name in values]
        if known:
            lines += ["", f"{heading}:"]
        for flag in known:
            # What --config holds is told key by key.
            default = flag.default if flag.name != "config" else None
            lines += _entry(f"--{flag.name}", default, flag.help or "")
    return "\n".join(lines)


def keys_text(heading: str, prefix: str, keys: Iterable[tuple[str, Any, str]]) -> str:
    """Return what ``--help`` says of the keys of a configuration.

    Args:
        heading: comes first.
        prefix: of the flag that sets a key, as "--config.".
        keys: name, default and sentence of each.
    """
    entries = (line for name, default, sentence in keys for line in _entry(prefix + name, default, sentence))
    return "\n".join([f"{heading}:", *entries])


def own_flags(values: flags.FlagValues) -> list[str]:
    """Return the names of the flags that are no library's, sorted."""
    hidden = ("absl.", "ml_collections.", "jax.", "jax._src")
    modules = values.flags_by_module_dict()
    names = [f.name for module, found in modules.items() if not module.startswith(hidden) for f in found]
    return sorted({*names, "config"} & set(values)) if "config" in values else sorted(names)


def _entry(name: str, default: Any, sentence: str) -> list[str]:
    """Return the lines of a flag or a key; a default as Python writes it, which every flag reads, texts bare."""
    shown = default if isinstance(default, str) else repr(default)
    wrapped = textwrap.wrap(" ".join(sentence.split()), _WIDTH) or [""]
    return [f"  {name}  (default: {shown})", *(f"      {part}" for part in wrapped)]
