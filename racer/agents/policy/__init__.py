"""Acting without JAX: policies in NumPy for workers, evaluation and the single-threaded loop alike."""

from racer.agents.policy.base import Policy, build_policy
from racer.agents.policy.serialization import bytes_to_params, params_to_bytes

__all__ = ["Policy", "build_policy", "bytes_to_params", "params_to_bytes"]
