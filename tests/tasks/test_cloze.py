"""Patterns with a gap for the label's word: sub-words of every kind of tokenizer, and scores."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import BertConfig, BertForMaskedLM

from crosstune.cli.main import main
from crosstune.config.compose import compose_run
from crosstune.data.windows import IGNORE, UNSEEN
from crosstune.errors import ConfigError
from crosstune.models.tokenizers import make_literal
from crosstune.tasks.cloze import Cloze
from crosstune.tasks.verbalizers import encode_continuations
from crosstune.training.batching import BatchDataset, RankBatch
from crosstune.training.train import train
from tests.tiny import MODEL, ROWS

PATTERNS = {"es": "{text} En fin , {mask} .", "zh": "{text}很{mask}。"}
WORDS = {
    "es": {"good": ["film", "music New"], "bad": ["agua"]},
    "zh": {"good": ["喜", "喝茶"], "bad": ["北"]},
}
ITEMS = [
    {"id": "a", "text": "El niño come", "label": "good", "language": "es"},
    {"id": "b", "text": "la niña bebe agua fresca en York", "label": "bad", "language": "es"},
    {"id": "c", "text": "the film", "label": "odd", "language": "es"},
]
CHINESE = [
    {"id": "d", "text": "小明住在北京", "label": "good", "language": "zh"},
    {"id": "e", "text": "他去了银行，喝茶", "label": "bad", "language": "zh"},
]
TASK = Cloze(["bad", "good"], PATTERNS, WORDS, calibrate=False)
CALIBRATED = replace(TASK, calibrate=True)
HOSTILE = "[MASK] {mask} <mask> {text} [SEP] </s>"

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")


def model_for(tokenizer):
    """Return a one-layer masked LM with random weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.5,
    )
    return BertForMaskedLM(config).eval()


def window_of(encoded, number):
    return encoded.ids[encoded.starts[number] : encoded.starts[number + 1]].tolist()


def inside(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# --- sub-words


def test_a_window_is_the_filled_sentence_with_masks_in_place_of_the_word(tokenizer):
    encoded = TASK.encode(ITEMS, tokenizer, 128)
    masks = encoded.extra["words"].shape[-1]
    for number, row in enumerate(ITEMS):
        whole = tokenizer(f"{row['text']} En fin , film .")["input_ids"]
        word = inside(tokenizer, "film")
        found = window_of(encoded, number)
        place = encoded.extra["mask_columns"][number]
        assert found[place : place + masks] == [tokenizer.mask_token_id] * masks
        assert found[:place] + word + found[place + masks :] == whole


def test_a_word_behind_a_space_bears_the_mark_of_a_word(tokenizer):
    assert encode_continuations("Fue", [" film"], tokenizer) == [inside(tokenizer, "film")]


@pytest.mark.parametrize("name", ["byte_bpe", "unigram"])
def test_a_word_without_a_space_before_it_bears_no_mark(request, name):
    tokenizer = request.getfixturevalue(name)
    (pieces,) = encode_continuations("", ["film"], tokenizer)
    assert pieces != inside(tokenizer, "film")
    assert not {"Ġ", "▁"} & {p[0] for p in tokenizer.convert_ids_to_tokens(pieces)}


def test_wordpiece_goes_on_inside_a_word(wordpiece):
    (pieces,) = encode_continuations("mor", ["a"], wordpiece)
    assert wordpiece.convert_ids_to_tokens(pieces) == ["##a"]


def test_what_the_tokenizer_would_join_is_kept_apart(byte_bpe):
    before, word = "th", "e"
    assert inside(byte_bpe, before + word) != inside(byte_bpe, before) + inside(byte_bpe, word)[1:]
    (pieces,) = encode_continuations(before, [word], byte_bpe)
    assert byte_bpe.convert_ids_to_tokens(pieces) == ["e"]


def test_the_first_words_of_a_window_are_as_the_tokenizer_reads_them(tokenizer):
    texts = ["El film", "小明喝茶", ""]
    assert encode_continuations(None, texts, tokenizer) == [
        inside(tokenizer, text) for text in texts
    ]


def test_a_text_that_looks_like_a_mask_stays_text(tokenizer):
    tokenizer = make_literal(copy.deepcopy(tokenizer))
    encoded = TASK.encode([{**ITEMS[0], "text": HOSTILE}], tokenizer, 128)
    window, masks = window_of(encoded, 0), encoded.extra["words"].shape[-1]
    assert window.count(tokenizer.mask_token_id) == masks
    assert not set(window[1:-1]) & {tokenizer.cls_token_id, tokenizer.sep_token_id}


@pytest.mark.parametrize("name", ["wordpiece", "unigram"])
def test_the_bare_tokenizer_would_take_it_for_a_mask(request, name):
    tokenizer = request.getfixturevalue(name)
    assert tokenizer.mask_token_id in inside(tokenizer, HOSTILE)


@pytest.mark.parametrize(
    "pattern", ["{text} En {mask} .", "{mask} : {text}", "{text_pair} {mask} {text} mor"]
)
def test_a_long_text_is_cut_and_the_pattern_never(tokenizer, pattern):
    task = replace(TASK, patterns={"es": pattern})
    row = {**ITEMS[0], "text": "la niña bebe " * 60, "text_pair": "film " * 50}
    long = task.encode([row], tokenizer, 40)
    short = task.encode([{**row, "text": "la", "text_pair": "film"}], tokenizer, 40)
    assert (long.lengths[0], long.cut[0], short.cut[0]) == (40, 1, 0)
    assert not set(window_of(short, 0)) - set(window_of(long, 0))
    assert all(e.ids[e.extra["mask_columns"][0]] == tokenizer.mask_token_id for e in (long, short))


def test_the_longer_text_of_a_pair_is_cut_first(tokenizer):
    task = replace(TASK, patterns={"es": "{text} En {mask} {text_pair}"})
    row = {**ITEMS[0], "text": "la " * 60, "text_pair": "York New"}
    window = window_of(task.encode([row], tokenizer, 24), 0)
    behind = inside(tokenizer, "York New")
    assert window[-1 - len(behind) : -1] == behind


def test_a_pattern_that_fills_the_window_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"data\.max_tokens=8: a pattern .* takes \d+ sub-words"):
        TASK.encode(ITEMS, tokenizer, 8)


def test_labels_are_numbers_and_one_without_words_is_unseen(byte_bpe):
    assert TASK.encode(ITEMS, byte_bpe, 64).labels.tolist() == [1, 0, UNSEEN]


def test_a_word_that_the_tokenizer_does_not_know_is_refused(wordpiece):
    task = replace(TASK, verbalizers={"es": {"good": ["film"], "bad": ["ж"]}})
    with pytest.raises(ConfigError, match=r"'ж' \(for bad\): the model's tokenizer does not know"):
        task.encode(ITEMS, wordpiece, 64)


def test_words_of_two_labels_that_read_alike_are_refused(unigram):
    task = replace(TASK, verbalizers={"es": {"good": ["film"], "bad": ["ｆilm"]}})
    with pytest.raises(ConfigError, match=r"reads it as 'ｆilm' \(for bad\)"):
        task.encode(ITEMS, unigram, 64)


def test_a_tokenizer_without_a_mask_is_refused(byte_bpe):
    tokenizer = copy.deepcopy(byte_bpe)
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="has no mask"):
        TASK.encode(ITEMS, tokenizer, 64)


# --- scores


def score_words(left, right, row, tokenizer, model):
    """Return the score of each label by plain transformers, one word at a time."""
    before, space = ("很", "") if row["language"] == "zh" else (",", " ")
    scores = []
    for label in TASK.labels:
        words = []
        for word in WORDS[row["language"]][label]:
            (pieces,) = encode_continuations(before, [space + word], tokenizer)
            masks = [tokenizer.mask_token_id] * len(pieces)
            ids = [tokenizer.cls_token_id, *left, *masks, *right, tokenizer.sep_token_id]
            with torch.no_grad():
                log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            at = [float(log_p[1 + len(left) + n, piece]) for n, piece in enumerate(pieces)]
            words.append(sum(at) / len(at))
        scores.append(sum(words) / len(words))
    return torch.tensor(scores)


def score_by_hand(row, tokenizer, model):
    """Return the log-probability of each label."""
    before, after = PATTERNS[row["language"]].replace("{text}", row["text"]).split("{mask}")
    (right,) = encode_continuations("", [after], tokenizer)
    left = inside(tokenizer, before.strip())
    return score_words(left, right, row, tokenizer, model).log_softmax(-1)


def batch_for(task, rows, tokenizer, windows=None, max_tokens=64):
    encoded = task.encode(rows, tokenizer, max_tokens)
    return task.collate(encoded, range(len(rows)) if windows is None else windows, tokenizer, None)


def read(task, rows, tokenizer, model, size=8):
    found = []
    for start in range(0, len(rows), size):
        windows = range(start, min(start + size, len(rows)))
        with torch.no_grad():
            found += task.predict_batch(model, batch_for(task, rows, tokenizer, windows))
    return found


@pytest.mark.parametrize("rows", [ITEMS, CHINESE], ids=["es", "zh"])
@pytest.mark.parametrize("name", ["byte_bpe", "wordpiece"])
def test_scores_are_those_of_plain_transformers(request, name, rows):
    tokenizer = request.getfixturevalue(name)
    model = model_for(tokenizer)
    for row, (best, score) in zip(rows, read(TASK, rows, tokenizer, model), strict=True):
        wanted = score_by_hand(row, tokenizer, model)
        assert best == int(wanted.argmax())
        assert score == pytest.approx(float(wanted.max()), abs=1e-4)


def test_a_look_beside_the_mask_is_found_out(byte_bpe):
    model = model_for(byte_bpe)
    batch = batch_for(TASK, ITEMS, byte_bpe)
    batch["mask_columns"] -= 1  # planted
    with torch.no_grad():
        off = TASK.predict_batch(model, batch)
    wanted = [float(score_by_hand(row, byte_bpe, model).max()) for row in ITEMS]
    assert [score for _, score in off] != pytest.approx(wanted, abs=1e-3)


def test_words_of_each_length_have_a_variant_with_as_many_masks(byte_bpe):
    batch = batch_for(TASK, ITEMS[:1], byte_bpe)
    sizes = sorted({int(n) for n in (batch["words"] >= 0).sum(-1).flatten() if n})
    assert len(sizes) > 1
    masks = (batch["inputs"]["input_ids"] == byte_bpe.mask_token_id).sum(-1)
    assert masks.tolist() == sizes


def test_the_loss_is_the_summed_cross_entropy_of_what_counts(byte_bpe):
    model = model_for(byte_bpe)
    batch = batch_for(TASK, ITEMS, byte_bpe)
    batch["labels"] = torch.tensor([1, 0, IGNORE])
    total, count = TASK.loss(model, batch)
    wanted = [score_by_hand(row, byte_bpe, model) for row in ITEMS]
    assert int(count) == 2
    assert total.item() == pytest.approx(-float(wanted[0][1] + wanted[1][0]), abs=1e-4)


def test_a_batch_that_counts_nothing_has_no_loss(byte_bpe):
    encoded = TASK.encode(ITEMS, byte_bpe, 64)
    batch = BatchDataset(encoded, TASK, byte_bpe, 1)[RankBatch([0], 0, counted=False)]
    total, count = TASK.loss(model_for(byte_bpe), batch)
    assert (total.item(), int(count)) == (0.0, 0)


def test_training_makes_the_labels_more_probable(byte_bpe):
    model = model_for(byte_bpe).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batch = batch_for(TASK, ITEMS[:2], byte_bpe)
    losses = []
    for _ in range(6):
        total, count = TASK.loss(model, batch)
        losses.append((total / count).item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_languages_in_one_batch_score_as_they_do_alone(byte_bpe):
    model = model_for(byte_bpe)
    mixed = [ITEMS[0], CHINESE[0], ITEMS[1], CHINESE[1]]
    together = [score for _, score in read(CALIBRATED, mixed, byte_bpe, model)]
    alone = [read(CALIBRATED, [row], byte_bpe, model)[0][1] for row in mixed]
    assert together == pytest.approx(alone, abs=1e-5)


def test_calibration_divides_by_the_mean_probability_without_content(byte_bpe):
    model = model_for(byte_bpe)
    ((middle,), (right,)) = (
        encode_continuations("", [text], byte_bpe) for text in (" En fin ,", " .")
    )
    contents = [inside(byte_bpe, "N/A"), [byte_bpe.mask_token_id], []]
    free = [
        score_words([*content, *middle], right, ITEMS[0], byte_bpe, model).softmax(-1)
        for content in contents
    ]
    share = sum(free) / len(free)
    found = read(CALIBRATED, ITEMS, byte_bpe, model)
    for row, (best, score) in zip(ITEMS, found, strict=True):
        ratio = score_by_hand(row, byte_bpe, model).exp() / share
        assert best == int(ratio.argmax())
        assert score == pytest.approx(float((ratio.max() / ratio.sum()).log()), abs=1e-4)


@pytest.mark.parametrize("task", [TASK, CALIBRATED], ids=["plain", "calibrated"])
def test_any_split_into_batches_gives_the_same_scores(byte_bpe, task):
    model = model_for(byte_bpe)
    whole = read(task, ITEMS, byte_bpe, model)
    single = read(task, ITEMS, byte_bpe, model, size=1)
    assert [best for best, _ in whole] == [best for best, _ in single]
    assert [s for _, s in whole] == pytest.approx([s for _, s in single], abs=1e-5)


def test_logits_are_made_at_the_masks_alone(byte_bpe):
    model = model_for(byte_bpe)
    shapes = []
    model.cls.predictions.decoder.register_forward_hook(lambda *a: shapes.append(a[2].shape))
    batch = batch_for(TASK, ITEMS[:2], byte_bpe)
    variants = len(batch["inputs"]["input_ids"]) // 2
    TASK.loss(model, batch)
    assert shapes == [(2, variants, batch["words"].shape[-1], len(byte_bpe))]


def test_a_soft_prompt_in_front_moves_no_mask(byte_bpe):
    prompt = PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4)
    model = get_peft_model(model_for(byte_bpe), prompt).eval()
    batch = batch_for(TASK, ITEMS[:1], byte_bpe)
    del batch["inputs"]["token_type_ids"]  # a soft prompt has none
    with torch.no_grad():
        ((best, score),) = TASK.predict_batch(model, batch)
        log_p = model(**batch["inputs"]).logits[:, 4:].log_softmax(-1)
    scores = []
    for words, variants in zip(batch["words"][0], batch["variants"][0], strict=True):
        each = [
            log_p[variant, int(batch["mask_columns"]) + n, piece]
            for word, variant in zip(words.tolist(), variants.tolist(), strict=True)
            for n, piece in enumerate(word)
            if piece >= 0
        ]
        scores.append((each, [sum(piece >= 0 for piece in word) for word in words.tolist()]))
    means = [
        [sum(part) / len(part) for part in torch.stack(each).split([n for n in sizes if n])]
        for each, sizes in scores
    ]
    wanted = torch.tensor([sum(words) / len(words) for words in means]).log_softmax(-1)
    assert (best, score) == (int(wanted.argmax()), pytest.approx(float(wanted.max()), abs=1e-4))


def test_predictions_are_measured_as_classification_is(byte_bpe):
    encoded = TASK.encode(ITEMS, byte_bpe, 64)
    outputs = [(0, 1, -0.1), (1, 1, -0.2), (2, 0, -0.3)]
    found = TASK.decode(ITEMS, encoded, outputs)
    assert [p.prediction for p in found] == ["good", "good", "bad"]
    scores = TASK.compute_metrics(found, torch.device("cpu"))["scores"]
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert set(scores) == set(TASK.metrics)


# --- options


def made(patterns=PATTERNS, verbalizers=WORDS):
    return Cloze.from_rows(ITEMS[:2], patterns, verbalizers)


def test_the_labels_are_those_that_have_words_sorted():
    assert made().labels == ["bad", "good"]


def test_one_word_needs_no_list_and_a_number_is_a_label():
    rows = [{**ITEMS[0], "label": "1"}]
    task = Cloze.from_rows(rows, {"es": "{text} {mask}"}, {"es": {1: "film", "0": ["agua"]}})
    assert task.verbalizers == {"es": {"1": ["film"], "0": ["agua"]}}


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("{text} fin", r"\{mask\} must stand in it exactly once"),
        ("{mask}", r"\{text\} must stand in it exactly once"),
        ("{text} {mask} {mask}", r"\{mask\} must stand in it exactly once"),
        ("{text} {text} {mask}", r"\{text\} must stand in it exactly once"),
        (
            "{text} {mask} {label}",
            r"\{label\} is no gap\. Allowed: \{text\}, \{text_pair\}, \{mask\}",
        ),
        ("{text} {} {mask}", r"\{\} is no gap"),
        ("{text!r} {mask}", "a gap is a bare name"),
        ("{text:>9} {mask}", "a gap is a bare name"),
        ("{text {mask}", "Allowed gaps"),
    ],
)
def test_a_pattern_with_other_gaps_is_refused(pattern, fault):
    with pytest.raises(ConfigError, match=rf"^data\.task\.patterns\.es=.*{fault}"):
        made({"es": pattern}, {"es": WORDS["es"]})


@pytest.mark.parametrize(
    ("verbalizers", "fault"),
    [
        ("film", "give {label: words} for each language"),
        ({"es": WORDS["es"]}, "It must have those with a pattern: es, zh"),
        ({**WORDS, "zh": {"good": "喜", "other": "北"}}, "has the labels good, other, but"),
        ({**WORDS, "zh": {"good": "喜", "bad": ["喜"]}}, "'喜' stands twice, for good and bad"),
        ({**WORDS, "zh": {"good": "喜", "bad": []}}, "give one word, or a list of words"),
        ({**WORDS, "zh": {"good": "喜", "bad": [" "]}}, "give one word, or a list of words"),
        ({**WORDS, "zh": {"good": "喜", False: "北"}}, "the label False is no text"),
        ({**WORDS, "zh": {"good": "喜"}}, "1 label; a choice needs two or more"),
        ({**WORDS, False: {}}, "False"),
    ],
)
def test_a_table_of_words_that_does_not_fit_is_refused(verbalizers, fault):
    with pytest.raises(ConfigError, match=fault):
        made(verbalizers=verbalizers)


def test_a_label_of_train_without_words_is_refused():
    with pytest.raises(ConfigError, match=r"no words for labels of train: odd\. It has words for"):
        Cloze.from_rows(ITEMS, PATTERNS, WORDS)


def test_doubled_braces_are_text(byte_bpe):
    task = replace(TASK, patterns={"es": "{text} {{mask}} {mask}"})
    window = window_of(task.encode(ITEMS[:1], byte_bpe, 64), 0)
    assert "El niño come {mask}[MASK]" in byte_bpe.decode(window)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (ITEMS[0], None),
        ({**ITEMS[0], "language": "en"}, "no pattern for its language: give data.task.patterns.en"),
        ({**ITEMS[0], "text_pair": "la"}, "data.task.patterns.es has no {text_pair} for its"),
    ],
)
def test_a_row_that_its_pattern_does_not_fit_is_a_fault(row, fault):
    found = TASK.find_row_faults(row)
    assert [f[: len(fault or "")] for f in found] == ([fault] if fault else [])


def test_a_pattern_for_pairs_needs_pairs():
    task = replace(TASK, patterns={"es": "{text} {mask} {text_pair}"})
    assert len(task.find_row_faults(ITEMS[0])) == 1
    assert task.find_row_faults({**ITEMS[0], "text_pair": "la"}) == []


# --- whole runs


def run(outputs, *more):
    common = ("trainer=cpu", "logger=none", "data.batch_size=8", f"outputs={outputs}")
    folder = train(compose_run([*MODEL, *common, *more]))
    return json.loads((folder / "record.json").read_text()), folder


DEMO = ("data=demo_sentiment_cloze", "data.language=es", ROWS)


def test_without_training_a_run_is_tested_and_recorded(tmp_path):
    record, folder = run(tmp_path, *DEMO, "trainer.max_epochs=0", "data.task.calibrate=true")
    assert (record["status"], record["best_step"]) == ("finished", 0)
    assert "train_seconds" not in record["cost"]
    assert len(pd.read_parquet(folder / "predictions.parquet")) == 7
    assert (folder / "model" / "model.safetensors").is_file()


def test_few_shots_train_by_a_method(tmp_path):
    record, folder = run(tmp_path, *DEMO, "method=lora", "data.shots=4", "trainer.max_steps=2")
    assert record["cost"]["adapter_parameters"] > 0
    assert (folder / "model" / "adapter_model.safetensors").is_file()


@pytest.fixture
def two_languages(write):
    """Return the overrides of a task in Spanish with a test in Chinese too."""
    spanish = "".join(f"{row['text']}\t{row['label']}\n" for row in ITEMS[:2] * 6)
    chinese = "".join(f"{row['text']}\t{row['label']}\n" for row in CHINESE)
    es, zh = write("es.tsv", "text\tlabel\n" + spanish), write("zh.tsv", "text\tlabel\n" + chinese)
    return [
        *("data=files_cloze", "data.language=es", "data.text=text", "data.label=label"),
        *(f"data.train={es}", f"data.validation={es}", f"data.test={{es: {es}, zh: {zh}}}"),
        'data.task.patterns={es: "{text} En fin , {mask} .", zh: "{text}很{mask}。"}',
        'data.task.verbalizers={es: {good: film, bad: agua}, zh: {good: "喜", bad: "北"}}',
    ]


def test_every_test_language_is_read_with_its_own_pattern(tmp_path, two_languages):
    record, folder = run(tmp_path / "out", *two_languages, "trainer.max_epochs=1")
    assert set(record["scores"]["test"]) == {"es", "zh"}
    found = pd.read_parquet(folder / "predictions.parquet")
    assert found.groupby("language").size().to_dict() == {"es": 12, "zh": 2}
    assert np.isfinite(found["score"]).all()


def test_a_language_without_a_pattern_ends_with_its_place(
    tmp_path, two_languages, monkeypatch, capsys
):
    given = [one for one in two_languages if "task." not in one]
    given += ['data.task.patterns={es: "{text} {mask}"}']
    given += ["data.task.verbalizers={es: {good: film, bad: agua}}", f"outputs={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["crosstune", "train", *MODEL, "logger=none", *given])
    assert main() == 1
    assert "zh.tsv:2: no pattern for its language" in capsys.readouterr().err
