"""What a memory is worth at most: the sign shown everywhere, or never again. Two jobs of four settings, three seeds."""

hparams = {
    "args": [
        {
            "env": "tmaze_10",
            "memoryless": True,
            "perfect_memory": [False, True],
            "lr": "2.5e-3 1e-3",
            "lambda0": "0.7 0.95",
            "hidden_size": 32,
            "num_envs": 16,
            "total_steps": int(1e6),
            "update_log_freq": 5,
            "seed": 1,
            "n_seeds": 3,
        }
    ]
}
