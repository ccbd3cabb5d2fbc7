"""Arms that need no more runs, because a paired interval tells them from a better one already.

Opt-in: whoever looks at intervals while runs come in, and stops where they separate, finds differences more often than
the intervals' confidence says. So that this does less harm, the confidence is raised to 1 - 0.05 / looks, as many looks
as there are pairs to come, and what was decided stands in ``decisions.jsonl`` beside the results.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from racer.core.errors import UsageError
from racer.core.files import replace_file
from racer.core.statistics import paired_difference
from racer.sweeps.analysis.tables import arms_of, paired_arms
from racer.sweeps.job import Job
from racer.sweeps.results import job_folder, read_table, summarise

__all__ = ["DECISIONS_FILE", "EarlyDecision", "read_decisions", "undecided"]

DECISIONS_FILE = "decisions.jsonl"

_ERROR = 0.05


class EarlyDecision:
    """Looks at finished jobs and names those whose arm is decided.

    Args:
        jobs: of the manifest.
        results: folder of all studies' results.
        key: of the file, whose values are the arms; each job has one of them.
        metric: that decides, higher is better.
        pairs: needed before anything is decided.

    Raises:
        UsageError: jobs without the key, or fewer than two pairs.
    """

    def __init__(self, jobs: Sequence[Job], results: Path, key: str, metric: str, pairs: int) -> None:
        if pairs < 2:
            raise UsageError(f"--early_pairs must be at least 2, not {pairs}")
        for index, job in enumerate(jobs):
            if key not in job.arguments:
                raise UsageError(f"--early_by {key!r} is no key of job {index} with one value; it has "
                                 f"{', '.join(job.arguments)}")  # fmt: skip
        self._jobs, self._results, self._key, self._metric, self._pairs = jobs, results, key, metric, pairs
        self._seen: set[int] = set()
        self._rows: list[dict[str, object]] = []
        self._decided: dict[str, str] = {}
        # Settings of an arm other than the arm itself are paired, as seeds are.
        varying = dict.fromkeys(k for job in jobs for k in job.arguments)
        others = [k for k in varying if len({repr(job.arguments.get(k)) for job in jobs}) > 1 and k != key]
        self._paired_by = [f"arg.{k}" for k in others if not self._follows(k)] + ["setting", "seed"]
        self._looks = max(sum(len(job.members) for job in jobs) // max(len(self._arms()), 1) - pairs + 1, 1)

    def __call__(self, finished: Collection[int]) -> dict[int, str]:
        """Return the jobs that need not run, with the reason."""
        new = sorted(set(finished) - self._seen)
        for index in new:
            job = self._jobs[index]
            self._rows += summarise([(job, read_table(job_folder(self._results, job)))])
            self._seen.add(index)
        if new:
            self._decide()
        arms = {index: str(job.arguments[self._key]) for index, job in enumerate(self._jobs)}
        decided = {index: self._decided[arm] for index, arm in arms.items() if arm in self._decided}
        return {index: reason for index, reason in decided.items() if index not in finished}

    def _arms(self) -> set[str]:
        return {str(job.arguments[self._key]) for job in self._jobs}

    def _follows(self, key: str) -> bool:
        """Whether a key has one value within each arm: it is part of what the arm is."""
        pairs = {(str(job.arguments[self._key]), repr(job.arguments.get(key))) for job in self._jobs}
        return len(pairs) == len(self._arms())

    def _decide(self) -> None:
        arms = arms_of(self._rows, f"arg.{self._key}", self._metric, self._paired_by)
        for first, second in itertools.permutations(arms, 2):
            if first in self._decided or second in self._decided:
                continue
            a, b = paired_arms(arms[first], arms[second])
            if a.size < self._pairs:
                continue
            estimate = paired_difference(a, b, confidence=1.0 - _ERROR / self._looks)
            if estimate.high < 0.0:
                self._note(first, second, len(a), (estimate.value, estimate.low, estimate.high))

    def _note(self, worse: str, better: str, pairs: int, interval: tuple[float, float, float]) -> None:
        value, low, high = interval
        reason = (
            f"{self._key} {worse!r} is worse than {better!r} after {pairs} pairs: {self._metric} differs by "
            f"{value:.3g} [{low:.3g}, {high:.3g}] at {1.0 - _ERROR / self._looks:.2%}"
        )
        self._decided[worse] = reason
        sys.stderr.write(f"decided early: {reason}\n")
        path = self._results / self._jobs[0].study / DECISIONS_FILE
        document = {
            "key": self._key, "arm": worse, "better": better, "pairs": pairs, "interval": list(interval),
            "reason": reason,
        }  # fmt: skip
        replace_file(path, (path.read_bytes() if path.is_file() else b"") + (json.dumps(document) + "\n").encode())


def read_decisions(folder: Path) -> list[str]:
    """Return why arms of a study were stopped early, if any were."""
    return list(dict.fromkeys(line["reason"] for line in _lines(folder)))


def undecided(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """Return those of a study's jobs whose arm was not decided early."""
    arms = {(line.get("key"), line.get("arm")) for line in _lines(folder)}
    return [job for job in jobs if not any((key, str(value)) in arms for key, value in job.arguments.items())]


def _lines(folder: Path) -> list[dict[str, str]]:
    path = folder / DECISIONS_FILE
    if not path.is_file():
        return []
    found = []
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            document = json.loads(line)
            texts = {name: str(document[name]) for name in ("key", "arm") if name in document}
            found.append({"reason": str(document["reason"]), **texts})
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{str(path)!r} holds a line that is no decision") from error
    return found
