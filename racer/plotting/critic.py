"""What the critic expected, step by step of an episode, beside pictures of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer.evaluation.checkpoints import load_policy
from racer.evaluation.critic import restore_critic
from racer.evaluation.episodes import check_spaces, run_episode
from racer.plotting.style import COLORS, GREY, INK, pyplot

__all__ = ["CriticEpisode", "atoms_cvar", "critic_figure", "discounted_returns", "record_critic"]


@dataclass(frozen=True)
class CriticEpisode:
    """An episode with the return distribution of every step.

    Attributes:
        name: of the checkpoint.
        seed: of the episode.
        end_reason: how it ended.
        period: seconds per step.
        atoms: ``[n]`` returns.
        probs: ``[T, n]`` the ensemble mixture's probabilities for the action taken.
        rewards: ``[T]``.
        discount: of the critic's returns.
        cvar_risk: risk level that the policy maximised.
        frames: ``[T]`` pictures ``[H, W, 3]``, taken before each step.
    """

    name: str
    seed: int
    end_reason: str
    period: float
    atoms: np.ndarray
    probs: np.ndarray
    rewards: np.ndarray
    discount: float
    cvar_risk: float
    frames: Sequence[np.ndarray]


def atoms_cvar(atoms: np.ndarray, probs: np.ndarray, risk: float) -> np.ndarray:
    """Mean of the worst ``1 - risk`` share of categorical distributions ``[..., n]`` on sorted atoms ``[n]``.

    An atom that the tail reaches only in part counts with that part (Rockafellar & Uryasev 2002, proposition 8).
    Risk 1 is the limit, the lowest atom with any mass.
    """
    return _tail(probs, risk) @ atoms / max(1.0 - risk, 1e-6)


def _tail(probs: np.ndarray, risk: float) -> np.ndarray:
    """The part of each atom's mass that lies in the worst ``1 - risk``, ``[..., n]``."""
    return np.clip(max(1.0 - risk, 1e-6) - (np.cumsum(probs, axis=-1) - probs), 0.0, probs)


def discounted_returns(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Return that followed each step, ``[T]``: ``G_t = r_t + discount * G_{t+1}``."""
    total, found = 0.0, np.zeros(len(rewards))
    for t in reversed(range(len(rewards))):
        total = found[t] = rewards[t] + discount * total
    return found


def record_critic(path: str | os.PathLike[str], seed: int) -> CriticEpisode:
    """Drive the episode of ``seed`` with a checkpoint's policy and ask its critics about every step.

    Needs JAX, and the checkpoint's ``agent`` group.

    Raises:
        UsageError: the checkpoint's agent has no return distribution, or the checkpoint does not hold the agent.
    """
    trained = load_policy(path)
    world, film = trained.world, trained.world.get_film()
    config = world.resolve({**trained.env_config, **film.still})
    env = film.make(config)
    try:
        check_spaces(trained.policy, env.observation_space, env.action_space)
        agent = restore_critic(trained, env)
        frames: list[np.ndarray] = []
        steps = []
        for step in run_episode(trained.policy, trained.params, world, env, seed):
            rendered: Any = env.render()  # what was drawn since the last call: of the first step, the reset too
            frames += rendered[-1:] if frames else [rendered[0], rendered[-1]]
            steps.append(step)
    finally:
        env.close()
    observations = np.stack([step.observation for step in steps]).astype(np.float32)
    actions = np.stack([step.chosen for step in steps]).astype(np.float32)
    atoms, probs = agent.return_distribution(observations, actions)
    result = steps[-1].result
    return CriticEpisode(
        name=trained.name,
        seed=seed,
        end_reason=result.end_reason if result is not None else "",
        period=film.clock(config)[0],
        atoms=atoms,
        probs=probs,
        rewards=np.array([step.reward for step in steps]),
        discount=float(trained.agent_config["discount"]),
        cvar_risk=float(trained.agent_config["cvar_risk"]),
        frames=frames[:-1],
    )


def critic_figure(episode: CriticEpisode, num_frames: int = 4) -> Any:
    """Draw an episode: pictures, the distribution at each of them, and below it over the whole episode."""
    plt = pyplot()
    count = min(num_frames, len(episode.frames))
    at = np.unique(np.linspace(0, len(episode.frames) - 1, count).round().astype(int))
    times = np.arange(len(episode.frames)) * episode.period
    mean = episode.probs @ episode.atoms
    cvar = atoms_cvar(episode.atoms, episode.probs, episode.cvar_risk)
    followed = discounted_returns(episode.rewards, episode.discount)
    low, high = _shown_range(episode, followed)

    figure = plt.figure(figsize=(3.4 * len(at) + 0.8, 7.6))
    grid = figure.add_gridspec(3, len(at), height_ratios=(1.15, 1.25, 2.4))
    tallest = float(episode.probs[at].max())
    for column, index in enumerate(at):
        picture = figure.add_subplot(grid[0, column])
        picture.imshow(episode.frames[index])
        picture.set_axis_off()
        picture.set_title(f"{times[index]:.1f} s")
        axis = figure.add_subplot(grid[1, column])
        _draw_distribution(axis, episode, index, float(mean[index]), float(cvar[index]))
        axis.set_xlim(low, high)
        axis.set_ylim(0.0, 1.1 * tallest)
        if column:
            axis.set_yticklabels([])
    axis = figure.add_subplot(grid[2, :])
    spacing = (episode.atoms[1] - episode.atoms[0]) / 2.0
    extent = (times[0], times[-1] + episode.period, episode.atoms[0] - spacing, episode.atoms[-1] + spacing)
    image = axis.imshow(
        np.sqrt(episode.probs.T), origin="lower", aspect="auto", extent=extent, cmap="Blues", interpolation="nearest"
    )
    axis.grid(False)
    axis.plot(times, mean, color=INK, linewidth=1.8, linestyle="--", label="mean")
    axis.plot(times, cvar, color=COLORS[1], linewidth=2.0, label=f"CVaR at risk {episode.cvar_risk:g}")
    axis.plot(times, followed, color=COLORS[3], linewidth=1.8, label="discounted return that followed")
    for index in at:
        axis.axvline(times[index], color=GREY, linewidth=0.8, linestyle=":")
    axis.set_ylim(low, high)
    axis.set_xlim(times[0], times[-1] + episode.period)
    axis.set_xlabel("time [s]")
    axis.set_ylabel("return")
    reason = episode.end_reason.replace("_", " ")
    axis.set_title(f"Return distribution over the episode: {episode.name}, seed {episode.seed}, ends by {reason}")
    axis.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=3)
    figure.colorbar(image, ax=axis, label="square root of probability", pad=0.01)
    return figure


def _draw_distribution(axis: Any, episode: CriticEpisode, index: int, mean: float, cvar: float) -> None:
    probs, atoms = episode.probs[index], episode.atoms
    tail = _tail(probs, episode.cvar_risk)
    axis.fill_between(atoms, probs, step="mid", color=COLORS[0], alpha=0.35, linewidth=0)
    axis.fill_between(atoms, tail, step="mid", color=COLORS[1], alpha=0.65, linewidth=0)
    axis.step(atoms, probs, where="mid", color=COLORS[0], linewidth=1.2)
    axis.axvline(mean, color=INK, linewidth=1.5, linestyle="--")
    axis.axvline(cvar, color=COLORS[1], linewidth=1.8)
    axis.set_xlabel("return")
    if index == 0:
        axis.set_ylabel("probability")


def _shown_range(episode: CriticEpisode, followed: np.ndarray) -> tuple[float, float]:
    """The part of the support that carries visible mass, and the returns that followed."""
    visible = episode.atoms[(episode.probs > 1e-3).any(axis=0)]
    low = min(float(visible.min()), float(followed.min()))
    high = max(float(visible.max()), float(followed.max()))
    margin = 0.05 * max(high - low, 1.0)
    return low - margin, high + margin
