"""The learner as a whole: one compiled update, exact state, masks, the target divergence, tiny problems."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppo_problems import ACTIONS, ENVS, OBSERVATIONS, STEPS, Actor, Corridor, bandit_rollout, make_agent, random_rollout

from racer.agents import agent_class, agent_config
from racer.agents.learner import run_update
from racer.agents.ppo import PPOConfig, PPOLearner
from racer.agents.protocol import ROLLOUT, Learner
from racer.core.errors import UsageError

WHOLE = {"num_epochs": 1, "num_minibatches": 1, "normalize_advantages": False}


def params_of(agent: PPOLearner) -> dict[str, np.ndarray]:
    return {name: array for name, array in agent.state_arrays().items() if "params" in name}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def successors(rollout: dict[str, np.ndarray]) -> np.ndarray:
    """What follows each row in its own episode."""
    following = rollout["observations"][1:].copy()
    real = rollout["final_index"][:, 0] < len(following)
    time, place = rollout["final_index"][real].T
    following[time, place] = rollout["final_observations"][real]
    return following


def values_of(agent: PPOLearner, observations: np.ndarray) -> np.ndarray:
    """Normalized values of the first head."""
    viewed = agent.policy.viewed(jnp.asarray(observations))
    features = agent.policy.features(agent.state.actor.params, viewed)
    return np.asarray(agent.static.evaluate(agent.state.critic.params, features, viewed))[..., 0]


def test_is_found_by_name_and_says_that_it_wants_rollouts() -> None:
    assert agent_class("PPOLearner") is agent_class("ppo") is PPOLearner
    assert agent_config("PPOLearner") is PPOConfig
    agent = make_agent()
    assert isinstance(agent, Learner)
    assert agent.wants == ROLLOUT
    assert agent.rollout_length == STEPS


def test_first_minibatch_has_ratio_one() -> None:
    agent = make_agent(**WHOLE, normalize_values=False)
    rollout = random_rollout(agent)
    assert rollout["forget"].any()
    values, following = values_of(agent, rollout["observations"][:-1]), values_of(agent, successors(rollout))
    advantages, later = np.zeros((STEPS, ENVS)), np.zeros(ENVS)
    for t in reversed(range(STEPS)):
        residual = rollout["rewards"][t] + 0.99 * rollout["bootstrap"][t] * following[t] - values[t]
        later = residual + 0.99 * 0.95 * (1.0 - rollout["cut"][t]) * later
        advantages[t] = later
    agent, info = agent.update(rollout)
    assert float(info["kl"]) < 1e-9
    assert float(info["lag_kl"]) < 1e-9
    assert float(info["clip_fraction"]) == 0.0
    # With every ratio at 1 the surrogate is the mean advantage, and the value loss half its mean square.
    assert float(info["policy_loss"]) == pytest.approx(-advantages.mean(), abs=1e-5)
    assert float(info["value_loss"]) == pytest.approx(0.5 * np.square(advantages).mean(), rel=1e-4)


def test_ratio_is_taken_against_the_stored_log_probs() -> None:
    agent = make_agent(**WHOLE, normalize_values=False)
    rollout = random_rollout(agent)
    rollout["log_probs"] = rollout["log_probs"] - np.float32(np.log(1.1))
    copy = make_agent(**WHOLE, normalize_values=False)
    _, lagging = agent.update(rollout)
    rollout["log_probs"] = rollout["log_probs"] + np.float32(np.log(1.1))
    _, fresh = copy.update(rollout)
    assert float(lagging["policy_loss"]) == pytest.approx(1.1 * float(fresh["policy_loss"]), rel=1e-4)
    assert float(lagging["lag_kl"]) == pytest.approx(0.1 - np.log(1.1), rel=1e-3)
    # The stop looks at what this update changed, not at the lag that it began with.
    assert float(lagging["kl"]) < 1e-9


def test_compiles_once_and_counts() -> None:
    agent = make_agent()
    agent, _ = agent.update(random_rollout(agent))
    before = run_update._cache_size()
    for seed in range(3):
        agent, info = agent.update(random_rollout(agent, seed))
    assert run_update._cache_size() == before
    state = agent.state_arrays()
    assert (int(state["updates"]), int(state["gradient_steps"]), int(state["transitions"])) == (4, 32, 4 * STEPS * ENVS)
    assert float(info["minibatches"]) == 8.0
    assert all(np.isfinite(np.asarray(value)) for value in info.values())


def test_equal_seeds_give_equal_agents_and_state_is_exact() -> None:
    agents = [make_agent(seed) for seed in (3, 3, 4)]
    for seed in range(2):
        agents = [agent.update(random_rollout(agent, seed))[0] for agent in agents]
    assert same(agents[0].state_arrays(), agents[1].state_arrays())
    assert not same(params_of(agents[0]), params_of(agents[2]))
    restored = make_agent(9).with_state_arrays(agents[0].state_arrays())
    rollout = random_rollout(agents[0], 5)
    went_on, _ = agents[0].update(rollout)
    resumed, _ = restored.update(rollout)
    assert same(went_on.state_arrays(), resumed.state_arrays())
    row = rollout["observations"][0]
    np.testing.assert_array_equal(went_on.sample_actions(row)[0], resumed.sample_actions(row)[0])
    broken = went_on.state_arrays()
    broken.pop("updates")
    broken["actor/params/log_std"] = np.zeros(3, np.float32)
    with pytest.raises(UsageError, match=r"log_std: float32\[3\] instead of float32\[2\].*updates: missing"):
        resumed.with_state_arrays(broken)


def test_rows_that_are_no_transitions_teach_nothing() -> None:
    agent, other = make_agent(), make_agent()
    rollout = random_rollout(agent, invalid=0.1)
    missing = rollout["valid"] == 0.0
    assert missing.sum() > 3
    changed = {name: array.copy() for name, array in rollout.items()}
    for name in ("rewards", "log_probs", "draws"):
        changed[name][missing] += 0.3
    changed["observations"][:-1][missing] -= 5.0
    # A row's observation is the successor of the row before it, which must not bootstrap there: here it ends.
    before = np.roll(missing, -1, axis=0)
    before[-1] = False
    for each in (rollout, changed):
        each["bootstrap"][before], each["cut"][before] = 0.0, 1.0
    assert same(agent.update(rollout)[0].state_arrays(), other.update(changed)[0].state_arrays())
    valid = {**changed, "valid": np.ones_like(changed["valid"])}
    agent, other = make_agent(), make_agent()
    assert not same(params_of(agent.update(rollout)[0]), params_of(other.update(valid)[0]))


def test_final_observations_are_successors_and_what_fills_them_up_is_not() -> None:
    agents = [make_agent() for _ in range(3)]
    rollout = random_rollout(agents[0])
    rollout["bootstrap"][:] = 1.0  # every end is a time limit
    filled = rollout["final_index"][:, 0] == STEPS
    assert 0 < filled.sum() < len(filled)
    unread, read = (rollout["final_observations"].copy() for _ in range(2))
    unread[filled] += 5.0
    read[~filled] += 5.0
    results = [
        agent.update({**rollout, "final_observations": finals})[0].state_arrays()
        for agent, finals in zip(agents, (rollout["final_observations"], unread, read), strict=True)
    ]
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_fewer_ends_do_not_compile_again() -> None:
    agent = make_agent()
    rollout = random_rollout(agent)
    shapes = set()
    for count in (0, 1, 3, 4):
        given = {**rollout, **{name: rollout[name][:count] for name in ("final_index", "final_observations")}}
        checked = agent.checked(given, 1)
        shapes.add(checked["final_index"].shape)
        assert checked["final_index"][count:].tolist() == [[STEPS, 0]] * (4 - count)
    assert shapes == {(4, 2)}


def test_truncation_is_not_termination() -> None:
    agent, other = make_agent(), make_agent()
    rollout = random_rollout(agent)
    assert (rollout["cut"] * rollout["bootstrap"]).any()
    mistaken = {**rollout, "bootstrap": 1.0 - rollout["cut"]}
    _, right = agent.update(rollout)
    _, wrong = other.update(mistaken)
    assert abs(float(right["value_target"]) - float(wrong["value_target"])) > 1e-3


def test_update_ends_where_the_policy_moved_too_far() -> None:
    agent = make_agent()
    _, info = agent.update(random_rollout(agent))
    assert float(info["minibatches"]) == 8.0
    assert not float(info["stopped_by_kl"])
    # Of a nearly deterministic policy a small step of the mean is a long way.
    narrow = make_agent().state_arrays()
    narrow["actor/params/log_std"] = np.full(2, -5.0, np.float32)
    agent = make_agent().with_state_arrays(narrow)
    agent, info = agent.update(random_rollout(agent))
    taken = float(info["minibatches"])
    assert 1.0 <= taken < 8.0
    assert float(info["stopped_by_kl"])
    assert float(info["kl"]) <= 0.5
    assert int(agent.state_arrays()["gradient_steps"]) == taken
    # The next update measures from where this one ended, and so makes steps again.
    _, info = agent.update(random_rollout(agent, 1))
    assert float(info["minibatches"]) >= 1.0


def test_gradients_are_clipped_by_their_joint_norm() -> None:
    """Adam's first moment after one step is a tenth of the gradient it was given."""
    agent = make_agent(**WHOLE, normalize_values=False)
    rollout = random_rollout(agent)
    rollout["rewards"] *= 100.0
    agent, info = agent.update(rollout)
    assert float(info["grad_norm"]) > 5.0
    moments = [a for n, a in agent.state_arrays().items() if "/mu/" in n]
    norm = np.sqrt(sum(float(np.square(array).sum()) for array in moments))
    assert norm == pytest.approx(0.1 * 0.5, rel=1e-3)


def test_values_that_are_not_finite_change_no_parameter() -> None:
    agent = make_agent()
    before = params_of(agent)
    rollout = random_rollout(agent)
    rollout["rewards"][:] = np.nan
    agent, info = agent.update(rollout)
    assert int(info["nonfinite_updates"]) == 8
    assert float(info["minibatches"]) == 0.0
    assert same(params_of(agent), before)
    rollout = random_rollout(agent)
    rollout["rewards"][0, 0] = np.nan
    agent, info = agent.update(rollout)
    assert int(info["nonfinite_updates"]) == 2  # the minibatch of either epoch that holds the row
    assert not same(params_of(agent), before)
    assert all(np.isfinite(array).all() for array in agent.state_arrays().values())


def test_reset_spares_what_is_excluded() -> None:
    agent = make_agent()
    agent, _ = agent.update(random_rollout(agent))
    before = agent.state_arrays()
    after = agent.reset(exclude=("critic",)).state_arrays()
    assert all(np.array_equal(before[n], after[n]) for n in before if n.startswith("critic/"))
    assert (before["actor/params/mean/kernel"] != after["actor/params/mean/kernel"]).any()
    assert not np.array_equal(before["rng"], after["rng"])
    with pytest.raises(UsageError, match="actor"):
        agent.reset(exclude=("acter",))


@pytest.mark.parametrize("distribution", ["tanh_gaussian", "beta", "categorical"])
def test_solves_a_contextual_bandit(distribution: str) -> None:
    space = gym.spaces.Discrete(2) if distribution == "categorical" else ACTIONS
    other = {} if distribution == "tanh_gaussian" else {"distribution": distribution, "shared_trunk": True}
    agent = make_agent(1, space, **other)
    for seed in range(200):
        agent, _ = agent.update(bandit_rollout(agent, seed))
    rng = np.random.default_rng(1)
    observations = rng.normal(size=(200, 3)).astype(np.float32)
    observations = observations[np.abs(observations[:, 0]) > 0.3]
    actions = agent.policy.act(agent.policy_params, observations, {}, rng, deterministic=True)[0]
    sign = np.sign(observations[:, 0])
    if distribution == "categorical":
        assert np.mean(actions == (sign > 0)) > 0.95
    else:
        assert np.abs(actions - 0.5 * sign[:, None] * np.array([1.0, -1.0])).mean() < 0.15


def test_solves_a_corridor_with_choices() -> None:
    """Collected, truncated and learnt from as in a program."""
    actor = Actor(Corridor())
    agent = make_agent(0, gym.spaces.Discrete(2), distribution="categorical", shared_trunk=True)
    for _ in range(150):
        rollout = actor.rollout(agent)
        agent, _ = agent.update(rollout)
    # A random walk with steps of 0.2 leaves the corridor; who has learnt stands near its middle until the end.
    assert np.mean(actor.world.lengths[-60:]) > 19.5
    assert np.mean(rollout["rewards"]) > 0.85


def test_shared_trunk_serves_both_networks() -> None:
    agent = make_agent(shared_trunk=True, distribution="beta")
    critic = [name for name in agent.state_arrays() if name.startswith("critic/params")]
    assert sorted(critic) == ["critic/params/value/bias", "critic/params/value/kernel"]
    rollout = random_rollout(agent)

    def value(params: Any) -> jax.Array:
        observations = jnp.asarray(rollout["observations"][0])
        features = agent.policy.features(params, observations)
        return jnp.sum(agent.static.evaluate(agent.state.critic.params, features, observations))

    slope = jax.grad(value)(agent.state.actor.params)
    assert np.abs(slope["trunk/hidden_0/kernel"]).sum() > 0


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("shared", [True, False])
def test_value_loss_teaches_the_trunk_where_it_is_shared(shared: bool) -> None:
    found = []
    for weight in (0.25, 1.0):
        agent = make_agent(**WHOLE, shared_trunk=shared, value_coef=weight, max_grad_norm=1e9)
        agent, _ = agent.update(random_rollout(agent))
        # Adam's first moment: its first step is the same whatever the gradient's length.
        found.append({n: a for n, a in agent.state_arrays().items() if n.startswith("actor") and "/mu/" in n})
    assert any("trunk" in name for name in found[0])
    for name in found[0]:
        alike = np.allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-8)
        assert alike == (not (shared and "trunk" in name)), name


@pytest.mark.usefixtures("quick_compilation")
def test_step_sizes_fall_with_the_transitions() -> None:
    sizes = {"actor_lr": 1e-3, "critic_lr": 2e-3}
    fall = {"lr_schedule": "linear", "lr_decay_transitions": 4 * STEPS * ENVS, "final_lr_fraction": 0.5}
    falling = make_agent(**WHOLE, **sizes, **fall)
    falling, first = falling.update(random_rollout(falling))
    assert float(first["actor_lr"]) == pytest.approx(1e-3)
    # A quarter of the way to a half.
    smaller = make_agent(**WHOLE, **{name: 0.875 * size for name, size in sizes.items()})
    smaller = smaller.with_state_arrays(falling.state_arrays())
    rollout = random_rollout(falling, 1)
    before, expected = params_of(falling), params_of(smaller.update(rollout)[0])
    found, info = falling.update(rollout)
    assert float(info["actor_lr"]) == pytest.approx(0.875e-3)
    moved = 0.0
    for name, array in params_of(found).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-6, atol=1e-8, err_msg=name)
        moved = max(moved, float(np.abs(array - before[name]).max()))
    # A step of the whole size would have gone an eighth farther than the tolerance above lets pass.
    assert moved > 1e-5


def test_a_scheduled_deviation_falls_and_is_not_learned() -> None:
    agent = make_agent(initial_std=0.5, final_std=0.1, std_decay_transitions=4 * STEPS * ENVS)
    for share in (0.25, 0.5, 0.75, 1.0, 1.0):
        agent, _ = agent.update(random_rollout(agent))
        np.testing.assert_allclose(agent.policy_params["log_std"], np.log(0.5 - 0.4 * share), rtol=1e-5)
    other = make_agent(initial_std=0.5, final_std=0.1, std_decay_transitions=9)
    restored = other.with_state_arrays(agent.state_arrays())
    np.testing.assert_array_equal(restored.policy_params["log_std"], agent.policy_params["log_std"])


@pytest.mark.usefixtures("quick_compilation")
def test_entropy_bonus_widens_the_policy() -> None:
    widths = []
    for weight in (0.0, 0.5):
        agent = make_agent(**WHOLE, entropy_coef=weight, max_grad_norm=1e9)
        rollout = random_rollout(agent)
        rollout["rewards"] *= 0.0
        for _ in range(5):
            agent, info = agent.update(rollout)
        widths.append(float(info["entropy"]))
    assert widths[1] > widths[0] + 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip_ration": 0.2}, "clip_ratio"),
        ({"clip_ratio": 0.0}, "clip_ratio"),
        ({"gae_lambda": 1.5}, "gae_lambda"),
        ({"discount": 0.0}, "discount"),
        ({"num_epochs": 0}, "num_epochs"),
        ({"num_minibatches": 2.0}, "num_minibatches"),
        ({"entropy_coef": -1.0}, "entropy_coef"),
        ({"target_kl": 0.0}, "target_kl"),
        ({"value_clip": -0.1}, "value_clip"),
        ({"lr_schedule": "linaer"}, "linear"),
        ({"activation": "gelu"}, "activation"),
        ({"distribution": "gaussian"}, "tanh_gaussian"),
        ({"distribution": "categorical"}, "Discrete"),
        ({"distribution": "beta", "initial_std": 0.9}, "initial_std"),
        ({"action_scale": {"steering": 0.1}}, "have none"),
        ({"action_scale": 3}, "action_scale"),
        ({"action_scale": {"steering": 0.0}}, "steering"),
        ({"encoder": "pointnet"}, "in rows"),
        ({"memory": "grru"}, "did you mean 'gru'"),
        ({"memory": {"kind": "gru", "sizes": 3}}, "did you mean 'size'"),
        ({"value_heads": 3}, "value_heads"),
        ({"ld_weight": 0.5}, "set value_heads to 2"),
        ({"final_std": 0.1, "distribution": "beta"}, "final_std"),
        ({"observation_scale": (1.0, 2.0)}, "observation_scale"),
        ({"hidden_dims": ()}, "hidden_dims"),
    ],
)
def test_wrong_config_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        PPOLearner.create(0, OBSERVATIONS, ACTIONS, **changes)


def test_wrong_spaces_and_rollouts_are_named() -> None:
    with pytest.raises(UsageError, match="MultiDiscrete"):
        PPOLearner.create(0, OBSERVATIONS, gym.spaces.MultiDiscrete([2, 2]))
    with pytest.raises(UsageError, match="continuous"):
        PPOLearner.create(0, OBSERVATIONS, gym.spaces.Discrete(3), distribution="beta")
    agent = make_agent()
    with pytest.raises(UsageError, match=r"16 steps x 3 environments = 48 rows .* num_minibatches=32"):
        make_agent(num_minibatches=32).check_num_envs(3)
    rollout = random_rollout(agent)
    with pytest.raises(UsageError, match=r"15 steps x 3 environments = 45 rows .* num_minibatches=4"):
        agent.update(random_rollout(agent, steps=15, envs=3))
    agent.check_num_envs(3)
    with pytest.raises(UsageError, match="'observations' must have shape"):
        agent.update({**rollout, "observations": rollout["observations"][1:]})
    with pytest.raises(UsageError, match="'final_index' must have shape"):
        agent.update({**rollout, "final_index": rollout["final_index"][:, :1]})
    with pytest.raises(UsageError, match="log_probs"):
        agent.update({name: array for name, array in rollout.items() if name != "log_probs"})
    with pytest.raises(UsageError, match="'draws' must have shape"):
        agent.update({**rollout, "draws": rollout["draws"][..., :1]})
    with pytest.raises(UsageError, match="time-major"):
        agent.update({name: array[0] for name, array in rollout.items()})
