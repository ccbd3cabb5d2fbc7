"""PPO in one file, on the batched highway: read it from top to bottom and change what you like.

    pip install ".[sb3]"           # in the checkout; for PyTorch
    python examples/ppo_one_file.py --steps 300000

The algorithm is that of Schulman et al. 2017 (arXiv 1707.06347) with generalised advantages. The environment is stepped
in one call for all copies, so that collecting takes a small share of the time, printed at the end.
"""

from __future__ import annotations

import argparse
import time

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

try:
    import torch
    from torch import nn
except ModuleNotFoundError as error:
    raise SystemExit(f"this example needs {error.name}: pip install '.[sb3]' in the checkout") from None

import racer.envs  # noqa: F401  (registers racer/highway-fast-v0)

ROLLOUT, EPOCHS, MINIBATCH = 32, 4, 512
DISCOUNT, GAE_LAMBDA, CLIP, ENTROPY, LEARNING_RATE = 0.9, 0.95, 0.2, 0.01, 5e-4


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, outputs)
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    envs = gymnasium.make_vec("racer/highway-fast-v0", arguments.envs, autoreset_mode=AutoresetMode.SAME_STEP)
    inputs = int(np.prod(envs.single_observation_space.shape))
    actor, critic = network(inputs, int(envs.single_action_space.n)), network(inputs, 1)
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=LEARNING_RATE, eps=1e-5)

    observations, _ = envs.reset(seed=arguments.seed)
    returns, running, simulating, began = [], np.zeros(arguments.envs), 0.0, time.perf_counter()
    for update in range(max(1, arguments.steps // (ROLLOUT * arguments.envs))):
        names = ("observations", "actions", "log_probs", "rewards", "values", "ends", "next_values")
        rows = {name: [] for name in names}
        for _ in range(ROLLOUT):
            flat = torch.as_tensor(observations.reshape(arguments.envs, -1), dtype=torch.float32)
            with torch.no_grad():
                choice = torch.distributions.Categorical(logits=actor(flat))
                actions, values = choice.sample(), critic(flat)[:, 0]
            start = time.perf_counter()
            observations, rewards, terminated, truncated, infos = envs.step(actions.numpy())
            simulating += time.perf_counter() - start
            ended = terminated | truncated
            following = observations.reshape(arguments.envs, -1).copy()
            for i in np.flatnonzero(ended):
                following[i] = infos["final_obs"][i].ravel()
            with torch.no_grad():
                # An episode that was cut off goes on in the value of its last observation; one that ended does not.
                next_values = critic(torch.as_tensor(following, dtype=torch.float32))[:, 0]
                next_values[torch.as_tensor(terminated)] = 0.0
            for name, value in (
                ("observations", flat), ("actions", actions), ("log_probs", choice.log_prob(actions)),
                ("rewards", torch.as_tensor(rewards, dtype=torch.float32)), ("values", values),
                ("ends", torch.as_tensor(ended, dtype=torch.float32)), ("next_values", next_values),
            ):  # fmt: skip
                rows[name].append(value)
            running += rewards
            returns += running[ended].tolist()
            running[ended] = 0.0
        batch = {name: torch.stack(values) for name, values in rows.items()}
        advantages, carried = torch.zeros_like(batch["rewards"]), torch.zeros(arguments.envs)
        for t in reversed(range(ROLLOUT)):
            delta = batch["rewards"][t] + DISCOUNT * batch["next_values"][t] - batch["values"][t]
            carried = delta + DISCOUNT * GAE_LAMBDA * (1.0 - batch["ends"][t]) * carried
            advantages[t] = carried
        batch |= {"advantages": advantages, "targets": advantages + batch["values"]}
        data = {name: values.flatten(0, 1) for name, values in batch.items()}
        for _ in range(EPOCHS):
            for chosen in torch.randperm(ROLLOUT * arguments.envs).split(MINIBATCH):
                part = {name: values[chosen] for name, values in data.items()}
                choice = torch.distributions.Categorical(logits=actor(part["observations"]))
                ratio = (choice.log_prob(part["actions"]) - part["log_probs"]).exp()
                gain = (part["advantages"] - part["advantages"].mean()) / (part["advantages"].std() + 1e-8)
                policy_loss = -torch.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
                value_loss = (critic(part["observations"])[:, 0] - part["targets"]).square().mean()
                loss = policy_loss + 0.5 * value_loss - ENTROPY * choice.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_([*actor.parameters(), *critic.parameters()], 0.5)
                optimizer.step()
        if update % 20 == 0:
            print(f"update {update}: mean return of the last 100 episodes {np.mean(returns[-100:] or [np.nan]):.2f}")
    seconds = time.perf_counter() - began
    first, last = np.mean(returns[:100]), np.mean(returns[-100:])
    print(f"mean return of the last 100 episodes: {last:.2f}; first 100: {first:.2f}")
    print(f"{arguments.steps / seconds:.0f} steps/s, {simulating / seconds:.0%} of the time in the environments")
    envs.close()


if __name__ == "__main__":
    main()
