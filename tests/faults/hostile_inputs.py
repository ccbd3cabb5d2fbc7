"""Inputs that nobody means well with, for every reader of the programs, and what a program may do with them.

Each strategy draws a :class:`Case`: files of a stored run to change, and the words of a command line. :func:`judge`
runs it in this process up to the first step of training. A case is clean if it ends with exit code 2, one line on
standard error and no file changed, or if it is accepted without a complaint; a traceback, an endless call or a gigabyte
never is.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

import racer.__main__ as program
from racer.core.checkpoint import Checkpoint
from racer.core.manifest import sealed
from racer.core.metrics import METRICS_FILE, read_metrics
from racer.training.plan import RunPlan
from racer.training.run import TrainingRun
from racer.training.saving import resume_checkpoint

DATA = Path(__file__).parents[1] / "data" / "format_2"
Begin = Callable[[RunPlan, Checkpoint | None], None]
SECONDS, MEGABYTES = 10.0, 1024
AGENTS = ("sac", "cvar", "ppo")

NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e-320, 1e-9, 1e9, 1e10, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**12, 10**18,
     10**40, float("nan"), float("inf"), float("-inf")]
) | st.integers() | st.floats()  # fmt: skip
TEXTS = st.sampled_from(
    ["", " ", "x", "None", "none", "nan", "inf", "1e5", "true", "[]", "{}", "../..", "/dev/zero", "\x00", "\ud800",
     "a\nb", "é", "a" * 5_000, "9" * 5_000, "[" * 300, "(" * 3_000, "os:system", "gym:os:X-v0", "gym:", "driver:",
     "driver:x/y", "highway_env.vehicle.behavior.np", "sorted", "{'kind': 'gru'}", "(8,)", "(1,2,3)", "1,2", "-0",
     "0x10", "1_000", "10000000000000000000000", "lambda: 0", "__import__('os')", ":", "=", "--", "%s%n", "gru", "auto",
     "highway"]
) | st.text(max_size=12)  # fmt: skip
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=6) | st.sampled_from(["kind", "size", "widths", "type"]), inner, max_size=3)
    | st.lists(st.integers(1, 9), min_size=1_000, max_size=1_200),
    max_leaves=6,
)


def _deep(count: int) -> Any:
    value: Any = []
    for _ in range(count):
        value = [value]
    return value


LARGE: list[Any] = [
    [65_536] * 2, [65_536] * 3, {"kind": "gru", "size": 65_536}, {"kind": "pointnet", "widths": [65_536] * 2},
    {"kind": "transformer", "embed": 65_536, "length": 65_536}, {"kind": "attention", "embed": 65_536},
]  # fmt: skip
VALUES = TREES | st.sampled_from([_deep(40), _deep(90), *LARGE])


@dataclass
class Case:
    """What is put before a program.

    Attributes:
        reader: what is tried.
        words: of the command line; ``{run}`` is the folder of a copied run, ``{folder}`` an empty one.
        harm: changes the files of both.
        told: in a few words, what the case is.
        agent: whose stored run is copied.
    """

    reader: str
    words: list[str]
    told: str
    agent: str = "sac"
    harm: Callable[[Path], None] = field(default=lambda folder: None)


@dataclass
class Outcome:
    """What a program did."""

    code: int | None
    error: str
    seconds: float
    megabytes: float
    changed: list[str]
    raised: str = ""

    def complaints(self) -> list[str]:
        """Return what is wrong with it; nothing for a clean one."""
        found = [self.raised] if self.raised else []
        lines = [line for line in self.error.splitlines() if not line.startswith("WARNING ")]
        if self.code not in (0, 2):
            found.append(f"exit code {self.code}")
        if self.code == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
            found.append(f"{len(lines)} lines: {self.error[:300]!r}")
        if len(self.error) > 20_000 or any(len(line) > 2_200 for line in lines):
            found.append("a long line")
        if "Traceback" in self.error:
            found.append("a traceback")
        if self.code == 2 and self.changed:
            found.append(f"changed {self.changed[:3]}")
        if self.seconds > SECONDS:
            found.append(f"{self.seconds:.1f} s")
        if self.megabytes > MEGABYTES:
            found.append(f"{self.megabytes:.0f} MB more")
        return found


def _at(value: Any, path: list[Any]) -> Any:
    for key in path:
        value = value[key]
    return value


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where something stands in a JSON document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [path] * bool(path) + [deeper for key, part in parts for deeper in paths_of(part, (*path, key))]


@st.composite
def changed_documents(draw: st.DrawFn, document: dict[str, Any], below: str | None = None) -> tuple[str, str]:
    """Draw JSON text with one thing changed, taken away or added; and say what."""
    places = [path for path in paths_of(document) if below is None or path[0] == below]
    path = list(draw(st.sampled_from(places)))
    copy = json.loads(json.dumps(document))
    parent, key = _at(copy, path[:-1]), path[-1]
    kind = draw(st.sampled_from(["value", "value", "value", "gone", "more"]))
    value = draw(VALUES)
    if kind == "gone":
        del parent[key]
    elif kind == "more" and isinstance(parent, dict):
        parent[draw(st.text(max_size=8))] = value
    else:
        parent[key] = value
    return _json(copy), f"{kind} {'/'.join(map(str, path))} {str(value)[:60]!r}"


def _json(value: Any) -> str:
    with contextlib.suppress(ValueError):
        return json.dumps(sealed(value) if "sha256" in value else value)
    return json.dumps(value)


@st.composite
def harmed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw the bytes of a file with some changed, lost, doubled or put in."""
    at, end = sorted(draw(st.integers(0, len(data))) for _ in range(2))
    odd = st.sampled_from([b"\xff\xfe", b"NaN", b"1" * 4_000, b"{" * 2_000, b"\n" * 99])
    extra = draw(st.binary(max_size=16) | odd)
    harmed = [data[:at] + extra + data[end:], data[:at], data[:end] + data[at:], data[:at] + extra + data[at:]]
    return draw(st.sampled_from(harmed))


COMMANDS = {
    "evaluate": ["evaluate", "{run}", "--num_episodes=1", "--render=false", "--video_output_dir", "{folder}/out"],
    "resume": ["train", "--resume", "{run}", "--device=cpu", "--noprogress"],
    "plot": ["plot", "{run}", "--output_dir", "{folder}/out", "--figure", "learning_curves"],
}
NEW = ["train", "--policy_dir", "{folder}", "--run_name", "new", "--device=cpu", "--noprogress", "--max_steps", "2000"]


def _put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _odd(name: str, kind: str) -> Callable[[Path], None]:
    """Put something else than a regular file in a file's place."""

    def harm(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind != "gone":
            path.symlink_to(kind)

    return harm


@st.composite
def run_files(draw: st.DrawFn) -> Case:
    """Draw a ``run.json`` that somebody wrote, or half of one."""
    agent = draw(st.sampled_from(AGENTS))
    data = (DATA / agent / "run.json").read_bytes()
    command = draw(st.sampled_from(["resume", "resume", "plot"]))
    if draw(st.integers(0, 5)) == 0:
        harmed = draw(harmed_bytes(data))
        return Case("run.json", COMMANDS[command], "bytes", agent, _put("run/run.json", harmed))
    text, told = draw(changed_documents(json.loads(data)))
    return Case("run.json", COMMANDS[command], told, agent, _put("run/run.json", text.encode()))


@st.composite
def manifests(draw: st.DrawFn) -> Case:
    """Draw a manifest that somebody forged, sum and all."""
    agent = draw(st.sampled_from(AGENTS))
    name = "checkpoint_32/manifest.json"
    data = (DATA / agent / name).read_bytes()
    command = draw(st.sampled_from(["resume", "evaluate"]))
    if draw(st.integers(0, 5)) == 0:
        harmed = draw(harmed_bytes(data))
        return Case("manifest", COMMANDS[command], "bytes", agent, _put(f"run/{name}", harmed))
    below = draw(st.sampled_from([None, "metadata", "metadata", "metadata"]))
    text, told = draw(changed_documents(json.loads(data), below))
    return Case("manifest", COMMANDS[command], told, agent, _put(f"run/{name}", text.encode()))


@st.composite
def metrics_files(draw: st.DrawFn) -> Case:
    """Draw a ``metrics.jsonl`` with damaged lines, or something else in its place."""
    name = "run/metrics.jsonl"
    odd = ["fifo", "folder", "/dev/zero", "metrics.jsonl", "gone"]
    kind = draw(st.sampled_from(["bytes", "bytes", "line", "line", *odd]))
    data = (DATA / "sac" / "metrics.jsonl").read_bytes()
    if kind == "bytes":
        harm = _put(name, draw(harmed_bytes(data)))
    elif kind == "line":
        harm = _put(name, data + _json({"step": draw(VALUES), "training/return": draw(VALUES)}).encode() + b"\n")
    else:
        harm = _odd(name, kind)
    return Case("metrics", COMMANDS[draw(st.sampled_from(["plot", "resume"]))], kind, "sac", harm)


FLAGS = [
    "max_steps", "log_interval", "eval_interval", "save_interval", "num_envs", "max_nonfinite_updates", "workers",
    "envs_per_worker", "replay_buffer_size", "batch_size", "utd_ratio", "start_training", "keep_checkpoints",
    "eval_episodes", "start_from", "seed", "run_name", "policy_dir", "resume", "device", "world", "agent", "config",
    "step_timeout", "max_queue_size", "worker_steps_per_iteration", "deterministic", "max_policy_lag",
    "learner_threads",
]  # fmt: skip
EVALUATION_FLAGS = [
    "num_episodes", "render", "video_output_dir", "num_videos", "seed", "num_envs", "deterministic", "cvar_level",
    "compare_random", "world",
]  # fmt: skip
WORD = (NUMBERS | TEXTS).map(str).filter(lambda text: "\x00" not in text and "\ud800" not in text)


@st.composite
def flag_words(draw: st.DrawFn) -> Case:
    """Draw a flag of ``train`` or ``evaluate`` with any value, or one that does not exist."""
    value = draw(WORD)
    if draw(st.booleans()):
        name = draw(st.sampled_from(FLAGS) | st.text("abcdefghijklmnopqrstuvwxyz_.-", max_size=12))
        agent = draw(st.sampled_from(AGENTS))
        base = [word for word in NEW if not (name == "max_steps" and word in ("--max_steps", "2000"))]
        return Case("flags", [*base, f"--agent={agent}", f"--{name}={value}"], f"{name}={value[:50]}")
    name = draw(st.sampled_from(EVALUATION_FLAGS) | st.text("abcdefghijklmnopqrstuvwxyz_.-", max_size=12))
    return Case("flags", [*COMMANDS["evaluate"], f"--{name}={value}"], f"evaluate {name}={value[:50]}")


def _keys(agent: str, part: str) -> list[str]:
    document = json.loads((DATA / agent / "run.json").read_text())[part]
    return [".".join(map(str, path)) for path in paths_of(document) if all(isinstance(key, str) for key in path)]


@st.composite
def keys(draw: st.DrawFn, part: str) -> Case:
    """Draw a key of the agent or of the world with any value, on the command line."""
    agent = draw(st.sampled_from(AGENTS))
    name = draw(st.sampled_from(_keys(agent, part)))
    written = TREES.map(repr).filter(lambda text: "\\x00" not in text and "\ud800" not in text)
    value = draw(WORD | st.sampled_from(LARGE).map(repr) | written)
    if part == "env_config" and draw(st.booleans()):
        return Case("highway keys", [*COMMANDS["evaluate"], f"--env.{name}={value}"], f"{name}={value[:60]}", agent)
    prefix = "config.env" if part == "env_config" else "config"
    reader = "highway keys" if part == "env_config" else "agent keys"
    return Case(reader, [*NEW, f"--agent={agent}", f"--{prefix}.{name}={value}"], f"{name}={value[:60]}", agent)


SNIPPETS = [
    "", "def get_config(): return None", "def get_config(): return []", "def get_config(): return {'a': 1}",
    "def get_config(): raise KeyError('x')", "import sys; sys.exit(0)", "def get_config(): exit()", "1/0", "def (",
    "def get_config(): return get_config()", "get_config = 3", "import no_such_module", "def get_config(a): return a",
    "raise SystemExit('bye')", "raise GeneratorExit", "\0", "import os; os.close(0)",
    "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict()",
    "from ml_collections import ConfigDict\ndef get_config():\n  c = ConfigDict(); c.model_cls = c; return c",
]  # fmt: skip


@st.composite
def config_files(draw: st.DrawFn) -> Case:
    """Draw a config file: one with a few odd values, odd code, or no file at all."""
    words = [*NEW, "--config={folder}/config.py"]
    kind = draw(st.sampled_from(["values"] * 6 + ["code", "code", "fifo", "folder", "/dev/zero", "bytes", "gone"]))
    if kind == "code":
        text = draw(st.sampled_from(SNIPPETS))
        return Case("config file", words, text, harm=_put("config.py", text.encode()))
    if kind == "bytes":
        return Case("config file", words, kind, harm=_put("config.py", draw(st.binary(max_size=40))))
    if kind != "values":
        return Case("config file", words, kind, harm=_odd("config.py", kind))
    agent = draw(st.sampled_from(AGENTS))
    document = json.loads((DATA / agent / "run.json").read_text())
    content: dict[str, Any] = {**document["agent_config"], "model_cls": document["agent_name"], "env": {}}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from([*content, "world", *(f"env.{key}" for key in document["env_config"])]))
        target = content
        if name.startswith("env.") and isinstance(content["env"], dict):
            target, name = content["env"], name[4:]
        target[name] = draw(VALUES | st.sampled_from([{1: 2}, b"x", {"a", "b"}, object]))
    imports = "from math import inf, nan\nfrom ml_collections import ConfigDict\n"
    text = f"{imports}\ndef get_config():\n    return ConfigDict({_source(content)})\n"
    told = " ".join(_source(content).split())[-120:]
    return Case("config file", words, told, harm=_put("config.py", text.encode("utf-8", "backslashreplace")))


def _source(value: Any) -> str:
    return re.sub(r"<class '(\w+)'>", r"\1", repr(value))


READERS: dict[str, st.SearchStrategy[Case]] = {
    "config file": config_files(),
    "run.json": run_files(),
    "manifest": manifests(),
    "metrics": metrics_files(),
    "flags": flag_words(),
    "agent keys": keys("agent_config"),
    "highway keys": keys("env_config"),
}


def prepare(case: Case, folder: Path) -> list[str]:
    """Lay a case's files into an empty folder; returns the words."""
    shutil.copytree(DATA / case.agent, folder / "run")
    case.harm(folder)
    return [word.replace("{run}", str(folder / "run")).replace("{folder}", str(folder)) for word in case.words]


def files_in(folder: Path) -> dict[str, Any]:
    """Return what lies in a folder, byte for byte, but for locks that nobody holds."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name != ".lock" and "__pycache__" not in path.parts:
            regular = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = path.read_bytes() if regular else None
    return found


def build(plan: RunPlan, checkpoint: Checkpoint | None) -> None:
    """Build a run with its environments, networks and replay, in the state of its checkpoint."""
    if plan.setup.inline:
        TrainingRun(plan.spec, plan.setup, checkpoint)


def judge(case: Case, folder: Path, begin: Begin = lambda plan, checkpoint: None) -> Outcome:
    """Run a case in this process; ``begin`` stands for training."""
    words = prepare(case, folder)
    before, errors = files_in(folder), io.StringIO()
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    code, raised = None, ""

    def run_training(plan: RunPlan, *, progress: bool = True) -> int:
        checkpoint = None
        if plan.resumed:
            checkpoint = resume_checkpoint(plan.folder, plan.spec)
            metrics = plan.folder / METRICS_FILE
            if os.path.lexists(metrics):
                read_metrics(metrics)
        begin(plan, checkpoint)
        return 0

    with (
        mock.patch("racer.training.run.run_training", run_training),
        mock.patch("racer.evaluation.command.evaluate_checkpoint", _only_checks),
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            code = program.main(words)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged
            raised = "".join(traceback.format_exception_only(error)).strip()[:300]
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raised += f" ({Path(frame.filename).name}:{frame.lineno})"
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    after = files_in(folder)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return Outcome(code, errors.getvalue(), seconds, grown, changed, raised)


def _only_checks(trained: Any, options: Any, **_: Any) -> Any:
    """Stand for an evaluation: all that is checked before its first episode."""
    from racer.core.errors import UsageError
    from racer.evaluation import program as evaluation

    class Enough(Exception):
        pass

    def stop(*_: Any, **__: Any) -> Any:
        raise Enough

    with mock.patch.object(evaluation, "evaluate_policy", stop):
        try:
            evaluation.evaluate_checkpoint(trained, options)
        except Enough:
            return mock.Mock(metrics_path="", videos=())
    raise UsageError("an evaluation without a policy")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of the programs to themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
