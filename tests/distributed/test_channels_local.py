"""Local channels and messages: bounded, in order, exact."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from racer.distributed.channels import (
    LocalExperienceChannel,
    LocalParameterChannel,
    Parameters,
    StopRequested,
    WorkerBatch,
)
from racer.replay import Experience


def make_batch(number: int, *, steps: int = 2, envs: int = 3, version: int = 1, worker: int = 0) -> WorkerBatch:
    shape = (steps, envs)
    experience = Experience(
        observations=np.full((*shape, 4), number, np.float32),
        actions=np.zeros((*shape, 1), np.float32),
        rewards=np.full(shape, number, np.float32),
        masks=np.ones(shape, np.float32),
        dones=np.zeros(shape, np.float32),
        next_observations=np.full((*shape, 4), number + 1, np.float32),
        valid=np.ones(shape, bool),
        extras={"log_probs": np.full(shape, -0.5, np.float32)},
        episodes=[{"return": 1.5, "time_to_collision": float("inf")}],
        nonfinite=2,
    )
    return WorkerBatch(experience, worker, 3, 4, version, 6, {"rng": np.arange(6, dtype=np.uint64)})


def test_a_batch_survives_its_message():
    batch = make_batch(7)
    got = WorkerBatch.from_bytes(batch.to_bytes())
    assert (got.worker, got.incarnation, got.epoch, got.policy_version, got.round) == (0, 3, 4, 1, 6)
    assert got.experience.episodes == batch.experience.episodes
    assert got.experience.nonfinite == 2
    for name in ("observations", "rewards", "valid", "next_observations"):
        np.testing.assert_array_equal(getattr(got.experience, name), getattr(batch.experience, name))
    np.testing.assert_array_equal(got.experience.extras["log_probs"], batch.experience.extras["log_probs"])
    np.testing.assert_array_equal(got.state["rng"], batch.state["rng"])


def test_parameters_survive_their_message():
    parameters = Parameters(version=9, epoch=2, round=5, data=bytes(range(256)))
    assert Parameters.from_bytes(parameters.to_bytes()) == parameters
    assert Parameters.from_bytes(Parameters(0, 1).to_bytes()).data == b""


def test_put_blocks_at_the_limit_until_something_is_taken():
    channel = LocalExperienceChannel(2)
    third = threading.Event()

    def fill():
        for number in range(3):
            channel.put(make_batch(number))
        third.set()

    thread = threading.Thread(target=fill)
    thread.start()
    assert not third.wait(0.3)
    assert channel.depth == 2
    assert channel.get(1.0).experience.rewards[0, 0] == 0
    assert third.wait(5.0)
    thread.join()
    assert [channel.get(1.0).experience.rewards[0, 0] for _ in range(2)] == [1, 2]
    assert channel.get(0.01) is None


def test_close_releases_a_blocked_put():
    channel = LocalExperienceChannel(1)
    channel.put(make_batch(0))
    raised = threading.Event()

    def block():
        with pytest.raises(StopRequested):
            channel.put(make_batch(1))
        raised.set()

    thread = threading.Thread(target=block)
    thread.start()
    channel.close()
    thread.join(5.0)
    assert raised.is_set()


def test_latest_parameters_win():
    channel = LocalParameterChannel()
    assert channel.latest() is None
    for version in (1, 2, 3):
        channel.publish(Parameters(version, 1))
    assert channel.latest().version == 3
