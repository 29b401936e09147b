import json

import pytest
import yaml
from rich.console import Console

from crosstune.errors import ConfigError
from crosstune.runs.locks import hold_run_lock
from crosstune.runs.plan_file import write_plan
from crosstune.sweeps.progress import (
    LOG,
    RunProgress,
    StudyProgress,
    format_seconds,
    read_progress,
    show_progress,
    watch,
)

NAMES = {"method": "lora", "model": "mini", "data": "tags", "language": "es"}


@pytest.fixture
def study(tmp_path):
    """Return the folder of a study of three runs."""
    folder = tmp_path / "study"
    runs = [
        {"overrides": [f"seed={n}"], "run_id": f"run{n}", "seed": n, **NAMES} for n in (1, 2, 3)
    ]
    write_plan(folder, runs)
    return folder, runs


def end(folder, run_id, status="finished"):
    (folder / run_id).mkdir(exist_ok=True)
    (folder / run_id / "record.json").write_text(json.dumps({"status": status}))


def shown(progress):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(progress.render())
    return captured.get()


def log_steps(folder, *lines, more=""):
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + more)
    config = {"trainer": {"max_epochs": 4}, "data": {"metric": "f1"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_run_at_work_is_shown_with_its_epoch_step_loss_and_score(study):
    folder, runs = study
    losses = [{"step": n, "epoch": 1, "train/loss": n / 10} for n in range(9)]
    score = {"step": 4, "epoch": 0, "validation/headline": 0.81234}
    log_steps(folder / "run2", *losses, score)
    end(folder, "run1")
    with hold_run_lock(folder / "run2"):
        text = shown(StudyProgress(folder, runs))
    assert "1 of 3 runs done · 1 running" in text
    line = next(line for line in text.splitlines() if "seed 2" in line)
    assert "lora · mini · tags · es" in line
    assert line.split()[-7:] == ["1", "of", "4", "5", "0.600", "f1", "0.812"]


def test_a_failed_run_counts_as_such_until_it_is_tried_again(study):
    folder, runs = study
    end(folder, "run1", "diverged")
    progress = StudyProgress(folder, runs)
    assert "1 failed" in shown(progress)
    with hold_run_lock(folder / "run1"):
        assert "failed" not in shown(progress)
    end(folder, "run1")
    assert "1 of 3 runs done · 0 running ·" in shown(progress)


def test_the_time_left_counts_only_runs_that_ended_meanwhile(study):
    folder, runs = study
    end(folder, "run1")
    progress = StudyProgress(folder, runs)
    assert "left" not in shown(progress)
    end(folder, "run2")
    progress.began -= 60
    assert "about 1:00 min left" in shown(progress)


@pytest.mark.parametrize("more", ['{"step": 7, "epo', "not json\n", "\x00\n"])
def test_a_line_that_is_being_written_is_left_out(tmp_path, more):
    log_steps(tmp_path / "run", {"step": 0, "epoch": 0, "train/loss": 1.0}, more=more)
    assert read_progress(tmp_path / "run") == RunProgress("1 of 4", "1", "1.000", "")


def test_a_run_that_has_logged_nothing_has_no_progress(tmp_path):
    assert read_progress(tmp_path / "nowhere") == RunProgress()


def test_a_long_file_is_read_from_its_end(tmp_path):
    lines = [{"step": n, "epoch": 0, "train/loss": 1.0} for n in range(20000)]
    log_steps(tmp_path / "run", *lines)
    assert read_progress(tmp_path / "run").step == "20000"


def test_without_a_terminal_the_lines_of_the_runs_go_to_stderr(study, capsys):
    folder, runs = study
    with show_progress(folder, runs) as write_line:
        write_line("[1] step 3")
    assert capsys.readouterr().err == "[1] step 3\n"
    assert not (folder / LOG).exists()


def test_on_a_terminal_they_go_to_a_file_that_the_display_names(study, capsys, monkeypatch):
    folder, runs = study
    monkeypatch.setenv("FORCE_COLOR", "1")
    with show_progress(folder, runs) as write_line:
        write_line("[1] step 3")
    assert (folder / LOG).read_text() == "[1] step 3\n"
    text = capsys.readouterr().err
    assert "0 of 3 runs done" in text
    assert LOG in text


def test_watching_ends_when_all_runs_have(study, capsys):
    folder, runs = study
    for run in runs:
        end(folder, run["run_id"])
    watch(folder.parent, folder.name)
    assert "3 of 3 runs done" in capsys.readouterr().out


def test_watching_a_study_without_a_plan_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="experiment=nowhere: no such study"):
        watch(tmp_path, "nowhere")


def test_durations_are_in_minutes_then_in_hours():
    assert [format_seconds(s) for s in (0, 59.6, 3599, 3600)] == [
        *("0:00 min", "1:00 min", "59:59 min", "1:00 h")
    ]
