"""RACER: risk-sensitive driving policies, trained by many workers and one learner.

``racer.train`` trains from Python, ``racer.load_policy`` reads a policy to act with, ``racer.evaluate`` measures one;
``racer.envs`` registers the environments.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from racer.evaluation.checkpoints import load_policy
    from racer.evaluation.library import evaluate
    from racer.training.library import train

__version__ = "0.1.0"

__all__ = ["__version__", "evaluate", "load_policy", "train"]

_WHERE = {
    "evaluate": "racer.evaluation.library",
    "load_policy": "racer.evaluation.checkpoints",
    "train": "racer.training.library",
}
"""Imported when asked for: a worker, or a person who only wants an environment, needs none of it."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'racer' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
