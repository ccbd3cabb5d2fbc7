import json
import subprocess
import sys

import pytest

import racer.__main__ as program
from racer.plotting import style


def write_run(folder):
    folder.mkdir()
    rows = [{"step": s, "time": 0.0, "training/return": float(s), "evaluation/return": float(s)} for s in (0, 10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_plots_what_the_runs_allow(tmp_path, capsys):
    run, out = write_run(tmp_path / "run_1"), tmp_path / "plots"
    assert program.main(["plot", run, "--output_dir", str(out)]) == 0
    assert [p.name for p in out.iterdir()] == ["learning_curves.png"]
    assert capsys.readouterr().out.strip() == str(out / "learning_curves.png")


def test_a_metric_asks_for_learning_curves_alone(tmp_path):
    run, out = write_run(tmp_path / "run_1"), tmp_path / "plots"
    assert program.main(["plot", run, "--metric", "training/return", "--output_dir", str(out)]) == 0
    assert [p.name for p in out.iterdir()] == ["learning_curves.png"]


def refused(capsys, *arguments: str) -> str:
    assert program.main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    run = write_run(tmp_path / "run_1")
    assert "'plot'" in refused(capsys, "plt", run)
    assert "RUN" in refused(capsys, "plot")
    assert "no run at" in refused(capsys, "plot", str(tmp_path / "nowhere"))
    assert "'learning_curves'" in refused(capsys, "plot", run, "--figure", "learning_curve")
    assert "'--figure'" in refused(capsys, "plot", run, "--figur", "x")
    assert "cvar_level" in refused(capsys, "plot", run, "--cvar_level", "1.5")
    assert "cvar_level" in refused(capsys, "plot", run, "--cvar_level", "much")
    assert "smoothing" in refused(capsys, "plot", run, "--smoothing", "-1")
    assert "'training/return'" in refused(capsys, "plot", run, "--metric", "training/retrn")


def test_a_metric_that_was_meant_but_never_logged_is_named(tmp_path, capsys):
    rows = [{"step": s, "time": 0.0, "training/return": float(s), "agent/value_target": 0.0} for s in (0, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refused(capsys, "plot", str(tmp_path), "--metric", "evaluation/retrun")
    assert "did you mean 'evaluation/return'? none of the runs logged 'evaluation/return'; they have" in line
    line = refused(capsys, "plot", str(tmp_path), "--metric", "evaluation/return")
    assert line == "error: none of the runs logged 'evaluation/return'; they have agent/value_target, training/return"


def test_a_figure_that_was_named_and_cannot_be_drawn_is_an_error(tmp_path, capsys):
    run = write_run(tmp_path / "run_1")
    line = refused(capsys, "plot", run, "--figure", "return_histograms", "--output_dir", str(tmp_path / "out"))
    assert "evaluation_metrics.json" in line


def test_missing_matplotlib_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install matplotlib" in refused(capsys, "plot", write_run(tmp_path / "run_1"))


def test_module_is_started_as_documented(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "racer", "plot", str(tmp_path / "nowhere")], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_importing_the_program_does_not_import_matplotlib():
    code = "import sys, racer.__main__, racer.plotting.command; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_pictures_need_no_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    style.pyplot()
    import matplotlib

    assert matplotlib.get_backend().lower() == "agg"


@pytest.mark.parametrize("command", [["--help"], ["plot", "--help"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(command)
    assert ended.value.code == 0
    assert "plot" in capsys.readouterr().out
