"""One real number for a text or a pair: standardised, learnt, given back in its own unit."""

from math import nan

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from crosstune.errors import DataError
from crosstune.tasks.regression import Regression
from tests.tiny import batch_of, saying

NUMBERS = ("1.5", "4", "-2.5e0")
ROWS = [
    {"id": str(n), "text": "la música", "text_pair": "el niño", "label": label, "where": f"a:{n}"}
    for n, label in enumerate(NUMBERS, start=2)
]
TASK = Regression.from_rows(ROWS)


def test_the_scale_is_that_of_train():
    assert TASK.mean == pytest.approx(1.0)
    assert TASK.std == pytest.approx((0.25 / 3 + 9 / 3 + 12.25 / 3) ** 0.5)


def test_the_targets_of_train_have_mean_0_and_deviation_1(byte_bpe):
    labels = TASK.encode(ROWS, byte_bpe, 64).labels
    assert labels.mean() == pytest.approx(0, abs=1e-12)
    assert labels.std() == pytest.approx(1)


def test_a_train_of_one_number_is_a_fault_of_its_file():
    with pytest.raises(DataError, match=r"^a: train holds one number only, 1\.5$"):
        Regression.from_rows(ROWS[:1] * 3)


@pytest.mark.parametrize("label", ["nan", "inf", "-Infinity", "1_5", "3,5", "five", "1e999", ""])
def test_a_label_that_is_no_finite_number_is_told(label):
    row = {**ROWS[0], "label": label}
    assert TASK.find_row_faults(row) == [f"label {label!r} is not a finite number such as 3.5"]
    assert Regression.from_rows([*ROWS, row]) == TASK  # it is told with those of all splits


def test_a_train_without_any_number_tells_every_label():
    rows = [{**row, "label": "x"} for row in ROWS]
    with pytest.raises(DataError) as caught:
        Regression.from_rows(rows)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize("label", [*NUMBERS, " 2 ", "1E-3"])
def test_a_number_is_no_fault(label):
    assert TASK.find_row_faults({**ROWS[0], "label": label}) == []


def test_the_loss_is_the_sum_of_squares_over_the_items_that_count():
    logits = torch.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    total, count = TASK.loss(saying(logits), batch_of(torch.tensor([0.0, 2.5, nan])))
    assert (total.item(), int(count)) == (pytest.approx(1.25), 2)
    total.backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == [2.0, -1.0, 0.0]


def test_a_batch_that_does_not_count_has_no_loss():
    total, count = TASK.loss(saying(torch.ones(2, 1)), batch_of(torch.tensor([nan, nan])))
    assert (total.item(), int(count)) == (0.0, 0)


def test_predictions_are_in_the_unit_of_the_labels(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    batch = TASK.collate(encoded, [0, 1, 2], byte_bpe, None)
    read = TASK.predict_batch(saying(batch["labels"][:, None]), batch)
    outputs = [(window, *found) for window, found in enumerate(read)]
    predictions = TASK.decode(ROWS, encoded, outputs)
    assert [p.prediction for p in predictions] == pytest.approx([p.gold for p in predictions])
    assert [p.score for p in predictions] == batch["labels"].tolist()


def test_the_scores_have_the_names_that_the_task_announces(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    predictions = TASK.decode(ROWS, encoded, [(0, 0.0, 0.0), (1, 1.0, 1.0)])
    measured = TASK.compute_metrics(predictions, torch.device("cpu"))
    assert set(measured["scores"]) == set(TASK.metrics)
    assert measured["report"]["mae"] == pytest.approx((0.5 + abs(4 - 1 - TASK.std)) / 2)


def test_a_saved_model_is_one_for_regression_and_knows_its_unit(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    names = {"id2label": dict(enumerate(TASK.labels)), "vocab_size": 9, "intermediate_size": 8}
    model = AutoModelForSequenceClassification.from_config(BertConfig(**sizes, **names))
    assert TASK.add_modules(model) == []
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert (loaded.num_labels, loaded.config.problem_type) == (1, "regression")
    assert (loaded.config.label_mean, loaded.config.label_std) == (TASK.mean, TASK.std)
