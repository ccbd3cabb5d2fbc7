"""PPO with a gated transformer in the T-maze of ten cells: a job for each step size and trace decay."""

from pathlib import Path

exp_name = Path(__file__).stem

lrs = [2.5e-3, 2.5e-4, 2.5e-5, 2.5e-6]
lambda0s = [0.1, 0.3, 0.5, 0.7, 0.9, 0.95]

hparams = {
    "file_name": f"runs_{exp_name}.txt",
    "entry": "-m racer sweep job --memory transformer",
    "args": [
        {
            "env": "tmaze_10",
            "double_critic": False,
            "action_concat": True,
            "lr": lrs,
            "lambda0": lambda0s,
            "lambda1": "0.95",
            "alpha": "1",
            "ld_weight": "0",
            "hidden_size": 32,
            "embed_size": 12,
            "num_heads": 8,
            "num_layers": 2,
            "window_mem": 128,
            "num_envs": 4,
            "entropy_coeff": 0.01,
            "update_log_freq": 5,
            "total_steps": int(1e6),
            "seed": 2024,
            "n_seeds": 10,
        }
    ],
}
