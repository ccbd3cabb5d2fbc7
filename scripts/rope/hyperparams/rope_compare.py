"""Five conditions and an attention encoder, 60 runs an arm with the same seeds: what can be told apart."""

from racer.sweeps import vmapped

base = {
    "agent": "ppo",
    "world": "highway",
    # The published environment: 15 rows, normalized, three dense lanes, 200 steps of 0.2 s.
    "env.observation.vehicles_count": 15,
    "env.observation.features": ("presence", "x", "y", "vx", "vy"),
    "env.observation.normalize": True,
    "env.observation.features_range": {"x": (-100, 100), "y": (-100, 100), "vx": (-30, 30), "vy": (-30, 30)},
    "env.lanes_count": 3,
    "env.vehicles_count": 50,
    "env.vehicles_density": 2,
    "env.duration": 40,
    "env.max_episode_steps": 200,
    "env.reward": "base",
    "env.normalize_reward": True,
    "env.offroad_terminal": False,
    # 2048 transitions an update, as there; from eight environments instead of one, which is far faster to step.
    "num_envs": 8,
    "rollout_length": 256,
    "hidden_dims": (128, 128),
    "shared_trunk": True,
    "activation": "relu",
    "initial_std": 0.6,
    "num_epochs": 6,
    "num_minibatches": 32,
    "lr": 3e-4,
    "clip_ratio": 0.2,
    "entropy_coef": 0.005,
    "normalize_values": False,
    "max_steps": 243_000,
    "log_interval": 2_048,
    "eval_interval": 243_000 // 31,
    "eval_episodes": 5,
    "save_interval": 0,
}

arms = [
    {"tag.condition": "sorted"},
    {"tag.condition": "shuffled", "env.row_order": "shuffled"},
    {"tag.condition": "rank", "env.row_order": "shuffled", "positional_encoding": "rank"},
    {"tag.condition": "distance", "env.row_order": "shuffled", "positional_encoding": "distance"},
    {"tag.condition": "rotary", "env.row_order": "shuffled", "positional_encoding": "rotary"},
    # The anchor: rows are read as a set.
    {
        "tag.condition": "attention",
        "env.row_order": "shuffled",
        "encoder": {"kind": "attention", "embed": 64, "heads": 4},
    },
]
seeds = [vmapped(*range(start, start + 10)) for start in range(42, 102, 10)]

hparams = {"args": [{**base, **arm, "seed": block} for arm in arms for block in seeds]}
