"""Choosing where the learner runs, before JAX is imported."""

from __future__ import annotations

import os

from racer.core.errors import UsageError

__all__ = ["choose_device", "learner_device"]


def choose_device(name: str, threads: int = 1) -> None:
    """Make JAX use "cpu", "gpu", or what it finds ("auto"). Call before anything imports JAX's backends.

    Args:
        name: of the device.
        threads: that share an operation on the CPU. Networks of some hundred units gain little from a second one, which
            takes a core from the workers; and the last bits of a product may depend on their number.

    Raises:
        UsageError: a GPU was asked for and JAX sees none.
    """
    # What XLA takes for the number of cores when it makes its pool of threads.
    os.environ["NPROC"] = str(threads)
    if name == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        return
    if name == "gpu":
        import jax

        try:
            jax.devices("gpu")
        except RuntimeError as error:
            seen = jax.default_backend()
            raise UsageError(
                f"flag --device is 'gpu', but JAX sees no GPU (only {seen}); pip install -e '.[gpu]', or --device cpu"
            ) from error


def learner_device() -> str:
    """Name the device that JAX computes on."""
    import jax

    device = jax.devices()[0]
    return f"{device.platform} ({device.device_kind})"
