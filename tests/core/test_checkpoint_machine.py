"""Any order of saves, damage, kills, recoveries and prunings: the newest whole checkpoint is what is read."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from racer.core.checkpoint import (
    CheckpointError,
    checkpoint_path,
    latest_valid_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    read_checkpoint,
    recover_checkpoints,
    write_checkpoint,
)

STEPS = st.integers(0, 6)


class Directory(RuleBasedStateMachine):
    """``whole`` and ``damaged`` are what should lie there: the value that a step's checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.whole: dict[int, int] = {}
        self.damaged: set[int] = set()
        self.touched = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(step=STEPS, value=st.integers(0, 3))
    def save(self, step, value):
        write_checkpoint(self.folder, step, {"agent": {"x": np.full(8, value, np.int64)}}, {"value": value})
        self.whole[step] = value
        self.damaged.discard(step)

    @precondition(lambda self: self.whole)
    @rule(data=st.data(), name=st.sampled_from(["agent.safetensors", "manifest.json"]), share=st.floats(0, 0.999))
    def damage(self, data, name, share):
        step = data.draw(st.sampled_from(sorted(self.whole)))
        path = checkpoint_path(self.folder, step) / name
        content = bytearray(path.read_bytes())
        content[int(share * len(content))] ^= 1
        path.write_bytes(content)
        # Apart from the write before by more than a clock tick.
        self.touched += 1
        os.utime(path, ns=(self.touched, self.touched))
        del self.whole[step]
        self.damaged.add(step)

    @precondition(lambda self: self.whole)
    @rule(data=st.data(), other=st.booleans())
    def killed_between_two_names(self, data, other):
        """The old checkpoint of the step is out of sight, the new one may be whole under its first name."""
        step = data.draw(st.sampled_from(sorted(self.whole)))
        final = checkpoint_path(self.folder, step)
        final.rename(final.with_name(f"{final.name}.replaced"))
        if other:
            shutil.copytree(final.with_name(f"{final.name}.replaced"), self.folder / f".unfinished-{step}-1")
        recovered = recover_checkpoints(self.folder)
        assert recovered == [final]

    @rule(step=STEPS)
    def killed_in_mid_write(self, step):
        half = self.folder / f".unfinished-{step}-2"
        half.mkdir()
        (half / "agent.safetensors").write_bytes(b"half")
        assert recover_checkpoints(self.folder) == []
        assert not half.exists()

    @rule(keep=st.integers(1, 3))
    def prune(self, keep):
        prune_checkpoints(self.folder, keep)
        kept = sorted(self.whole)[-keep:]
        self.whole = {step: self.whole[step] for step in kept}
        self.damaged = {step for step in self.damaged if not kept or step > kept[-1]}

    @invariant()
    def the_newest_whole_one_is_read(self):
        found = {path.name for path in list_checkpoints(self.folder)}
        assert found == {f"checkpoint_{step}" for step in {*self.whole, *self.damaged}}
        if not self.whole:
            with pytest.raises(CheckpointError):
                latest_valid_checkpoint(self.folder)
            return
        newest = read_checkpoint(latest_valid_checkpoint(self.folder))
        assert newest.step == max(self.whole)
        assert newest.metadata["value"] == self.whole[newest.step]
        assert (newest.groups["agent"]["x"] == self.whole[newest.step]).all()


Directory.TestCase.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
TestDirectory = Directory.TestCase
