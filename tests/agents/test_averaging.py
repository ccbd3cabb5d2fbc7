"""The mean of the actor's weights, which acts and is saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from racer.agents.registry import agent_settings, fitted_settings
from racer.core.errors import UsageError

Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("quick_compilation")

BOTH = pytest.mark.parametrize("name", ["SACLearner", "DistributionalSACLearner"])


def weights(agent: Any, part: str) -> dict[str, np.ndarray]:
    """Return the actor's arrays under ``part`` in float64."""
    head = f"actor/{part}/"
    arrays = agent.state_arrays().items()
    return {name.removeprefix(head): np.asarray(x, np.float64) for name, x in arrays if name.startswith(head)}


def published(agent: Any) -> dict[str, np.ndarray]:
    """Return the parameters that workers and checkpoints get, without the action range."""
    return {name: x for name, x in agent.policy_params.items() if not name.startswith("action_")}


@BOTH
def test_the_published_policy_is_the_mean_since_the_mean_began(name: str, make_agent: Make, make_batch: Make) -> None:
    agent = make_agent(name, average_actor=True, average_begin=4)
    seen = []
    for seed in range(6):
        agent, _ = agent.update(make_batch(seed), 2)
        seen.append(weights(agent, "params"))
        # Updates end at 2, 4, 6, ... gradient steps: those past the fourth count.
        counted = seen[2:] or seen[-1:]
        assert published(agent).keys() == seen[0].keys()
        for key, value in published(agent).items():
            expected = np.mean([actor[key] for actor in (counted if seed >= 2 else seen[-1:])], axis=0)
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7, err_msg=key)
    assert any(np.abs(x - seen[-1][key]).max() > 1e-5 for key, x in published(agent).items()), "the mean is the actor"


@BOTH
def test_training_does_not_know_of_the_mean(name: str, make_agent: Make, make_batch: Make) -> None:
    plain, averaged = make_agent(name), make_agent(name, average_actor=True, average_begin=2)
    for seed in range(4):
        plain, averaged = (agent.update(make_batch(seed), 2)[0] for agent in (plain, averaged))
    found = averaged.state_arrays()
    for key, value in plain.state_arrays().items():
        np.testing.assert_array_equal(value, found[key], err_msg=key)


@BOTH
def test_acting_reads_the_mean(name: str, make_agent: Make, make_batch: Make) -> None:
    agent = make_agent(name, average_actor=True, average_begin=0)
    for seed in range(4):
        agent, _ = agent.update(make_batch(seed), 2)
    observations = make_batch()["observations"]
    arrays = agent.state_arrays()
    means = {key: arrays[key.replace("/params/", "/average/", 1)] for key in arrays if key.startswith("actor/params/")}
    other = agent.with_state_arrays({**arrays, **means})
    np.testing.assert_array_equal(agent.eval_actions(observations), other.eval_actions(observations))
    actor = agent.with_state_arrays(
        {key: arrays[key.replace("/average/", "/params/", 1)] for key in arrays}  # the mean is the actor's last weights
    )
    assert not np.array_equal(agent.eval_actions(observations), actor.eval_actions(observations))


def test_a_mean_begins_at_the_weights_of_a_run_that_kept_none(make_agent: Make, make_batch: Make) -> None:
    taught, _ = make_agent("SACLearner").update(make_batch(), 2)
    fresh = make_agent("SACLearner", average_actor=True, average_begin=0).with_components(taught.state_arrays())
    for key, value in weights(taught, "params").items():
        np.testing.assert_array_equal(weights(fresh, "average")[key], value)


def test_a_run_without_a_mean_begins_where_one_with_a_mean_drove(make_agent: Make, make_batch: Make) -> None:
    taught = make_agent("SACLearner", average_actor=True, average_begin=0)
    for seed in range(3):
        taught, _ = taught.update(make_batch(seed), 2)
    fresh = make_agent("SACLearner").with_components(taught.state_arrays())
    observations = make_batch()["observations"]
    np.testing.assert_array_equal(fresh.eval_actions(observations), taught.eval_actions(observations))


def test_programs_fit_the_mean_to_the_length_of_the_run() -> None:
    found = fitted_settings("SACLearner", agent_settings("SACLearner", {}), 1000, 500)
    assert found["average_begin"] == 400


def test_a_mean_without_a_beginning_is_refused(make_agent: Make) -> None:
    with pytest.raises(UsageError, match="average_begin must be a number"):
        make_agent("SACLearner", average_actor=True)
