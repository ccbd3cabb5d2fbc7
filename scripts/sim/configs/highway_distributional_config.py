"""RACER on the highway: a risk-sensitive actor-critic that attends to the cars and chooses a speed and a place.

Every key can be overridden on the command line: ``--config.cvar_risk=0.5``.
"""

import ml_collections
from ml_collections import config_dict

from racer.envs.highway.presets import environment_config


def get_config() -> ml_collections.ConfigDict:
    """Return the configuration with every key."""
    config = ml_collections.ConfigDict()

    # Which agent learns: a name known to racer.agents, or "package.module:Class".
    config.model_cls = "DistributionalSACLearner"

    # Adam step size of the policy network.
    config.actor_lr = 3e-4
    # Adam step size of the critic ensemble.
    config.critic_lr = 3e-4
    # Adam step size of the entropy temperature.
    config.temp_lr = 3e-4
    # Adam step size of the learned action limit: slow, so that the range widens only on lasting evidence; it takes
    # policy_steps of them in an update() call.
    config.limits_lr = 2.5e-6
    # Adam step size of the multiplier that keeps the critics uncertain about unseen actions.
    config.q_entropy_lagrange_lr = 1e-3

    # "constant", or "linear": the step sizes of policy and critics fall to final_lr_fraction of themselves over
    # lr_decay_steps. Crashes become rare among the replayed transitions, and a constant step size never averages their
    # noise out.
    config.lr_schedule = "linear"
    # Gradient steps before they begin to fall; None: three fifths of the run's.
    config.lr_decay_begin = config_dict.placeholder(int)
    # Gradient steps over which they fall; None: two fifths of the run's.
    config.lr_decay_steps = config_dict.placeholder(int)
    # Share of the first step sizes that is left in the end.
    config.final_lr_fraction = 0.1

    # Whether the policy that acts and is saved is the mean of the actor's weights since average_begin gradient steps:
    # the last actors drive alike on most roads and crash on different ones.
    config.average_actor = True
    # Gradient steps before the mean begins; None: four fifths of the run's.
    config.average_begin = config_dict.placeholder(int)

    # Widths of the policy's hidden layers.
    config.actor_hidden_dims = (128, 128)
    # Widths of each critic's hidden layers.
    config.critic_hidden_dims = (128, 128)

    # Factor on the next step's return.
    config.discount = 0.99
    # Critics in the ensemble.
    config.num_qs = 2
    # Share of the critics that moves into their targets after every gradient step.
    config.tau = 0.005
    # Steps of policy and temperature an update() call, each on a minibatch of its own; no more than utd_ratio.
    config.policy_steps = 4
    # First value of the entropy temperature: at 1 the entropy outweighs what a faster car earns.
    config.init_temperature = 0.1
    # Policy entropy (nats) the temperature steers to; None: minus half the number of actions.
    config.target_entropy = -2.0

    # Atoms of each critic's return distribution.
    config.num_atoms = 101
    # Return at the first atom; worse returns count as this one.
    config.q_min = -50.0
    # Return at the last atom; better returns count as this one.
    config.q_max = 50.0
    # The policy maximises the mean of the worst (1 - cvar_risk) share of returns; 0 is risk-neutral.
    config.cvar_risk = 0.8
    # Gradient steps over which the risk rises from 0 to cvar_risk: the worst fifth of the returns of an agent that
    # cannot drive yet is the same whatever it does.
    config.cvar_warmup_steps = 20_000

    # Whether one policy learns every risk level, to be chosen when it drives (--cvar_risk); cvar_risk is its usual one.
    # At each level it drives better than a policy that is trained for that level alone.
    config.risk_conditioned = True

    # Layer normalisation in the critics.
    config.critic_layer_norm = True
    # Decoupled weight decay of the critics' kernels.
    config.critic_weight_decay = 1e-3
    # Decoupled weight decay of the learned limit.
    config.limits_weight_decay = 1e-3
    # Whether the critics' target carries the entropy bonus of the next action.
    config.backup_entropy = False
    # True: each critic bootstraps from its own target; False: all from the mixture of the targets.
    config.independent_ensemble = True

    # Risk level of the learned limit: a number in [0, 1], or "cvar_risk" for the policy's own.
    config.cvar_limits = config_dict.FieldReference("cvar_risk", field_type=object)
    # Largest excess (nats) of critic entropy on replayed actions over that on out-of-distribution actions; None: the
    # critics are not asked about such actions. A learned limit needs them.
    config.q_entropy_target_diff = config_dict.FieldReference(None, field_type=object)
    # First value of the multiplier of that constraint.
    config.q_entropy_lagrange_init = 1e-3

    # Name of the action with a learned limit; "none": no limit is learned.
    config.learned_action = "none"
    # First value of the limit, in the action's own unit.
    config.learned_action_initial_limit = 0.1
    # "symmetric" keeps the action in [-limit, limit], "upper" in [low, limit]; None: symmetric where the range is.
    config.learned_action_limit_kind = config_dict.placeholder(str)

    # First mean of the policy, for actions by name: below 30 m/s the speed earns nothing, and a policy that begins
    # there learns to crawl before it has felt what speed is worth.
    config.initial_action = config_dict.FieldReference({"target_speed": 0.5}, field_type=object)

    # Correlation of the exploration noise from one step (0.2 s) to the next: white noise cancels out before the car has
    # changed its lane or its speed.
    config.noise_correlation = 0.85

    # Observation transform of the world that policy and critics see through, by name; None: the observation itself.
    # "lane_slots": in each lane around the nearest cars ahead, alongside and behind; then set encoder to "flat" and
    # observation_scale to None. Half the time of a training, but more crashes.
    config.view = config_dict.placeholder(str)
    # Action transform of the world that the policy acts through, by name; None: the world's own actions. "targets": the
    # policy chooses a speed and a place across the road. Random steering explores by crashing; random targets do not.
    config.controller = "targets"
    # What the policy remembers with, as "gru"; None: it has no memory.
    config.memory = config_dict.placeholder(object)

    # What tells the encoder where a vehicle's row stands: "rank", "distance", "rotary"; None: nothing.
    config.positional_encoding = config_dict.placeholder(object)
    # What reads what is seen first: {"kind": "attention"} over the vehicles' rows, the own car asking;
    # {"kind": "pointnet", "widths": (32, 64)}; or "flat", the numbers one after the other.
    config.encoder = config_dict.FieldReference({"kind": "attention"}, field_type=object)
    # Factor on what is seen: one number, one for each vehicle feature (presence, x, y, vx, vy, heading), or None.
    config.observation_scale = config_dict.FieldReference((1.0, 0.03, 0.25, 0.1, 0.25, 8.0), field_type=object)

    # Weight of the safety reward in the training reward (read by the environment, not by the agent).
    config.safety_penalty = 0.01

    # The world: every key of racer/RiskHighway-v0 with its default (racer/envs/highway/config.py explains each).
    config.env = environment_config()
    return config
