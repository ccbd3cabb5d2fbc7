"""What the keys of a hyperparameter file mean: agent, world, seeds, and how long.

Two dialects. With ``world`` and ``agent``, keys are those of this house: the agent's, the world's below ``env.``, and
the options of a run (``max_steps``, ``num_envs``, ``eval_interval``, ...); ``lr`` stands for both step sizes. With
``env`` as a name (``tmaze_10``), keys are those of runners of PPO with memory in JAX: ``lr``, ``lambda0``,
``hidden_size``, ``total_steps``, ...; what is not given has their defaults. Keys that begin with ``tag.`` are labels
for tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from racer.agents.registry import agent_config, full_name
from racer.core.errors import UsageError, shown, unknown_name
from racer.distributed.config import OffPolicyConfig
from racer.envs.registry import get_world, world_by_short_name
from racer.training.options import Schedule, SingleProcess

__all__ = ["OPTION_KEYS", "TAG", "Meaning", "understand"]

TAG = "tag."

OPTION_KEYS: tuple[str, ...] = (
    *(f.name for cls in (Schedule, SingleProcess, OffPolicyConfig) for f in dataclasses.fields(cls)),
    "eval_episodes", "updates_per_point", "engine",
)  # fmt: skip

_RENAMED = {
    "gamma": "discount", "lambda0": "gae_lambda", "lambda1": "second_gae_lambda", "ld_weight": "ld_weight",
    "vf_coeff": "value_coef", "entropy_coeff": "entropy_coef", "clip_eps": "clip_ratio", "num_steps": "rollout_length",
    "update_epochs": "num_epochs", "num_minibatches": "num_minibatches", "max_grad_norm": "max_grad_norm",
}  # fmt: skip
_USUAL: dict[str, Any] = {
    "gamma": 0.99, "lambda0": 0.95, "lambda1": 0.5, "ld_weight": 0.0, "vf_coeff": 0.5, "entropy_coeff": 0.01,
    "clip_eps": 0.2, "num_steps": 128, "update_epochs": 4, "num_minibatches": 4, "max_grad_norm": 0.5, "lr": 2.5e-4,
    "hidden_size": 128, "total_steps": 1_500_000, "num_envs": 4, "anneal_lr": True, "double_critic": False,
    "memoryless": False, "perfect_memory": False, "action_concat": False, "update_log_freq": 1, "seed": 2020,
    "n_seeds": 5, "alpha": 1.0,
}  # fmt: skip
_TRANSFORMER: dict[str, tuple[str, Any]] = {
    "embed_size": ("embed", 256), "num_heads": ("heads", 8), "num_layers": ("layers", 2), "window_mem": ("length", 128),
    "qkv_features": ("head_size", 256),
}  # fmt: skip
_SILENT = (
    "platform", "debug", "show_discounted", "study_name", "steps_log_freq", "num_epochs", "num_eval_envs",
    "save_checkpoints", "save_runner_state", "alg", "image_size",
)  # fmt: skip
"""Keys of the second dialect that say how a run is shown or stored, which is decided here by others."""


@dataclass
class Meaning:
    """What a job's keys with one setting of the swept ones amount to.

    Attributes:
        agent: as :func:`racer.agents.registry.agent_class` takes it.
        world: as :func:`racer.envs.registry.get_world` takes it.
        agent_config: keys of the agent.
        env: keys of the world.
        options: of the run, :data:`OPTION_KEYS`.
        seeds: of the members of each setting.
        origin: which key of the file said a key of the agent, where it has another name there.
    """

    agent: str
    world: str
    agent_config: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    origin: dict[str, str] = field(default_factory=dict)


def understand(values: Mapping[str, Any], entry: str = "", seeds: tuple[Any, ...] | None = None) -> Meaning:
    """Return what keys with values mean.

    Args:
        values: of the file.
        entry: of the file; a "transformer" in it is the kind of the memory.
        seeds: where the file lists them.

    Raises:
        UsageError: an unknown key (with the nearest one), or keys of both dialects.
    """
    labels = [key for key in values if key.startswith(TAG)]
    plain = {key: value for key, value in values.items() if key not in labels}
    if isinstance(plain.get("env"), str):
        return _short_names(plain, entry, seeds)
    return _own_names(plain, seeds)


def _own_names(values: dict[str, Any], seeds: tuple[Any, ...] | None) -> Meaning:
    agent, world = values.pop("agent", None), values.pop("world", None)
    if not isinstance(agent, str) or not isinstance(world, str):
        raise UsageError("a job needs 'agent' and 'world' by name, or 'env' as in '<world>_10'")
    base, numbered = world_by_short_name(world)
    meaning = Meaning(full_name(agent), base, env=dict(numbered))
    meaning.seeds = _seeds(values.pop("seed", 0), values.pop("n_seeds", 1), seeds)
    values.pop("study_name", None)
    cls = agent_config(agent)
    keys = None if cls is None else {f.name for f in dataclasses.fields(cls)}
    for key, value in values.items():
        if key == "lr" and keys is not None and {"actor_lr", "critic_lr"} <= keys:
            meaning.agent_config |= dict.fromkeys(("actor_lr", "critic_lr"), value)
            meaning.origin |= dict.fromkeys(("actor_lr", "critic_lr"), key)
        elif key == "env" and isinstance(value, Mapping):
            meaning.env |= value
        elif key.startswith("env."):
            _put(meaning.env, key.removeprefix("env."), value)
        elif (key not in OPTION_KEYS) if keys is None else (key in keys):
            meaning.agent_config[key] = value
        elif key in OPTION_KEYS:
            meaning.options[key] = value
        else:
            known = [*(keys or ()), *OPTION_KEYS, *(f"env.{name}" for name in get_world(base).resolve({}))]
            raise unknown_name("key", key, [*known, "seed", "n_seeds"])
    return meaning


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise UsageError(f"key 'env.{path}' lies below one that has a value already")
    tree[last] = value


def _short_names(values: dict[str, Any], entry: str, seeds: tuple[Any, ...] | None) -> Meaning:
    for key in values:
        if key not in (*_USUAL, *_TRANSFORMER, *_SILENT, "env", "gating", "gating_bias", "window_grad", "engine"):
            raise unknown_name("key", key, [*_USUAL, *_TRANSFORMER, *_SILENT, "env"])
    full = {**_USUAL, **values}
    world, env = world_by_short_name(values["env"])
    meaning = Meaning("PPOLearner", world, env=dict(env))
    for flag in ("perfect_memory", "action_concat"):
        if full[flag]:
            variants = get_world(world).variants
            if flag not in variants:
                raise UsageError(f"key {flag!r}: world {world!r} has no such variant")
            meaning.env |= variants[flag]
    if _float("alpha", full["alpha"]) != 1.0:
        raise UsageError(f"key 'alpha' must be 1: the policy follows the first value head alone, not {full['alpha']!r}")
    meaning.seeds = _seeds(full["seed"], full["n_seeds"], seeds)
    meaning.options = {"max_steps": full["total_steps"], "num_envs": full["num_envs"],
                       "updates_per_point": full["update_log_freq"], "eval_episodes": 50}  # fmt: skip
    if "engine" in full:
        meaning.options["engine"] = full["engine"]
    config = {ours: full[theirs] for theirs, ours in _RENAMED.items()}
    width = full["hidden_size"]
    config |= {
        "actor_lr": full["lr"], "critic_lr": full["lr"], "hidden_dims": (width,), "value_hidden_dims": (width,),
        "value_heads": 2 if full["double_critic"] else 1, "memory": _memory(full, entry), "activation": "relu",
        "normalize_values": False,
        "lr_schedule": "linear" if full["anneal_lr"] else "constant", "lr_decay_transitions": full["total_steps"],
    }  # fmt: skip
    if not full["double_critic"] and _float("ld_weight", full["ld_weight"]) > 0.0:
        raise UsageError("key 'ld_weight' compares two value heads: give 'double_critic': True, or an ld_weight of 0")
    meaning.agent_config = config
    meaning.origin = {ours: theirs for theirs, ours in _RENAMED.items()}
    meaning.origin |= dict.fromkeys(("max_steps", "lr_decay_transitions"), "total_steps")
    meaning.origin["updates_per_point"] = "update_log_freq"
    meaning.origin |= dict.fromkeys(("actor_lr", "critic_lr"), "lr")
    meaning.origin |= dict.fromkeys(("hidden_dims", "value_hidden_dims", "memory"), "hidden_size")
    return meaning


def _memory(full: Mapping[str, Any], entry: str) -> dict[str, Any] | None:
    if full["memoryless"]:
        return None
    if "transformer" not in entry:
        return {"kind": "gru", "size": full["hidden_size"]}
    given = {ours: full.get(theirs, usual) for theirs, (ours, usual) in _TRANSFORMER.items()}
    heads = given["heads"]
    if not isinstance(heads, int) or heads < 1 or not isinstance(given["head_size"], int):
        raise UsageError(f"keys 'num_heads' and 'qkv_features' must be whole numbers, not {shown(heads)}")
    # Given for all heads together.
    given["head_size"] = max(given["head_size"] // heads, 1)
    return {"kind": "transformer", **given}


def _seeds(first: Any, count: Any, listed: tuple[Any, ...] | None) -> tuple[int, ...]:
    given = [first] if listed is None else list(listed)
    for value in given:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise UsageError(f"key 'seed' must be a whole number in [0, 2^31), not {shown(value)}")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000:
        raise UsageError(f"key 'n_seeds' must be a whole number in [1, 10000], not {shown(count)}")
    if len(set(given)) != len(given):
        raise UsageError("key 'seed' lists a seed twice")
    return tuple(given) if listed is not None else tuple(range(first, first + count))


def _float(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"key {key!r} must be a number, not {shown(value)}")
    return float(value)
