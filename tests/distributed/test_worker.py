"""The worker's loop without a process: what it acts with, what it sends, when it stops."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from service_kit import make_task
from toy_envs import StatefulVectorEnv, toy_vector

from racer.distributed.pool import Parameters, WorkerHistory
from racer.distributed.processes.links import StopRequested
from racer.distributed.processes.worker import WorkerLoop, WorkerStart
from racer.distributed.worker import WorkerTask, worker_streams
from racer.networks.uniform import UniformPolicy

PARAMS = {"w": np.ones(3, np.float32)}


class ScriptedLink:
    """Hands out the given parameters one by one and stops after ``batches``."""

    def __init__(self, parameters, batches):
        self.script, self.current, self.limit = list(parameters), None, batches
        self.sent, self.log = [], []

    def wait_for_room(self):
        self.log.append("room")

    def put(self, batch):
        self.sent.append(batch)
        self.log.append("put")
        if len(self.sent) == self.limit:
            raise StopRequested("enough")

    def latest(self):
        return self.current

    def ready(self):
        self.log.append("ready")

    def beat(self):
        self.log.append("beat")

    def wait(self, timeout):
        if not self.script:
            raise StopRequested("nothing more comes")
        self.current = self.script.pop(0)


def run(link, *, lock_step=False, history=None, **changes):
    factory = functools.partial(toy_vector, 2, vector=StatefulVectorEnv)
    pool = make_task(factory, worker_steps_per_iteration=5, seed=4, deterministic=lock_step, **changes)
    task = WorkerTask(pool, worker=1, history=history or WorkerHistory(incarnation=2))
    with pytest.raises(StopRequested):
        WorkerLoop(WorkerStart(task), link).run()
    return link.sent


def test_batches_carry_who_made_them_and_with_what():
    link = ScriptedLink([Parameters(0)], batches=2)
    first, second = run(link)
    assert (first.worker, first.incarnation, first.policy_version, first.round) == (1, 2, 0, 0)
    assert first.state == {}
    assert first.experience.observations.shape == (6, 2, 4)
    assert (np.abs(first.experience.actions) <= 1).all()
    assert len(np.unique(first.experience.actions)) == 10
    assert not (first.experience.actions == second.experience.actions).any()
    # Ready is told once, after the first step; a sign of life before every step.
    # Room is awaited before a collection begins, so that it begins with the newest parameters.
    assert link.log == ["room", "beat", "ready", *["beat"] * 4, "put", "room", *["beat"] * 5, "put"]


def test_warm_up_acts_with_its_own_policy_and_then_no_more():
    link = ScriptedLink([Parameters(0)], batches=2)
    plain = link.put

    def put(batch):
        link.current = Parameters(1, 0, PARAMS)
        plain(batch)

    link.put = put
    first, second = run(link, warmup=UniformPolicy((0.5,), (0.6,)))
    assert (first.experience.actions >= 0.5).all()
    assert (first.experience.actions <= 0.6).all()
    assert (second.experience.actions < 0.5).any()


def test_version_of_the_parameters_that_acted():
    assert [b.policy_version for b in run(ScriptedLink([Parameters(8, 0, PARAMS)], batches=2))] == [8, 8]


def test_lock_step_collects_once_a_round_and_skips_rounds_that_are_done():
    rounds = [Parameters(1, number, PARAMS) for number in (4, 5, 5, 6)]
    link = ScriptedLink(rounds, batches=3)
    sent = run(link, lock_step=True, history=WorkerHistory(0, 4))
    assert [batch.round for batch in sent] == [5, 6]


def test_lock_step_successor_repeats_the_round_exactly():
    rounds = [Parameters(number, number, PARAMS) for number in (1, 2, 3)]
    whole = run(ScriptedLink(rounds, batches=3), lock_step=True)
    state = whole[1].state
    assert state
    redone = run(ScriptedLink(rounds[2:], batches=1), lock_step=True, history=WorkerHistory(9, 2, state))
    for name in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(getattr(redone[0].experience, name), getattr(whole[2].experience, name))
    assert redone[0].experience.episodes == whole[2].experience.episodes


def test_streams_differ_between_workers_and_incarnations():
    seen = set()
    for seed in range(2):
        for worker in range(3):
            for stream in range(3):
                env_seed, rng = worker_streams(seed, worker, stream)
                assert 0 <= env_seed < 2**31
                seen.add((env_seed, rng.random()))
                again_seed, again = worker_streams(seed, worker, stream)
                assert (again_seed, again.random()) in seen
    assert len(seen) == 18
    assert len({env_seed for env_seed, _ in seen}) == 18
