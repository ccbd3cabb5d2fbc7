"""A job: settings times seeds of one agent in one world, trained side by side in one process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from racer.agents.registry import agent_class, agent_config
from racer.core.config import swept_names
from racer.core.errors import UsageError, shown, unknown_name
from racer.envs.registry import get_world
from racer.sweeps.dialect import OPTION_KEYS, Meaning, understand
from racer.sweeps.expand import Expanded
from racer.training.options import Schedule, Setup, SingleProcess, single_process
from racer.training.run_spec import RunSpec, plain, spec_from_config, wants_rollouts

__all__ = ["ENGINES", "Job", "Member", "job_from_record", "make_job"]

ENGINES = ("auto", "compiled", "collected", "vmapped")
"""How a job trains: with the world inside the compilation, or with environments outside it and an update that is called
for each member ("collected", each to the last bit its own run), or is batched over members ("vmapped")."""

_KEYS = ("study", "id", "code_version", "arguments", "swept", "config")
_MAX_MEMBERS = 10_000


@dataclass(frozen=True)
class Member:
    """One training of a job.

    Attributes:
        index: its place among the job's members; settings outside, seeds inside.
        setting: which one.
        seed: of everything random.
    """

    index: int
    setting: int
    seed: int


@dataclass(frozen=True)
class Job:
    """What is trained, complete and checked.

    Attributes:
        study: the study's name.
        arguments: keys of the file with one value.
        swept: of each setting, the keys of the file with several.
        config: canonical and JSON-able: ``agent``, ``world``, ``agent_config``, ``env``, ``settings`` (keys of the
            agent), ``seeds``, ``options``.
        code_version: of whoever planned it.
    """

    study: str
    arguments: dict[str, Any]
    swept: tuple[dict[str, Any], ...]
    config: dict[str, Any]
    code_version: str

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits: a hash of what is trained and by which code."""
        text = json.dumps([self.config, self.code_version], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def record(self) -> dict[str, Any]:
        """The job as a line of a manifest."""
        return {
            "study": self.study, "id": self.id, "code_version": self.code_version, "arguments": self.arguments,
            "swept": list(self.swept), "config": self.config,
        }  # fmt: skip

    @property
    def members(self) -> tuple[Member, ...]:
        """Every setting with every seed."""
        pairs = [(s, seed) for s in range(len(self.config["settings"])) for seed in self.config["seeds"]]
        return tuple(Member(index, setting, int(seed)) for index, (setting, seed) in enumerate(pairs))

    @property
    def options(self) -> dict[str, Any]:
        """Of the run."""
        found: dict[str, Any] = self.config["options"]
        return found

    @property
    def engine(self) -> str:
        """What trains it: "compiled" where the world can be part of the compilation, else "collected"."""
        wanted = self.options.get("engine", "auto")
        able = get_world(self.config["world"]).functional is not None and wants_rollouts(self.config["agent"])
        if wanted == "compiled" and not able:
            agent, world = self.config["agent"], self.config["world"]
            raise UsageError(f"option 'engine': {agent} in {world!r} is not compiled whole; choose collected or auto")
        return ("compiled" if able else "collected") if wanted == "auto" else str(wanted)

    def spec(self, member: Member) -> RunSpec:
        """Return what a member's own run would be described by.

        Raises:
            UsageError: a key or value that agent or world refuse.
        """
        config = self.config
        keys = {**config["agent_config"], **config["settings"][member.setting]}
        return spec_from_config({"model_cls": config["agent"], "world": config["world"], "env": config["env"], **keys},
                                member.seed)  # fmt: skip

    def values(self, member: Member) -> dict[str, Any]:
        """Return the file's keys with the values that a member has."""
        return {**self.arguments, **self.swept[member.setting], "seed": member.seed}

    def setup(self, spec: RunSpec) -> Setup:
        """Return how a member's own run spreads its work: everything in one process.

        Raises:
            UsageError: an option out of range.
        """
        return single_process(_Given(self.options), spec)  # type: ignore[arg-type]

    @property
    def schedule(self) -> Schedule:
        """How long, and how often what."""
        return _Given(self.options)(Schedule)

    @property
    def num_envs(self) -> int:
        """Environments of every member."""
        rollouts = wants_rollouts(self.config["agent"])
        return _Given(self.options)(SingleProcess, num_envs=16 if rollouts else 8).num_envs


class _Given:
    """Reads option dataclasses from a job, as :class:`racer.training.options.Options` does from flags."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def __call__(self, cls: Any, *, fixed: Mapping[str, Any] | None = None, **defaults: Any) -> Any:
        names = [field.name for field in dataclasses.fields(cls)]
        given = {name: self._options[name] for name in names if name in self._options}
        return cls(**{**{k: v for k, v in defaults.items() if k in names}, **given, **(fixed or {})})


def make_job(found: Expanded, study: str, entry: str, code_version: str) -> Job:
    """Understand and check a job.

    Args:
        found: what the file says.
        study: its name.
        entry: of the file.
        code_version: of this code.

    Raises:
        UsageError: an unknown key, a value out of range, or a key that cannot be vmapped; the message names the key.
    """
    meanings = []
    for setting in found.settings:
        meanings.append(_understood(found, setting, entry))
    _check_swept(found, entry)
    first = meanings[0]
    options = _options(first.options)
    base = spec_from_config(
        {"model_cls": first.agent, "world": first.world, "env": first.env, **first.agent_config}, first.seeds[0]
    )
    job = Job(study, _labels(found.fixed), tuple(_labels(setting) for setting in found.settings), {
        "agent": base.agent_name, "world": base.world, "agent_config": plain(base.agent_config),
        "env": plain(base.env_config), "settings": [{} for _ in meanings], "seeds": list(first.seeds),
        "options": options,
    }, code_version)  # fmt: skip
    swept = sorted({key for m in meanings for key in m.agent_config
                    if plain(m.agent_config[key]) != plain(first.agent_config.get(key))})  # fmt: skip
    settings = []
    for meaning in meanings:
        full = spec_from_config(
            {"model_cls": meaning.agent, "world": meaning.world, "env": meaning.env, **meaning.agent_config}, 0
        )
        settings.append({key: plain(full.agent_config[key]) for key in swept})
    job = replace(job, config={**job.config, "settings": settings})
    if len(job.members) > _MAX_MEMBERS:
        raise UsageError(f"a job of {len(job.members)} members: more than {_MAX_MEMBERS}")
    _check(job)
    return job


def _understood(found: Expanded, setting: Mapping[str, Any], entry: str) -> Meaning:
    return understand({**found.fixed, **setting}, entry, found.seeds)


def _check_swept(found: Expanded, entry: str) -> None:
    """Refuse keys that decide shapes, which cannot differ within one compilation."""
    first = found.settings[0]
    for key in found.swept:
        values = list(dict.fromkeys(setting[key] for setting in found.settings))
        meanings = [_understood(found, {**first, key: value}, entry) for value in values]
        cls = agent_config(meanings[0].agent)
        able = () if cls is None else swept_names(cls)
        changed = sorted(_changed(meanings[0], meanings[-1])) if len(values) > 1 else []
        wrong = [name for name in changed if name not in able]
        if wrong or any(value is None or isinstance(value, str) for value in values):
            listed = ", ".join(map(str, values))
            raise UsageError(
                f"key {key!r} decides shapes or the structure of the program and cannot be vmapped: "
                f"use jobs({listed}), or the list [{listed}], for a job each"
            )


def _changed(first: Meaning, second: Meaning) -> set[str]:
    names = {name for name in {*first.agent_config, *second.agent_config}
             if plain(first.agent_config.get(name)) != plain(second.agent_config.get(name))}  # fmt: skip
    for part in ("env", "options", "seeds", "agent", "world"):
        if getattr(first, part) != getattr(second, part):
            names.add(part)
    return names


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON, checked one by one."""
    for key in given:
        if key not in OPTION_KEYS:
            raise unknown_name("option", key, OPTION_KEYS)
    if given.get("engine", "auto") not in ENGINES:
        raise unknown_name("engine", given["engine"], ENGINES)
    for key in ("eval_episodes", "updates_per_point"):
        value = given.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
            raise UsageError(f"option {key!r} must be a whole number of at least 1, not {shown(value)}")
    return {key: plain(given[key]) for key in sorted(given)}


def _labels(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plain(value) for key, value in values.items() if key not in ("study_name",)}


def _check(job: Job) -> None:
    """Build what can be built without training, so that a plan holds no job that cannot begin."""
    spec = job.spec(job.members[0])
    setup = job.setup(spec)
    agent = agent_class(job.config["agent"])
    if job.engine == "collected" and not hasattr(agent, "pure_update"):
        raise UsageError(f"agent {job.config['agent']!r} has no pure update and cannot be trained side by side")
    if wants_rollouts(job.config["agent"]) and hasattr(agent, "outline"):
        _outline(spec, agent).check_num_envs(setup.envs_per_worker)


def _outline(spec: RunSpec, agent: Any) -> Any:
    """Return an agent without a state, which costs no compilation."""
    spaces = _spaces(spec.world, json.dumps(spec.env_config, sort_keys=True))
    keys = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.agent_config.items()}
    names = get_world(spec.world).action_names(spec.env_config)
    static, hyper = agent.outline(*spaces, action_names=names, world=spec.world, **keys)
    return agent(static, hyper, None)


@lru_cache(maxsize=8)
def _spaces(world: str, env_config: str) -> tuple[Any, Any]:
    env = get_world(world).make_one(json.loads(env_config))
    try:
        return env.single_observation_space, env.single_action_space
    finally:
        env.close()


def job_from_record(record: Any, where: str) -> Job:
    """Return the job of a manifest's line.

    Raises:
        UsageError: a line that no manifest of ours holds.
    """
    if not isinstance(record, dict) or sorted(record) != sorted(_KEYS):
        raise UsageError(f"{where}: this is no job: it needs {', '.join(_KEYS)}")
    kinds = {"study": str, "id": str, "code_version": str, "arguments": dict, "swept": list, "config": dict}
    for key, kind in kinds.items():
        if not isinstance(record[key], kind):
            raise UsageError(f"{where}: {key!r} of a job must be a {kind.__name__}, not {shown(record[key])}")
    config = record["config"]
    parts = {"agent": str, "world": str, "agent_config": dict, "env": dict, "settings": list, "seeds": list,
             "options": dict}  # fmt: skip
    if sorted(config) != sorted(parts) or not all(isinstance(config[key], kind) for key, kind in parts.items()):
        raise UsageError(f"{where}: 'config' of a job needs {', '.join(parts)}")
    good = all(isinstance(item, dict) for item in [*config["settings"], *record["swept"]])
    good &= all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in config["seeds"])
    if not good or not config["settings"] or not config["seeds"] or len(config["settings"]) != len(record["swept"]):
        raise UsageError(f"{where}: settings and seeds of a job are malformed")
    _options(config["options"])
    job = Job(record["study"], record["arguments"], tuple(record["swept"]), config, record["code_version"])
    if job.id != record["id"]:
        raise UsageError(f"{where}: job {shown(record['id'])} was changed by hand: its configuration says {job.id}")
    return job


