"""PPO with a GRU among partners of four tempers, three seeds each: an array of twelve tasks for a cluster."""

from racer.sweeps import jobs

tempers = ["0.05", "0.1", "0.2", "0.5"]

hparams = {
    "args": [
        {
            "agent": "ppo",
            "world": "trials",
            "max_steps": 2_500_000,
            "num_envs": 256,
            "env.policy_frequency": 1,
            "env.fill_window": False,
            "env.population": "partners",
            "env.partners": jobs(*[(f"trials-partner-{temper}",) for temper in tempers]),
            "memory": {"kind": "gru", "size": 64},
            "rollout_length": 112,
            "num_epochs": 6,
            "num_minibatches": 8,
            "lr": 3e-3,
            "lr_schedule": "linear",
            "lr_decay_transitions": 2_500_000,
            "final_lr_fraction": 0.1,
            "entropy_coef": 0.003,
            "target_kl": 0.05,
            "initial_choices": (0.05, 0.7, 0.05, 0.1, 0.1),
            "hidden_dims": (64,),
            "value_hidden_dims": (64,),
            "shared_trunk": True,
            "seed": jobs(1, 2, 3),
        }
    ]
}
