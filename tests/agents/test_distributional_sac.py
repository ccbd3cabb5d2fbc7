"""The distributional learner as a whole: each of the known mistakes would fail a test here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents import distributional_sac
from racer.agents.distributional_sac import DistributionalSACLearner
from racer.agents.learner import QUICK_TO_COMPILE, run_update
from racer.core.errors import UsageError

Make = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("quick_compilation")


def leaves_equal(first: Any, second: Any) -> bool:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def frozen(tree: Any) -> Any:
    """Copy out of JAX, before an update is given the arrays."""
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def test_update_changes_every_component_and_counts(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent()
    before = frozen(agent.state)
    agent, info = agent.update(make_batch(), 2)
    for name in DistributionalSACLearner.components:
        assert not leaves_equal(getattr(before, name), getattr(agent.state, name)), name
    assert agent.state.gradient_steps == 2
    assert {name: np.shape(value) for name, value in info.items()} == dict.fromkeys(info, ())
    assert all(np.isfinite(value) for value in info.values())
    assert info["nonfinite_updates"] == 0


def test_update_compiles_once_because_no_type_is_weak(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent()
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(agent.state))
    agent, _ = agent.update(make_batch(), 2)
    size = run_update._cache_size()
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(agent.state))
    for seed in range(3):
        agent, _ = agent.update(make_batch(seed), 2)
    restored = make_agent(seed=5).with_state_arrays(agent.state_arrays())
    restored.reset(exclude=("actor",)).update(make_batch(), 2)
    assert run_update._cache_size() == size


def test_update_donates_its_state(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent()
    agent.update(make_batch(), 2)
    assert jax.tree.leaves(agent.state.critic.params)[0].is_deleted()


def test_equal_seeds_train_equally_and_others_do_not(make_agent: Make, make_batch: Make) -> None:
    def trained(seed: int) -> Any:
        agent = make_agent(seed=seed)
        for index in range(2):
            agent, _ = agent.update(make_batch(index), 2)
        return agent.state

    first = trained(3)
    assert leaves_equal(first, trained(3))
    assert not leaves_equal(first.actor.params, trained(4).actor.params)


def test_terminated_transitions_do_not_bootstrap(make_agent: Make, make_batch: Make) -> None:
    batch = make_batch(masks=0.0)
    _, info = make_agent().update(batch, 2)
    np.testing.assert_allclose(info["target_mean"], batch["rewards"].mean(), atol=1e-5)
    agent = make_agent()
    shifted = {**batch, "next_observations": batch["next_observations"] + 1.0}
    reference, _ = make_agent().update(batch, 2)
    agent, _ = agent.update(shifted, 2)
    assert leaves_equal(agent.state.critic.params, reference.state.critic.params)
    alive, _ = make_agent().update({**shifted, "masks": np.ones_like(batch["masks"])}, 2)
    assert not leaves_equal(alive.state.critic.params, reference.state.critic.params)


def test_truncated_transitions_bootstrap(make_agent: Make, make_batch: Make) -> None:
    batch = make_batch(masks=1.0)
    cut = {**batch, "dones": np.ones_like(batch["dones"])}
    first, _ = make_agent().update(batch, 2)
    second, _ = make_agent().update(cut, 2)
    assert leaves_equal(first.state, second.state)


def test_no_random_number_is_used_twice(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent(learned_action=None)
    batch = make_batch()
    same = np.tile(batch["observations"][:1], (16, 1))
    rows = {**batch, "observations": same, "next_observations": same}
    minibatches = {name: jnp.asarray(x).reshape(2, 8, *x.shape[1:]) for name, x in rows.items()}
    data = distributional_sac.critic_rows(agent.static, agent.hyper, agent.state, minibatches, jax.random.PRNGKey(0))
    drawn = np.arctanh(np.clip(np.asarray(data.next_actions[:, 0], np.float64), -1 + 1e-9, 1 - 1e-9))
    raw = np.concatenate([drawn.reshape(-1), np.asarray(data.actions[:, 1]).reshape(-1)])
    gaps = np.diff(np.sort(raw))
    assert gaps.min() > 1e-7, "two draws of one distribution coincide: a key was used twice"


def test_keys_move_on_between_calls(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent()
    observations = np.zeros((4, 12), np.float32)
    first, agent = agent.sample_actions(observations)
    second, agent = agent.sample_actions(observations)
    assert not np.any(first == second)
    key = np.array(agent.state.rng)
    agent, _ = agent.update(make_batch(), 2)
    assert not np.array_equal(key, agent.state.rng)


def test_sampled_and_evaluated_actions_obey_the_limit(make_agent: Make) -> None:
    agent = make_agent()
    arrays = agent.state_arrays()
    arrays["actor/params/mean/bias"] = np.array([30.0, 30.0], np.float32)
    agent = agent.with_state_arrays(arrays)
    observations = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    np.testing.assert_allclose(agent.eval_actions(observations), np.tile([1.0, 0.2], (6, 1)), atol=1e-6)
    sampled, _ = agent.sample_actions(observations)
    np.testing.assert_allclose(sampled, np.tile([1.0, 0.2], (6, 1)), atol=1e-6)
    assert agent.eval_actions(observations[0]).shape == (2,)


@pytest.mark.parametrize(
    ("names", "learned", "initial", "low", "high"),
    [
        (("acceleration", "steering"), "steering", 0.2, [-1.0, -0.2], [1.0, 0.2]),
        (("steering", "acceleration"), "steering", 0.2, [-0.2, -1.0], [0.2, 1.0]),
        (("acceleration", "steering"), "acceleration", -0.5, [-1.0, -1.0], [-0.5, 1.0]),
        (("acceleration", "steering"), None, 0.2, [-1.0, -1.0], [1.0, 1.0]),
    ],
)
def test_the_limit_is_on_the_named_action(
    observation_space: gym.Space, action_space: gym.Space, names: Any, learned: Any, initial: float, low: Any, high: Any
) -> None:
    agent = DistributionalSACLearner.create(
        0,
        observation_space,
        action_space,
        action_names=names,
        actor_hidden_dims=(4,),
        critic_hidden_dims=(4,),
        learned_action=learned,
        learned_action_initial_limit=initial,
        learned_action_limit_kind="upper" if learned == "acceleration" else None,
    )
    np.testing.assert_allclose(agent.policy_params["action_low"], low)
    np.testing.assert_allclose(agent.policy_params["action_high"], high)


def test_the_learned_limit_stays_in_its_valid_range(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent(limits_lr=5.0)
    limits = []
    for seed in range(4):
        agent, info = agent.update(make_batch(seed), 2)
        limits.append(float(info["learned_limit"]))
        assert np.isclose(agent.policy_params["action_high"][1], limits[-1])
    assert set(np.round(limits, 4)) <= {0.05, 1.0}, limits


def test_limit_and_actor_have_risk_levels_of_their_own(make_agent: Make, make_batch: Make) -> None:
    observations = jnp.asarray(make_batch()["observations"])

    def stepped(**config: Any) -> tuple[np.ndarray, Any]:
        agent = make_agent(limits_lr=0.01, **config)
        pure = partial(distributional_sac.policy_step, agent.static, agent.hyper)
        step = jax.jit(pure, compiler_options=QUICK_TO_COMPILE)
        state, _, _ = step(agent.state, observations, jax.random.PRNGKey(1))
        return np.array(state.limits.opt_state[0].mu["limit"]), state.actor.params

    limit_own, actor_own = stepped(cvar_risk=0.8, cvar_limits=0.0)
    limit_neutral, actor_neutral = stepped(cvar_risk=0.0, cvar_limits="cvar_risk")
    assert limit_own != 0.0
    np.testing.assert_allclose(limit_own, limit_neutral, rtol=1e-4)
    assert not leaves_equal(actor_own, actor_neutral)


def adam_steps(part: Any) -> int:
    """Steps that an optimizer has taken, by its own count."""
    counts = [leaf for leaf in jax.tree.leaves(part.opt_state) if np.ndim(leaf) == 0]
    return int(counts[0])


def test_the_first_policy_lies_where_it_is_told(make_agent: Make) -> None:
    observations = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    for name in ("DistributionalSACLearner", "SACLearner"):
        actions = make_agent(name, initial_action={"acceleration": 0.5}).eval_actions(observations)
        np.testing.assert_allclose(actions.mean(axis=0), [0.5, 0.0], atol=0.1)
        with pytest.raises(UsageError, match="between -1 and 1"):
            make_agent(name, initial_action={"acceleration": 1.5})
        with pytest.raises(UsageError, match="did you mean 'steering'"):
            make_agent(name, initial_action={"sterring": 0.1})


def test_policy_temperature_and_limit_take_the_steps_asked_for(make_agent: Make, make_batch: Make) -> None:
    agent, info = make_agent(policy_steps=2).update(make_batch(), 2)
    trained = [name for name in DistributionalSACLearner.components if name != "target_critic"]
    taken = {name: adam_steps(getattr(agent.state, name)) for name in trained}
    assert taken == {"actor": 2, "critic": 2, "limits": 2, "temp": 2, "q_entropy_lagrange": 1}
    assert all(np.shape(value) == () for value in info.values())
    for name in ("DistributionalSACLearner", "SACLearner"):
        # Each takes a minibatch of its own.
        with pytest.raises(UsageError, match=r"policy_steps \(3\) must be no more than utd_ratio \(2\)"):
            make_agent(name, policy_steps=3).update(make_batch(), 2)


def test_risk_rises_to_its_level(make_agent: Make, make_batch: Make) -> None:
    def cvar(risk: float, warmup: int) -> float:
        return float(make_agent(cvar_risk=risk, cvar_warmup_steps=warmup).update(make_batch(), 2)[1]["cvar"])

    # The policy step comes after two critic steps: half of a rise over four is over then.
    for warmup, reached in ((2, 0.8), (4, 0.4), (10**9, 0.0)):
        assert cvar(0.8, warmup) == pytest.approx(cvar(reached, 0), rel=1e-4)
    assert cvar(0.8, 0) < cvar(0.4, 0) < cvar(0.0, 0)


def test_reset_keeps_what_is_excluded_and_nothing_else(make_agent: Make, make_batch: Make) -> None:
    agent, _ = make_agent().update(make_batch(), 2)
    kept = agent.reset(exclude=("critic", "temp"))
    for name in DistributionalSACLearner.components:
        same = leaves_equal(getattr(kept.state, name), getattr(agent.state, name))
        assert same == (name in ("critic", "temp")), name
    fresh = agent.reset()
    assert leaves_equal(fresh.state.critic.params, fresh.state.target_critic)
    assert not leaves_equal(fresh.state.actor.params, agent.reset().reset().state.actor.params)
    kept.update(make_batch(), 2)
    assert not agent.state.temp.params["log_value"].is_deleted()
    with pytest.raises(UsageError, match="'criticc'; did you mean 'critic'"):
        agent.reset(exclude=("criticc",))
    with pytest.raises(UsageError, match="collection"):
        agent.reset(exclude="critic")


def test_state_round_trip_continues_bit_for_bit(make_agent: Make, make_batch: Make) -> None:
    agent, _ = make_agent().update(make_batch(0), 2)
    _, agent = agent.sample_actions(np.zeros((2, 12), np.float32))
    arrays = agent.state_arrays()
    saved = {name: array.copy() for name, array in arrays.items()}
    agent, _ = agent.update(make_batch(1), 2)
    assert all(np.array_equal(arrays[name], saved[name]) for name in arrays), "the update overwrote saved arrays"
    other = make_agent(seed=9).with_state_arrays(arrays)
    other, _ = other.update(make_batch(1), 2)
    continued, again = agent.state_arrays(), other.state_arrays()
    assert continued.keys() == again.keys()
    for name in continued:
        np.testing.assert_array_equal(continued[name], again[name], err_msg=name)


def test_every_field_that_does_not_fit_is_listed(make_agent: Make) -> None:
    arrays = make_agent().state_arrays()
    arrays["actor/params/mean/bias"] = np.zeros(3, np.float32)
    arrays["rng"] = arrays["rng"].astype(np.int64)
    arrays["surplus"] = np.zeros(1)
    del arrays["gradient_steps"]
    with pytest.raises(UsageError) as caught:
        make_agent().with_state_arrays(arrays)
    for part in ("actor/params/mean/bias: float32[3] instead of float32[2]", "rng: int64", "surplus", "gradient_steps"):
        assert part in str(caught.value)


def test_a_non_finite_minibatch_is_skipped_and_counted(make_agent: Make, make_batch: Make) -> None:
    agent, _ = make_agent().update(make_batch(0), 2)
    before, arrays = frozen(agent.state), agent.state_arrays()
    bad = make_batch(1)
    bad["rewards"][[0, 8]] = np.nan
    agent, info = agent.update(bad, 2)
    assert info["nonfinite_updates"] == 2
    assert leaves_equal(before.critic, agent.state.critic)
    assert leaves_equal(before.target_critic, agent.state.target_critic)
    assert not leaves_equal(before.actor, agent.state.actor)

    half = make_batch(1)
    half["rewards"][3] = np.nan
    agent, info = make_agent().with_state_arrays(arrays).update(half, 2)
    assert info["nonfinite_updates"] == 1
    assert not leaves_equal(before.critic.params, agent.state.critic.params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(agent.state))
    assert agent.state.nonfinite_updates == 1


def test_a_non_finite_policy_step_leaves_the_policy_alone(make_agent: Make, make_batch: Make) -> None:
    agent = make_agent()
    before = frozen(agent.state)
    bad = make_batch()
    bad["observations"][-1, 0] = np.nan
    agent, info = agent.update(bad, 2)
    assert info["nonfinite_updates"] == 2
    for name in ("actor", "limits", "temp"):
        assert leaves_equal(getattr(before, name), getattr(agent.state, name)), name
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(agent.state))


@pytest.mark.parametrize("risk", [0.0, 0.8])
def test_risk_decides_between_the_safe_and_the_lucrative_action(risk: float) -> None:
    # Reward 1 + u X with u in [0, 1] and X = +5 (90 %) or -15 (10 %): the mean, 1 + 3 u, asks for u = 1;
    # the mean of the worst fifth, 1 - 5 u, for u = 0.
    agent = DistributionalSACLearner.create(
        0,
        gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
        gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
        actor_hidden_dims=(32,),
        critic_hidden_dims=(32, 32),
        actor_lr=1e-2,
        critic_lr=1e-2,
        temp_lr=0.0,
        init_temperature=0.05,
        num_atoms=22,
        q_min=-14.5,
        q_max=6.5,
        cvar_risk=risk,
        learned_action=None,
        q_entropy_target_diff=None,
    )
    rng = np.random.default_rng(0)
    for _ in range(120):
        actions = rng.uniform(-1, 1, (256, 1)).astype(np.float32)
        luck = np.where(rng.random(256) < 0.9, 5.0, -15.0)
        batch = {
            "observations": np.zeros((256, 1), np.float32),
            "actions": actions,
            "rewards": (1 + 0.5 * (actions[:, 0] + 1) * luck).astype(np.float32),
            "masks": np.zeros(256, np.float32),
            "dones": np.ones(256, np.float32),
            "next_observations": np.zeros((256, 1), np.float32),
        }
        agent, _ = agent.update(batch, 4)
    action = agent.eval_actions(np.zeros(1, np.float32))[0]
    assert action > 0.6 if risk == 0.0 else action < -0.6, action
