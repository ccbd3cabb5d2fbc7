"""Soft actor-critic on the highway: the risk-neutral comparison.

Every key can be overridden on the command line: ``--config.discount=0.98``.
"""

import ml_collections
from ml_collections import config_dict

from racer.envs.highway.presets import environment_config


def get_config() -> ml_collections.ConfigDict:
    """Return the configuration with every key."""
    config = ml_collections.ConfigDict()

    # Which agent learns: a name known to racer.agents, or "package.module:Class".
    config.model_cls = "SACLearner"

    # Adam step size of the policy network.
    config.actor_lr = 3e-4
    # Adam step size of the critic ensemble.
    config.critic_lr = 3e-4
    # Adam step size of the entropy temperature.
    config.temp_lr = 3e-4

    # "constant", or "linear": the step sizes of policy and critics fall to final_lr_fraction of themselves over
    # lr_decay_steps.
    config.lr_schedule = "constant"
    # Gradient steps before they begin to fall; None: three fifths of the run's.
    config.lr_decay_begin = config_dict.placeholder(int)
    # Gradient steps over which they fall; None: two fifths of the run's.
    config.lr_decay_steps = config_dict.placeholder(int)
    # Share of the first step sizes that is left in the end.
    config.final_lr_fraction = 0.0

    # Whether the policy that acts and is saved is the mean of the actor's weights since average_begin gradient steps.
    config.average_actor = False
    # Gradient steps before the mean begins; None: four fifths of the run's.
    config.average_begin = config_dict.placeholder(int)

    # Widths of the policy's hidden layers.
    config.actor_hidden_dims = (256, 256)
    # Widths of each critic's hidden layers.
    config.critic_hidden_dims = (256, 256)

    # Factor on the next step's return.
    config.discount = 0.99
    # Critics in the ensemble.
    config.num_qs = 2
    # Critics, drawn anew for every minibatch, whose minimum is the target's value; None: all of them.
    config.num_min_qs = config_dict.placeholder(int)
    # Share of the critics that moves into their targets after every gradient step.
    config.tau = 0.005
    # Steps of policy and temperature an update() call, each on a minibatch of its own; no more than utd_ratio.
    config.policy_steps = 1
    # First value of the entropy temperature.
    config.init_temperature = 1.0
    # Policy entropy (nats) the temperature steers to; None: minus half the number of actions, which is far more
    # steering noise than keeps a car at 30 m/s in its lane.
    config.target_entropy = -4.0

    # Layer normalisation in the critics.
    config.critic_layer_norm = False
    # Decoupled weight decay of the critics' kernels; None: none.
    config.critic_weight_decay = config_dict.placeholder(float)
    # Whether the critics' target carries the entropy bonus of the next action.
    config.backup_entropy = True

    # First mean of the policy, for actions by name: below 30 m/s the speed earns nothing, and a policy that begins
    # there learns to crawl before it has felt what speed is worth.
    config.initial_action = {"acceleration": 0.5}

    # Correlation of the exploration noise from one step (0.2 s) to the next: white noise cancels out before the car has
    # changed its lane or its speed.
    config.noise_correlation = 0.85

    # Observation transform of the world that policy and critics see through, by name; None: the observation itself.
    config.view = config_dict.placeholder(str)
    # Action transform of the world that the policy acts through, by name; None: the world's own actions.
    config.controller = config_dict.placeholder(str)
    # What the policy remembers with, as "gru"; None: it has no memory.
    config.memory = config_dict.placeholder(object)

    # What tells the encoder where a vehicle's row stands: "rank", "distance", "rotary"; None: nothing.
    config.positional_encoding = config_dict.placeholder(object)
    # What reads an observation first: a PointNet over vehicle rows, with the widths of its layers, or "flat".
    config.encoder = config_dict.FieldReference("flat", field_type=object)
    # Factor on the observation: one number, one for each vehicle feature, or None. These bring metres, m/s and
    # radians to about one; unscaled, an x of 100 drowns a heading of 0.05.
    config.observation_scale = config_dict.FieldReference((1.0, 0.03, 0.25, 0.1, 0.25, 8.0), field_type=object)

    # Weight of the safety reward in the training reward (read by the environment, not by the agent).
    config.safety_penalty = 0.01

    # The world: every key of racer/RiskHighway-v0 with its default (racer/envs/highway/config.py explains each).
    config.env = environment_config()
    return config
