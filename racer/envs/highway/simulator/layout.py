"""Where every number of the packed state stands.

The state of ``E`` environments with ``V`` vehicles each is two arrays, ``real [E, REALS, V]`` (float64) and
``whole [E, WHOLES, V]`` (int64); a kernel works on one environment's ``[REALS, V]`` and ``[WHOLES, V]``. The
names below index their rows. Vehicle 0 is the ego. Constants of highway-env's classes stand here too.
"""

from __future__ import annotations

import math

import numpy as np

# The ego's index as a typed number: a literal 0 would compile a second copy of every function it is passed to.
EGO = np.int64(0)


# rows of the float64 state
X = 0  # m, along the road
Y = 1  # m, across the road, lane k is centred on 4 k
HEADING = 2  # rad
SPEED = 3  # m/s, negative when reversing
COS = 4  # cos(HEADING), kept so that a straight car costs no libm call
SIN = 5  # sin(HEADING)
STEERING = 6  # rad, the stored action
ACCELERATION = 7  # m/s2, the stored action
TARGET_SPEED = 8  # m/s, -inf where the vehicle has none (a ContinuousAction ego)
EXPONENT = 9  # IDM's velocity exponent (DELTA)
TIMER = 10  # s since the last lane-change decision
IMPACT_X = 11  # m, displacement that a collision imposes in the next frame
IMPACT_Y = 12
GAIN_SPEED = 13  # LinearVehicle.ACCELERATION_PARAMETERS
GUARD = 13  # of an IDM car, which has no gains: who decides for it, one of the next four; highway-env's own are IDM
IDM, GUARDING, DRIVEN, REPLAYED = 0.0, 1.0, 2.0, 3.0  # lets nobody in; obeys its targets; is put where it is to be
GAIN_FRONT_SPEED = 14
GAIN_FRONT_GAP = 15
GAIN_HEADING = 16  # LinearVehicle.STEERING_PARAMETERS
GAIN_LATERAL = 17
SORTED_X = 18  # X in the order of ORDER, a cache of the search
SORTED_Y = 19
DISTANCE = 20  # scratch: of the cars that an observation has picked
REALS = 21

# rows of the int64 state
LANE = 0  # the closest lane
TARGET_LANE = 1
CRASHED = 2
HAS_IMPACT = 3
SPEED_INDEX = 4  # of a DiscreteMetaAction ego
ORDER = 5  # vehicle indices sorted by (x, index), a cache of the search
RANK = 6  # each vehicle's place in ORDER
CHANGING = 7  # scratch: the cars that may be changing lanes in this frame
SEEN = 7  # scratch: the cars that an observation has picked
PAIR = 8  # scratch: the pair of the list order that stored each car's impact
WHOLES = 9

# columns of the environment clock [E, 2]
TIME = 0  # s, accumulated
STEPS = 1  # simulation frames since reset
CLOCKS = 2

# columns of the generator state [E, 6] (uint64), NumPy's PCG64
RNG_HIGH, RNG_LOW, RNG_INC_HIGH, RNG_INC_LOW, RNG_HAS_32, RNG_32 = range(6)
RNGS = 6

# columns of the result [E, RESULTS] that a step and a reset write
REWARD = 0
TERMINATED = 1
TRUNCATED = 2
COLLISION_REWARD = 3
RIGHT_LANE_REWARD = 4
HIGH_SPEED_REWARD = 5
ON_ROAD_REWARD = 6
EGO_X = 7
EGO_Y = 8
EGO_HEADING = 9
EGO_SPEED = 10
EGO_CRASHED = 11
EGO_OFFSET = 12
EGO_LANE = 13
OBSERVED_ROWS = 14
RESULTS = 15
COMPONENTS = {
    "collision_reward": COLLISION_REWARD,
    "right_lane_reward": RIGHT_LANE_REWARD,
    "high_speed_reward": HIGH_SPEED_REWARD,
    "on_road_reward": ON_ROAD_REWARD,
}

# float64 parameters
DT = 0  # s, of a simulation frame
POLICY_DT = 1  # s, of a policy step
DURATION = 2
EGO_MIN_SPEED = 3
EGO_MAX_SPEED = 4
COLLISION_COEFFICIENT = 5
RIGHT_LANE_COEFFICIENT = 6
HIGH_SPEED_COEFFICIENT = 7
ON_ROAD_COEFFICIENT = 8
REWARD_SPEED_LOW = 9
REWARD_SPEED_HIGH = 10
TIME_WANTED = 11  # s, IDM 1.5, Linear 2.5
MIN_GAIN = 12  # m/s2, MOBIL's threshold
EGO_SPACING = 13
OTHER_SPACING = 14
LANE_FACTOR = 15  # exp(-5 / 40 * lanes), taken from NumPy once
TWO = 16  # 2.0 at run time: a constant exponent would be folded into x * x, which libm's pow is not
REAL_PARAMETERS = 17

# int64 parameters
LANES = 0
VEHICLES = 1  # the ego included
EGO_KIND = 2
TRAFFIC_KIND = 3
EGO_COLLISIONS_ONLY = 4
INITIAL_LANE = 5  # -1 where it is drawn
FRAMES = 6
OFFROAD_TERMINAL = 7
NORMALIZE_REWARD = 8
BRUTE_FORCE = 9
WHOLE_PARAMETERS = 10

EGO_CONTINUOUS = 0
EGO_META = 1
TRAFFIC_IDM = 0
TRAFFIC_LINEAR = 1

# meta-actions of the discrete ego, in the order of highway-env's ACTIONS_ALL
LANE_LEFT, IDLE, LANE_RIGHT, FASTER, SLOWER = range(5)

# columns of an observation specification's int64 vector
SPEC_ROWS = 0
SPEC_FEATURES = 1
SPEC_ABSOLUTE = 2
SPEC_SORTED = 3
SPEC_SHUFFLED = 4
SPEC_NORMALIZE = 5
SPEC_CLIP = 6
SPEC_SEE_BEHIND = 7
SPEC_CODES = 8  # the features' codes follow

FEATURES = (
    "presence",
    "x",
    "y",
    "vx",
    "vy",
    "heading",
    "cos_h",
    "sin_h",
    "cos_d",
    "sin_d",
    "long_off",
    "lat_off",
    "ang_off",
)

# highway_env/vehicle/kinematics.py, objects.py
LENGTH = 5.0
WIDTH = 2.0
DIAGONAL = math.sqrt(29.0)
MAX_SPEED = 40.0
MIN_SPEED = -40.0

# highway_env/road/lane.py, envs/highway_env.py
LANE_WIDTH = 4.0
LANE_LENGTH = 10000.0
SPEED_LIMIT = 30.0

# highway_env/vehicle/controller.py
TAU_PURSUIT = 0.1
KP_A = 1 / 0.6
KP_HEADING = 1 / 0.2
KP_LATERAL = 1 / 0.6
MAX_STEERING = math.pi / 3

# highway_env/vehicle/behavior.py
ACC_MAX = 6.0
COMFORT_ACC_MAX = 3.0
GAP_DIVISOR = 2 * math.sqrt(15.0)
DISTANCE_WANTED = 10.0
LANE_CHANGE_DELAY = 1.0
MAX_BRAKING_IMPOSED = 2.0

# A car that lets nobody in: while the ego noses in ahead of it, it closes up to the car that it follows.
GUARD_SIDE = 3.4  # m across the road within which the ego is noticed; a car that keeps its lane is 4 m away
GUARD_AHEAD = 60.0  # m along the road, from centre to centre, with nobody between them in its lane
GUARD_GAP = 6.5  # m to the next car where closing up ends, from centre to centre
CLOSING_TIME = 0.2  # s in which it takes up the speed that it wants
GUARD_BRAKING = 4.0  # m/s2 with which it sheds what closing up has gained

# highway_env/envs/common/abstract.py
PERCEPTION_DISTANCE = 200.0
