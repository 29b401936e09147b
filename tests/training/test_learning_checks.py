"""A run that learned nothing says so in its log, its record, the status and the report."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from crosstune.config.schema import TaskType
from crosstune.reporting.records import read_records, to_frame
from crosstune.reporting.tables import build_table
from crosstune.sweeps.status import read_status, render_status
from crosstune.tasks import TASKS
from crosstune.tasks.classification import MultiLabel
from crosstune.tasks.prediction import Prediction
from crosstune.training.learning_checks import check_learning
from crosstune.training.prepare import prepare
from crosstune.training.results import EvaluationResult, StageResult
from crosstune.training.train import train
from tests.tiny import tiny_run

SPLIT = "test"


def check(tmp_path: Path, kind: str, answers: list, steps: int = 12, **scores: float):
    """Return the checks of a run whose test items get these answers."""
    prepared = prepare(tiny_run(tmp_path, kind, "method=full"))
    ((language, split),) = prepared.splits[SPLIT].items()
    rows = split.rows
    golds = [row["tags"] if kind == "tagging" else row["label"] for row in rows]
    items = [
        Prediction(n, row["id"], gold, answer, 0.0)
        for n, (row, gold, answer) in enumerate(zip(rows, golds, answers, strict=False))
    ]
    computed = prepared.task.compute_metrics(items, torch.device("cpu"))
    computed["scores"] |= scores
    stage = StageResult(1, {SPLIT: {language: EvaluationResult(**computed)}})
    predictions = {language: items}
    trainer, device = SimpleNamespace(global_step=steps), torch.device("cpu")
    module: Any = SimpleNamespace(trainer=trainer, device=device, predictions=predictions)
    return check_learning(prepared, stage, module, predictions)


def golds(tmp_path: Path, kind: str) -> list:
    prepared = prepare(tiny_run(tmp_path, kind, "method=full"))
    (split,) = prepared.splits[SPLIT].values()
    rows = split.rows
    return [row["tags"] if kind == "tagging" else row["label"] for row in rows]


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_right_answers_give_no_warning(tmp_path, kind):
    assert check(tmp_path, kind, golds(tmp_path, kind)).warnings == []


def test_one_answer_for_every_item_is_named_with_what_to_do(tmp_path):
    n = len(golds(tmp_path, "classification"))
    (warning,) = check(tmp_path, "classification", ["negative"] * n).warnings
    assert warning.startswith(f"test/es: predicts 'negative' for all {n} items. It took 12 steps")
    assert "a smaller data.batch_size, more trainer.max_epochs or a higher" in warning


def test_one_tag_for_every_word_is_named(tmp_path):
    answers = [["O"] * len(tags) for tags in golds(tmp_path, "tagging")]
    checks = check(tmp_path, "tagging", answers)
    assert "predicts 'O' for all" in checks.warnings[0]
    assert checks.majority == {"test": {"zh": {"f1": 0.0}}}


def test_a_score_that_the_majority_has_too_is_named(tmp_path):
    right = golds(tmp_path, "classification")
    answers = ["positive" if gold == "negative" else "negative" for gold in right]
    checks = check(tmp_path, "classification", answers)
    majority = checks.majority["test"]["es"]["accuracy"]
    assert f"scores 0.000, and the majority of train's labels {majority:.3f}" in checks.warnings[0]


def test_after_many_steps_the_advice_is_another(tmp_path):
    n = len(golds(tmp_path, "classification"))
    (warning,) = check(tmp_path, "classification", ["negative"] * n, steps=500).warnings
    assert "try a pretrained encoder, such as model=me5_small" in warning


def test_label_sets_have_no_majority():
    rows = [{"label": "a", "where": "f:1"}, {"label": "b", "where": "f:2"}]
    task = MultiLabel.from_rows(rows, separator=",")
    assert task.predict_majority(rows, [Prediction(0, "0", ["a"], ["a"], 0.0)]) == []


def test_the_majority_is_that_of_train():
    rows = [{"label": label, "where": "f:1"} for label in "aab"]
    task = TASKS[TaskType.classification].from_rows(rows)
    items = [Prediction(0, "0", "b", "b", 0.0)]
    assert [item.prediction for item in task.predict_majority(rows, items)] == ["a"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A study of one run of one step, and its record."""
    outputs = tmp_path_factory.mktemp("study")
    folder = train(tiny_run(outputs, "classification", "experiment=s", "trainer.max_steps=1"))
    return outputs, json.loads((folder / "record.json").read_text("utf-8"))


def test_the_record_holds_the_warning_and_the_majority(study):
    _, record = study
    assert "step of the optimizer" in record["warnings"][0]
    assert 0 < record["majority"]["test"]["es"]["accuracy"] < 1


def test_the_status_lists_the_run(study):
    outputs, record = study
    text = render_status("s", read_status(outputs, "s"))
    assert "Learned nothing (1 of the finished runs):" in text
    assert record["warnings"][0] in text


def test_the_report_flags_the_run_and_shows_the_majority(study):
    outputs, record = study
    records = read_records(outputs, "s")
    table = build_table("s", to_frame(records), records)
    assert record["warnings"][0] in table.flags[0]
    majority = 100 * record["majority"]["test"]["es"]["accuracy"]
    assert table.references[0][:2] == ("majority", f"{majority:.1f}")
