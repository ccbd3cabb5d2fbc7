"""Which run the flags and files describe: options by agent, specifications, and runs of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from absl import flags
from runs import make_spec

from racer.core.checkpoint import Checkpoint
from racer.core.errors import UsageError
from racer.distributed.config import BackendConfig, OffPolicyConfig, RolloutConfig, ServiceConfig
from racer.training.options import (
    ManyProcesses,
    Options,
    Schedule,
    SingleProcess,
    define_dataclass_flags,
    single_process,
    worker_processes,
)
from racer.training.past import check_layout, upgraded_agent_config
from racer.training.run_spec import read_run, spec_from_config, wants_rollouts, write_run

ALL = (Schedule, SingleProcess, ManyProcesses, ServiceConfig, BackendConfig, OffPolicyConfig, RolloutConfig)


def parsed(*words: str) -> flags.FlagValues:
    values = flags.FlagValues()
    define_dataclass_flags(SingleProcess, values, num_envs=None)
    for cls in ALL:
        define_dataclass_flags(cls, values)
    values(["program", *words])
    return values


def test_one_process_is_lock_step_with_one_worker() -> None:
    spec = make_spec("SACLearner", seed=7)
    setup = single_process(Options(parsed("--num_envs=6", "--utd_ratio=4"), {}), spec)
    assert setup.inline
    assert (setup.service.num_workers, setup.service.deterministic, setup.service.seed) == (1, True, 7)
    assert setup.service.worker_steps_per_iteration == 1
    assert (setup.learning.experience_batch_size, setup.learning.learner_update_ratio) == (6, 1)
    assert setup.learning.update_to_data == 4 / 6


def test_the_agent_decides_defaults_and_which_flags_mean_anything() -> None:
    assert wants_rollouts("PPOLearner")
    assert not wants_rollouts("SACLearner")
    ppo, sac = make_spec("PPOLearner"), make_spec("SACLearner")
    assert single_process(Options(parsed(), {}), ppo).envs_per_worker == 16
    assert single_process(Options(parsed(), {}), sac).envs_per_worker == 8
    for make, spec, word in (
        (single_process, ppo, "--utd_ratio=4"),
        (single_process, sac, "--max_policy_lag=2"),
        (single_process, sac, "--num_workers=2"),
        (worker_processes, ppo, "--max_queue_size=4"),
        (worker_processes, ppo, "--worker_steps_per_iteration=4"),
    ):
        options = Options(parsed(word), {})
        make(options, spec)
        with pytest.raises(UsageError, match=f"{word.split('=')[0]} has no meaning for {spec.agent_name}"):
            options.refuse_others(spec.agent_name, ALL)


def test_stored_options_stand_in_for_flags_that_were_not_given() -> None:
    options = Options(parsed("--num_workers=3"), {"num_workers": 2, "envs_per_worker": 5})
    setup = worker_processes(options, make_spec("SACLearner"))
    assert (setup.service.num_workers, setup.envs_per_worker) == (3, 5)
    assert options.read["envs_per_worker"] == 5


def test_the_queue_grows_with_the_workers_where_nobody_says_its_size() -> None:
    spec = make_spec("SACLearner")
    for words, stored, size in (
        (["--num_workers=2"], {}, 16),
        (["--num_workers=64"], {}, 128),
        (["--num_workers=64", "--max_queue_size=64"], {}, 64),
        (["--num_workers=64"], {"num_workers": 2, "max_queue_size": 16}, 128),
        ([], {"num_workers": 64, "max_queue_size": 128}, 128),
    ):
        assert worker_processes(Options(parsed(*words), stored), spec).service.max_queue_size == size
    with pytest.raises(UsageError, match="less than one batch for each of 64 workers"):
        worker_processes(Options(parsed("--num_workers=64", "--max_queue_size=16"), {}), spec)


def test_flags_of_a_cluster_that_contradict_each_other() -> None:
    spec, ray = make_spec("SACLearner"), "--backend=ray"
    assert worker_processes(Options(parsed(ray, "--min_workers=2"), {}), spec).backend.min_workers == 2
    for words, message in (
        (["--min_workers=1"], "needs --backend ray"),
        (["--ray_address=auto"], "needs --backend ray"),
        ([ray, "--min_workers=3"], "exceeds 'num_workers'"),
        ([ray, "--min_workers=1", "--deterministic"], "every round needs all workers"),
        ([ray, "--worker_cpus=0"], "worker_cpus"),
        (["--backend=rey"], "did you mean 'ray'"),
    ):
        with pytest.raises(UsageError, match=message):
            worker_processes(Options(parsed(*words), {}), spec)
    # A run that was begun on a cluster goes on without one.
    stored = {"backend": "ray", "ray_address": "auto", "min_workers": 1}
    assert worker_processes(Options(parsed("--backend=local"), stored), spec).backend.backend == "local"


def test_run_file_round_trip(tmp_path: Path) -> None:
    spec = make_spec("SACLearner")
    write_run(tmp_path, spec, {"program": "x"})
    again, options = read_run(tmp_path)
    assert again == spec
    assert options == {"program": "x"}
    document = json.loads((tmp_path / "run.json").read_text())
    del document["world"]
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert read_run(tmp_path)[0] == spec


@pytest.mark.parametrize(
    "change", [{"env_config": None}, {"agent_name": 3}, {"seed": "1"}, {"world": 5}, {"options": []}]
)
def test_a_malformed_run_file_is_refused(tmp_path: Path, change: dict) -> None:
    write_run(tmp_path, make_spec("SACLearner"), {})
    document = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(UsageError, match="does not describe a run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_cls": "DistributionalSACLerner"}, "DistributionalSACLearner"),
        ({"model_cls": ["SACLearner"]}, "model_cls"),
        ({"model_cls": "SACLearner", "discont": 0.5}, "discount"),
        ({"model_cls": "SACLearner", "discount": 1.5}, "discount"),
        ({"model_cls": "DistributionalSACLearner", "cvar_risk": 1.5}, "cvar_risk"),
        ({"model_cls": "SACLearner", "tau": -0.1}, "tau"),
        ({"model_cls": "SACLearner", "env": {"lane_count": 3}}, "lanes_count"),
        ({"model_cls": "SACLearner", "env": "x"}, "env"),
        ({"model_cls": "SACLearner", "world": "highwy"}, "highway"),
        ({"model_cls": "SACLearner", "world": 3}, "world"),
        ([], "keys and values"),
        ({}, "model_cls"),
    ],
)
def test_wrong_config_is_named(config: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        spec_from_config(config, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "changes"),
    [(OffPolicyConfig, {"batch_size": 300_000}), (OffPolicyConfig, {"utd_ratio": 0}), (Schedule, {"max_steps": 0}),
     (SingleProcess, {"num_envs": 0})],
)  # fmt: skip
def test_wrong_options_are_named(cls: type, changes: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        cls(**changes)


def test_warm_up_must_end_before_the_run() -> None:
    with pytest.raises(UsageError, match="start_training"):
        single_process(Options(parsed("--start_training=500", "--max_steps=500"), {}), make_spec("SACLearner"))


def test_an_earlier_encoder_is_named_as_today() -> None:
    past = {"pointnet_dims": [128], "vehicle_features": 6, "discount": 0.9}
    assert upgraded_agent_config(past) == {"discount": 0.9, "encoder": {"kind": "pointnet", "widths": [128]}}
    assert upgraded_agent_config({"pointnet_dims": []}) == {"encoder": "flat"}
    now = {"encoder": "flat", "discount": 0.9}
    assert upgraded_agent_config(now) == now


def test_a_checkpoint_of_an_earlier_loop_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"earlier version of the training loop.*--start_from"):
        check_layout(Checkpoint(tmp_path, 5, {}, {"counters": {}}))
