"""The command line as a user meets it: what it prints, how it ends, how long it takes."""

import contextlib
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

from crosstune.cli.main import main
from crosstune.config.paths import use_config_folder
from crosstune.config.schema import OPTIONS

PAIR = "text\tlabel\nbueno\tyes\nmalo\tno\n"


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def crosstune(*arguments: str, cwd: Path | None = None) -> Done:
    """Run a command in this process, which has loaded torch already."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["crosstune", *arguments]
    try:
        with contextlib.chdir(cwd or "."), redirect_stdout(out), redirect_stderr(err):
            code = main()
    finally:
        sys.argv = before
        use_config_folder(None)  # of this command alone
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments: str) -> Done:
    """Run a command as a shell does."""
    command = [sys.executable, "-m", "crosstune", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Overrides of a run on three small files."""
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.tsv").write_text(PAIR)
    splits = [f"data.{name}={tmp_path / name}.tsv" for name in ("train", "validation", "test")]
    columns = ["data.text=text", "data.label=label", "data.language=es"]
    return ["data=files_classification", *splits, *columns, f"outputs={tmp_path / 'outputs'}"]


def assert_one_paragraph(done: Done, *parts: str) -> None:
    assert done.stdout == ""
    assert done.stderr.startswith("crosstune ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("method=lroa", ("method=lroa", "Did you mean lora?", "head_only")),
        ("optimizer.learning_rate=abc", ("optimizer.learning_rate", "abc")),
        ("+foo=1", ("foo: unknown key", "Allowed:")),
        ("foo=1", ("foo: unknown key", "Allowed:")),
        ("trainer.max_epoch=2", ("trainer.max_epoch: unknown key", "max_epochs")),
        ("seed=-1", ("seed=-1", "at least 0")),
        ("data.language=spanish", ("spanish", "es")),
    ],
)
def test_a_wrong_option_ends_in_one_paragraph_and_exit_2(
    override: str, parts: tuple[str, ...], files: list[str]
) -> None:
    done = crosstune("train", *files, override)
    assert done.returncode == 2
    assert_one_paragraph(done, *parts)


def test_a_target_outside_the_allow_list_is_refused(files: list[str]) -> None:
    done = crosstune("train", *files, "data.reader._target_=os.system")
    assert done.returncode == 2
    assert_one_paragraph(done, "os.system", "outside")


def test_a_missing_file_ends_in_one_paragraph_and_exit_1(files: list[str]) -> None:
    done = crosstune("train", *files, "data.test=nowhere.tsv")
    assert done.returncode == 1
    assert_one_paragraph(done, "nowhere.tsv: no such file")


def test_a_ragged_row_ends_in_one_paragraph_with_its_line(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(PAIR + "solo\n")
    done = crosstune("train", *files)
    assert done.returncode == 1
    assert_one_paragraph(done, "train.tsv:4: 1 columns where the header has 2")


def test_an_unseen_label_ends_in_one_paragraph_with_its_line(
    files: list[str], tmp_path: Path
) -> None:
    (tmp_path / "test.tsv").write_text(PAIR + "regular\tmaybe\n")
    done = crosstune("train", *files)
    assert done.returncode == 1
    assert_one_paragraph(done, "test.tsv:4: label 'maybe' never occurs in train")


def test_check_prints_every_fault_of_every_split(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(PAIR + "solo\n\tno\n")
    (tmp_path / "test.tsv").write_bytes(PAIR.encode() + b"\xff\tno\n")
    done = crosstune("check", *files)
    assert done.returncode == 1
    assert "train.tsv:4: 1 columns" in done.stdout
    assert "train.tsv:5: column 'text' (data.text) is empty" in done.stdout
    assert "test.tsv:4: byte 0xff is not UTF-8" in done.stdout


def test_check_of_sound_data_ends_in_exit_0(files: list[str], tmp_path: Path) -> None:
    header, *rows = PAIR.splitlines(keepends=True)
    for name in ("train", "validation", "test"):
        own = [row.replace("\t", f" {name}\t") for row in rows]
        (tmp_path / f"{name}.tsv").write_text("".join([header, *own]))
    done = crosstune("check", *files)
    assert done.returncode == 0
    assert "train/es: 2 rows" in done.stdout


@pytest.mark.parametrize("arguments", [["trian"], ["status"], ["report", "experiment="], []])
def test_a_wrong_command_ends_in_exit_2(arguments: list[str]) -> None:
    assert crosstune(*arguments).returncode == 2


def test_an_unknown_study_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    done = crosstune("report", "experiment=dmeo", f"outputs={tmp_path}")
    assert done.returncode == 2
    assert_one_paragraph(done, "dmeo", "Did you mean demo?")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["predict", "input=a.txt", "output=b.jsonl"], ("run is missing", "run=DIR")),
        (
            ["predict", "run=nowhere", "input=a.txt", "output=b.jsonl"],
            ("nowhere", "no such folder"),
        ),
        (["predict", "run=.", "input=a.txt", "output=b.doc"], ("b.doc", ".jsonl, .tsv")),
        (["predict", "run=.", "inptu=a.txt"], ("inptu", "Did you mean input?")),
        (["export", "run=."], ("output is missing",)),
        (["export", "run=nowhere", "output=b"], ("nowhere", "no such folder")),
    ],
)
def test_a_run_or_file_that_is_not_there_ends_in_one_paragraph_and_exit_2(
    arguments: list[str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    done = crosstune(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert_one_paragraph(done, *parts)


@pytest.mark.parametrize(
    "override", ["method=full,lroa", "data.max_tokens=1,2", "data.test=a.tsv,b.tsv", "seed=x,y"]
)
def test_a_refused_sweep_is_not_planned(override: str, files: list[str], tmp_path: Path) -> None:
    done = crosstune("train", "-m", *files, override, "experiment=mine")
    assert done.returncode in (1, 2)
    assert not list(tmp_path.glob("outputs/mine/plan.jsonl"))
    assert crosstune("status", "experiment=mine", f"outputs={tmp_path}/outputs").returncode == 2


@pytest.mark.parametrize(
    "verb", ["check", "tune", "status", "report", "forget", "predict", "export"]
)
def test_every_verb_takes_a_folder_of_ones_own_and_refuses_one_that_is_not_there(
    verb: str, tmp_path: Path
) -> None:
    done = crosstune(verb, "--config-dir", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert_one_paragraph(done, "nowhere: no such folder")


def test_check_and_tune_read_a_folder_of_ones_own(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "conf" / "data").mkdir(parents=True)
    own = "defaults: [files_classification]\nname: mine\nlanguage: zh\n"
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(own)
    overrides = [word for word in files if word not in ("data=files_classification",)]
    overrides = [*overrides[:5], "data=mine"]
    folder = f"--config-dir={tmp_path / 'conf'}"
    assert "mine train/zh: 2 rows" in crosstune("check", *overrides, folder).stdout
    done = crosstune("tune", *overrides, "trials=0", folder)
    assert_one_paragraph(done, "trials=0: must be at least 1")
    assert_one_paragraph(crosstune("check", *overrides), "data=mine: no such option")


def test_an_option_given_twice_is_refused_where_hydra_does_not_read_it() -> None:
    done = crosstune("report", "experiment=a", "experiment=b")
    assert done.returncode == 2
    assert_one_paragraph(done, "experiment is given twice: experiment=a and experiment=b")


def test_debug_shows_the_traceback(files: list[str]) -> None:
    assert "Traceback" in start("train", *files, "foo=1", "--debug").stderr


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        (["--help"], 0.4),
        (["train", "--help"], 0.8),
        (["report", "--help"], 0.8),
        (["predict", "--help"], 0.8),
        (["export", "--help"], 0.8),
    ],
)
def test_help_is_quick(arguments: list[str], seconds: float) -> None:
    def cpu_seconds() -> float:
        before = os.times()
        assert start(*arguments).returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before[2] - before[3]

    assert min(cpu_seconds() for _ in range(3)) < seconds


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'pytorch_lightning', 'hydra', 'pandas'}"
    code = f"import sys, crosstune.cli.main; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_of_ones_own_adds_options(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "mine.yaml").write_text("name: mine\nlearning_rate: 0.5\n")
    options = ["--config-dir", str(tmp_path / "conf"), "--cfg", "job", "method=mine"]
    done = crosstune("train", *files, *options, cwd=tmp_path)
    assert done.returncode == 0
    assert "name: mine" in done.stdout


def test_the_help_of_train_names_every_option_with_its_sentence() -> None:
    printed = " ".join(crosstune("train", "--help").stdout.split())
    for key, facts in OPTIONS.items():
        assert f" {key}=" in printed
        assert " ".join(facts.sentence.split()) in printed


def test_the_version_is_that_of_the_package() -> None:
    done = crosstune("--version")
    assert (done.returncode, done.stdout) == (0, f"crosstune {version('crosstune')}\n")


def test_an_unknown_verb_gets_the_close_one() -> None:
    done = crosstune("trian")
    assert done.returncode == 2
    assert done.stderr.startswith("crosstune trian: no such verb. Did you mean train? Allowed: ")


@pytest.mark.parametrize("verb", ["train", "status", "report", "check", "predict", "export"])
def test_every_verb_has_a_help(verb: str) -> None:
    assert f"crosstune {verb}" in crosstune(verb, "--help").stdout
