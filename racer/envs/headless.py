"""Drawing where there is no screen."""

from __future__ import annotations

import os
import tempfile

__all__ = ["prepare_drawing"]


def prepare_drawing() -> None:
    """Give SDL a runtime folder where the system has none; it would print an error for every process otherwise."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
