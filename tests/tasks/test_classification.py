"""One label for a text or a pair: encoded in one window, read off, scored."""

import pytest
import torch

from crosstune.data.windows import UNSEEN
from crosstune.errors import DataError
from crosstune.tasks.classification import Classification
from crosstune.tasks.prediction import Prediction
from tests.tiny import batch_of, saying

ROWS = [
    {"id": "x", "text": "El niño come", "label": "pos", "where": "a.tsv:2"},
    {"id": "y", "text": "小明喝茶", "label": "neg", "where": "a.tsv:3"},
    {"id": "z", "text": "the film", "label": "new", "where": "a.tsv:4"},
]
PAIRS = [{**row, "text_pair": "la música " * n} for n, row in enumerate(ROWS, start=1)]
TASK = Classification(["neg", "pos"])


def test_the_labels_are_those_of_train_sorted():
    assert Classification.from_rows(ROWS).labels == ["neg", "new", "pos"]


def test_a_train_of_one_label_is_a_fault_of_its_file():
    with pytest.raises(DataError, match=r"^a\.tsv: train holds one label only, 'pos'$"):
        Classification.from_rows(ROWS[:1])


def test_each_row_is_one_window_with_its_labels_number(tokenizer):
    encoded = TASK.encode(ROWS, tokenizer, 64)
    assert encoded.items.tolist() == [0, 1, 2]
    assert encoded.labels.tolist() == [1, 0, UNSEEN]


def test_a_text_is_encoded_as_its_tokenizer_encodes_it(tokenizer):
    encoded = TASK.encode(ROWS, tokenizer, 64)
    for number, row in enumerate(ROWS):
        window = encoded.ids[encoded.starts[number] : encoded.starts[number + 1]]
        assert window.tolist() == tokenizer(row["text"])["input_ids"]


def test_the_second_text_of_a_pair_is_a_segment_of_its_own(byte_bpe):
    encoded = TASK.encode(PAIRS, byte_bpe, 64)
    inputs = encoded.pad([1], byte_bpe.pad_token_id)
    both = byte_bpe(PAIRS[1]["text"], PAIRS[1]["text_pair"])
    assert inputs["input_ids"].tolist() == [both["input_ids"]]
    assert inputs["token_type_ids"].tolist() == [both["token_type_ids"]]
    assert set(both["token_type_ids"]) == {0, 1}


@pytest.mark.parametrize("rows", [ROWS, PAIRS])
def test_no_window_is_longer_than_asked_and_every_cut_row_is_counted(tokenizer, rows):
    whole = TASK.encode(rows, tokenizer, 512)
    for most in (8, 12, 20):
        encoded = TASK.encode(rows, tokenizer, most)
        assert encoded.lengths.max() <= most
        assert encoded.cut.tolist() == [int((whole.lengths > most).sum())]
        assert encoded.lengths.tolist() == whole.lengths.clip(max=most).tolist()


def test_what_is_cut_is_cut_from_the_longer_text(tokenizer):
    row = {**ROWS[2], "text_pair": "música " * 20}
    encoded = TASK.encode([row], tokenizer, 20)
    text = tokenizer(row["text"])["input_ids"]
    assert encoded.ids[: len(text)].tolist() == text


def test_a_batch_has_padded_inputs_and_labels(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    batch = TASK.collate(encoded, [1, 0], byte_bpe, None)
    assert batch["labels"].tolist() == [0, 1]
    assert batch["inputs"]["input_ids"].shape == (2, encoded.lengths[:2].max())


def test_the_loss_is_the_sum_over_items_and_their_number():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    total, count = TASK.loss(saying(logits), batch_of(torch.tensor([0, 0, -100])))
    expected = -(logits.log_softmax(-1)[0, 0] + logits.log_softmax(-1)[1, 0])
    assert torch.isclose(total, expected)
    assert int(count) == 2


def test_a_prediction_is_the_best_class_with_its_log_probability(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    logits = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    read = TASK.predict_batch(saying(logits), batch_of(torch.tensor([1, 0])))
    outputs = [(window, *found) for window, found in zip([2, 0], read, strict=True)]
    first, second = TASK.decode(ROWS, encoded, outputs)
    assert (first.id, first.gold, first.prediction) == ("z", "new", "pos")
    assert (second.id, second.gold, second.prediction) == ("x", "pos", "neg")
    assert second.score == pytest.approx(float(logits[1].log_softmax(0)[0]))


def predictions_of(byte_bpe, best):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    return TASK.decode(ROWS, encoded, [(number, b, 0.0) for number, b in enumerate(best)])


def test_a_label_that_train_never_showed_is_scored_as_missed(byte_bpe):
    measured = TASK.compute_metrics(predictions_of(byte_bpe, [1, 0, 0]), torch.device("cpu"))
    assert measured["scores"]["accuracy"] == pytest.approx(2 / 3)


def test_the_scores_have_the_names_that_the_task_announces(byte_bpe):
    measured = TASK.compute_metrics(predictions_of(byte_bpe, [1, 1, 1]), torch.device("cpu"))
    assert set(measured["scores"]) == set(TASK.metrics)


@pytest.mark.parametrize(("rows", "texts"), [(ROWS, 1), (PAIRS, 2)])
def test_all_texts_of_a_row_train_a_tokenizer(rows, texts):
    assert len(TASK.row_texts(rows[0])) == texts


def test_the_matthews_correlation_is_a_score_only_where_it_was_asked_for():
    task = Classification.from_rows(ROWS, correlation=True)
    told = [Prediction(n, str(n), row["label"], row["label"], 0.0) for n, row in enumerate(ROWS)]
    assert "mcc" in task.metrics
    assert task.compute_metrics(told, torch.device("cpu"))["scores"]["mcc"] == pytest.approx(1.0)
    without = Classification.from_rows(ROWS)
    plain = without.compute_metrics(told, torch.device("cpu"))
    assert "mcc" not in plain["scores"]
    assert "mcc" not in without.metrics
    assert plain["report"]["mcc"] == pytest.approx(1.0)
