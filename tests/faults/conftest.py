"""What the fault tests share: the toy environments of tests/distributed can be imported, and clusters end."""

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))


@pytest.fixture
def nodes():
    """Begins clusters; they end with the test. Skipped where Ray is not installed."""
    from cluster_kit import Nodes

    with contextlib.ExitStack() as held:

        def begin(*cpus: int, **head: object) -> Nodes:
            found = Nodes(*cpus, **head)
            held.callback(found.close)
            return found

        yield begin
