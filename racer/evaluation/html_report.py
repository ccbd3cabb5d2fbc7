"""One HTML file that holds a whole evaluation: numbers, pictures, and the worst episodes to be played again.

It needs no network: style, script and recorded states are inside, and its content security policy lets nothing in.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from racer.core.files import replace_file, strict
from racer.envs.replay import Scene, Shapes
from racer.envs.world import World
from racer.evaluation.episodes import EvaluationResult
from racer.evaluation.html_pictures import return_picture, trade_off_picture
from racer.evaluation.paired import HEADER, Differences, difference_rows, difference_title
from racer.evaluation.recording import Mining, Recording
from racer.evaluation.report import table_rows

__all__ = ["REPORT_BYTES", "REPORT_FILE", "Group", "write_report"]

REPORT_FILE = "evaluation_report.html"
REPORT_BYTES = 5_000_000
"""No report is larger: recordings share what the rest of the page leaves; see :func:`_fitted`."""

_BETWEEN = 4
"""Bytes of brackets and commas, at most, that a recording brings with it."""

_MARGIN = 0.75
"""Boxes within this many widths and heights of the eye are kept."""


@dataclass(frozen=True)
class Group:
    """Episodes to be played, under a heading.

    Attributes:
        title: of the group.
        episodes: for each episode, the recording of every policy on the same seed.
        whose: which of those recordings the list of episodes tells of.
    """

    title: str
    episodes: Sequence[Sequence[Recording]]
    whose: int = 0


def write_report(
    folder: Path,
    world: World,
    results: Mapping[str, EvaluationResult],
    groups: Sequence[Group],
    mining: Mining | None,
    *,
    players: Sequence[str],
    differences: Mapping[str, Differences],
    seconds: float,
    cvar_risk: float,
) -> Path:
    """Write ``evaluation_report.html``; a reader sees the old file or the new one.

    Args:
        folder: for the file.
        world: of the evaluation.
        results: by policy, the evaluated one first.
        groups: episodes to be played.
        mining: what the worst of many episodes of the first policy have in common, or None.
        players: the policies of each episode's recordings.
        differences: of the first policy less others in ``results``, by their names.
        seconds: of a step.
        cvar_risk: of the tail that the critic's picture shows.

    Raises:
        OSError: the disk refuses it.
    """
    config = next(iter(results.values())).configuration["env_config"]
    template = Template(_text("page.html"))
    parts = _parts(world, results, differences, mining)

    def page(groups: Sequence[Group], room: int) -> bytes:
        data = _data(world, config, players, groups, seconds, cvar_risk, room)
        return template.substitute(parts, data=_json(data)).encode()

    room = REPORT_BYTES - len(page([replace(group, episodes=()) for group in groups], 0))
    path = folder / REPORT_FILE
    replace_file(path, page(groups, room))
    return path


def _parts(
    world: World,
    results: Mapping[str, EvaluationResult],
    differences: Mapping[str, Differences],
    mining: Mining | None,
) -> dict[str, str]:
    """Return everything but the recordings."""
    name, first = next(iter(results.items()))
    return {
        "title": html.escape(f"{name}: evaluation"),
        "heading": html.escape(" and ".join(results)),
        "subheading": html.escape(
            f"{world.name}, {len(first.episodes)} held-out episodes from seed {first.episodes[0].seed} on"
        ),
        "style": _text("page.css"),
        "table": _table(results),
        "differences": "".join(_differences(first, name, other, found) for other, found in differences.items()),
        "pictures": _pictures(world, results),
        "mining": _mining(name, mining),
        "made": _made(first),
        "script": _text("page.js"),
    }


def _text(name: str) -> str:
    return (resources.files("racer.evaluation") / "page" / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """Write JSON that no text in it can end the script element of."""
    text = json.dumps(strict(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _table(results: Mapping[str, EvaluationResult]) -> str:
    head = "".join(f"<th>{_breakable(name)}</th>" for name in results)
    lines = [f"<table><tr><th></th>{head}</tr>"]
    for label, *cells in table_rows(list(results.values())):
        kind = ' class="minor"' if label.startswith(" ") else ""
        numbers = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr{kind}><td>{html.escape(label.strip())}</td>{numbers}</tr>")
    return "".join([*lines, "</table>"])


def _differences(result: EvaluationResult, name: str, other: str, differences: Differences) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in HEADER)
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for label, *cells in difference_rows(result, differences)
    )
    return (
        f"<section><h2>{_breakable(difference_title(name, other))}</h2>"
        "<p class=\"muted\">A word stands where the bootstrap interval leaves out 0, each metric for itself: of twenty "
        "metrics without any difference one gets a word by chance.</p>"
        f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div></section>'
    )


def _breakable(name: str) -> str:
    """Return a name as HTML that is broken between its words first."""
    return html.escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>").replace("-", "-<wbr>")


def _pictures(world: World, results: Mapping[str, EvaluationResult]) -> str:
    parts = [("Returns and their tail", return_picture(results))]
    parts += [(title, picture) for title, picture in [trade_off_picture(world, results)] if picture]
    return "".join(
        f'<section><h2>{html.escape(title)}</h2><div class="wide">{picture}</div></section>' for title, picture in parts
    )


def _mining(name: str, mining: Mining | None) -> str:
    if mining is None:
        return ""
    ends = ", ".join(f"{count} by {reason.replace('_', ' ')}" for reason, count in mining.ends().items())
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{_number(v)}</td>" for v in values) + "</tr>"
        for name, *values in mining.common()
    )
    return (
        f"<section><h2>{_breakable(name)}: what the worst of {mining.count} further episodes have in common</h2>"
        f"<p>The {len(mining.worst)} lowest returns ended {html.escape(ends)}. Their end, beside that of "
        f"{len(mining.typical)} episodes of middling return:</p><div class=\"wide\"><table><tr><th></th><th>median</th>"
        f"<th>least</th><th>greatest</th><th>median of the others</th></tr>{rows}</table></div></section>"
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _made(result: EvaluationResult) -> str:
    described = result.configuration
    shown = ("policy_file", "checkpoint_step", "training_seed", "agent_name", "deterministic", "cvar_level")
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{html.escape(str(described[name]))}</td></tr>"
        for name in shown if name in described
    )  # fmt: skip
    config = html.escape(json.dumps(strict(dict(described["env_config"])), indent=1))
    return f"<table>{rows}</table><details><summary>the world's configuration</summary><pre>{config}</pre></details>"


def _data(
    world: World, config: Mapping[str, Any], players: Sequence[str], groups: Sequence[Group], seconds: float,
    risk: float, room: int,
) -> dict[str, Any]:  # fmt: skip
    """Return what the page plays; its recordings take ``room`` bytes."""
    if not groups or world.replay is None:
        return {"groups": []}
    share = room // max(sum(len(pair) for group in groups for pair in group.episodes), 1) - _BETWEEN

    def packed(pair: Sequence[Recording]) -> list[dict[str, Any]]:
        named = zip(pair, players, strict=False)
        return [_fitted(recording, name, world, seconds, risk, share) for recording, name in named]

    played = [
        {"title": group.title, "whose": group.whose, "episodes": [packed(pair) for pair in group.episodes]}
        for group in groups
    ]
    return {"scene": _scene(world.replay.scene, config), "groups": played}


def _scene(scene: Scene | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    if scene is None:
        return None
    kinds = [(kind.name, "#{:02x}{:02x}{:02x}".format(*kind.color), kind.front) for kind in scene.kinds]
    return {"extent": scene.extent, "lines": [tuple(line) for line in scene.lines(config)], "kinds": kinds}


def _fitted(recording: Recording, name: str, world: World, seconds: float, risk: float, share: int) -> dict[str, Any]:
    """Pack a recording into ``share`` bytes: of a longer episode only every second, third, ... step is kept."""
    stride = 1
    while True:
        packed = _packed(recording, name, world, seconds, risk, stride)
        if len(_json(packed)) <= share or stride > recording.steps:
            return packed
        stride += 1


def _packed(
    recording: Recording, name: str, world: World, seconds: float, risk: float, stride: int
) -> dict[str, Any]:
    assert world.replay is not None
    episode, scene = recording.episode, world.replay.scene
    # The last moment is always kept: it is what the episode ended by.
    kept = sorted({*range(recording.steps, -1, -stride)})
    ends = [index - 1 for index in kept if index > 0]
    reason = episode.end_reason.replace("_", " ")
    found: dict[str, Any] = {
        "policy": name,
        "button": f"{episode.seed}: {episode.metrics['return']:.1f}, {reason}",
        "caption": f"seed {episode.seed}, return {episode.metrics['return']:.2f}, "
        f"{reason} after {episode.metrics['length'] * seconds:.1f} s",
        "end": reason,
        "seconds": seconds * stride,
        "steps": len(ends),
        "traces": [
            {"label": label, "top": top, "names": names,
             "values": [[_short(value) for value in line[ends]] for line in values.reshape(len(values), -1).T]}
            for label, top, values, names in recording.traces
        ],
    }  # fmt: skip
    if scene is not None:
        found |= _packed_moments([recording.moments[i] for i in kept], scene.extent)
    if recording.critic is not None:
        atoms, probs = recording.critic.atoms, recording.critic.probs[ends]
        seen = np.flatnonzero((probs > 1e-3).any(axis=0))
        part = slice(seen[0], seen[-1] + 1) if len(seen) > 1 else slice(None)
        levels = np.rint(255.0 * np.sqrt(np.clip(probs[:, part], 0.0, 1.0)))
        found["critic"] = {
            "atoms": [_short(atom) for atom in atoms[part]], "probs": _packed_array(levels, np.uint8), "risk": risk,
        }  # fmt: skip
    return found


def _packed_moments(moments: Sequence[Shapes], extent: tuple[float, float]) -> dict[str, Any]:
    quantum = max(extent) / 20_000
    rows = [_boxes(moment, extent, quantum) for moment in moments]
    return {
        "counts": [len(row) for row in rows],
        "boxes": _packed_array(np.concatenate(rows), np.int16),
        "eyes": _packed_array(np.stack([moment.eye for moment in moments]), np.float32),
        "sizes": _packed_array(moments[0].boxes[:, 3:5], np.float32),
        "quantum": quantum,
    }


def _boxes(moment: Any, extent: tuple[float, float], quantum: float) -> np.ndarray:
    """Return number, place relative to the eye, heading and kind of the boxes in sight, ``[n, 5]``."""
    boxes = np.asarray(moment.boxes, np.float64)
    relative = boxes[:, :2] - moment.eye
    seen = np.flatnonzero((np.abs(relative) < np.array(extent) * _MARGIN).all(axis=1))
    heading = (boxes[seen, 2] + np.pi) % (2.0 * np.pi) - np.pi
    return np.column_stack([seen, np.rint(relative[seen] / quantum), np.rint(heading * 10_000), boxes[seen, 5]])


def _packed_array(values: np.ndarray, kind: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
