"""Folders that crosstune 0.1.0 left (`fixtures/records_0_1`) are still read by every verb."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from crosstune.cli import main as cli
from crosstune.config.compose import read_config
from crosstune.data.splits import read_splits
from crosstune.runs.fingerprint import compute_run_id

FIXTURES = Path(__file__).parent / "fixtures" / "records_0_1"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES, tmp_path / "outputs")


def test_an_old_run_keeps_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)
    (config,) = Path("old_files").glob("*/config.yaml")
    run = read_config(config)
    assert compute_run_id(run, read_splits(run.data, [])) == config.parent.name


def crosstune(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["crosstune", *words])
    return cli.main()


def test_status_counts_the_runs_of_an_old_study(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crosstune(monkeypatch, "status", "experiment=old", f"outputs={outputs}") == 0
    printed = capsys.readouterr().out
    assert "old: 8 runs, 8 finished" in printed
    assert printed.count("2/2") == 4


def test_report_averages_an_old_study(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crosstune(monkeypatch, "report", "experiment=old", f"outputs={outputs}") == 0
    table = (outputs / "old" / "report" / "table.md").read_text("utf-8")
    lines = [line.split("|")[1:5] for line in table.splitlines() if line.startswith("| ")]
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:3]] for cells in lines}
    assert rows["method"] == ["demo_entities es f1", "demo_sentiment es accuracy"]
    assert rows["full"] == ["6.0 ± 0.4 (2)", "50.3 ± 0.0 (2)"]
    assert rows["lora"] == ["6.1 ± 0.3 (2)", "50.3 ± 0.0 (2)"]


def test_predict_gives_an_old_runs_own_predictions(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "predictions.jsonl"
    words = [f"run={outputs / 'old_files'}", f"input={outputs / 'test.tsv'}", f"output={target}"]
    assert crosstune(monkeypatch, "predict", *words) == 0
    predicted = [json.loads(line)["prediction"] for line in target.read_text().splitlines()]
    (stored,) = outputs.glob("old_files/*/predictions.parquet")
    assert predicted == [row["prediction"] for row in pq.read_table(stored).to_pylist()]
