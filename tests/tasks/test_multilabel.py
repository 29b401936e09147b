"""Any number of labels for a text: one yes or no each."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from crosstune.errors import ConfigError, DataError
from crosstune.tasks.classification import Classification, MultiLabel
from tests.tiny import batch_of, saying

CELLS = ("joy, anger", "", "fear")
ROWS = [
    {"id": str(n), "text": "la música", "label": cell, "where": f"a.tsv:{n}"}
    for n, cell in enumerate(CELLS, start=2)
]
TASK = MultiLabel(["anger", "fear", "joy"], ",")


def test_a_separator_makes_a_classification_multi_label():
    assert Classification.from_rows(ROWS, ",") == TASK


@pytest.mark.parametrize("separator", ["", 3])
def test_a_separator_that_is_none_is_refused(separator):
    with pytest.raises(ConfigError, match=r"data\.task\.separator="):
        Classification.from_rows(ROWS, separator)


def test_a_train_without_labels_is_a_fault_of_its_file():
    with pytest.raises(DataError, match=r"^a\.tsv: train holds no label$"):
        MultiLabel.from_rows(ROWS[1:2], ",")


def test_labels_are_parted_and_an_empty_cell_has_none():
    assert [TASK.row_labels(row) for row in ROWS] == [["anger", "joy"], [], ["fear"]]


def test_a_list_of_labels_is_taken_as_it_is():
    assert TASK.row_labels({**ROWS[0], "label": ["joy", "a, b"]}) == ["a, b", "joy"]


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("joy,,fear", "label 'joy,,fear' has an empty part between ','"),
        ("joy,", "label 'joy,' has an empty part between ','"),
        ("joy,fear,joy", "label 'joy' stands twice in 'joy,fear,joy'"),
    ],
)
def test_an_empty_or_repeated_label_is_told(cell, fault):
    assert TASK.find_row_faults({**ROWS[0], "label": cell}) == [fault]


def test_rows_without_fault_have_none():
    assert [TASK.find_row_faults(row) for row in ROWS] == [[], [], []]


def test_labels_are_a_row_of_0_and_1_and_unseen_ones_are_left_out(byte_bpe):
    encoded = TASK.encode([*ROWS, {**ROWS[0], "label": "new,fear"}], byte_bpe, 64)
    assert encoded.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0]]


LABELS = torch.tensor([[1, 0, 1], [0, 0, 0], [-100, -100, -100]])
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.0, -0.2], [9.0, 9.0, 9.0]])


def test_the_mean_loss_is_that_of_transformers_over_the_items_that_count():
    total, count = TASK.loss(saying(LOGITS), batch_of(LABELS))
    reference = torch.nn.BCEWithLogitsLoss()(LOGITS[:2], LABELS[:2].float())
    assert int(count) == 6
    assert torch.isclose(total / count, reference)


def test_a_batch_that_does_not_count_has_no_loss():
    total, count = TASK.loss(saying(LOGITS), batch_of(torch.full((3, 3), -100)))
    assert (total.item(), int(count)) == (0.0, 0)


def test_labels_above_one_half_are_predicted_with_the_log_probability_of_the_set(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    read = TASK.predict_batch(saying(LOGITS), batch_of(LABELS))
    outputs = [(window, *found) for window, found in enumerate(read)]
    first, second, third = TASK.decode(ROWS, encoded, outputs)
    assert (first.gold, first.prediction) == (["anger", "joy"], ["anger", "joy"])
    assert (second.gold, second.prediction) == ([], ["fear"])
    assert third.prediction == ["anger", "fear", "joy"]
    p = LOGITS[0].double().sigmoid()
    assert first.score == pytest.approx(float((p[0] * (1 - p[1]) * p[2]).log()), rel=1e-5)


def test_the_scores_have_the_names_that_the_task_announces(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    predictions = TASK.decode(ROWS, encoded, [(0, [0, 2], 0.0), (1, [], 0.0), (2, [0], 0.0)])
    scores = TASK.compute_metrics(predictions, torch.device("cpu"))["scores"]
    assert set(scores) == set(TASK.metrics)
    assert scores["accuracy"] == pytest.approx(2 / 3)


def test_a_saved_model_is_a_multi_label_one(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(**sizes, vocab_size=9, intermediate_size=8, num_labels=3)
    model = AutoModelForSequenceClassification.from_config(config)
    assert TASK.add_modules(model) == []
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.problem_type == "multi_label_classification"
