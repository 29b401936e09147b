"""One tag a word: no gold tag is lost, moved or doubled on the way to the encoder and back."""

import pytest
import torch
from torch.nn.functional import one_hot

from crosstune.data.tag_schemes import convert_scheme, find_scheme_faults, read_spans
from crosstune.data.windows import IGNORE, UNSEEN, EncodedDataset
from crosstune.errors import ConfigError
from crosstune.tasks.crf import Transitions
from crosstune.tasks.tagging import Tagging
from tests.tiny import batch_of, saying

SPANISH = ["El", "niño", "de", "Málaga", "vive", "en", "New", "York", "desde", "1998", "."]
TAGS = ["O", "B-PER", "O", "B-LOC", "O", "O", "B-LOC", "I-LOC", "O", "B-DATE", "O"]
ODD = ["\x01", "北京", "\ufffd", "10\xa0000", "a\u200bb", "\u200b", "x", "\x01"]
LONG = "universidad" * 6


def row(words, tags):
    return {"id": words[0], "words": words, "tags": tags, "where": "a.conll:1"}


ROWS = [
    row(SPANISH, TAGS),
    row(list("昨天张伟去了上海"), ["O", "O", "B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"]),
    row(["小明", "住在", "北京"], ["B-PER", "O", "B-LOC"]),
    row(ODD, ["B-PER", "I-PER", "B-LOC", "O", "B-DATE", "I-DATE", "O", "B-PER"]),
    row(["a"], ["B-PER"]),
    row(SPANISH * 9, TAGS * 9),
    row([LONG, "el", LONG, LONG], ["B-PER", "O", "B-LOC", "I-LOC"]),
    row(list("小明住北京") * 20, ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"] * 20),
]
TASK = Tagging.from_rows(ROWS)
LENGTHS = (8, 13, 24, 128)


def gold_logits(labels, classes):
    """Return the logits of a model that is right wherever there is a label."""
    return 9.0 * one_hot(labels.clamp(min=0), classes).float()


def through(task, tokenizer, max_tokens):
    """Return every row's tags after encoding, collating, reading off and decoding the gold."""
    encoded = task.encode(ROWS, tokenizer, max_tokens)
    labels = task.collate(encoded, range(len(encoded)), tokenizer, None)["labels"]
    read = task.predict_batch(saying(gold_logits(labels, len(task.labels))), batch_of(labels))
    outputs = [(window, *found) for window, found in enumerate(read)]
    return [p.prediction for p in task.decode(ROWS, encoded, outputs)]


def misplaced(task, tokenizer, max_tokens):
    """The law of carriers: return every word whose tag does not stand on its own first piece.

    A word's pieces are found by encoding it alone; a bare word mark before others is no carrier.
    """
    encoded = task.encode(ROWS, tokenizer, max_tokens)
    room = max_tokens - 2
    faults = []
    for item, found in enumerate(ROWS):
        chosen = [w for w in range(len(encoded)) if encoded.items[w] == item]
        places = [
            place
            for w in chosen
            for place in range(encoded.starts[w], encoded.starts[w + 1])
            if encoded.labels[place] != IGNORE
        ]
        if len(places) != len(found["words"]):
            faults.append((item, "words", len(places)))
        for place, word, tag in zip(places, found["words"], found["tags"], strict=False):
            alone = tokenizer([word], is_split_into_words=True, add_special_tokens=False)
            names = set(tokenizer.convert_ids_to_tokens(alone["input_ids"]))
            pieces = alone["input_ids"] if names - {"▁", "Ġ"} else [tokenizer.unk_token_id]
            lead = len(pieces) > 1 and tokenizer.convert_ids_to_tokens(pieces[0]) in ("▁", "Ġ")
            start = place - lead
            here = encoded.ids[start : start + min(len(pieces), room // 2)].tolist()
            if here != pieces[: len(here)] or task.labels[encoded.labels[place]] != tag:
                faults.append((item, word, tag))
    return faults


@pytest.mark.parametrize("max_tokens", LENGTHS)
def test_every_gold_tag_comes_back(tokenizer, max_tokens):
    assert through(TASK, tokenizer, max_tokens) == [found["tags"] for found in ROWS]


@pytest.mark.parametrize("max_tokens", LENGTHS)
def test_every_tag_stands_on_the_first_piece_of_its_word(tokenizer, max_tokens):
    assert misplaced(TASK, tokenizer, max_tokens) == []


class LastPiece(Tagging):
    """A planted bug: a tag stands one piece too far to the right."""

    def encode(self, rows, tokenizer, max_tokens):
        encoded = super().encode(rows, tokenizer, max_tokens)
        labels = encoded.labels
        moved = labels.copy()
        moved[1:], moved[0] = labels[:-1], IGNORE
        return EncodedDataset(**{**vars(encoded), "labels": moved})


class OneWindow(Tagging):
    """A planted bug: what does not fit into one window is dropped."""

    def encode(self, rows, tokenizer, max_tokens):
        encoded = super().encode(rows, tokenizer, max_tokens)
        labels = encoded.labels.copy()
        for window in range(1, len(encoded)):
            if encoded.items[window] == encoded.items[window - 1]:
                labels[encoded.starts[window] : encoded.starts[window + 1]] = IGNORE
        return EncodedDataset(**{**vars(encoded), "labels": labels})


@pytest.mark.parametrize("planted", [LastPiece, OneWindow])
def test_the_law_of_carriers_finds_a_planted_bug(tokenizer, planted):
    assert misplaced(planted(TASK.labels, TASK.scheme), tokenizer, 24)


def test_the_way_through_finds_a_dropped_window(tokenizer):
    planted = OneWindow(TASK.labels, TASK.scheme)
    assert through(planted, tokenizer, 24) != [found["tags"] for found in ROWS]


def test_a_bare_word_mark_never_carries_a_tag(unigram):
    encoded = TASK.encode(ROWS, unigram, 24)
    pieces = unigram.convert_ids_to_tokens(encoded.ids.tolist())
    carriers = {pieces[place] for place in (encoded.labels != IGNORE).nonzero()[0]}
    assert "▁" in pieces
    assert "▁" not in carriers


@pytest.mark.parametrize("max_tokens", LENGTHS)
def test_no_window_is_longer_than_asked(tokenizer, max_tokens):
    encoded = TASK.encode(ROWS, tokenizer, max_tokens)
    assert encoded.lengths.max() <= max_tokens


def test_special_pieces_stand_around_every_window_and_carry_nothing(tokenizer):
    encoded = TASK.encode(ROWS, tokenizer, 24)
    first, last = encoded.starts[:-1], encoded.starts[1:] - 1
    assert set(encoded.ids[first]) == {tokenizer.cls_token_id}
    assert set(encoded.ids[last]) == {tokenizer.sep_token_id}
    assert set(encoded.labels[first]) == set(encoded.labels[last]) == {IGNORE}


def test_only_sentences_whose_words_were_cut_are_counted(byte_bpe):
    assert TASK.encode(ROWS, byte_bpe, 24).cut.tolist() == [1]
    assert TASK.encode(ROWS, byte_bpe, 512).cut.tolist() == [0]


def test_a_tag_that_train_never_showed_is_marked_so(byte_bpe):
    encoded = TASK.encode([row(["Eva", "vive"], ["B-MISC", "O"])], byte_bpe, 24)
    assert [n for n in encoded.labels if n != IGNORE] == [UNSEEN, TASK.labels.index("O")]


def test_a_prediction_has_the_summed_log_probability_of_its_tags(byte_bpe):
    encoded = TASK.encode(ROWS[:1], byte_bpe, 128)
    labels = TASK.collate(encoded, [0], byte_bpe, None)["labels"]
    logits = gold_logits(labels, len(TASK.labels))
    ((best, score),) = TASK.predict_batch(saying(logits), batch_of(labels))
    each = float(logits.log_softmax(-1).max())
    (prediction,) = TASK.decode(ROWS[:1], encoded, [(0, best, score)])
    assert prediction.score == pytest.approx(each * len(SPANISH), rel=1e-3)


def test_the_loss_is_the_sum_over_words_and_their_number(byte_bpe):
    encoded = TASK.encode(ROWS[:2], byte_bpe, 128)
    labels = TASK.collate(encoded, [0, 1], byte_bpe, None)["labels"]
    total, count = TASK.loss(saying(torch.zeros(*labels.shape, len(TASK.labels))), batch_of(labels))
    assert int(count) == len(SPANISH) + 8
    assert float(total) == pytest.approx(int(count) * torch.tensor(len(TASK.labels)).log().item())


# --- what kind of tags they are


def of_tags(*tags, **options):
    return Tagging.from_rows([row(["a"] * len(tags), list(tags))], **options)


@pytest.mark.parametrize(
    "tags",
    [
        *(("B-PER", "I-PER", "O"), ("B-X", "E-X", "S-X", "M-X"), ("B", "M", "E", "S")),
        *(("O", "B-人名"), ("B-PER", "L-PER", "U-LOC", "O"), ("U-PER",)),
    ],
)
def test_tags_that_mark_spans_are_scored_as_spans(tags):
    assert of_tags(*tags).scheme == "spans"


@pytest.mark.parametrize(
    "tags", [("NOUN", "VERB"), ("B-PER", "NOUN"), ("OO",), ("X-PER", "O"), ("a_b", "c")]
)
def test_other_tags_are_scored_each_by_itself(tags):
    assert of_tags(*tags).scheme == "tags"


def test_the_scheme_can_be_chosen():
    assert of_tags("B-PER", "O", scheme="tags").scheme == "tags"


def test_an_unknown_scheme_is_refused():
    with pytest.raises(
        ConfigError, match=r"data\.task\.scheme=bio\. Allowed: spans, tags, words, null"
    ):
        of_tags("O", scheme="bio")


def test_the_labels_are_the_tags_of_train_sorted():
    assert of_tags("O", "I-PER", "B-PER", "O").labels == ["B-PER", "I-PER", "O"]


@pytest.mark.parametrize("scheme", ["spans", "tags"])
def test_a_right_model_scores_one_in_every_score_it_announces(byte_bpe, scheme):
    task = Tagging.from_rows(ROWS, scheme)
    encoded = task.encode(ROWS, byte_bpe, 64)
    labels = task.collate(encoded, range(len(encoded)), byte_bpe, None)["labels"]
    read = task.predict_batch(saying(gold_logits(labels, len(task.labels))), batch_of(labels))
    outputs = [(window, *found) for window, found in enumerate(read)]
    scores = task.compute_metrics(task.decode(ROWS, encoded, outputs), torch.device("cpu"))[
        "scores"
    ]
    assert set(scores) == set(task.metrics)
    assert all(score == pytest.approx(1.0) for score in scores.values())


@pytest.mark.parametrize(
    ("tags", "odd"),
    [
        (("B-PER", "I-PER", "0", "O"), "0"),
        (("B-PER", "I-PER", "B_LOC"), "B_LOC"),
        (("B_PER", "I_PER", "O"), "B_PER"),
        (("b-PER", "i-PER", "O"), "b-PER"),
        (("PER-B", "PER-I"), "PER-B"),
        (("B-PER", "B-LOC", "NOUN"), "NOUN"),
        (("B-PER", "B-LOC", "I-"), "I-"),
        (("B-PER", "B-LOC", "o"), "o"),
    ],
)
def test_an_odd_tag_among_those_of_spans_is_a_fault_of_its_line(tags, odd):
    task = of_tags(*tags)
    assert task.scheme == "spans"
    (fault, *_) = [f for f in task.find_row_faults(row(["a"] * len(tags), list(tags))) if odd in f]
    assert fault.startswith(f"{odd!r} is no tag of spans")


def test_spans_in_bilou_are_scored_as_in_iob2():
    bilou = ["B-PER", "I-PER", "L-PER", "O", "U-LOC", "U-LOC"]
    task = of_tags(*bilou)
    assert task.encoding == "bilou"
    assert read_spans(bilou) == read_spans(["B-PER", "I-PER", "I-PER", "O", "B-LOC", "B-LOC"])


def test_what_is_accuracy_is_not_called_f1():
    assert "f1" not in of_tags("NOUN", "VERB").metrics


@pytest.mark.parametrize("tag", ["NOUN", "X-PER", "b-PER"])
def test_a_tag_that_marks_no_span_is_a_fault_where_spans_are_scored(tag):
    assert of_tags("O", "B-PER").find_row_faults(row(["a", "b"], ["O", tag])) == [
        f"{tag!r} is no tag of spans: O, or B, I, E, S, M, L or U with or without -TYPE"
    ]
    assert of_tags("O", "NOUN").find_row_faults(row(["a"], [tag])) == []


@pytest.mark.parametrize("tag", ["O", "B-PER"])
def test_a_tag_of_another_kind_is_a_fault_where_words_are_scored(tag):
    task = of_tags("B", "E", "S", scheme="words")
    assert task.find_row_faults(row(["a"], [tag])) == [f"{tag!r} is no tag of words: B, I, M, E, S"]
    assert task.find_row_faults(row(["a"], ["S"])) == []


# --- how spans are written

IOB1 = row(list("abcdef"), ["I-PER", "I-PER", "B-PER", "O", "I-LOC", "I-LOC"])


def test_the_scheme_of_the_tags_is_detected():
    assert Tagging.from_rows(ROWS).encoding == "iob2"
    assert Tagging.from_rows([IOB1]).encoding == "iob1"
    assert of_tags("B", "M", "E", "S").encoding == "bmes"


def test_the_scheme_of_the_tags_can_be_named():
    assert of_tags("O", encoding="bioes").encoding == "bioes"


@pytest.mark.parametrize("option", ["encoding", "train_as"])
def test_an_unknown_scheme_of_tags_is_refused(option):
    allowed = "iob2, iob1, bioes, bmes, bilou, null"
    with pytest.raises(ConfigError, match=rf"data\.task\.{option}=bio\. Allowed: {allowed}"):
        of_tags("O", **{option: "bio"})


def test_tags_that_mark_no_spans_have_no_scheme():
    with pytest.raises(ConfigError, match=r"data\.task\.train_as=bioes: these tags mark no spans"):
        of_tags("NOUN", train_as="bioes")


def test_the_labels_are_those_of_the_scheme_trained_as():
    task = Tagging.from_rows([IOB1], train_as="bioes")
    assert task.labels == ["B-LOC", "B-PER", "E-LOC", "E-PER", "O", "S-PER"]
    assert task.row_labels(IOB1) == ["B-PER", "E-PER", "S-PER", "O", "B-LOC", "E-LOC"]


@pytest.mark.parametrize("train_as", [None, "iob1", "iob2", "bioes", "bmes"])
@pytest.mark.parametrize("found", [IOB1, ROWS[0]])
def test_predictions_are_written_as_the_corpus_writes_them(byte_bpe, found, train_as):
    task = Tagging.from_rows([found], train_as=train_as)
    (prediction,) = fed_back(task, [found], byte_bpe, 128)
    assert prediction.prediction == prediction.gold == found["tags"]


def fed_back(task, rows, tokenizer, max_tokens):
    """Return the predictions of a model that says the gold."""
    encoded = task.encode(rows, tokenizer, max_tokens)
    labels = task.collate(encoded, range(len(encoded)), tokenizer, None)["labels"]
    read = task.predict_batch(saying(gold_logits(labels, len(task.labels))), batch_of(labels))
    return task.decode(rows, encoded, [(window, *found) for window, found in enumerate(read)])


# --- segmented words

SEGMENTED = [
    row(list("看似簡單只是"), list("BEBEBE")),
    row(list("二選一"), list("BME")),
    row(list("看一選"), list("SSS")),
]


def test_the_words_that_tags_part_are_told_and_scored(byte_bpe):
    task = Tagging.from_rows(SEGMENTED[:1], scheme="words")
    assert task.vocabulary == ["只是", "看似", "簡單"]
    task = Tagging.from_rows(SEGMENTED, scheme="words", train_as="iob2")
    assert task.labels == ["B", "I"]
    predictions = fed_back(task, SEGMENTED, byte_bpe, 16)
    assert [p.prediction for p in predictions] == [
        ["看似", "簡單", "只是"],
        ["二選一"],
        ["看", "一", "選"],
    ]
    scores = task.compute_metrics(predictions, torch.device("cpu"))["scores"]
    assert scores == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "iv_recall": 1.0}
    assert set(task.metrics) <= set(scores)


def test_new_words_are_scored_by_the_words_of_train(byte_bpe):
    task = Tagging.from_rows(SEGMENTED[:2], scheme="words")
    task.labels = ["B", "E", "M", "S"]
    scores = task.compute_metrics(fed_back(task, SEGMENTED, byte_bpe, 64), torch.device("cpu"))[
        "scores"
    ]
    assert (scores["oov_recall"], scores["iv_recall"]) == (1.0, 1.0)


# --- the conditional random field


class Saying:
    """A model that gives these logits whatever it reads, with a field of its own."""

    def __init__(self, logits, tags):
        self.logits, self.crf = logits, Transitions(tags)

    def __call__(self, **inputs):
        return self


def field_batch(task, rows, tokenizer, max_tokens=128):
    encoded = task.encode(rows, tokenizer, max_tokens)
    return encoded, task.collate(encoded, range(len(encoded)), tokenizer, None)


@pytest.mark.parametrize("max_tokens", [8, 24, 128])
def test_every_gold_tag_comes_back_through_the_field(tokenizer, max_tokens):
    task = Tagging.from_rows(ROWS, crf=True)
    encoded, batch = field_batch(task, ROWS, tokenizer, max_tokens)
    model = Saying(gold_logits(batch["labels"], len(task.labels)), len(task.labels))
    outputs = [(w, *said) for w, said in enumerate(task.predict_batch(model, batch))]
    predictions = [p.prediction for p in task.decode(ROWS, encoded, outputs)]
    well_formed = [convert_scheme(found["tags"], "iob2") for found in ROWS]
    assert predictions == well_formed == [found["tags"] for found in ROWS]


def test_the_field_never_predicts_what_breaks_the_scheme(byte_bpe):
    task = Tagging.from_rows(ROWS, crf=True, train_as="bioes")
    encoded, batch = field_batch(task, ROWS, byte_bpe, 24)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*batch["labels"].shape, len(task.labels), generator=generator)
    said = task.predict_batch(Saying(logits, len(task.labels)), batch)
    free = Tagging(task.labels, "spans", "iob2", "bioes").predict_batch(saying(logits), batch)
    whole = [w for w in range(len(encoded)) if all(batch["edges"][w])]
    assert whole
    faults = [find_scheme_faults([task.labels[n] for n in said[w][0]], "bioes") for w in whole]
    planted = [find_scheme_faults([task.labels[n] for n in free[w][0]], "bioes") for w in whole]
    assert not any(faults)
    assert any(planted)


def test_only_the_first_and_last_window_of_a_row_hold_its_ends(byte_bpe):
    encoded, batch = field_batch(TASK, ROWS, byte_bpe, 24)
    first, last = batch["edges"].T.tolist()
    windows = [[w for w in range(len(encoded)) if encoded.items[w] == n] for n in range(len(ROWS))]
    assert max(map(len, windows)) > 2
    assert [w for w, is_first in enumerate(first) if is_first] == [found[0] for found in windows]
    assert [w for w, is_last in enumerate(last) if is_last] == [found[-1] for found in windows]


def test_the_fields_loss_counts_words_and_nothing_of_a_window_without_labels(byte_bpe):
    task = Tagging.from_rows(ROWS, crf=True)
    _, batch = field_batch(task, ROWS[:2], byte_bpe)
    model = Saying(torch.zeros(*batch["labels"].shape, len(task.labels)), len(task.labels))
    total, count = task.loss(model, batch)
    assert count.item() == len(SPANISH) + 8
    assert total.item() == pytest.approx(count.item() * torch.tensor(len(task.labels)).log().item())
    batch["labels"] = torch.full_like(batch["labels"], IGNORE)
    assert [value.item() for value in task.loss(model, batch)] == [0.0, 0]


def test_the_field_is_added_to_the_model_just_where_it_is_asked_for():
    model = torch.nn.Module()
    assert TASK.add_modules(model) == []
    assert Tagging.from_rows(ROWS, crf=True).add_modules(model) == ["crf"]
    assert model.crf.starts.shape == (len(TASK.labels),)


def test_a_fields_score_is_the_log_probability_of_its_path(byte_bpe):
    task = Tagging.from_rows(ROWS, crf=True)
    _, batch = field_batch(task, ROWS[:1], byte_bpe)
    logits = gold_logits(batch["labels"], len(task.labels))
    ((_, score),) = task.predict_batch(Saying(logits, len(task.labels)), batch)
    each = logits.log_softmax(-1).max().item()
    assert score == pytest.approx(each * len(SPANISH), rel=1e-3)
