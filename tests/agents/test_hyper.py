"""Static and swept parts of a configuration: what compiles once, what can be trained side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer.agents import agent_class, agent_config
from racer.agents.hyper import Hyper, split
from racer.agents.learner import run_update

OBSERVATIONS = gym.spaces.Box(-9.0, 9.0, (3,))
ACTIONS = gym.spaces.Box(-1.0, 1.0, (2,))

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON = {
    "critic_weight_decay": 1e-3, "lr_schedule": "linear", "lr_decay_begin": 0, "lr_decay_steps": 100,
    "actor_hidden_dims": (8,), "critic_hidden_dims": (8,),
}  # fmt: skip
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "ppo": (
        {
            "hidden_dims": (8,), "value_hidden_dims": (8,), "num_epochs": 2, "num_minibatches": 2, "rollout_length": 8,
            "lr_schedule": "linear", "lr_decay_transitions": 100, "value_heads": 2,
        },
        {"actor_lr": 1e-3, "discount": 0.9, "gae_lambda": 0.5, "clip_ratio": 0.1, "target_kl": 1e-3, "ld_weight": 0.0},
        {"actor_lr": 1e-2, "discount": 0.99, "gae_lambda": 0.9, "clip_ratio": 0.3, "target_kl": 9.0, "ld_weight": 0.7},
    ),
    "sac": (
        {**COMMON, "num_qs": 3, "num_min_qs": 2},
        {"actor_lr": 1e-3, "discount": 0.9, "tau": 0.1, "target_entropy": -1.0, "lr_decay_steps": 10},
        {"actor_lr": 1e-2, "discount": 0.99, "tau": 0.01, "target_entropy": -3.0, "lr_decay_steps": 1000},
    ),
    "cvar": (
        {**COMMON, "num_atoms": 11, "q_min": -5.0, "q_max": 5.0, "learned_action": "steering", "cvar_limits": 0.5},
        {"critic_lr": 1e-3, "discount": 0.9, "cvar_risk": 0.0, "cvar_limits": 0.3, "cvar_warmup_steps": 0},
        {"critic_lr": 1e-2, "discount": 0.99, "cvar_risk": 0.8, "cvar_limits": 0.9, "cvar_warmup_steps": 50},
    ),
}  # fmt: skip


def created(name: str, seed: int, which: int) -> Any:
    shared, *each = PAIRS[name]
    return agent_class(name).create(
        seed, OBSERVATIONS, ACTIONS, action_names=("acceleration", "steering"), **{**shared, **each[which]}
    )


def data_for(name: str, agent: Any, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if name != "ppo":
        rows = 8
        return {
            "observations": rng.normal(size=(rows, 3)), "next_observations": rng.normal(size=(rows, 3)),
            "actions": rng.uniform(-1, 1, (rows, 2)), "rewards": rng.normal(size=rows),
            "masks": (rng.random(rows) > 0.2).astype(float), "dones": np.zeros(rows),
        }  # fmt: skip
    steps, envs = 8, 2
    observations = rng.normal(size=(steps + 1, envs, 3)).astype(np.float32)
    _, _, extras = agent.policy.act(agent.policy_params, observations[:-1].reshape(-1, 3), {}, rng)
    cut = (rng.random((steps, envs)) < 0.1).astype(float)
    return {
        "observations": observations, "rewards": rng.normal(size=(steps, envs)), "cut": cut, "forget": cut,
        "bootstrap": 1.0 - cut, "valid": np.ones((steps, envs)), "final_index": np.full((1, 2), (steps, 0)),
        "final_observations": np.zeros((1, 3)),
        **{key: value.reshape(steps, envs, *value.shape[1:]) for key, value in extras.items()},
    }  # fmt: skip


def stacked(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


@pytest.mark.parametrize("name", PAIRS)
def test_two_agents_side_by_side_equal_two_alone(name: str) -> None:
    agents = [created(name, seed, which) for which, seed in enumerate((3, 4))]
    assert agents[0].static == agents[1].static
    assert hash(agents[0].static) == hash(agents[1].static)
    batches = [[agent.checked(data_for(name, agent, 10 * i + k), 2) for i, agent in enumerate(agents)] for k in (0, 1)]
    together = jax.jit(
        jax.vmap(lambda hyper, state, data: agents[0].pure_update(agents[0].static, hyper, state, data, 2))
    )
    hyper, states = stacked(*(agent.hyper for agent in agents)), stacked(*(agent.state for agent in agents))
    for batch in batches:
        states, infos = together(hyper, states, stacked(*batch))
    compiled = run_update._cache_size()
    alone = []
    for i, agent in enumerate(agents):
        for batch in batches:
            agent, info = agent.update(batch[i], 2)
        alone.append((agent.state, info))
    assert run_update._cache_size() == compiled + 1, "agents that differ in swept fields share a compilation"
    expected, _ = jax.tree_util.tree_flatten_with_path(stacked(*(state for state, _ in alone)))
    for (path, leaf), found in zip(expected, jax.tree.leaves(states), strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    for key, values in infos.items():
        np.testing.assert_allclose(values, [float(info[key]) for _, info in alone], rtol=1e-3, atol=1e-4, err_msg=key)
    first, second = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(s.actor.params)]) for s, _ in alone)
    assert not np.allclose(first, second)


def test_reading_a_swept_field_from_the_static_part_names_it() -> None:
    fixed, hyper = split(agent_config("sac")(discount=0.9))
    with pytest.raises(AttributeError, match="'discount' is swept"):
        _ = fixed.discount
    with pytest.raises(AttributeError, match="no fixed field 'discont'"):
        _ = fixed.discont
    with pytest.raises(AttributeError, match="no hyperparameter 'num_qs'"):
        _ = hyper.num_qs
    assert float(hyper.discount) == pytest.approx(0.9)
    assert fixed.num_qs == 2


def test_what_is_none_is_part_of_the_structure() -> None:
    with_limit, without = (split(agent_config("ppo")(target_kl=value))[1] for value in (0.1, None))
    assert without.target_kl is None
    assert jax.tree.structure(with_limit) != jax.tree.structure(without)
    assert jax.tree.structure(with_limit) == jax.tree.structure(with_limit.replace(target_kl=0.2))
    follows, own = (split(agent_config("cvar")(cvar_limits=value)) for value in ("cvar_risk", 0.3))
    assert follows[1].cvar_limits is None
    assert own[0] != follows[0]
    with pytest.raises(AttributeError, match="no hyperparameter 'risk'"):
        with_limit.replace(risk=0.1)


def test_a_number_that_changes_does_not_compile_again(
    make_agent: Callable[..., Any], make_batch: Callable[..., Any]
) -> None:
    agent, _ = make_agent("SACLearner").update(make_batch(), 2)
    known = run_update._cache_size()
    make_agent("SACLearner", discount=0.5, tau=0.5, actor_lr=0.1, temp_lr=0.2).update(make_batch(), 2)
    assert run_update._cache_size() == known
    assert isinstance(agent.hyper, Hyper)
