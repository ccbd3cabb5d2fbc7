"""PPO with a memory: the update sees what acting saw, masks hold, whole sequences are shuffled, tiny problems."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest
from ppo_problems import ACTIONS, ENVS, STEPS, Actor, Recall, make_agent, random_rollout

from racer.agents.ppo_update import prepare
from racer.core.errors import UsageError

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHOICES = gym.spaces.Discrete(2)
MEMORIES: dict[str, Any] = {
    "none": None,
    "gru": {"kind": "gru", "size": 16},
    "transformer": {"kind": "transformer", "embed": 8, "layers": 1, "heads": 2, "length": 6},
}


def remembering(memory: str, space: gym.Space = CHOICES, **config: Any) -> Any:
    return make_agent(0, space, **{"memory": MEMORIES[memory], "num_minibatches": 2, "target_kl": None, **config})


def prepared(agent: Any, rollout: dict[str, np.ndarray]) -> Any:
    """What the losses are given of a rollout."""
    compute = jax.jit(partial(prepare, agent.static))
    return compute(agent.hyper, agent.state, agent.checked(rollout, 1))[0]


def state_of(agent: Any) -> dict[str, np.ndarray]:
    return agent.state_arrays()


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("distribution", ["tanh_gaussian", "beta", "categorical"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_before_the_first_update_every_ratio_is_one(memory: str, distribution: str) -> None:
    space = CHOICES if distribution == "categorical" else ACTIONS
    agent = remembering(memory, space, distribution=distribution)
    rollout = random_rollout(agent, invalid=0.1)
    rows = prepared(agent, rollout)

    @jax.jit
    def recomputed(actor: Any, critic: Any, rows: Any) -> jax.Array:
        distribution, _ = agent.static.forward(actor, critic, rows)
        return agent.policy.head.log_probs(distribution, rows.draws, agent.static.bounds)

    again = recomputed(agent.state.actor.params, agent.state.critic.params, rows)
    valid = np.asarray(rows.valid) > 0
    assert 0 < valid.sum() < valid.size
    for found in (rows.initial_log_probs, again):
        np.testing.assert_allclose(np.exp(found - rows.behaviour_log_probs)[valid], 1.0, atol=1e-4)


@pytest.mark.parametrize("memory", ["gru", "transformer"])
def test_rows_that_are_no_transitions_teach_nothing(memory: str) -> None:
    agent, other = remembering(memory, value_heads=2, ld_weight=0.5), remembering(memory, value_heads=2, ld_weight=0.5)
    rollout = random_rollout(agent)
    # An environment that has nothing to do at first, and one that pauses; the row before ends what went before.
    for rows in (np.s_[:5, 0], np.s_[8:11, 2]):
        rollout["valid"][rows], rollout["bootstrap"][rows], rollout["cut"][rows] = 0.0, 0.0, 1.0
    rollout["bootstrap"][7, 2], rollout["cut"][7, 2] = 0.0, 1.0
    missing = rollout["valid"] == 0.0
    rollout["forget"][missing] = 0.0
    rollout["final_index"][:, 0] = STEPS
    changed = {name: array.copy() for name, array in rollout.items()}
    changed["rewards"][missing] += 0.3
    changed["log_probs"][missing] -= 0.3
    changed["actions"][missing] = 1 - changed["actions"][missing]
    changed["observations"][:-1][missing] += 3.0
    first, info = agent.update(rollout)
    second, changed_info = other.update(changed)
    assert same(state_of(first), state_of(second))
    assert all(np.isfinite(np.asarray(value)) for value in info.values())
    assert all(np.isfinite(value).all() for value in state_of(first).values())
    assert {k: float(v) for k, v in info.items()} == {k: float(v) for k, v in changed_info.items()}
    assert int(first.state.transitions) == int(rollout["valid"].sum())


def test_minibatches_hold_whole_sequences() -> None:
    agent = remembering("gru")
    agent.check_num_envs(6)
    with pytest.raises(UsageError, match="sequences of 5 environments do not divide into num_minibatches=2"):
        agent.check_num_envs(5)
    with pytest.raises(UsageError, match="lacks: memory/hidden"):
        agent.update({name: x for name, x in random_rollout(agent).items() if not name.startswith("memory")})
    _, info = agent.update(random_rollout(agent))
    assert float(info["minibatches"]) == 4.0


def test_the_memory_at_the_first_row_counts() -> None:
    agent, other = remembering("gru"), remembering("gru")
    rollout = random_rollout(agent)
    assert np.abs(rollout["memory/hidden"]).max() > 0.01
    _, right = agent.update(rollout)
    _, wrong = other.update({**rollout, "memory/hidden": 0.0 * rollout["memory/hidden"]})
    assert float(right["lag_kl"]) < 1e-10 < float(wrong["lag_kl"])


def test_values_of_successors_look_ahead_in_their_own_episode() -> None:
    """At a time limit the successor is the final observation, remembered with the episode that it ends."""
    agent = remembering("gru", normalize_values=False, gae_lambda=0.0)
    rollout = random_rollout(agent)
    rollout["bootstrap"][:] = 1.0
    rows = prepared(agent, rollout)
    advantages = np.asarray(rows.advantages).T
    policy, params = agent.policy, agent.policy_params

    def value(observation: np.ndarray, memory: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
        features, after = policy.torso.step(params, observation, memory)
        return float(np.asarray(agent.static.values(agent.state.critic.params, features, observation))[0, 0]), after

    ends = {
        tuple(place): final
        for place, final in zip(*(rollout[f"final_{x}"] for x in ("index", "observations")), strict=True)
    }
    for n in range(ENVS):
        memory = {"hidden": rollout["memory/hidden"][n : n + 1]}
        for t in range(STEPS):
            here, after = value(rollout["observations"][t, n : n + 1], memory)
            follows = ends.get((t, n), rollout["observations"][t + 1, n])[None]
            expected = rollout["rewards"][t, n] + 0.99 * value(follows, after)[0] - here
            assert advantages[t, n] == pytest.approx(expected, abs=1e-4)
            memory = policy.initial_memory(1) if rollout["forget"][t, n] else after


def test_two_heads_learn_returns_of_two_lambdas() -> None:
    agent = remembering("none", value_heads=2, normalize_values=False, second_gae_lambda=0.3)
    alone = remembering("none", normalize_values=False, gae_lambda=0.3)
    rollout = random_rollout(agent)
    rows = prepared(agent, rollout)
    critic = dict(agent.state.critic.params)
    for name in ("value/kernel", "value/bias"):
        critic[name] = critic[name][..., 1:]
    only = alone.state._replace(actor=agent.state.actor, critic=agent.state.critic._replace(params=critic))
    expected = prepared(replace(alone, state=only), rollout)
    np.testing.assert_allclose(rows.targets[..., 1], expected.targets[..., 0], rtol=1e-5, atol=1e-6)
    assert np.abs(rows.targets[..., 0] - rows.targets[..., 1]).max() > 0.01


def test_the_lambda_discrepancy_pulls_the_heads_together() -> None:
    gaps = []
    for weight in (0.0, 1.0):
        agent = remembering("gru", value_heads=2, ld_weight=weight, entropy_coef=0.0)
        for seed in range(30):
            agent, info = agent.update(random_rollout(agent, seed))
        gaps.append(float(info["lambda_discrepancy"]))
    assert gaps[1] < 0.2 * gaps[0]


@pytest.mark.parametrize("memory", ["gru", "transformer"])
def test_state_is_exact_and_equal_seeds_train_equally(memory: str) -> None:
    agent, twin = remembering(memory), remembering(memory)
    rollout = random_rollout(agent)
    agent, twin = agent.update(rollout)[0], twin.update(rollout)[0]
    assert same(state_of(agent), state_of(twin))
    restored = make_agent(5, CHOICES, memory=MEMORIES[memory], num_minibatches=2, target_kl=None)
    restored = restored.with_state_arrays(state_of(agent))
    rollout = random_rollout(agent, 1)
    assert same(state_of(agent.update(rollout)[0]), state_of(restored.update(rollout)[0]))


@pytest.mark.parametrize(("memory", "learns"), [("gru", True), ("transformer", True), ("none", False)])
def test_a_sign_is_remembered_for_four_steps(memory: str, learns: bool) -> None:
    agent = remembering(
        memory, num_epochs=4, num_minibatches=1, actor_lr=1e-2, critic_lr=1e-2, entropy_coef=0.01, shared_trunk=True
    )
    actor = Actor(Recall())
    for _ in range(120 if learns else 30):
        rollout = actor.rollout(agent)
        agent, _ = agent.update(rollout)
    mean = rollout["rewards"].sum() / rollout["cut"].sum()
    assert mean > 0.9 if learns else abs(mean) < 0.5, mean


def test_verbs_begin_an_episode_at_every_call() -> None:
    agent = remembering("gru", ACTIONS)
    observations = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    expected = agent.policy.act(agent.policy_params, observations, agent.policy.initial_memory(3), None, True)[0]
    np.testing.assert_allclose(agent.eval_actions(observations), expected, atol=1e-6)
    assert jax.tree.structure(agent.sample_actions(observations)[1].state) == jax.tree.structure(agent.state)
