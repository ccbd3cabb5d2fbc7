"""What each key of the highway's configuration means: RACER's own, then highway-env's."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SENTENCES"]

SENTENCES: Mapping[str, str] = {
    "engine": 'which simulator: the exact "compiled" one, or "highway-env" itself',
    "scenario": "which of highway-env's two ids, highway-v0 or highway-fast-v0, the other defaults and the collision "
    "rule come from",
    "reward": 'the reward that a step pays: "training", shaped for safety, or "base", highway-env\'s own',
    "max_episode_steps": "steps after which an episode is truncated, whatever its duration in seconds",
    "observation_clip": "observations are clipped to [-observation_clip, observation_clip]",
    "row_order": '"sorted" by distance; "shuffled": the same rows in an order that tells nothing (observation.order '
    "changes which vehicles are seen, too)",
    "flatten_observation": "one vector of V * F numbers instead of rows [V, F]",
    "speed_weight": "weight of the speed terms; None takes high_speed_reward, so that the correction removes what was "
    "added",
    "forward_speed_range": "forward speeds that earn 0 and 1 (m/s)",
    "safety_coeff": "weight of the safety reward",
    "safety_mode": 'what the safety reward goes by: "ttc", time to collision, or "proximity", distance',
    "ttc_threshold": "time to collision below which there is a risk (s)",
    "ttc_critical": "time to collision at which the risk is full (s)",
    "gap_threshold": "gap below which a time to collision counts (m)",
    "cone_half_angle_degrees": "vehicles within this angle of the heading count (degrees)",
    "proximity_near": "distance at which the risk is full (m)",
    "proximity_far": "distance beyond which there is none (m)",
    "offroad_safety_penalty": "taken off the safety reward in every step off the road",
    "offroad_penalty": "added to the reward once, in the step that ends an episode off the road (where "
    "offroad_terminal is on)",
    "observation": "what is seen; its parts are keys too, as observation.vehicles_count, the ego's row and the nearest "
    "others'",
    "action": "how the car is driven; its parts are keys too, as action.type: ContinuousAction, DiscreteAction or "
    "DiscreteMetaAction",
    "simulation_frequency": "simulation steps a second (Hz)",
    "policy_frequency": "decisions a second (Hz)",
    "lanes_count": "lanes of the road",
    "vehicles_count": "other vehicles in the scene",
    "vehicles_density": "how close they stand at the beginning; 1 is usual, 2 twice as close",
    "other_vehicles_type": "class of the other drivers, one of highway-env's own",
    "controlled_vehicles": "cars that the policy drives: 1",
    "initial_lane_id": "lane that the ego begins in, from 0 on the left; None draws it",
    "ego_spacing": "room ahead of the ego at the beginning, relative to that of others",
    "neighbour_vehicles_connected_lanes": "whether drivers look for neighbours in the lanes that theirs leads to, too",
    "duration": "simulated time after which an episode is truncated (s)",
    "collision_reward": "for a collision",
    "right_lane_reward": "for the rightmost lane, in proportion further left",
    "high_speed_reward": "for the speed, by reward_speed_range",
    "lane_change_reward": "for a change of lane",
    "reward_speed_range": "speeds that earn 0 and high_speed_reward (m/s)",
    "normalize_reward": "whether the base reward is mapped to [0, 1]",
    "offroad_terminal": "whether an episode ends where the road does",
    "screen_width": "of a drawing (pixels)",
    "screen_height": "of a drawing (pixels)",
    "centering_position": "where the ego stands in a drawing, shares of width and height",
    "scaling": "pixels of a drawing for a metre",
    "show_trajectories": "whether a drawing shows where vehicles came from",
    "render_agent": "whether a drawing shows the agent's own graphics",
    "offscreen_rendering": "whether drawings open no window; None lets highway-env decide",
    "manual_control": "whether keys of the keyboard drive the car",
    "real_time_rendering": "whether drawing waits for the clock",
}
