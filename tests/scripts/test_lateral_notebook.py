"""The notebook runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "scripts" / "lateral" / "train.ipynb"


def test_the_notebook_runs_top_to_bottom(monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="install the extra [lateral] to run the notebook")
    nbclient = pytest.importorskip("nbclient", reason="install the extra [lateral] to run the notebook")
    pytest.importorskip("ipykernel", reason="install the extra [lateral] to run the notebook")
    pytest.importorskip("matplotlib", reason="install the extra [lateral] to run the notebook")
    monkeypatch.setenv("RACER_NOTEBOOK_STEPS", "4096")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[2]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    nbclient.NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    printed = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "finished at step 4096" in printed
    figures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(figures) == 3
