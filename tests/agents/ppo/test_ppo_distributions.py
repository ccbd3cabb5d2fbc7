"""PPO's action distributions: densities against integration and scipy, acting inside the range that is used."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from racer.agents.ppo import PPOLearner
from racer.core.errors import UsageError
from racer.networks.distributions import BetaHead, CategoricalHead, Start, TanhGaussianHead
from racer.networks.policy import build_policy

pytestmark = pytest.mark.usefixtures("quick_compilation")

LOW, HIGH = np.array([-1.0, -0.1], np.float32), np.array([3.0, 0.1], np.float32)
BOUNDS = (jnp.asarray(LOW), jnp.asarray(HIGH))
SPACES: dict[str, gym.Space] = {
    "tanh_gaussian": gym.spaces.Box(LOW, HIGH),
    "beta": gym.spaces.Box(LOW, HIGH),
    "categorical": gym.spaces.Discrete(5, start=2),
}
HEADS: dict[str, Any] = {
    "tanh_gaussian": TanhGaussianHead(1, -5.0, 2.0), "beta": BetaHead(1), "categorical": CategoricalHead(3),
}  # fmt: skip


def make_agent(distribution: str, **config: Any) -> PPOLearner:
    small = {"hidden_dims": (16,), "value_hidden_dims": (16,), "initial_std": 0.4, "observation_scale": 0.5}
    return PPOLearner.create(
        1, gym.spaces.Box(-9, 9, (12,)), SPACES[distribution],
        **{**small, "activation": "relu", "distribution": distribution, **config},
    )  # fmt: skip


def spread(agent: PPOLearner) -> PPOLearner:
    """Enlarge the heads, so that the policy differs between states and reaches the edges of its range."""
    arrays = agent.state_arrays()
    for name in arrays:
        if any(name.startswith(f"actor/params/{head}/") for head in ("mean", "alpha", "beta", "logits")):
            arrays[name] = arrays[name] * 100.0 + 0.3
    return agent.with_state_arrays(arrays)


def acted(agent: PPOLearner, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return agent.policy.act(agent.policy_params, rows, agent.policy.initial_memory(len(rows)), rng)[0]


def integral(distribution: str, params: dict[str, jax.Array], actions: np.ndarray, draws: np.ndarray) -> float:
    """Integrate the density of a single action over a grid of actions ``[M]`` with ``draws`` ``[M]`` behind it."""
    bounds = (BOUNDS[0][:1], BOUNDS[1][:1])
    density = jnp.exp(HEADS[distribution].log_probs(params, jnp.asarray(draws, jnp.float32)[:, None], bounds))
    return float(np.trapezoid(np.asarray(density, np.float64), actions))


def test_tanh_gaussian_density_integrates_to_one_and_is_the_normal_one_transformed() -> None:
    params = {"mean": jnp.array([0.4]), "log_std": jnp.array([-0.3])}
    raw = np.linspace(-6.0, 6.0, 20_001)
    actions = 1.0 + 2.0 * np.tanh(raw)
    assert integral("tanh_gaussian", params, actions, raw) == pytest.approx(1.0, abs=1e-4)
    u = np.float32(1.3)
    got = HEADS["tanh_gaussian"].log_probs(params, jnp.array([u]), (BOUNDS[0][:1], BOUNDS[1][:1]))
    slope = 2.0 * (1.0 - np.tanh(1.3) ** 2)
    assert got == pytest.approx(stats.norm(0.4, np.exp(-0.3)).logpdf(1.3) - np.log(slope), rel=1e-5)


def test_tanh_gaussian_density_stays_finite_and_exact_in_the_tails() -> None:
    params = {"mean": jnp.array([0.0]), "log_std": jnp.array([2.0])}
    bounds = (jnp.array([-1.0]), jnp.array([1.0]))
    got = HEADS["tanh_gaussian"].log_probs(params, jnp.array([20.0]), bounds)
    # log(1 - tanh(u)^2) tends to 2 log 2 - 2 u, where 1 - tanh(u)^2 itself is 0 in float32.
    expected = stats.norm(0.0, np.exp(2.0)).logpdf(20.0) - (2.0 * np.log(2.0) - 40.0)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_beta_density_is_scipys() -> None:
    params = {"alpha": jnp.array([1.7]), "beta": jnp.array([4.2])}
    unit = np.linspace(1e-6, 1.0 - 1e-6, 20_001)
    assert integral("beta", params, -1.0 + 4.0 * unit, unit) == pytest.approx(1.0, abs=1e-4)
    got = HEADS["beta"].log_probs(params, jnp.array([0.3]), (BOUNDS[0][:1], BOUNDS[1][:1]))
    assert float(got) == pytest.approx(stats.beta(1.7, 4.2, loc=-1.0, scale=4.0).logpdf(0.2), rel=1e-5)


def test_entropies() -> None:
    bounds = (BOUNDS[0][:1], BOUNDS[1][:1])
    zero = jnp.zeros(())
    params = {"alpha": jnp.array([1.7]), "beta": jnp.array([4.2])}
    expected = stats.beta(1.7, 4.2, scale=4.0).entropy()
    assert float(HEADS["beta"].entropies(params, zero, bounds)) == pytest.approx(expected, rel=1e-4)
    logits = jnp.log(jnp.array([0.5, 0.25, 0.25])) + 3.0
    got = HEADS["categorical"].entropies({"logits": jax.nn.log_softmax(logits)}, zero, bounds)
    assert float(got) == pytest.approx(1.5 * np.log(2.0), rel=1e-5)
    params = {"mean": jnp.array([0.4]), "log_std": jnp.array([-0.3])}
    noise = jax.random.normal(jax.random.PRNGKey(0), (200_000, 1))
    draws = params["mean"] + jnp.exp(params["log_std"]) * noise
    mean = -jnp.mean(HEADS["tanh_gaussian"].log_probs(params, draws, bounds))
    estimate = jnp.mean(HEADS["tanh_gaussian"].entropies(params, noise, bounds))
    assert float(estimate) == pytest.approx(float(mean), abs=0.01)


@pytest.mark.parametrize("distribution", SPACES)
def test_both_sides_draw_from_the_same_distribution(distribution: str) -> None:
    agent = spread(make_agent(distribution))
    assert build_policy(agent.policy_spec) == agent.policy
    row = np.random.default_rng(3).normal(size=(1, 12)).astype(np.float32)
    rows = np.repeat(row, 10_000, axis=0)
    ours = acted(agent, rows)
    theirs, _ = agent.sample_actions(rows)
    space = SPACES[distribution]
    assert all(space.contains(action) for action in [*ours[:200], *theirs[:200]])
    for mine, other in zip(ours.reshape(len(rows), -1).T, theirs.reshape(len(rows), -1).T, strict=True):
        assert stats.ks_2samp(mine, other).statistic < 0.03
        assert np.std(mine) > 0


def test_first_policy_is_as_wide_as_asked() -> None:
    observations = np.zeros((50_000, 12), np.float32)
    expected = {"beta": 0.4, "tanh_gaussian": np.tanh(0.4 * np.random.default_rng(1).normal(size=100_000)).std()}
    for distribution, std in expected.items():
        agent = make_agent(distribution)
        actions = acted(agent, observations)
        np.testing.assert_allclose(actions.std(axis=0) / (0.5 * (HIGH - LOW)), std, rtol=0.02)


def test_action_scale_shrinks_the_named_action_around_its_centre() -> None:
    space = gym.spaces.Box(np.array([-1.0, -1.0], np.float32), np.array([3.0, 1.0], np.float32))
    agent = PPOLearner.create(
        0, gym.spaces.Box(-9, 9, (12,)), space, action_names=("acceleration", "steering"), rollout_length=4,
        hidden_dims=(8,), value_hidden_dims=(8,), action_scale={"steering": 0.1}, initial_std=5.0,
    )  # fmt: skip
    actions = acted(agent, np.zeros((2000, 12), np.float32))
    np.testing.assert_allclose(actions.min(axis=0), [-1.0, -0.1], atol=1e-3)
    np.testing.assert_allclose(actions.max(axis=0), [3.0, 0.1], atol=1e-3)
    with pytest.raises(UsageError, match="steering"):
        PPOLearner.create(
            0, gym.spaces.Box(-9, 9, (12,)), space, action_names=("acceleration", "steering"),
            action_scale={"steer": 0.1},
        )  # fmt: skip


@pytest.mark.parametrize("std", [0.3, 0.05, 0.01])
def test_a_beta_policy_begins_as_narrow_as_it_is_told(std):
    head = BetaHead(2)
    params = head.init(jax.random.PRNGKey(0), 3, Start(mean=(0.0, 0.4), std=std))
    found = head.parameters({name: np.asarray(value) for name, value in params.items()}, np.zeros((1, 3), np.float32))
    alpha, beta = (np.asarray(found[name], np.float64)[0] for name in ("alpha", "beta"))
    total = alpha + beta
    np.testing.assert_allclose(2 * alpha / total - 1, [0.0, 0.4], atol=2e-3)
    np.testing.assert_allclose(2 * np.sqrt(alpha * beta / (total**2 * (total + 1))), std, rtol=2e-2)


def test_the_first_policy_chooses_as_it_is_told():
    """Shares of 20,000 draws in states of its own lie within four standard deviations of the probabilities."""
    told = (0.05, 0.7, 0.1, 0.05, 0.1)
    agent = make_agent("categorical", initial_choices=told)
    rows = np.random.default_rng(0).uniform(-9, 9, (20_000, 12)).astype(np.float32)
    shares = np.bincount(acted(agent, rows) - 2, minlength=5) / len(rows)
    # The kernel's small start lets a state move its probabilities by a few percent.
    allowed = 4 * np.sqrt(np.array(told) * (1 - np.array(told)) / len(rows)) + 0.05 * np.array(told)
    assert (np.abs(shares - told) < allowed).all()
    assert np.abs(np.bincount(acted(make_agent("categorical"), rows) - 2) / len(rows) - 0.2).max() < 0.05


@pytest.mark.parametrize(
    ("distribution", "told", "words"),
    [
        ("categorical", (0.5, 0.5), "5 probabilities, one for every choice"),
        ("categorical", (0.2, 0.2, 0.2, 0.2, 0.3), "add up to 1"),
        ("beta", (0.2, 0.2, 0.2, 0.2, 0.2), "set it to"),
        ("categorical", (0.0, 0.4, 0.2, 0.2, 0.2), "initial_choices"),
    ],
)
def test_first_choices_that_are_none_are_refused(distribution, told, words):
    with pytest.raises(UsageError, match=words):
        make_agent(distribution, initial_choices=told)
