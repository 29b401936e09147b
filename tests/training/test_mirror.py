"""The table of a study at Weights & Biases: what it gets, and that it asks no network offline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crosstune.errors import ConfigError
from crosstune.training.loggers import mirror_table
from tests.training.test_loggers import records

HEADERS = ("method", "情感 es f1")
ROWS = [("lora", "80.0 ± 1.0 (5)"), ("<script>", "–")]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mirrored")
    mirror_table("study", HEADERS, ROWS, folder, "offline")
    return folder


def test_the_table_is_logged_whole_and_as_it_is(mirrored: Path) -> None:
    (path,) = mirrored.glob("wandb/offline-run-*/files/media/table/*.table.json")
    logged = json.loads(path.read_text("utf-8"))
    assert logged == {"columns": list(HEADERS), "data": [list(row) for row in ROWS]}


def test_the_run_bears_the_name_of_the_study_and_stands_in_its_group(mirrored: Path) -> None:
    (path,) = mirrored.glob("wandb/offline-run-*/*.wandb")
    run = next(record.run for record in records(path) if record.HasField("run"))
    assert (run.display_name, run.run_group, run.job_type) == ("report-study", "study", "report")


def test_another_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="online or offline"):
        mirror_table("study", HEADERS, ROWS, tmp_path, "on")


def test_a_report_that_is_not_mirrored_loads_no_wandb() -> None:
    code = (
        "import sys, crosstune.cli.main, crosstune.reporting.report; print('wandb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
