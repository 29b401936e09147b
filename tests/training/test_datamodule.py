"""The data of one run: encoded once, found again by its content, dealt out to the loaders."""

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch

from crosstune.config.schema import Data, TaskType
from crosstune.data.splits import Split
from crosstune.tasks.classification import Classification
from crosstune.training.datamodule import FineTuningData

DATA = Data("d", TaskType.classification, "es", batch_size=4, max_tokens=16)


class Counting(Classification):
    """A classification that remembers how many rows it was asked to encode."""

    asked: ClassVar[list[int]] = []

    def encode(self, rows, tokenizer, max_tokens):
        self.asked.append(len(rows))
        return super().encode(rows, tokenizer, max_tokens)


def rows_of(*texts, where="a.tsv"):
    return [
        {"id": str(n), "text": text, "label": "ab"[n % 2], "where": f"{where}:{n + 2}"}
        for n, text in enumerate(texts)
    ]


TRAIN = rows_of("el niño come", "la niña bebe", "小明喝茶", "the film was wonderful", "la música")


def splits_of(train=TRAIN):
    test = rows_of("una manzana", "agua fresca", "en Málaga")
    return {
        "train": {"es": Split(train, {})},
        "validation": {"es": Split(rows_of("el vino", "la mesa"), {})},
        "test": {"es": Split(test, {}), "zh": Split(rows_of("他喜欢茶"), {})},
    }


@pytest.fixture
def make(byte_bpe, tmp_path):
    """Return a function that makes the data and says how many rows were encoded for it."""

    def make_data(splits=None, data=DATA, tokenizer=byte_bpe, labels=("a", "b")):
        Counting.asked.clear()
        task = Counting(list(labels))
        made = FineTuningData(splits or splits_of(), task, tokenizer, data, seed=1, cache=tmp_path)
        return made, sum(Counting.asked)

    return make_data


def test_every_split_of_every_language_is_encoded(make):
    made, asked = make()
    assert asked == 5 + 2 + 3 + 1
    assert {name: list(found) for name, found in made.encoded.items()} == {
        "train": ["es"],
        "validation": ["es"],
        "test": ["es", "zh"],
    }


# --- the cache


def test_the_same_content_is_encoded_once(make):
    first, _ = make()
    second, asked = make()
    assert asked == 0
    for name, languages in first.encoded.items():
        for language, encoded in languages.items():
            again = second.encoded[name][language]
            assert encoded.ids.tolist() == again.ids.tolist()
            assert encoded.labels.tolist() == again.labels.tolist()


def test_one_changed_character_is_encoded_anew(make):
    make()
    changed = [dict(row) for row in TRAIN]
    changed[3]["text"] = changed[3]["text"].replace("film", "Film")
    made, asked = make(splits_of(changed))
    assert asked == len(TRAIN)
    assert made.encoded["train"]["es"].ids.tolist() != make()[0].encoded["train"]["es"].ids.tolist()


def test_a_changed_label_is_encoded_anew(make):
    make()
    changed = [dict(row) for row in TRAIN]
    changed[0]["label"] = "b"
    assert make(splits_of(changed))[1] == len(TRAIN)


@pytest.mark.parametrize(
    "change",
    [{"data": replace(DATA, max_tokens=12)}, {"labels": ("b", "a")}, {"labels": ("a", "b", "c")}],
)
def test_what_changes_the_encoding_of_all_encodes_all_anew(make, change):
    make()
    assert make(**change)[1] == 11


def test_another_tokenizer_encodes_all_anew(make, wordpiece):
    make()
    assert make(tokenizer=wordpiece)[1] == 11


def test_the_same_rows_in_another_file_are_not_encoded_again(make):
    make()
    moved = [{**row, "where": f"elsewhere/{row['where']}"} for row in TRAIN]
    assert make(splits_of(moved))[1] == 0


def test_the_batch_size_has_no_part_in_the_encoding(make):
    make()
    assert make(data=replace(DATA, batch_size=2))[1] == 0


def test_rows_that_lose_sub_words_are_told_also_when_the_cache_has_them(make, caplog):
    long = splits_of(rows_of("el niño " * 9, "no", "sí"))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="crosstune"):
            make(long)
        assert "train/es: 1 of 3 rows cut to 16 sub-words" in caplog.text


def test_a_tokenizer_that_came_with_padding_and_truncation_loses_them(make, byte_bpe):
    before = make()[0].encoded["train"]["es"].ids.tolist()
    byte_bpe.backend_tokenizer.enable_padding(length=30)
    byte_bpe.backend_tokenizer.enable_truncation(3)
    made, asked = make()
    assert (asked, made.encoded["train"]["es"].ids.tolist()) == (0, before)


# --- the loaders


@pytest.fixture
def loaded(make):
    """Return the data as a trainer on one device has it."""
    made, _ = make()
    made.trainer = pl.Trainer(
        devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    return made


def test_training_meets_every_window_once_an_epoch(loaded):
    batches = list(loaded.train_dataloader())
    assert [len(batch["windows"]) for batch in batches] == [4, 1]
    assert sorted(w for batch in batches for w in batch["windows"]) == list(range(5))


def test_every_language_is_tested_by_a_loader_of_its_own(loaded):
    windows = [[w for b in loader for w in b["windows"]] for loader in loaded.test_dataloader()]
    assert [sorted(found) for found in windows] == [[0, 1, 2], [0]]


def test_validation_is_never_shuffled(loaded):
    (loader,) = loaded.val_dataloader()
    first, second = ([batch["windows"] for batch in loader] for _ in range(2))
    assert first == second


def test_batches_hold_a_budget_of_sub_words_where_one_is_given(make):
    made, _ = make(data=replace(DATA, batch_tokens=16))
    made.trainer = pl.Trainer(devices=1, logger=False, enable_checkpointing=False)
    batches = list(made.train_dataloader())
    assert len(batches) == round(sum(batch["tokens"] for batch in batches) / 16) > 2


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_batches_for_a_gpu_lie_in_pinned_memory(make, device, pinned):
    made, _ = make()
    strategy = SimpleNamespace(root_device=torch.device(device))
    made.trainer = SimpleNamespace(strategy=strategy, world_size=1, global_rank=0)
    loaders = [made.train_dataloader(), *made.val_dataloader(), *made.test_dataloader()]
    assert [loader.pin_memory for loader in loaders] == [pinned] * len(loaders)
