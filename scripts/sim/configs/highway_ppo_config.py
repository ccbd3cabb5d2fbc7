"""Proximal policy optimization on the highway.

Every key can be overridden on the command line: ``--config.entropy_coef=0.001``.
"""

import ml_collections
from ml_collections import config_dict

from racer.envs.highway.presets import environment_config


def get_config() -> ml_collections.ConfigDict:
    """Return the configuration with every key at its default."""
    config = ml_collections.ConfigDict()

    # Which agent learns: a name known to racer.agents, or "package.module:Class".
    config.model_cls = "PPOLearner"

    # Steps of every environment between two updates.
    config.rollout_length = 128
    # Times an update goes over its rollout.
    config.num_epochs = 5
    # Gradient steps an epoch; must divide rollout_length times the number of environments.
    config.num_minibatches = 4

    # Adam step size of the policy network.
    config.actor_lr = 4e-4
    # Adam step size of the value network.
    config.critic_lr = 4e-4
    # "constant", or "linear": both step sizes fall to final_lr_fraction of themselves over lr_decay_transitions.
    config.lr_schedule = "linear"
    # Transitions over which the step sizes fall; None: the whole run.
    config.lr_decay_transitions = config_dict.placeholder(int)
    # Share of the first step size that is left in the end.
    config.final_lr_fraction = 0.1

    # Factor on the next step's return.
    config.discount = 0.99
    # Decay of later temporal differences in the advantage.
    config.gae_lambda = 0.95
    # How far the probability ratio may leave 1 and still raise the objective.
    config.clip_ratio = 0.2
    # Greatest change of a value in one update that still lowers the loss, in standard deviations of the returns; None:
    # no limit.
    config.value_clip = config_dict.placeholder(float)
    # Weight of the value loss.
    config.value_coef = 0.5
    # Weight of the policy's entropy.
    config.entropy_coef = 0.003
    # Joint norm above which the gradients of both networks are scaled down.
    config.max_grad_norm = 0.5
    # Divergence (nats) from the policy before the update at which the rest of the update is skipped; None: no limit.
    config.target_kl = config_dict.FieldReference(0.1, field_type=object)
    # Shift and scale every minibatch's advantages to mean 0 and variance 1.
    config.normalize_advantages = True
    # Let the value network learn returns relative to their running mean and deviation.
    config.normalize_values = True

    # "tanh_gaussian" or "beta" for continuous actions, "categorical" for choices; "auto": what fits the environment.
    config.distribution = "auto"
    # First standard deviation of every action, as a share of half its range.
    config.initial_std = 0.5
    # First mean of the policy, for actions by name: below 30 m/s the speed earns nothing, and a policy that begins
    # there learns to crawl before it has felt what speed is worth.
    config.initial_action = {"acceleration": 0.5}
    # Share of its range that the policy uses, for actions by name. Full steering is 45 degrees, which at 30 m/s leaves
    # the road within two steps; a twentieth of it changes lanes.
    config.action_scale = {"steering": 0.05}

    # Widths of the policy network's hidden layers.
    config.hidden_dims = (128, 128)
    # Widths of the value network's hidden layers.
    config.value_hidden_dims = (128, 128)
    # True: the value is a linear function of the policy network's features; half the work of two networks, and what is
    # a car ahead is learnt once.
    config.shared_trunk = True
    # "tanh" or "relu".
    config.activation = "relu"
    # Orthogonal initialisation of the dense layers.
    config.orthogonal_init = True

    # Standard deviation of a tanh_gaussian policy in the end: it is not learned then, but falls from initial_std over
    # std_decay_transitions transitions; None: it is learned.
    config.final_std = config_dict.placeholder(float)
    # See final_std; None: the whole run.
    config.std_decay_transitions = config_dict.placeholder(int)
    # 1, or 2: a second value head learns returns of second_gae_lambda.
    config.value_heads = 1
    # gae_lambda of the second value head; the policy follows the first.
    config.second_gae_lambda = 0.1
    # Share w of the squared difference of both value heads in the value loss: w (V0 - V1)^2 + (1 - w) V.
    config.ld_weight = 0.0

    # Observation transform of the world that policy and critics see through, by name; None: the observation itself.
    config.view = config_dict.placeholder(str)
    # Action transform of the world that the policy acts through, by name; None: the world's own actions.
    config.controller = config_dict.placeholder(str)
    # What the policy remembers with, as "gru"; None: it has no memory.
    config.memory = config_dict.placeholder(object)

    # What tells the encoder where a vehicle's row stands: "rank", "distance", "rotary"; None: nothing.
    config.positional_encoding = config_dict.placeholder(object)
    # What reads an observation first: a PointNet over vehicle rows, with the widths of its layers, or "flat". "A car
    # ahead in this lane" is a conjunction, which takes two layers.
    config.encoder = config_dict.FieldReference({"kind": "pointnet", "widths": (32, 64)}, field_type=object)
    # Factor on the observation: one number, one for each vehicle feature (presence, x, y, vx, vy, heading), or None.
    config.observation_scale = config_dict.FieldReference((1.0, 0.03, 0.25, 0.1, 0.25, 8.0), field_type=object)

    # Weight of the safety reward in the training reward (read by the environment, not by the agent).
    config.safety_penalty = 0.01

    # The world: every key of racer/RiskHighway-v0 with its default (racer/envs/highway/config.py explains each).
    config.env = environment_config()
    return config
