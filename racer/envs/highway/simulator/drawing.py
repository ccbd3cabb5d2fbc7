"""Frames by highway-env's own viewer, fed with the compiled state.

The viewer wants an environment to look at: its ``config``, ``road``, ``vehicle`` and action type. A stand-in with
a real highway-env road is posed with the state before every frame, so that the pictures are highway-env's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from highway_env.envs.common.graphics import EnvViewer
from highway_env.road.road import Road, RoadNetwork
from highway_env.utils import class_from_path
from highway_env.vehicle.controller import MDPVehicle
from highway_env.vehicle.graphics import VehicleGraphics
from highway_env.vehicle.kinematics import Vehicle

from racer.envs.headless import prepare_drawing
from racer.envs.highway.simulator.config import BEHAVIORS, Parameters
from racer.envs.highway.simulator.layout import EGO_KIND, EGO_META, LANES, SPEED_LIMIT, VEHICLES

__all__ = ["SceneViewer"]


class SceneViewer:
    """Draws scenes of one configuration.

    Args:
        config: highway-env's configuration.
        parameters: the same, parsed.
    """

    # what EnvViewer looks up in an environment besides the scene
    action_type = None
    observation_type = None

    def __init__(self, config: Mapping[str, Any], parameters: Parameters) -> None:
        self.config = {**config, "offscreen_rendering": True}
        wholes = parameters.wholes
        network = RoadNetwork.straight_road_network(int(wholes[LANES]), speed_limit=int(SPEED_LIMIT))
        self.road = Road(network=network, np_random=np.random.default_rng(0))
        ego = MDPVehicle if wholes[EGO_KIND] == EGO_META else Vehicle
        other = class_from_path(BEHAVIORS + parameters.traffic)
        kinds = [ego] + [other] * (int(wholes[VEHICLES]) - 1)
        self.road.vehicles = [kind(self.road, [0.0, 0.0]) for kind in kinds]
        self._viewer: EnvViewer | None = None
        self._followed = 0

    @property
    def vehicle(self) -> Vehicle:
        """What the window follows."""
        return self.road.vehicles[self._followed]

    def draw(self, scene: Mapping[str, Any], egos: int = 1, followed: int = 0) -> np.ndarray:
        """Return the frame ``[H, W, 3]`` uint8 of a scene from :meth:`HighwaySimulator.scene`.

        Args:
            scene: what is drawn.
            egos: how many cars, from the first on, have an ego's colour.
            followed: the car that the window follows.
        """
        self._followed = followed
        for i, vehicle in enumerate(self.road.vehicles):
            vehicle.position = np.array([scene["x"][i], scene["y"][i]])
            vehicle.heading = scene["heading"][i]
            vehicle.speed = scene["speed"][i]
            vehicle.crashed = bool(scene["crashed"][i])
            vehicle.color = VehicleGraphics.EGO_COLOR if 0 < i < egos and not vehicle.crashed else None
            vehicle.action = {"steering": scene["steering"][i], "acceleration": scene["acceleration"][i]}
        if self._viewer is None:
            prepare_drawing()
            self._viewer = EnvViewer(self)
        self._viewer.display()
        return self._viewer.get_image()

    def close(self) -> None:
        """Close the viewer."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None
