"""Count how many hostile inputs the programs take cleanly, on inputs that nobody has seen before.

    python tests/faults/count_hostile.py --inputs 400
    python tests/faults/count_hostile.py --inputs 70 --reader "run.json" --seed 5 --begin

Each input is run up to the first step of training or evaluation, in this process; with ``--begin`` the run is also
built (environments, networks, replay). The seed is printed: it makes the inputs again.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hostile_inputs import READERS, Case, build, judge, quiet
from hypothesis import HealthCheck, Phase, given, seed, settings


def main() -> int:
    """Count, and show what was not clean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=400, help="how many, over all readers (default: %(default)s)")
    parser.add_argument("--reader", choices=sorted(READERS), help="only this one")
    parser.add_argument("--seed", type=int, help="of the inputs; drawn if not given")
    parser.add_argument("--accepted", action="store_true", help="show what was accepted")
    parser.add_argument("--begin", action="store_true", help="build accepted runs too")
    arguments = parser.parse_args()
    drawn = secrets.randbits(32) if arguments.seed is None else arguments.seed
    names = [arguments.reader] if arguments.reader else list(READERS)
    counts: Counter[str] = Counter()
    share, rest = divmod(arguments.inputs, len(names))
    for number, name in enumerate(names):
        _count(name, share + (number < rest), drawn, counts, arguments)
        tried, clean, refused = counts[f"{name} tried"], counts[f"{name} clean"], counts[f"{name} refused"]
        print(f"{name}: {clean} of {tried} clean, {refused} refused, {tried - refused} accepted", flush=True)
    tried, clean = (sum(counts[f"{name} {what}"] for name in names) for what in ("tried", "clean"))
    print(f"{clean} of {tried} clean (seed {drawn})")
    return int(clean != tried)


def _count(name: str, number: int, drawn: int, counts: Counter[str], arguments: argparse.Namespace) -> None:
    @seed(drawn)
    @settings(max_examples=number, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=READERS[name])
    def one(case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder, quiet():
            outcome = judge(case, Path(folder), *[build] * arguments.begin)
        complaints = outcome.complaints()
        counts[f"{name} tried"] += 1
        counts[f"{name} clean"] += not complaints
        counts[f"{name} refused"] += outcome.code == 2
        if arguments.accepted and not complaints and outcome.code == 0:
            print(f"  accepted: {name} [{case.words[0]}] {case.told!r}", flush=True)
        if complaints:
            print(f"  {name} [{case.words[0]}] {case.told!r}: {'; '.join(complaints)}", flush=True)

    one()


if __name__ == "__main__":
    sys.exit(main())
