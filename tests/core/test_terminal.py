"""A program outlives what shows its output."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from racer.core.terminal import OutlivedStream, outlived_streams, write_line

PROGRAM = """
import logging, subprocess, sys
from pathlib import Path
from absl import flags
from tqdm import tqdm
from racer.core.cli import run_program

values = flags.FlagValues()

def main():
    for i in tqdm(range(3), mininterval=0):
        print("line", i, flush=True)
        print("line", i, file=sys.stderr)
        logging.warning("log %d", i)
        subprocess.run([sys.executable, "-c", "import sys; print('child', file=sys.stderr); sys.stderr.flush()"])
    print("x" * 100_000)
    with open(sys.argv[1], "w") as file:
        file.write("done")
    return 0

sys.exit(run_program(main, [sys.argv[0]], values=values))
"""


@pytest.mark.parametrize(
    "streams",
    [
        "", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "2>&-", ">&-", "<&-", ">&- 2>&- <&-", "| head -1",
        "2>&1 | head -1", "2>&1 | true",
    ],
)  # fmt: skip
def test_a_program_goes_on_without_its_display(tmp_path: Path, streams: str) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = f"{sys.executable} {tmp_path}/program.py {tmp_path}/done {streams}"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    # Nothing that was shown went into a file that took a closed stream's place.
    assert (tmp_path / "done").read_text() == "done"
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    if streams == ">/dev/full":
        assert ended.stderr.strip().splitlines()[-1] == ("warning: standard output was lost: No space left on device")


def test_what_an_encoding_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    stream = OutlivedStream(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    stream.write("\u00e9 \ud800 x\n")
    assert raw.getvalue() == b"\\xe9 \\ud800 x\n"


def test_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with outlived_streams():
        assert sys.stdout is not before[0]
        write_line("shown")
        write_line("wrong", error=True)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("shown\n", "wrong\n")


def test_a_closed_stream_is_no_error() -> None:
    file = io.StringIO()
    file.close()
    stream = OutlivedStream(file)
    assert stream.write("x") == 1
    stream.flush()
    assert stream.failure is not None
