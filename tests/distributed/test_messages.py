"""Messages: exact both ways, and only what fits what the worker was told is believed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from batches import make_batch
from service_kit import make_task

from racer.distributed.pool import Parameters
from racer.distributed.processes.frames import BrokenFrame, encode_arrays
from racer.distributed.processes.messages import (
    batch_from_bytes,
    batch_to_bytes,
    check_batch,
    parameters_from_bytes,
    parameters_to_bytes,
)


def test_a_batch_survives_its_message():
    batch = make_batch(7)
    got = batch_from_bytes(batch_to_bytes(batch))
    assert (got.worker, got.incarnation, got.policy_version, got.round) == (0, 3, 1, 6)
    assert got.experience.episodes == batch.experience.episodes
    assert got.experience.nonfinite == 2
    for name, value in vars(batch.experience).items():
        for key, array in value.items() if isinstance(value, dict) else [(None, value)]:
            if isinstance(array, np.ndarray):
                received = getattr(got.experience, name)
                np.testing.assert_array_equal(received if key is None else received[key], array)
    np.testing.assert_array_equal(got.state["rng"], batch.state["rng"])


def test_parameters_survive_their_message():
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    got = parameters_from_bytes(parameters_to_bytes(Parameters(9, 5, arrays)))
    assert (got.version, got.round) == (9, 5)
    np.testing.assert_array_equal(got.arrays["w"], arrays["w"])
    assert parameters_from_bytes(parameters_to_bytes(Parameters(0))) == Parameters(0)


def change(**fields):
    batch = make_batch(1)
    return dataclasses.replace(batch, experience=dataclasses.replace(batch.experience, **fields))


def test_what_fits_is_believed():
    check_batch(make_batch(1), make_task(worker_steps_per_iteration=2))


@pytest.mark.parametrize(
    "batch",
    [
        make_batch(1, steps=3),
        change(observations=np.zeros((3, 3, 5), np.float32)),
        change(observations=np.zeros((2, 3, 4), np.float32)),
        change(observations=np.zeros((3, 3, 4), np.float64)),
        change(rewards=np.zeros(6, np.float32)),
        change(valid=np.zeros((2, 3), np.float32)),
        change(actions=np.zeros((2, 2, 1), np.float32)),
        change(final_index=np.array([[2, 0]], np.int32)),
        change(final_index=np.array([[-1, 0]], np.int32)),
        change(final_index=np.zeros((0, 2), np.int32)),
        change(extras={"log_probs": np.zeros(3, np.float32)}),
        change(memory={"core": np.zeros((2, 2), np.float32)}),
    ],
)
def test_what_does_not_fit_is_a_broken_frame(batch):
    with pytest.raises(BrokenFrame):
        check_batch(batch_from_bytes(batch_to_bytes(batch)), make_task(worker_steps_per_iteration=2))


@pytest.mark.parametrize(
    "header",
    [{}, {"ids": 3}, {"ids": [1, 2], "episodes": [], "nonfinite": 0},
     {"ids": [0, 0, 0, 0], "episodes": [7], "nonfinite": 0}, {"ids": [0, 0, 0, 0], "episodes": None, "nonfinite": 0},
     {"ids": [0, 0, 0, 0], "episodes": [], "nonfinite": "x"}],
)  # fmt: skip
def test_a_malformed_header_is_a_broken_frame(header):
    experience = make_batch(1).experience
    names = ("observations", "actions", "rewards", "bootstrap", "cut", "forget", "valid", "final_observations",
             "final_index")  # fmt: skip
    with pytest.raises(BrokenFrame):
        batch_from_bytes(encode_arrays(header, {name: getattr(experience, name) for name in names}))
    with pytest.raises(BrokenFrame):
        batch_from_bytes(encode_arrays({"ids": [0] * 4, "episodes": [], "nonfinite": 0}, {}))
