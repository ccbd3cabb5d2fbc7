"""The SLURM script of docs/cluster.md, with stand-ins for SLURM and for ``ray symmetric-run``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STAND_INS = {
    "scontrol": 'printf "%s\\n" node-a node-b',
    "srun": 'printf "%s\\n" "$1" >"$SEEN/srun"; shift; exec "$@"',
    "ray": """
        printf "%s\\n" "$RAY_AUTH_MODE" "$RAY_AUTH_TOKEN_PATH" >"$SEEN/token"
        while [ "$1" != -- ]; do printf "%s\\n" "$1" >>"$SEEN/ray"; shift; done
        shift; exec "$@"
    """,
    "python": f'printf "%s\\n" "$@" >"$SEEN/python"; exec {sys.executable} "$@"',
}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script as it stands on the page."""
    found = re.search(r"^    #!/bin/bash\n(?:    .*\n)+", (ROOT / "docs" / "cluster.md").read_text(), re.MULTILINE)
    assert found is not None
    path = tmp_path / "cluster.slurm"
    path.write_text(textwrap.dedent(found[0]))
    return path


def test_the_slurm_script_hands_every_word_on_and_the_program_takes_them(tmp_path: Path, script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{textwrap.dedent(text)}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "SEEN": str(tmp_path),
        "HOME": str(tmp_path), "RAY_TMPDIR": str(tmp_path), "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "32", "SLURM_SUBMIT_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    ended = subprocess.run(
        ["bash", str(script)], cwd=ROOT, env=variables, text=True, capture_output=True, timeout=240, check=False
    )
    # No Ray runs behind the stand-in: as far as that, the program took every flag.
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: --ray_address auto: no Ray cluster runs on this machine")
    assert ended.stderr.count("\n") == 1
    seen = {name: (tmp_path / name).read_text().splitlines() for name in ("srun", "ray", "token", "python")}
    assert seen["srun"] == ["--kill-on-bad-exit=1"]
    sizes = ["--address", "node-a:6379", "--min-nodes", "2", "--num-cpus", "32"]
    assert seen["ray"] == ["symmetric-run", *sizes, "--include-dashboard=false"]
    assert seen["token"] == ["token", f"{tmp_path}/.ray/auth_token"]
    assert f"{tmp_path}/policies" in seen["python"]
    directives = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert len(directives) == 1
    assert all(word.startswith("--") and word.count("=") <= 1 for word in directives[0].split()[1:])
