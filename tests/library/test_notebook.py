"""The example notebook, executed from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="NOT TESTED: the notebook needs nbformat and nbclient")
nbclient = pytest.importorskip("nbclient", reason="NOT TESTED: the notebook needs nbformat and nbclient")
pytest.importorskip("ipykernel", reason="NOT TESTED: the notebook needs ipykernel")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_from_end_to_end(tmp_path):
    notebook = nbformat.read(ROOT / "examples" / "run_from_a_notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    texts = [
        output["data"]["text/plain"]
        for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output
    ]  # fmt: skip
    assert "finished=True" in texts[0]
    assert (tmp_path / "policies" / "tmaze_run_42" / "run.json").exists()
    mean_return, success = (float(word) for word in texts[2].strip("()").split(","))
    assert mean_return == pytest.approx(4.0 * success - 0.1 * (1.0 - success), abs=0.11)
    assert "'hidden': (1, 16)" in texts[3]
