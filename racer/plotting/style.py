"""matplotlib, imported late, on the backend that needs no screen, with one look for all pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from racer.core.errors import UsageError

__all__ = ["COLORS", "GREY", "INK", "pyplot", "save"]

COLORS = ("#2364aa", "#d1495b", "#3a7d44", "#e08e1b", "#7b4fa3", "#12838c", "#8d5a3b", "#5c6670")
INK = "#1c2733"
GREY = "#5c6670"


def pyplot() -> Any:
    """Return ``matplotlib.pyplot`` on the Agg backend, with the project's style set.

    Raises:
        UsageError: matplotlib is not installed; the message says how to get it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 140,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e3e6ea",
            "grid.linewidth": 0.8,
            "legend.frameon": False,
            "axes.prop_cycle": plt.cycler(color=COLORS),
        }
    )
    return plt


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG and free it."""
    figure.savefig(path)
    pyplot().close(figure)
    return path
