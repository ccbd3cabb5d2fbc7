"""The highway as a :class:`racer.envs.world.World`."""

from __future__ import annotations

from racer.envs.highway import make_vector_env
from racer.envs.highway.columns import row_layout
from racer.envs.highway.config import action_names, resolve_config
from racer.envs.highway.drivers import DRIVERS
from racer.envs.highway.film import FILM
from racer.envs.highway.metrics import METRICS, TRADE_OFFS, end_reason
from racer.envs.highway.replay import REPLAY
from racer.envs.highway.sentences import SENTENCES
from racer.envs.highway.views import CONTROLLERS, VIEWS
from racer.envs.world import World

__all__ = ["WORLD"]

WORLD = World(
    name="highway",
    resolve=resolve_config,
    make=make_vector_env,
    sentences=SENTENCES,
    metrics=METRICS,
    action_names=lambda config: action_names(config["action"]),
    end_reason=end_reason,
    base_keys=("scenario",),
    trade_offs=TRADE_OFFS,
    aliases={"safety_penalty": "safety_coeff"},
    views=VIEWS,
    controllers=CONTROLLERS,
    drivers=DRIVERS,
    film=FILM,
    row_layout=row_layout,
    replay=REPLAY,
    reference={"engine": "highway-env"},
)
