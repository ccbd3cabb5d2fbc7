"""Layers and policies, on NumPy or JAX arrays. Nothing here knows of losses or of environments."""

from pathlib import Path

from racer.core.frozen import FrozenPolicy, offer_reader


def _read(folder: Path) -> FrozenPolicy:
    # Imported when a policy is read: most who import a layer read none.
    from racer.networks.frozen import read_frozen

    return read_frozen(folder)


offer_reader(_read)
