"""Training runs: exact counts, exact resume in the learner's thread and in processes, faults of updates and disks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import AGENTS, contents, differing, lengthened, logged, make_setup, make_spec, train

from racer.core.errors import RacerError, UsageError
from racer.distributed.inline import InlinePool
from racer.distributed.learner import LearningDiverged
from racer.distributed.processes.supervisor import ProcessPool
from racer.envs.registry import get_world
from racer.training.progress import bar_values
from racer.training.run import TrainingRun
from racer.training.saving import CheckpointSaver, resume_checkpoint


@pytest.mark.parametrize("model", AGENTS)
@pytest.mark.parametrize("stop_at", [14, 66])
def test_resumed_run_is_the_run_that_never_stopped(tmp_path: Path, model: str, stop_at: int) -> None:
    """Parameters, targets, optimizer, replay and cursor, every random stream, environments, counters and metrics."""
    spec = make_spec(model)
    setup = make_setup(spec)
    train(spec, setup, tmp_path / "whole")
    stopped = train(spec, setup, tmp_path / "parts", stop_at=stop_at)
    assert stop_at <= stopped.step < 120
    train(spec, setup, tmp_path / "parts")
    whole, parts = contents(tmp_path / "whole", 120), contents(tmp_path / "parts", 120)
    assert any(name.startswith("collector/0/collector/env/") for name in whole)
    assert differing(whole, parts) == []
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


@pytest.mark.parametrize("model", ["SACLearner", "PPOLearner"])
def test_processes_in_lock_step_give_the_bits_of_workers_in_the_learners_thread(tmp_path: Path, model: str) -> None:
    """Whole checkpoints are equal, though the processes' run was resumed once."""
    spec = make_spec(model)
    setup = make_setup(spec, workers=2, envs=1)
    train(spec, setup, tmp_path / "inline", pool=InlinePool)
    train(spec, setup, tmp_path / "processes", pool=ProcessPool, stop_at=50)
    train(spec, setup, tmp_path / "processes", pool=ProcessPool)
    one, other = contents(tmp_path / "inline", 120), contents(tmp_path / "processes", 120)
    assert differing(one, other) == []


def test_seeds_matter_and_repeat(tmp_path: Path) -> None:
    spec = make_spec("SACLearner")
    other = dataclasses.replace(spec, seed=4)
    for name, which in (("a", spec), ("b", spec), ("c", other)):
        train(which, make_setup(which, max_steps=40, save_interval=0), tmp_path / name)
    assert differing(contents(tmp_path / "a", 40), contents(tmp_path / "b", 40)) == []
    assert contents(tmp_path / "a", 40)["agent/rng"] != contents(tmp_path / "c", 40)["agent/rng"]


def test_update_to_data_is_what_it_says(tmp_path: Path) -> None:
    spec = make_spec("DistributionalSACLearner")
    training = train(spec, make_setup(spec), tmp_path / "run")
    learner = training.service.learner
    # The first 20 transitions pay for nothing; each step of both environments after them pays for one update() call.
    assert training.step == 120
    assert learner.updates == (120 - 20) // 2
    assert len(learner.consumer.buffer) == 64
    line = logged(tmp_path / "run")[-1]
    assert line["training/gradient_steps"] == 2 * learner.updates
    assert line["training/update_to_data"] == line["training/update_to_data_target"] == 1.0
    assert {"training/return", "training/episodes", "training/collisions", "training/collision_rate"} <= set(line)


def test_on_policy_counts_and_evaluates_on_the_way(tmp_path: Path) -> None:
    spec = make_spec("PPOLearner")
    steps: list[int] = []

    def evaluate(step: int, agent: Any) -> dict[str, float]:
        steps.append(step)
        return {"evaluation/return": float(step)}

    setup = make_setup(spec, max_steps=60, eval_interval=30)
    training = train(spec, setup, tmp_path / "run", evaluate=evaluate)
    assert steps == [40, 60]
    lines = logged(tmp_path / "run")
    assert [line["evaluation/return"] for line in lines if "evaluation/return" in line] == [40.0, 60.0]
    last = [line for line in lines if "training/updates" in line][-1]
    assert (last["training/updates"], last["training/gradient_steps"]) == (3, 3 * 2 * 4)
    assert last["training/update_to_data"] == pytest.approx(24 / 60)
    assert last["training/policy_lag_max"] == 0
    assert training.service.agent.policy_params["action_high"][1] == pytest.approx(0.1)


def test_a_bar_shows_the_ratio_of_replay_and_the_divergence_of_rollouts() -> None:
    ratio, metrics = {"training/update_to_data": 0.5}, get_world("tmaze").metrics
    assert bar_values({**ratio, "training/update_to_data_target": 0.5}, metrics)["utd"] == 0.5
    assert bar_values({**ratio, "agent/kl": 0.1}, metrics)["kl"] == 0.1
    assert {"utd", "kl"}.isdisjoint(bar_values(ratio, metrics))


def test_metrics_are_logged_before_the_checkpoint_that_counts_them(tmp_path: Path, monkeypatch: Any) -> None:
    spec, order = make_spec("PPOLearner"), []
    plain = CheckpointSaver.save
    monkeypatch.setattr(
        CheckpointSaver, "save", lambda self, step, *a, **k: order.append(("save", step)) or plain(self, step, *a, **k)
    )
    monkeypatch.setattr("runs.MetricsLogger.log", lambda self, step, values: order.append(("log", step)))
    train(spec, make_setup(spec, max_steps=40, log_interval=20, save_interval=20), tmp_path / "run")
    assert order == [("log", 20), ("save", 20), ("log", 40), ("save", 40), ("save", 40)]


@pytest.mark.parametrize("model", ["SACLearner", "PPOLearner"])
def test_nonfinite_updates_stop_the_run_and_leave_the_checkpoint_before(tmp_path: Path, model: str) -> None:
    spec = make_spec(model)
    setup = make_setup(spec, max_steps=60)
    train(spec, setup, tmp_path / "run")
    longer = TrainingRun(spec, lengthened(setup, 240), resume_checkpoint(tmp_path / "run", spec))
    before = longer.service.agent.policy_params
    accept = longer.service.consumer.accept

    def poisoned(batch: Any, version: int) -> int:
        count = accept(batch, version)
        if model == "PPOLearner":
            batch.experience.rewards[:] = np.nan
        else:
            longer.service.consumer.buffer._arrays["rewards"][:] = np.nan
        return count

    longer.service.consumer.accept = poisoned  # type: ignore[method-assign]
    with pytest.raises(LearningDiverged, match="3 updates in a row"):
        longer.service.run(240)
    for name, value in longer.service.agent.policy_params.items():
        assert np.isfinite(value).all()
        if model == "PPOLearner":
            np.testing.assert_array_equal(value, before[name])


def test_a_checkpoint_of_other_networks_or_an_earlier_loop_is_refused(tmp_path: Path) -> None:
    spec = make_spec("SACLearner")
    train(spec, make_setup(spec, max_steps=40), tmp_path / "run")
    with pytest.raises(UsageError, match="agent_config"):
        resume_checkpoint(tmp_path / "run", make_spec("SACLearner", actor_hidden_dims=(32,)))
    with pytest.raises(UsageError, match="env_config"):
        resume_checkpoint(tmp_path / "run", make_spec("SACLearner", env={"vehicles_count": 2}))
    wide = make_spec("SACLearner", actor_hidden_dims=(32,))
    with pytest.raises(UsageError, match="does not fit"):
        TrainingRun(wide, make_setup(wide), resume_checkpoint(tmp_path / "run", spec))


def test_indivisible_rollouts_are_refused_before_anything_starts() -> None:
    spec = make_spec("PPOLearner")
    with pytest.raises(UsageError, match=r"10 steps x 3 environments"):
        TrainingRun(spec, make_setup(spec, envs=3))


def test_rollouts_decide_batches_and_queue() -> None:
    spec = make_spec("PPOLearner")
    config = TrainingRun(spec, make_setup(spec, workers=2)).service.config
    assert (config.worker_steps_per_iteration, config.max_queue_size, config.credits) == (10, 2, 1)


def test_a_full_disk_is_survived_until_the_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec("PPOLearner")
    training = train(spec, make_setup(spec, max_steps=20), tmp_path)
    saver = CheckpointSaver(tmp_path, spec, keep=2, max_failures=3)

    def save(**kwargs: Any) -> Path | None:
        return saver.save(40, training.service.agent, {}, {}, **kwargs)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("racer.core.checkpoint._write_durably", full)
    assert save() is None
    assert save() is None
    with pytest.raises(RacerError, match="3 times in a row"):
        save()
    saver = CheckpointSaver(tmp_path, spec, keep=2)
    with pytest.raises(RacerError, match="at the end of the run"):
        save(final=True)
    assert resume_checkpoint(tmp_path, spec).step == 20
