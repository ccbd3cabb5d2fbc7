"""Places where jobs run, owned by whoever launches them.

A child is told its device, and its share of the device's memory, by its environment, before it imports JAX.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from racer.core.errors import UsageError, shown

__all__ = ["Device", "DevicePool", "find_devices", "oversubscription"]

_MEMORY_SHARE = 0.9
_MAX_SLOTS = 4096


@dataclass
class Device:
    """A GPU by its number, or the CPU.

    Attributes:
        name: "cpu", or what CUDA_VISIBLE_DEVICES takes.
        slots: jobs at a time.
        running: jobs now.
        started: jobs so far.
    """

    name: str
    slots: int
    running: int = 0
    started: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a child's environment says of its device."""
        if self.name == "cpu":
            return {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        share = f"{_MEMORY_SHARE / self.slots:.4f}"
        return {"CUDA_VISIBLE_DEVICES": self.name, "XLA_PYTHON_CLIENT_MEM_FRACTION": share}


@dataclass
class DevicePool:
    """All places; a job takes one and gives it back.

    Attributes:
        devices: of this machine.
    """

    devices: list[Device] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """Jobs at a time, over all devices."""
        return sum(device.slots for device in self.devices)

    def take(self) -> Device | None:
        """Return the free device with the fewest jobs, or None while all places are taken."""
        free = [device for device in self.devices if device.running < device.slots]
        if not free:
            return None
        device = min(free, key=lambda d: (d.running, d.started))
        device.running += 1
        device.started += 1
        return device

    def give_back(self, device: Device) -> None:
        """Free a place."""
        device.running -= 1


def find_devices(given: str, oversub: int, environment: Mapping[str, str] = os.environ) -> DevicePool:
    """Return the devices that jobs may use.

    Args:
        given: "auto" (GPUs that this process may see, else the CPU), "cpu", or GPUs by number, "0,1,2,3".
        oversub: jobs that share a device.
        environment: whose CUDA_VISIBLE_DEVICES counts.

    Raises:
        UsageError: a list that names no devices, or one twice.
    """
    if given == "cpu":
        names = ["cpu"]
    elif given == "auto":
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        names = [name.strip() for name in (visible or "").split(",") if name.strip()] if visible else []
        names = names or (_nvidia() if visible is None else []) or ["cpu"]
    else:
        names = [name.strip() for name in given.split(",")]
        if not all(name.replace("-", "").isalnum() for name in names) or len(set(names)) != len(names):
            raise UsageError(f"--devices takes auto, cpu or numbers such as 0,1,2,3, not {shown(given)}")
    if not 1 <= oversub <= _MAX_SLOTS:
        raise UsageError(f"OVERSUB must be a whole number in [1, {_MAX_SLOTS}], not {oversub}")
    return DevicePool([Device(name, oversub) for name in names])


def oversubscription(given: int | None, environment: Mapping[str, str] = os.environ) -> int:
    """Return jobs that share a device: as given, or as the environment variable OVERSUB says, or 1.

    Raises:
        UsageError: OVERSUB is no whole number.
    """
    if given is not None:
        return given
    text = environment.get("OVERSUB", "1")
    if not text.isdecimal() or len(text) > 6:
        raise UsageError(f"environment variable OVERSUB must be a whole number of at least 1, not {shown(text)}")
    return int(text)


def _nvidia() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdecimal()]
