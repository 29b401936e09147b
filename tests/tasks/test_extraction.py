"""Answers as spans: none is lost, moved or cut short on the way to the encoder and back."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertTokenizer, PreTrainedTokenizerFast

from crosstune.config.compose import compose_run
from crosstune.config.schema import Data, Model, ModelOrigin, TaskType
from crosstune.data.readers import read_squad
from crosstune.data.splits import Split
from crosstune.data.windows import IGNORE, EncodedDataset
from crosstune.errors import ConfigError
from crosstune.models.load import load_tokenizer
from crosstune.runs.record import read_record
from crosstune.tasks.extraction import OUTSIDE, Extraction, trim_offsets
from crosstune.tasks.metrics.answers import score_answer
from crosstune.tasks.prediction import Prediction
from crosstune.training.datamodule import FineTuningData
from crosstune.training.train import train
from tests.tiny import MODEL

SHARED = Path(__file__).parents[3] / "shared" / "data" / "qa"
CPU = torch.device("cpu")
SPANISH = "El niño come una manzana en Málaga, y la niña bebe agua fresca en la Universidad."
CHINESE = "昨天张伟去了上海的银行。小明住在北京，他喜欢喝茶。"


def row(context, *answers, question="¿Dónde?", language="es"):
    """Return a row whose answers stand where they first do, or at a given place."""
    found = [a if isinstance(a, tuple) else (a, context.index(a)) for a in answers]
    return {
        "id": f"{context[:4]}-{answers}",
        "question": question,
        "context": context,
        "answers": [{"text": text, "start": start} for text, start in found],
        "language": language,
        "where": "a.json:1",
    }


ROWS = [
    row(SPANISH, "Málaga"),
    row(SPANISH, "El"),
    row(SPANISH, "Universidad."),
    row(SPANISH, "una manzana en"),
    row(SPANISH, " manzana "),  # spaces around it, as real files have them
    row(SPANISH, "agua fresca", "agua"),
    row(CHINESE, "张伟", question="谁？", language="zh"),
    row(CHINESE, "上海的银行", question="哪里？", language="zh"),
    row(CHINESE, "茶", question="喝什么？", language="zh"),
    row(" ".join([SPANISH] * 6), ("Málaga", len(SPANISH) * 4 + 32)),
    row(CHINESE * 8, ("北京", len(CHINESE) * 5 + CHINESE.index("北京")), language="zh"),
    row("The company ( founded 1998 )  hired\n\nAlice Johnson .", "Alice Johnson"),
    row("New York ,\xa0film\u3000music .", "film"),
    row("niñ" + "o\u0301 come en Ma\u0301laga .", "Ma\u0301laga"),  # accents after their letter
]
TASK = Extraction.from_rows(ROWS, max_answer_length=60)
LENGTHS = (48, 96, 384)


def says(starts, ends):
    """Return a model that gives these logits, whatever it reads."""
    return lambda **inputs: SimpleNamespace(start_logits=starts, end_logits=ends)


def gold_logits(batch):
    """Return the logits of a model that is right, with no answer less sure than an answer."""
    labels, length = batch["labels"], batch["inputs"]["input_ids"].shape[1]
    sure = torch.where(labels[:, :1] == 0, 5.0, 9.0)
    places = torch.nn.functional.one_hot(labels.clamp(min=0), length)
    return (places * sure[:, None]).float().unbind(1)


def outputs_of(task, encoded, tokenizer, windows, logits=gold_logits):
    batch = task.collate(encoded, windows, tokenizer, None)
    read = task.predict_batch(says(*logits(batch)), batch)
    return [(window, *found) for window, found in zip(windows, read, strict=True)]


def through(task, rows, tokenizer, max_tokens):
    """Return the predictions of a right model, after encoding and back."""
    encoded = task.encode(rows, tokenizer, max_tokens)
    return task.decode(rows, encoded, outputs_of(task, encoded, tokenizer, range(len(encoded))))


def short(found, gold):
    """Say whether an answer lacks a part of its gold, or has more than whole words around it."""
    return gold.strip() not in found or found != found.strip()


@pytest.fixture(scope="module")
def uncased():
    """Return a BERT that takes accents away, those that stand alone too."""
    letters = sorted({c for found in ROWS for c in found["context"].lower() if c.strip()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, "ninos", "come"]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    return BertTokenizer(
        vocab={piece: n for n, piece in enumerate(dict.fromkeys(pieces))}, do_lower_case=True
    )


@pytest.fixture(scope="module")
def roberta():
    """Return a byte-level BPE as RoBERTa has it: trimmed offsets, two pieces between the texts."""
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = special | {letter: n for n, letter in enumerate(letters, 4)} | {"Ġe": 260, "en": 261}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "e"), ("e", "n")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.fixture(params=["byte_bpe", "wordpiece", "unigram", "uncased", "roberta"])
def any_tokenizer(request):
    return request.getfixturevalue(request.param)


# --- there and back


@pytest.mark.parametrize("max_tokens", LENGTHS[1:])
def test_every_gold_answer_comes_back_whole_and_trimmed(any_tokenizer, max_tokens):
    found = through(TASK, ROWS, any_tokenizer, max_tokens)
    assert [p.id for p in found] == [r["id"] for r in ROWS]
    assert [(p.prediction, p.gold[0]) for p in found if short(p.prediction, p.gold[0])] == []


def test_an_answer_of_whole_pieces_comes_back_as_it_is(byte_bpe):
    found = through(TASK, ROWS, byte_bpe, 384)
    exact = [p.prediction == p.gold[0].strip() for p in found]
    assert sum(exact) >= len(ROWS) - 2


@pytest.mark.parametrize("max_tokens", LENGTHS)
def test_windows_hold_every_piece_of_the_text_in_order_and_no_more_than_asked(
    any_tokenizer, max_tokens
):
    encoded = TASK.encode(ROWS, any_tokenizer, max_tokens)
    assert encoded.lengths.max() <= max_tokens
    for item, found in enumerate(ROWS):
        text = found["context"]
        alone = any_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        whole = [list(trim_offsets(text, *place)) for place in alone["offset_mapping"]]
        covered = 0
        for window in np.flatnonzero(encoded.items == item):
            place = slice(encoded.starts[window], encoded.starts[window + 1])
            part = [o for o in encoded.extra["offsets"][place].tolist() if o != list(OUTSIDE)]
            start = next(n for n in range(len(whole)) if whole[n : n + len(part)] == part)
            assert start <= covered < start + len(part)
            covered = start + len(part)
        assert covered == len(whole)


def test_question_and_text_stand_as_the_tokenizer_would_put_them(any_tokenizer):
    encoded = TASK.encode(ROWS[:1], any_tokenizer, 384)
    pair = any_tokenizer(ROWS[0]["question"], SPANISH, return_token_type_ids=True)
    assert encoded.ids.tolist() == pair["input_ids"]
    assert encoded.types.tolist() == pair["token_type_ids"]


class Shifted(Extraction):
    """A planted bug: offsets are those of the piece before."""

    def encode(self, rows, tokenizer, max_tokens):
        encoded = super().encode(rows, tokenizer, max_tokens)
        moved = np.roll(encoded.extra["offsets"], 1, axis=0)
        return EncodedDataset(**{**vars(encoded), "extra": {"offsets": moved}})


class Bytes(Extraction):
    """A planted bug: offsets count bytes, not characters."""

    def encode(self, rows, tokenizer, max_tokens):
        encoded = super().encode(rows, tokenizer, max_tokens)
        offsets = encoded.extra["offsets"].copy()
        for item, found in enumerate(rows):
            for window in np.flatnonzero(encoded.items == item):
                place = slice(encoded.starts[window], encoded.starts[window + 1])
                offsets[place] = [
                    (len(found["context"][:a].encode()), len(found["context"][:b].encode()))
                    if b
                    else (a, b)
                    for a, b in offsets[place].tolist()
                ]
        return EncodedDataset(**{**vars(encoded), "extra": {"offsets": offsets}})


class OneWindow(Extraction):
    """A planted bug: only the first window of a text is read."""

    def encode(self, rows, tokenizer, max_tokens):
        encoded = super().encode(rows, tokenizer, max_tokens)
        later = np.flatnonzero(np.diff(encoded.items, prepend=-1) == 0)
        labels = encoded.labels.copy()
        labels[later] = 0
        return EncodedDataset(**{**vars(encoded), "labels": labels})


@pytest.mark.parametrize("planted", [Shifted, Bytes, OneWindow])
def test_the_way_through_finds_a_planted_bug(any_tokenizer, planted):
    task = planted(**vars(TASK))
    found = through(task, ROWS, any_tokenizer, 96)
    assert any(short(p.prediction, p.gold[0]) for p in found)


def test_the_leading_space_of_a_byte_level_piece_is_no_part_of_the_answer(byte_bpe):
    backend = byte_bpe.backend_tokenizer.encode(SPANISH, add_special_tokens=False)
    start = SPANISH.index("Málaga")
    assert any(SPANISH[a:b].startswith(" ") and a == start - 1 for a, b in backend.offsets)
    assert through(TASK, ROWS[:1], byte_bpe, 384)[0].prediction == "Málaga"


# --- labels and what is cut


def labels_of(rows, tokenizer, max_tokens, **options):
    return Extraction.from_rows(rows, **options).encode(rows, tokenizer, max_tokens).labels


def test_a_question_without_an_answer_has_the_first_piece_as_its_label(byte_bpe):
    assert labels_of([row(SPANISH)], byte_bpe, 384).tolist() == [[0, 0]]


def test_a_window_without_the_answer_has_the_first_piece_as_its_label(byte_bpe):
    found = labels_of([ROWS[9]], byte_bpe, 96)
    assert [0, 0] in found.tolist()
    assert any(label != [0, 0] for label in found.tolist())


def test_a_window_is_labelled_with_its_first_answer_even_if_another_stands_before(byte_bpe):
    one, other = (labels_of([row(SPANISH, a)], byte_bpe, 384) for a in ("agua", "Málaga"))
    both = labels_of([row(SPANISH, "agua", "Málaga")], byte_bpe, 384)
    assert both.tolist() == one.tolist() != other.tolist()


def cut_of(found, tokenizer, max_tokens):
    return int(TASK.encode([found], tokenizer, max_tokens).cut[0])


def test_nothing_is_counted_as_cut_where_nothing_is(byte_bpe):
    assert TASK.encode(ROWS, byte_bpe, 96).cut.tolist() == [0]


def test_a_question_too_long_for_its_half_is_cut_and_counted(byte_bpe):
    found = row(SPANISH, "Málaga", question="¿" + "cuándo " * 50 + "?")
    encoded = TASK.encode([found], byte_bpe, 96)
    assert encoded.lengths.max() <= 96
    assert encoded.cut.tolist() == [1]
    assert cut_of(found, byte_bpe, 1000) == 0


def test_an_answer_that_no_window_holds_whole_is_counted(byte_bpe):
    long = " ".join([SPANISH] * 6)
    assert cut_of(row(long, long[3:-3]), byte_bpe, 96) == 1
    assert cut_of(row(long, long[3:-3], "manzana"), byte_bpe, 96) == 1
    assert cut_of(row(long, long[3:60]), byte_bpe, 384) == 0


def test_an_answer_of_nothing_that_the_tokenizer_keeps_is_counted(wordpiece):
    assert cut_of(row("El film \x01 music", "\x01"), wordpiece, 96) == 1


def test_windows_start_a_stride_apart_or_half_a_window(byte_bpe):
    long = row(" ".join([SPANISH] * 6), "Málaga")
    counts = [
        len(labels_of([long], byte_bpe, max_tokens, stride=stride))
        for max_tokens, stride in ((96, 1), (96, 20), (96, 128), (96, 10**6))
    ]
    assert counts[0] > counts[1] > counts[2] == counts[3] > 1


def test_too_few_sub_words_for_a_question_and_a_text_are_refused(byte_bpe):
    with pytest.raises(ConfigError, match=r"data\.max_tokens=4: 3 of them are special tokens"):
        TASK.encode(ROWS, byte_bpe, 4)


def test_a_text_without_any_piece_has_no_answer(wordpiece):
    found = through(TASK, [row("\x01\x01")], wordpiece, 96)
    assert [(p.prediction, p.score) for p in found] == [("", 0.0)]


def test_answers_longer_than_allowed_are_told_of(byte_bpe, caplog):
    Extraction.from_rows(ROWS, max_answer_length=2).encode(ROWS, byte_bpe, 384)
    assert "answer of more than 2 sub-words" in caplog.text


# --- loss and reading off


def test_the_loss_is_the_mean_of_start_and_end_summed_over_windows(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 96)
    batch = TASK.collate(encoded, range(len(encoded)), byte_bpe, None)
    torch.manual_seed(0)
    starts, ends = torch.randn(2, *batch["inputs"]["input_ids"].shape)
    total, count = TASK.loss(says(starts, ends), batch)
    expected = 0.0
    for window, (start, end) in enumerate(batch["labels"].tolist()):
        length = int(encoded.lengths[window])
        for logits, place in ((starts, start), (ends, end)):
            expected -= float(logits[window, :length].log_softmax(-1)[place]) / 2
    assert int(count) == len(encoded)
    assert float(total) == pytest.approx(expected, rel=1e-4)


def test_a_batch_of_ignored_labels_counts_nothing(byte_bpe):
    encoded = TASK.encode(ROWS[:2], byte_bpe, 384)
    batch = TASK.collate(encoded, [0, 1], byte_bpe, None)
    batch["labels"].fill_(IGNORE)
    total, count = TASK.loss(says(*torch.randn(2, *batch["inputs"]["input_ids"].shape)), batch)
    assert (float(total), int(count)) == (0.0, 0)


def test_logits_of_vectors_in_front_of_the_text_are_passed_over(byte_bpe):
    encoded = TASK.encode(ROWS[:2], byte_bpe, 384)
    batch = TASK.collate(encoded, [0, 1], byte_bpe, None)
    starts, ends = gold_logits(batch)
    longer = [torch.cat([torch.full((2, 4), 99.0), logits], 1) for logits in (starts, ends)]
    assert TASK.predict_batch(says(*longer), batch) == TASK.predict_batch(says(starts, ends), batch)
    assert TASK.loss(says(*longer), batch)[0] == TASK.loss(says(starts, ends), batch)[0]


def best_by_hand(task, encoded, window, starts, ends):
    """Return the best valid span of a window, every one tried."""
    place = slice(encoded.starts[window], encoded.starts[window + 1])
    offsets = encoded.extra["offsets"][place].tolist()
    tried = [
        (float(starts[i] + ends[j]), offsets[i][0], offsets[j][1])
        for i in range(len(offsets))
        for j in range(i, min(i + task.max_answer_length, len(offsets)))
        if offsets[i][0] < offsets[j][1]
    ]
    return max(tried)


@pytest.mark.parametrize("length", [1, 3, 60])
def test_the_best_span_is_read_off_of_all_that_are_allowed(any_tokenizer, length):
    task = Extraction.from_rows(ROWS, max_answer_length=length)
    encoded = task.encode(ROWS, any_tokenizer, 96)
    windows = list(range(len(encoded)))
    batch = task.collate(encoded, windows, any_tokenizer, None)
    torch.manual_seed(length)
    starts, ends = torch.randn(2, *batch["inputs"]["input_ids"].shape)
    for window, ((first, last, none), score) in enumerate(
        task.predict_batch(says(starts, ends), batch)
    ):
        assert (score, first, last) == best_by_hand(
            task, encoded, window, starts[window], ends[window]
        )
        assert none == float(starts[window, 0] + ends[window, 0])
        assert 0 <= first < last <= len(ROWS[encoded.items[window]]["context"])


def test_windows_read_alone_or_together_say_the_same(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 96)
    windows = list(range(len(encoded)))
    together = outputs_of(TASK, encoded, byte_bpe, windows)
    alone = [found for w in windows for found in outputs_of(TASK, encoded, byte_bpe, [w])]
    assert together == alone


# --- windows to one answer


def decoded(task, found, outputs, windows=2):
    encoded = SimpleNamespace(items=np.zeros(windows, int))
    (prediction,) = task.decode([found], encoded, outputs)
    return prediction


WINDOWS = [(0, (0, 2, 1.0), 6.0), (1, (28, 34, -2.0), 8.0)]  # "El", "Málaga"


def test_the_best_span_of_all_windows_is_the_answer_and_none_is_the_least_sure():
    found = decoded(TASK, ROWS[0], WINDOWS)
    assert (found.prediction, found.score) == ("Málaga", 10.0)
    assert decoded(TASK, ROWS[0], WINDOWS[::-1]) == found


def test_below_the_threshold_the_answer_is_none():
    tuned = [TASK.prepare_for_test({"best_threshold": t}) for t in (9.9, 10.0, 10.1)]
    assert [decoded(t, ROWS[0], WINDOWS).prediction for t in tuned] == ["Málaga", "Málaga", ""]


def test_gold_is_a_list_of_texts_and_empty_where_there_is_none():
    assert decoded(TASK, ROWS[5], WINDOWS).gold == ["agua fresca", "agua"]
    assert decoded(TASK, row(SPANISH), WINDOWS).gold == []


# --- scores


def test_a_right_model_scores_one_in_every_score_it_announces(byte_bpe):
    rows = [*(r for r in ROWS[:9] if not r["context"].startswith("昨")), row(SPANISH)]
    task = Extraction.from_rows(rows, max_answer_length=60)
    result = task.compute_metrics(through(task, rows, byte_bpe, 384), CPU)
    assert set(result["scores"]) == set(task.metrics)
    assert result["scores"]["no_answer_accuracy"] == result["scores"]["em"] == 1.0


def test_where_train_answers_everything_no_threshold_is_sought(byte_bpe):
    result = TASK.compute_metrics(through(TASK, ROWS, byte_bpe, 384), CPU)
    assert set(result["scores"]) == set(TASK.metrics) == {"f1", "em"}
    assert "best_threshold" not in result["report"]
    assert TASK.prepare_for_test(result["report"]) == TASK


def test_the_threshold_of_validation_gives_test_the_same_scores(byte_bpe):
    rows = [*ROWS[:6], row(SPANISH), row(CHINESE)]
    task = Extraction.from_rows(rows, max_answer_length=60)
    encoded = task.encode(rows, byte_bpe, 384)

    def noisy(batch):
        torch.manual_seed(3)
        return [logits + 4 * torch.randn_like(logits) for logits in gold_logits(batch)]

    outputs = outputs_of(task, encoded, byte_bpe, range(len(encoded)), noisy)
    validation = task.compute_metrics(task.decode(rows, encoded, outputs), CPU)
    tuned = task.prepare_for_test(validation["report"])
    test = tuned.compute_metrics(tuned.decode(rows, encoded, outputs), CPU)
    assert test["scores"] == validation["scores"]
    assert test["report"]["threshold"] == validation["report"]["best_threshold"]


def test_scores_follow_the_language_of_the_row():
    found = {lang: row("la casa", "casa", language=lang) for lang in ("es", "en")}
    outputs = [(0, (0, 7, 0.0), 1.0)]
    f1 = {
        lang: TASK.compute_metrics([decoded(TASK, r, outputs, 1)], CPU)["scores"]["f1"]
        for lang, r in found.items()
    }
    assert f1 == {lang: score_answer("la casa", ["casa"], "mlqa", lang)[1] for lang in found}
    assert f1["es"] == 1.0 > f1["en"]


def test_a_prediction_without_a_language_is_scored_as_english():
    found = Prediction(0, "a", ["cat"], "the cat", 1.0)
    assert TASK.compute_metrics([found], CPU)["scores"]["em"] == 1.0


def test_scores_follow_the_rule(byte_bpe):
    found = row("北京大学", "京大", language="zh")
    outputs = [(0, (0, 4, 0.0), 1.0)]
    f1 = [
        task.compute_metrics([decoded(task, found, outputs, 1)], CPU)["scores"]["f1"]
        for task in (Extraction.from_rows([found], rule=rule) for rule in ("squad", "cmrc"))
    ]
    assert f1 == [0.0, pytest.approx(2 / 3)]


# --- what is refused


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (row(SPANISH, ("Málaga", 27)), "'Málaga' is not at 27, where ' Málag' stands; it is at 28"),
        (row(SPANISH, ("Madrid", 28)), "where 'Málaga' stands; it is nowhere in the context"),
        (
            row(SPANISH, ("Ma\u0301laga", 28)),
            "the context writes it in NFC, another form of Unicode",
        ),
        (row("Ａｎａ", ("Ana", 0)), "it is nowhere in the context"),
        (row(SPANISH, ("agua", 999)), "'agua' is not at 999, where '' stands; it is at 51"),
        (row(SPANISH, ("El", -1)), "'El' is not at -1, where 'El' stands; it is at 0"),
        (row(SPANISH, (" ", 2)), "the answer at 2 is empty"),
        (row("El", ("El niño", 0)), "the answer 'El niño' is longer than the context"),
        (row(" \n"), "the context is empty"),
        (row(SPANISH, question="  "), "the question is empty"),
    ],
)
def test_a_faulty_row_is_described(found, fault):
    (received,) = TASK.find_row_faults(found)
    assert fault in received


def test_every_fault_of_a_row_is_described_and_sound_rows_have_none():
    found = row(SPANISH, ("x", 1), ("", 2), question="")
    assert len(TASK.find_row_faults(found)) == 3
    assert [TASK.find_row_faults(r) for r in ROWS] == [[] for _ in ROWS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, r"data\.task\.stride=0: give a whole number above 0"),
        ({"max_answer_length": 2.5}, r"data\.task\.max_answer_length=2\.5"),
        ({"rule": "drcd"}, r"data\.task\.rule=drcd\. Allowed: squad, mlqa, cmrc\."),
    ],
)
def test_an_odd_option_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Extraction.from_rows(ROWS, **options)


# --- a headline that a file does not give


OPEN = [*ROWS[:2], row(SPANISH)]  # one without an answer


@pytest.mark.parametrize(
    ("rows", "lacking"),
    [
        (OPEN, ()),
        (OPEN[:2], ("no_answer_accuracy", "has_answer_f1")),
        (OPEN[2:], ("has_answer_f1",)),
    ],
)
def test_scores_that_rows_do_not_give_are_the_ones_that_are_named(rows, lacking):
    task = Extraction.from_rows(OPEN)
    assert task.undefined_metrics(rows) == lacking
    predictions = [
        Prediction(n, "", [a["text"] for a in r["answers"]], "", 0.0) for n, r in enumerate(rows)
    ]
    measured = set(task.compute_metrics(predictions, CPU)["scores"])
    assert set(task.metrics) - measured == set(lacking)


def data_of(validation, metric, byte_bpe, tmp_path):
    splits = {"train": {"es": Split(OPEN, {})}, "validation": {"es": Split(validation, {})}}
    data = Data("d", TaskType.extraction, "es", metric=metric, max_tokens=96)
    return FineTuningData(splits, Extraction.from_rows(OPEN), byte_bpe, data, 1, tmp_path)


def test_a_headline_that_validation_has_no_question_for_is_refused(byte_bpe, tmp_path):
    said = (
        r"data\.metric=no_answer_accuracy: a\.json \(validation, es\) holds no item for it\. "
        r"Allowed there: f1, em\."
    )
    with pytest.raises(ConfigError, match=said):
        data_of(OPEN[:2], "no_answer_accuracy", byte_bpe, tmp_path)


def test_a_headline_that_validation_gives_is_taken(byte_bpe, tmp_path):
    assert data_of(OPEN, "no_answer_accuracy", byte_bpe, tmp_path).encoded
    assert data_of(OPEN[:2], "f1", byte_bpe, tmp_path).encoded


# --- a whole run


def squad(rows):
    qas = [
        {
            "id": str(number),
            "question": r["question"],
            "answers": [{"text": a["text"], "answer_start": a["start"]} for a in r["answers"]],
        }
        for number, r in enumerate(rows)
    ]
    paragraphs = [{"context": r["context"], "qas": [qa]} for r, qa in zip(rows, qas, strict=True)]
    return json.dumps({"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]})


def test_a_run_on_a_user_s_own_file_trains_tests_and_leaves_its_answers(write, tmp_path):
    path = write("a.json", squad([*ROWS, row(SPANISH)]))
    files = [f"data.{split}={path}" for split in ("train", "validation")]
    test = f"data.test={{es: {path}, zh: {path}}}"
    options = ["trainer=cpu", "trainer.max_steps=2", "data.batch_size=8", "data.max_tokens=96"]
    outputs = f"outputs={tmp_path / 'out'}"
    words = ["data=files_extraction", "data.language=es", *files, test, *MODEL, *options]
    train(compose_run([*words, "logger=none", outputs]))
    (record,) = (tmp_path / "out").rglob("record.json")
    found = read_record(record)
    assert found["status"] == "finished"
    assert set(found["scores"]["test"]) == {"es", "zh"}
    threshold = found["report"]["validation"]["es"]["best_threshold"]
    assert found["report"]["test"]["zh"]["threshold"] == threshold
    table = pq.read_table(record.parent / "predictions.parquet").to_pylist()
    assert len(table) == 2 * (len(ROWS) + 1)
    assert table[-1]["gold"] == []
    for metric in ("f1", "em"):
        scores = [line[metric] for line in table if line["language"] == "es"]
        assert sum(scores) / len(scores) == pytest.approx(found["scores"]["test"]["es"][metric])
    assert all(
        line["prediction"] in ROWS[n]["context"] for n, line in enumerate(table[: len(ROWS)])
    )


# --- real questions


FILES = [
    f"{language}/{name}"
    for language in ("es", "zh", "en")
    for name in ("mlqa/train", "mlqa/validation", "xquad/test")
]


@pytest.mark.shared
def test_the_five_answers_that_stand_elsewhere_in_a_real_file_are_found():
    rows = read_squad(str(SHARED / "zh/cmrc2018_trial/test.json")).rows
    faults = [fault for r in rows for fault in TASK.find_row_faults(r)]
    assert sum("is not at" in fault for fault in faults) == 5
    assert faults.count("the question is empty") == len(faults) - 5 == 2


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, "zh/cmrc2018_trial/test"])
def test_every_gold_answer_of_a_real_file_comes_back_or_is_counted(name, tmp_path):
    rows = read_squad(str(SHARED / f"{name}.json")).rows
    rows = [r for r in rows if not TASK.find_row_faults(r)]
    task = Extraction.from_rows(rows, max_answer_length=384)
    texts = (text for r in rows for text in task.row_texts(r))
    mini = Model(name="mini", origin=ModelOrigin.scratch, vocab_size=8000)
    tokenizer = load_tokenizer(mini, texts, "content", tmp_path)
    encoded = task.encode(rows, tokenizer, 384)
    lost = []
    for start in range(0, len(encoded), 64):
        lost += outputs_of(task, encoded, tokenizer, range(start, min(start + 64, len(encoded))))
    found = task.decode(rows, encoded, lost)
    assert len(found) == len(rows)
    missing = [p for p in found if not any(g.strip() in p.prediction for g in p.gold)]
    assert len(missing) <= int(encoded.cut[0])
    assert int(encoded.cut[0]) < len(rows) / 100
