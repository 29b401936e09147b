"""Masks: how many, of which kinds, never on special pieces, and when they change."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from crosstune.data.windows import IGNORE
from crosstune.errors import ConfigError
from crosstune.runs.record import read_record
from crosstune.tasks.masked_lm import MaskedLM
from crosstune.training.batching import BatchDataset, RankBatch
from crosstune.training.train import train
from tests.tiny import batch_of, saying, tiny_run

TEXTS = [
    "El niño come una manzana en Málaga , y la niña bebe agua fresca . " * 3,
    "昨天张伟去了上海的银行。",
    "the film was wonderful",
    "a",
]
ROWS = [{"id": str(n), "text": text, "where": f"a.txt:{n + 1}"} for n, text in enumerate(TEXTS)]
TASK = MaskedLM(0.15)


@pytest.fixture
def encoded(tokenizer):
    return TASK.encode(ROWS, tokenizer, 40)


def real_pieces(encoded, windows):
    """Return how many pieces of each window are not special."""
    return (encoded.pad_labels(windows) != IGNORE).sum(1).tolist()


def draws(task, encoded, tokenizer, epochs):
    """Return batches of all windows, drawn for each epoch as training does."""
    batches = BatchDataset(encoded, task, tokenizer, seed=1)
    everything = list(range(len(encoded)))
    return [batches[RankBatch(everything, epoch, counted=True)] for epoch in range(epochs)]


# --- windows


def test_no_piece_of_a_text_is_lost(tokenizer, encoded):
    for item, found in enumerate(ROWS):
        windows = [w for w in range(len(encoded)) if encoded.items[w] == item]
        inside = [
            piece
            for w in windows
            for piece in encoded.ids[encoded.starts[w] + 1 : encoded.starts[w + 1] - 1].tolist()
        ]
        assert inside == tokenizer(found["text"], add_special_tokens=False)["input_ids"]


def test_windows_have_at_most_the_pieces_asked_for(encoded):
    assert encoded.lengths.max() == 40
    assert encoded.cut.tolist() == [0]


def test_before_masking_each_label_is_the_piece_itself_but_for_special_ones(tokenizer, encoded):
    labelled = encoded.labels != IGNORE
    assert (encoded.labels[labelled] == encoded.ids[labelled]).all()
    assert set(encoded.ids[~labelled]) == {tokenizer.cls_token_id, tokenizer.sep_token_id}


# --- what is chosen


def test_15_in_100_pieces_of_each_window_are_chosen(tokenizer, encoded):
    windows = list(range(len(encoded)))
    labels = TASK.collate(encoded, windows, tokenizer, (0, 0))["labels"]
    wanted = [max(1, round(0.15 * count)) for count in real_pieces(encoded, windows)]
    assert (labels != IGNORE).sum(1).tolist() == wanted


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.99])
def test_another_rate_can_be_asked_for(byte_bpe, rate):
    task = MaskedLM(rate)
    encoded = task.encode(ROWS[:1], byte_bpe, 512)
    labels = task.collate(encoded, [0], byte_bpe, (0, 0))["labels"]
    assert int((labels != IGNORE).sum()) == round(rate * real_pieces(encoded, [0])[0])


def kinds(task, tokenizer):
    """Return the shares of masks, other pieces and unchanged pieces among the chosen."""
    encoded = task.encode(ROWS, tokenizer, 512)
    mask, other, same = 0, 0, 0
    for batch in draws(task, encoded, tokenizer, 400):
        chosen = batch["labels"] != IGNORE
        inputs, gold = batch["inputs"]["input_ids"][chosen], batch["labels"][chosen]
        mask += int((inputs == tokenizer.mask_token_id).sum())
        same += int((inputs == gold).sum())
        other += int(((inputs != gold) & (inputs != tokenizer.mask_token_id)).sum())
    total = mask + other + same
    return mask / total, other / total, same / total


def is_as_in_bert(task, tokenizer):
    """The law of kinds: 80 % masks, 10 % other pieces, 10 % unchanged."""
    within = 0.02  # more than four deviations; a random piece may also be the gold or the mask
    return all(
        abs(share - wanted) < within
        for share, wanted in zip(kinds(task, tokenizer), (0.8, 0.1, 0.1), strict=True)
    )


def test_of_the_chosen_80_are_masks_10_others_and_10_unchanged(byte_bpe):
    assert is_as_in_bert(TASK, byte_bpe)


class AllMasks(MaskedLM):
    """A planted bug: everything chosen becomes a mask."""

    def collate(self, encoded, windows, tokenizer, seed):
        batch = super().collate(encoded, windows, tokenizer, seed)
        batch["inputs"]["input_ids"][batch["labels"] != IGNORE] = tokenizer.mask_token_id
        return batch


def test_that_law_finds_a_planted_bug(byte_bpe):
    assert not is_as_in_bert(AllMasks(0.15), byte_bpe)


def test_special_pieces_and_padding_are_never_touched(tokenizer, encoded):
    windows = list(range(len(encoded)))
    before = encoded.pad(windows, tokenizer.pad_token_id)["input_ids"]
    untouchable = encoded.pad_labels(windows) == IGNORE
    for batch in draws(TASK, encoded, tokenizer, 60):
        assert (batch["labels"][untouchable] == IGNORE).all()
        assert (batch["inputs"]["input_ids"][untouchable] == before[untouchable]).all()


def test_what_is_not_chosen_is_left_as_it_was(tokenizer, encoded):
    windows = list(range(len(encoded)))
    before = encoded.pad(windows, tokenizer.pad_token_id)["input_ids"]
    for batch in draws(TASK, encoded, tokenizer, 10):
        left = batch["labels"] == IGNORE
        assert (batch["inputs"]["input_ids"][left] == before[left]).all()
        assert (batch["labels"][~left] == before[~left]).all()


def test_over_the_epochs_every_piece_is_chosen_at_some_time(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 40)
    seen = sum((batch["labels"] != IGNORE).int() for batch in draws(TASK, encoded, byte_bpe, 120))
    real = encoded.pad_labels(range(len(encoded))) != IGNORE
    assert (seen[real] > 0).all()


@pytest.mark.parametrize("masking", ["whole_word", "span"])
def test_of_words_and_spans_too_80_are_masks_10_others_and_10_unchanged(byte_bpe, masking):
    assert is_as_in_bert(MaskedLM(masking=masking), byte_bpe)


# --- when masks change


def masks(task, encoded, tokenizer, seed, window, *, among=(), epoch=0):
    """Return the masked window, drawn in a batch with others."""
    batch = BatchDataset(encoded, task, tokenizer, seed)[
        RankBatch([*among, window], epoch, counted=True)
    ]
    length = encoded.lengths[window]
    row = len(among)
    return [
        batch["inputs"]["input_ids"][row, :length].tolist(),
        batch["labels"][row, :length].tolist(),
    ]


def test_training_masks_change_with_the_epoch_and_with_the_seed(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 40)
    drawn = [
        masks(TASK, encoded, byte_bpe, seed, 0, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)
    ]
    assert all(drawn.count(one) == 1 for one in drawn)


def test_training_masks_are_a_function_of_seed_epoch_and_window(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 40)
    torch.manual_seed(5)
    first = masks(TASK, encoded, byte_bpe, 1, 1, epoch=3)
    torch.manual_seed(6)
    assert masks(TASK, encoded, byte_bpe, 1, 1, among=[2, 0], epoch=3) == first


def never_changes(task, tokenizer):
    """The law of evaluation: a window's masks are the same in any batch and at any time."""
    encoded = task.encode(ROWS, tokenizer, 40)
    return all(
        masks(task, encoded, tokenizer, None, window, among=among, epoch=epoch)
        == masks(task, encoded, tokenizer, None, window)
        for window in range(len(encoded))
        for among in ([], [0], [1])
        for epoch in (0, 1)
    )


OTHERS = (MaskedLM(masking="whole_word"), MaskedLM(masking="span", packed=True))


def test_evaluation_masks_never_change(tokenizer):
    assert all(never_changes(task, tokenizer) for task in (TASK, *OTHERS))


class ByBatch(MaskedLM):
    """A planted bug: the place in the batch takes part in the draw."""

    def collate(self, encoded, windows, tokenizer, seed):
        return super().collate(encoded, windows, tokenizer, (*seed, len(windows)))


def test_that_law_finds_masks_that_depend_on_the_batch(tokenizer):
    assert not never_changes(ByBatch(0.15), tokenizer)


# --- reading off


def test_a_prediction_is_the_guess_at_every_masked_piece(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 40)
    windows = list(range(len(encoded)))
    labels = TASK.collate(encoded, windows, byte_bpe, (0, 0))["labels"]
    logits = torch.nn.functional.one_hot(labels.clamp(min=0), len(byte_bpe)).float()
    read = TASK.predict_batch(saying(logits), batch_of(labels))
    outputs = [(window, *found) for window, found in zip(windows, read, strict=True)]
    predictions = TASK.decode(ROWS, encoded, outputs)
    assert [p.id for p in predictions] == [found["id"] for found in ROWS]
    assert all(p.gold == p.prediction for p in predictions)
    assert sum(len(p.gold) for p in predictions) == int((labels != IGNORE).sum())


def test_the_loss_is_the_sum_over_masked_pieces_and_their_number(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 40)
    labels = TASK.collate(encoded, [0, 1], byte_bpe, (0, 0))["labels"]
    total, count = TASK.loss(saying(torch.zeros(*labels.shape, 50_000)), batch_of(labels))
    assert float(total) == pytest.approx(int(count) * torch.tensor(50_000.0).log().item(), rel=1e-5)


def test_a_right_model_is_always_right(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 40)
    labels = TASK.collate(encoded, [0], byte_bpe, (0, 0))["labels"]
    logits = 50.0 * torch.nn.functional.one_hot(labels.clamp(min=0), len(byte_bpe)).float()
    ((found, score),) = TASK.predict_batch(saying(logits), batch_of(labels))
    measured = TASK.compute_metrics(
        TASK.decode(ROWS, encoded, [(0, found, score)]), torch.device("cpu")
    )
    assert measured["scores"] == {"accuracy": 1.0}
    assert tuple(measured["scores"]) == TASK.metrics


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5])
def test_a_rate_that_masks_nothing_or_all_is_refused(rate):
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        MaskedLM.from_rows(ROWS, rate)


def test_plain_text_carries_no_labels():
    assert MaskedLM.from_rows(ROWS).labels == TASK.row_labels(ROWS[0]) == []


# --- several lines a window


@pytest.mark.parametrize("limit", [12, 40, 200])
def test_packed_every_piece_of_every_line_is_there_once_and_in_order(tokenizer, limit):
    encoded = MaskedLM(packed=True).encode(ROWS, tokenizer, limit)
    rows = encoded.extra["rows"]
    for row, found in enumerate(ROWS):
        wanted = tokenizer(found["text"], add_special_tokens=False)["input_ids"]
        assert encoded.ids[rows == row].tolist() == wanted
    assert encoded.lengths.max() <= limit
    assert set(encoded.ids[rows < 0]) == {tokenizer.cls_token_id, tokenizer.sep_token_id}


def test_packed_lines_are_parted_by_a_separator(byte_bpe):
    encoded = MaskedLM(packed=True).encode(ROWS[2:], byte_bpe, 60)
    assert len(encoded) == 1
    assert (encoded.ids == byte_bpe.sep_token_id).sum() == 2


def read_all(task, encoded, tokenizer):
    """Return the predictions of a model that is always right."""
    windows = list(range(len(encoded)))
    labels = task.collate(encoded, windows, tokenizer, (0, 0))["labels"]
    logits = 50.0 * torch.nn.functional.one_hot(labels.clamp(min=0), len(tokenizer)).float()
    read = task.predict_batch(saying(logits), batch_of(labels))
    outputs = [(window, *found) for window, found in zip(windows, read, strict=True)]
    return labels, task.decode(ROWS, encoded, outputs)


def test_packed_each_row_gets_one_prediction_also_where_nothing_of_it_is_masked(byte_bpe):
    task = MaskedLM(packed=True)
    labels, predictions = read_all(task, task.encode(ROWS, byte_bpe, 60), byte_bpe)
    assert sorted(p.item for p in predictions) == list(range(len(ROWS)))
    assert sum(len(p.gold) for p in predictions) == int((labels != IGNORE).sum())
    assert any(not p.gold for p in predictions)
    assert task.compute_metrics(predictions, torch.device("cpu"))["scores"] == {"accuracy": 1.0}


def test_packed_a_guess_goes_to_the_row_that_it_was_masked_in(byte_bpe):
    task = MaskedLM(packed=True)
    encoded = task.encode(ROWS, byte_bpe, 60)
    _, predictions = read_all(task, encoded, byte_bpe)
    for found in predictions:
        pieces = encoded.ids[encoded.extra["rows"] == found.item].tolist()
        assert set(found.gold) <= set(pieces)


SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.mark.parametrize("span_boundary", [False, True])
def test_a_stand_in_batch_counts_nothing(wordpiece, span_boundary):
    task = MaskedLM(masking="span", span_boundary=span_boundary)
    encoded = task.encode(ROWS, wordpiece, 40)
    model = BertForMaskedLM(BertConfig(vocab_size=len(wordpiece), **SIZES))
    task.add_modules(model)
    batches = BatchDataset(encoded, task, wordpiece, seed=1)
    total, count = task.loss(model, batches[RankBatch([0], 0, counted=False)])
    assert (total.item(), count.item()) == (0.0, 0)


def test_the_span_boundary_objective_adds_to_the_loss(wordpiece):
    plain, both = (MaskedLM(masking="span", span_boundary=on) for on in (False, True))
    encoded = plain.encode(ROWS, wordpiece, 40)
    model = BertForMaskedLM(BertConfig(vocab_size=len(wordpiece), **SIZES)).eval()
    assert both.add_modules(model) == ["span_boundary"]
    batch = plain.collate(encoded, [0, 1], wordpiece, (0, 0))
    (less, count), (more, same) = plain.loss(model, batch), both.loss(model, batch)
    assert count == same
    assert more.item() > 1.5 * less.item()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"masking": "sapn"}, "masking=sapn. Allowed: subword, whole_word, span"),
        ({"words": "comma"}, "words=comma. Allowed: tokenizer, spaces"),
        ({"packed": "yes"}, "packed='yes': must be true or false"),
        ({"span_boundary": True}, "needs data.task.masking=span"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        MaskedLM.from_rows(ROWS, **options)


def test_a_retired_objective_is_refused_by_name():
    with pytest.raises(TypeError, match="next_sentence"):
        MaskedLM.from_rows(ROWS, next_sentence=True)


def test_inputs_too_short_for_text_are_refused(byte_bpe):
    with pytest.raises(ConfigError, match="leaves no room for text"):
        TASK.encode(ROWS, byte_bpe, 3)


# --- a run


def test_a_full_run_with_the_span_boundary_objective_counts_its_operations(tmp_path):
    task = ("+data.task.masking=span", "+data.task.span_boundary=true", "method=full")
    folder = train(tiny_run(tmp_path, "masked_lm", *task, "trainer.max_epochs=1"))
    record = read_record(folder / "record.json")
    assert record["status"] == "finished"
    assert record["cost"]["train_flops_per_token"] > 0
