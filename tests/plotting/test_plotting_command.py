import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import racer.__main__ as program
from racer.core.errors import UsageError
from racer.plotting import style
from racer.plotting.command import FIGURES


def write_run(folder):
    folder.mkdir()
    rows = [{"step": s, "time": 0.0, "training/return": float(s), "evaluation/return": float(s)} for s in (0, 10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_plots_what_the_runs_allow(tmp_path, capsys):
    run, out = write_run(tmp_path / "run_1"), tmp_path / "plots"
    assert program.main(["plot", run, "--output_dir", str(out)]) == 0
    assert [p.name for p in out.iterdir()] == ["learning_curves.png"]
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out / "learning_curves.png")
    lines = printed.err.splitlines()
    assert [line.split(" is left out: ")[0] for line in lines] == [f for f in FIGURES if f != "learning_curves"]
    assert "critic_distribution is left out: run_1: it has no checkpoint" in lines
    assert next(line for line in lines if line.startswith("return_histograms")).endswith("to draw returns from")


def test_an_evaluation_without_trials_is_drawn(tmp_path, capsys):
    episodes = [{"seed": seed, "return": float(seed)} for seed in range(4)]
    (tmp_path / "evaluation_metrics.json").write_text(json.dumps({"aggregate": {}, "episodes": episodes}))
    assert program.main(["plot", str(tmp_path), "--across", "x", "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "out" / "return_histograms.png")
    assert "trial_scores is left out: no run has an evaluation_metrics.json with the scores" in printed.err


def test_runs_without_a_picture_are_told_where_another_run_has_one(tmp_path, capsys, monkeypatch):
    runs = [write_run(tmp_path / name) for name in ("run_1", "run_2", "run_3")]

    def record(path, seed):
        if path.name == "run_2":
            raise UsageError("its critic is\nof another kind")
        return SimpleNamespace(name="checkpoint_10")

    monkeypatch.setattr("racer.plotting.command.has_checkpoint", lambda path: path.name != "run_1")
    monkeypatch.setattr("racer.plotting.critic.record_critic", record)
    monkeypatch.setattr("racer.plotting.critic.critic_figure", lambda episode: style.pyplot().figure())
    words = ["--figure", "critic_distribution", "--output_dir", str(tmp_path / "out")]
    assert program.main(["plot", *runs, *words]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(tmp_path / "out" / "critic_distribution_run_3_checkpoint_10.png")]
    assert printed.err.splitlines() == [
        "critic_distribution of run_1 is left out: it has no checkpoint",
        "critic_distribution of run_2 is left out: its critic is of another kind",
    ]
    line = refused(capsys, "plot", *runs[:2], *words)
    assert "run_1: it has no checkpoint; run_2: its critic is of another kind" in line


def test_a_run_in_which_no_episode_has_ended_says_so_and_leaves_no_folder(tmp_path, capsys):
    run = tmp_path / "run_1"
    run.mkdir()
    (run / "metrics.jsonl").write_text(json.dumps({"step": 64, "time": 1.0, "agent/kl": 0.1}) + "\n")
    assert program.main(["plot", str(run), "--output_dir", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "error: the runs allow none of the figures"
    assert lines[0] == (
        "learning_curves is left out: no episode has ended yet in the runs' metrics.jsonl; of the other metrics there, "
        "name some with --metric, such as agent/kl"
    )
    assert len(lines) == len(FIGURES) + 1
    assert not (tmp_path / "out").exists()


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
