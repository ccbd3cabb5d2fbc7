"""PPO with a GRU and the lambda discrepancy of two value heads in the T-maze of ten cells."""

from pathlib import Path

exp_name = Path(__file__).stem

lrs = [2.5e-3, 2.5e-4, 2.5e-5]
lambda0s = [0.1, 0.5, 0.95]
lambda1s = [0.5, 0.7, 0.95]
ld_weights = [0.25, 0.5]

hparams = {
    "file_name": f"runs_{exp_name}.txt",
    "entry": "-m racer sweep job",
    "args": [
        {
            "env": "tmaze_10",
            "double_critic": True,
            "action_concat": True,
            "lr": " ".join(map(str, lrs)),
            "lambda0": " ".join(map(str, lambda0s)),
            "lambda1": " ".join(map(str, lambda1s)),
            "alpha": "1",
            "ld_weight": " ".join(map(str, ld_weights)),
            "vf_coeff": "0.5",
            "hidden_size": 32,
            "num_envs": 4,
            "entropy_coeff": 0.01,
            "update_log_freq": 5,
            "total_steps": int(1e6),
            "seed": 2024,
            "n_seeds": 10,
        }
    ],
    # Two value heads of one decay have no discrepancy.
    "exclude": [{"lambda0": value, "lambda1": value} for value in (0.5, 0.95)],
}
