"""PPO in the T-maze of ten cells with four memories: none, one that is given the sign, a GRU, a gated transformer."""

from racer.sweeps import vmapped

base = {
    "agent": "ppo",
    "world": "tmaze_10",
    "num_envs": 16,
    "rollout_length": 128,
    "num_epochs": 4,
    "num_minibatches": 4,
    "actor_lr": 2.5e-3,
    "critic_lr": 1e-3,
    "lr_schedule": "linear",
    "lr_decay_transitions": int(1e6),
    "gae_lambda": 0.95,
    "entropy_coef": 0.01,
    "normalize_values": False,
    "hidden_dims": (32,),
    "value_hidden_dims": (32,),
    "activation": "relu",
    "max_steps": int(1e6),
    "updates_per_point": 5,
    "eval_episodes": 50,
}
transformer = {"kind": "transformer", "layers": 2, "heads": 8, "embed": 12, "head_size": 4, "length": 128}

arms = [
    {"tag.memory": "none", "actor_lr": 1e-3},
    {"tag.memory": "perfect", "env.observation": "perfect_memory"},
    {"tag.memory": "GRU", "memory": {"kind": "gru", "size": 32}},
    # Attention costs the square of a sequence: as many transitions an update in sequences half as long.
    {"tag.memory": "transformer", "memory": transformer, "actor_lr": 1e-3, "num_envs": 32, "rollout_length": 64},
]

hparams = {"args": [{**base, **arm, "seed": vmapped(*range(11, 16))} for arm in arms]}
