"""Weights & Biases offline: the run's own file holds every number that was logged."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import jax.numpy as jnp, sys
from pathlib import Path
from racer.core.metrics import MetricsLogger
logger = MetricsLogger(Path(sys.argv[1]), {"seed": 1})
for step in range(1, 6):
    logger.log(100 * step, {"training/return": float(jnp.asarray(step) ** 2), "speed/steps": 7})
logger.close()
"""


BLOCK, HEADER, FILE_HEADER = 32_768, 7, 7


def written(data: bytes) -> list[bytes]:
    """Return what a log of LevelDB's form holds: blocks of records with checksum, length and part (1 is whole)."""
    found, parts, at = [], b"", FILE_HEADER
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, part = struct.unpack_from("<IHB", data, at)
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if part in (1, 4):
            found.append(parts)
            parts = b""
    return found


def records(path: Path) -> list[dict[str, float]]:
    """Read the numbers of an offline run's file."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for data in written(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            found.append({i.key or "/".join(i.nested_key): float(i.value_json) for i in record.history.item})
    return found


@pytest.mark.parametrize("attempt", range(3))
def test_an_offline_run_holds_what_was_logged(attempt, tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env={**kept, "WANDB_MODE": "offline"}, text=True,
        capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    file, = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows = records(file)
    assert [(row["_step"], row["training/return"], row["speed/steps"]) for row in rows] == [
        (100 * step, step**2, 7) for step in range(1, 6)
    ]
