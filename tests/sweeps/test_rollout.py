"""Collecting inside jit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.envs.registry import get_world
from racer.envs.world import Functional
from racer.networks.policy import Policy
from racer.networks.torso import build_torso
from racer.sweeps.rollout import begin, collect

WORLD = get_world("tmaze")
STEPS, ENVS = 40, 5


@pytest.fixture(scope="module")
def functional() -> Functional:
    assert WORLD.functional is not None
    return WORLD.functional(WORLD.resolve({"length": 1, "max_episode_steps": 7}))


@pytest.fixture(scope="module", params=["gru", {"kind": "transformer", "embed": 8, "heads": 2, "length": 8}, None])
def rollouts(request: pytest.FixtureRequest, functional: Functional) -> Any:
    """Two rollouts, one after the other, and what made them."""
    torso = build_torso((4,), {"hidden_dims": [8], "activation": "tanh", "memory": request.param})
    policy = Policy(kind="categorical", observation_shape=(4,), torso=torso, size=4)
    params = policy.init(jax.random.key(1))

    @jax.jit
    def run(params: Any) -> Any:
        first = begin(functional, policy, ENVS, jax.random.key(2))
        second, early, counted = collect(functional, policy, params, first, jax.random.key(3), STEPS)
        last, late, _ = collect(functional, policy, params, second, jax.random.key(4), STEPS)
        return (first, second, last), (early, late), counted

    return policy, params, run(params)


def test_rollouts_join_and_count(rollouts: Any) -> None:
    _, _, ((first, second, last), (early, late), counted) = rollouts
    for scene, rollout, after in ((first, early, second), (second, late, last)):
        assert rollout["observations"].shape == (STEPS + 1, ENVS, 4)
        np.testing.assert_array_equal(rollout["observations"][0], scene.observations)
        np.testing.assert_array_equal(rollout["observations"][-1], after.observations)
        for name, value in scene.memory.items():
            np.testing.assert_array_equal(rollout[f"memory/{name}"], value)
    turned = (1.0 - early["bootstrap"]).sum()
    assert turned > 0
    assert early["cut"].sum() > turned  # some ran into the limit
    np.testing.assert_array_equal(early["cut"], early["forget"])
    assert counted.ended == early["cut"].sum()
    assert counted.sums["return"] == pytest.approx(float(early["rewards"].sum()), rel=1e-5)
    assert counted.sums["success"] == (early["rewards"] > 1).sum()
    assert counted.sums["wrong_turn"] == (early["rewards"] < 0).sum()


def test_final_observations_are_the_successors(rollouts: Any) -> None:
    _, _, (_, (rollout, _), _) = rollouts
    ended = np.argwhere(np.asarray(rollout["cut"]) > 0)
    inside = np.asarray(rollout["final_index"][:, 0]) < STEPS
    np.testing.assert_array_equal(rollout["final_index"][inside], ended)
    finals = np.asarray(rollout["final_observations"])[inside]
    turned = np.asarray(rollout["bootstrap"])[tuple(ended.T)] == 0
    np.testing.assert_array_equal(finals[turned], np.tile([0, 0, 0, 1], (turned.sum(), 1)))
    assert not finals[~turned][:, 3].any()
    successors = np.asarray(rollout["observations"][1:]).copy()
    assert not (successors[tuple(ended[turned].T)] == finals[turned]).all()


def test_training_reads_what_acting_wrote(rollouts: Any) -> None:
    """Unrolled over a rollout with several episodes in a row, the policy gives the log-probabilities it acted with."""
    policy, params, (_, both, _) = rollouts
    for rollout in both:
        memory = {name.removeprefix("memory/"): v for name, v in rollout.items() if name.startswith("memory/")}
        parameters, _, _ = policy.unroll(
            params, rollout["observations"][:-1], memory, rollout["forget"], rollout["valid"]
        )
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(parameters["logits"]), rollout["actions"][..., None], -1)
        np.testing.assert_allclose(log_probs[..., 0], rollout["log_probs"], atol=1e-5)
