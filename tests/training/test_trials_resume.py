"""A run of trial mode with a memory: stopped and resumed, with worker processes, and looked into step by step."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from runs import contents, differing, logged, make_setup, train

from racer.__main__ import main
from racer.core.errors import UsageError
from racer.distributed.inline import InlinePool
from racer.distributed.processes.supervisor import ProcessPool
from racer.evaluation.checkpoints import load_policy
from racer.evaluation.inspect import trace
from racer.training.run import TrainingRun
from racer.training.run_spec import RunSpec, spec_from_config

MEMORIES = {
    "gru": {"kind": "gru", "size": 6},
    "transformer": {"kind": "transformer", "embed": 8, "layers": 1, "heads": 2, "length": 20},
}
# A rollout is longer than a trial and no multiple of an episode, so that memories are carried over both.
ENV = {"k_scenarios": 3, "scenario_length": 9, "policy_frequency": 1, "fill_window": False}
STEPS = 240


def make_trials(memory: str) -> RunSpec:
    agent = {"hidden_dims": (8,), "rollout_length": 20, "num_epochs": 1, "num_minibatches": 1}
    given = {"model_cls": "PPOLearner", "world": "trials", "env": ENV, **agent, "memory": MEMORIES[memory]}
    return spec_from_config(given, 3)


@pytest.fixture(scope="module", params=MEMORIES)
def whole(request, tmp_path_factory) -> tuple[RunSpec, Path]:
    """A run with two workers' environments that never stopped."""
    spec, folder = make_trials(request.param), tmp_path_factory.mktemp(request.param)
    train(spec, make_setup(spec, workers=2, envs=2, max_steps=STEPS, save_interval=80), folder, pool=InlinePool)
    return spec, folder


@pytest.mark.parametrize("pool", [InlinePool, ProcessPool])
def test_a_resumed_run_with_a_memory_is_the_run_that_never_stopped(whole, pool, tmp_path):
    """Every byte: the memory in the middle of an episode, the trial it is in, parameters, random streams."""
    spec, folder = whole
    setup = make_setup(spec, workers=2, envs=2, max_steps=STEPS, save_interval=80)
    stopped = train(spec, setup, tmp_path / "parts", stop_at=100, pool=pool)
    assert 100 <= stopped.step < STEPS
    kept = contents(tmp_path / "parts", stopped.step)
    memories = [name for name in kept if "/memory/" in name and name.startswith("collector")]
    assert memories
    assert any(np.frombuffer(kept[name], np.float32).any() for name in memories)
    train(spec, setup, tmp_path / "parts", pool=pool)
    assert differing(contents(folder, STEPS), contents(tmp_path / "parts", STEPS)) == []
    # Processes log their restarts too.
    assert pool is ProcessPool or logged(folder) == logged(tmp_path / "parts")


def test_a_trace_tells_trials_memory_and_value(whole, tmp_path):
    spec, folder = whole
    output = tmp_path / "trace.jsonl"
    assert main(["inspect", str(folder), "--seed", "10001", "--env.fill_window=True", f"--output={output}"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["tick"] for row in rows] == list(range(len(rows)))
    ends = [row for row in rows if row["truncation"]]
    assert [row["trial"] for row in ends] == [0, 1, 2]
    assert [row["terminal"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[0]["memory_norm"] == 0.0
    # A trial's end leaves the memory alone.
    assert all(row["memory_norm"] > 0.0 for row in rows[1:])
    assert np.ptp([row["value"] for row in rows]) > 0.0
    if "transformer" in str(spec.agent_config["memory"]):
        assert [row["cache_position"] for row in rows] == list(range(len(rows)))
        assert [row["masked_slots"] for row in rows] == [max(20 - t, 0) for t in range(len(rows))]
    else:
        assert {row["cache_position"] for row in rows} == {None}


def test_a_trace_has_a_line_for_every_ego(whole, tmp_path):
    _, folder = whole
    output = tmp_path / "trace.jsonl"
    more = ["--env.egos=2", "--env.scenario_length=60", "--env.fill_window=False", "--sample", f"--output={output}"]
    assert main(["inspect", str(folder), "--seed", "10001", *more]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["tick"], row["ego"]) for row in rows] == [(t, e) for t in range(len(rows) // 2) for e in range(2)]
    assert all(row["terminal"] for row in rows[-2:])
    assert any(row["removed"] for row in rows)
    for ego in range(2):
        own = rows[ego::2]
        for row, following in itertools.pairwise(own):
            # Limbo is not remembered, and ends no trial for its ego.
            if row["removed"]:
                assert not row["truncation"]
                assert following["memory_norm"] == row["memory_norm"]
                assert row["reward"] == 0.0
    assert [row["value"] for row in rows[:1]] != [row["value"] for row in rows[1:2]]


def test_the_value_in_a_trace_is_the_one_that_training_unrolls(whole):
    """Step by step with the acting policy's memory, as the update computes whole sequences, to 1e-4."""
    spec, folder = whole
    trained = load_policy(folder)
    rows = list(trace(trained, trained.env_config, 10_002))
    agent = train(spec, make_setup(spec, workers=2, envs=2, max_steps=STEPS), folder, pool=InlinePool).service.agent
    policy, state = agent.policy, agent.state
    env = trained.world.make(trained.env_config, 1)
    seen = [env.reset(seed=10_002)[0]]
    seen += [env.step(np.array([row["action"]]))[0] for row in rows[:-1]]
    env.close()
    flags = np.zeros((len(rows), 1), np.float32)
    viewed = np.stack([policy.viewed(policy.shaped(o)) for o in seen])
    _, features, _ = policy.unroll(state.actor.params, viewed, policy.initial_memory(1), flags, 1.0 + flags)
    values = state.value_scale.raw(agent.static.evaluate(state.critic.params, features, viewed)[..., 0])
    np.testing.assert_allclose(np.asarray(values)[:, 0], [row["value"] for row in rows], atol=1e-4)


def test_an_agent_without_a_memory_is_refused_and_a_useless_one_warned_of(caplog):
    plain = {**make_trials("gru").agent_config, "memory": None}

    def begin(agent, **env):
        given = {"model_cls": "PPOLearner", "world": "trials", "env": {**ENV, **env}, **agent}
        spec = spec_from_config(given, 3)
        TrainingRun(spec, make_setup(spec))

    with pytest.raises(UsageError, match=r"has no memory, which trials needs: --config\.memory=gru"):
        begin(plain)
    begin(plain, without_memory=True)
    begin(plain, show_arm=True)
    begin(make_trials("gru").agent_config)
    assert not caplog.records
    begin(make_trials("gru").agent_config, k_scenarios=1)
    assert [record.getMessage() for record in caplog.records] == [
        "the memory of PPOLearner is of no use in trials: episodes of one trial (k_scenarios = 1) leave nothing to be "
        "carried to a next one"
    ]
    caplog.clear()
    window = 4 * 10
    for length in (window, window - 1):
        memory = {"kind": "transformer", "embed": 8, "layers": 1, "length": length}
        begin({**plain, "memory": memory}, k_scenarios=4, scenario_length=10)
    assert [record.getMessage() for record in caplog.records] == [
        'the memory of PPOLearner holds 39 steps, an episode of trials asks for 40: set its "length"'
    ]


def test_a_trace_of_an_exported_policy_knows_no_values(tmp_path):
    output = tmp_path / "trace.jsonl"
    words = ["--env.k_scenarios=2", "--env.scenario_length=10", f"--output={output}"]
    assert main(["inspect", "policies/trials-hidden-lane", *words]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["trial"] for row in rows if row["truncation"]] == [0, 1]
    assert all(row["value"] is None for row in rows)
    assert all(row["memory_norm"] > 0.0 for row in rows[1:])


def test_a_driver_has_nothing_to_look_into(capsys):
    assert main(["inspect", "driver:trials/oracle"]) == 2
    assert "neither memory nor value" in capsys.readouterr().err
    with pytest.raises(UsageError, match="policy_frequency"):
        spec_from_config({"model_cls": "PPOLearner", "world": "trials", "env": {"policy_frequency": 2}}, 0)
