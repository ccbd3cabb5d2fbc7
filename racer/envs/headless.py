"""Drawing where there is no screen."""

from __future__ import annotations

import os
import tempfile

__all__ = ["prepare_drawing"]


def prepare_drawing() -> None:
    """Set what SDL reads at its start; call it before anything draws.

    Without a runtime folder it would print an error for every process. Its own handlers of SIGTERM and SIGINT would
    turn them into events that nobody reads, and the program could not be ended.
    """
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    if not os.environ.get("SDL_VIDEODRIVER", "unset"):
        # Empty, as a shell script may leave it, SDL takes it for a driver of that name.
        del os.environ["SDL_VIDEODRIVER"]
    os.environ["SDL_NO_SIGNAL_HANDLERS"] = "1"
