"""A run's name: a function of all that can change its result, and of nothing else."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from crosstune.config.compose import compose_run, to_dict
from crosstune.config.schema import (
    Model,
    ModelOrigin,
    Precision,
    Tracker,
)
from crosstune.data.splits import Split, read_splits
from crosstune.models.resolve import resolve_defaults
from crosstune.runs.fingerprint import compute_run_id, digest_weights, list_result_changes
from crosstune.training.schedule import resolve_schedule
from tests.conftest import ROWS

EPOCHS = ("trainer.max_epochs=3",)


def name_of(run):
    splits = read_splits(run.data, [])
    return compute_run_id(resolve_schedule(run, splits), splits)


def change(run, group, **changes):
    return replace(run, **{group: replace(getattr(run, group), **changes)})


@pytest.mark.parametrize(
    ("overrides", "run_id"),
    [
        (
            ["data=demo_sentiment", "data.language=es", "data.batch_size=32", *EPOCHS],
            "f63e1e0d4905",
        ),
        (
            [
                *("data=demo_entities", "data.language=zh", "data.batch_tokens=512", *EPOCHS),
                "data.batch_size=32",
                *("data.root=/x", "method=lora", "optimizer=sgd", "seed=3", "experiment=x"),
                *("trainer=gpu", "trainer.precision=bf16", "trainer.patience=2", "logger=none"),
            ],
            "05321ec0db1e",
        ),
    ],
)
def test_a_run_keeps_its_id(overrides, run_id):
    assert name_of(resolve_defaults(compose_run(overrides))) == run_id


def test_a_name_is_twelve_hex_digits_and_always_the_same(make_local_run):
    assert name_of(make_local_run("a")) == name_of(make_local_run("a"))
    assert len(name_of(make_local_run("a"))) == 12
    assert int(name_of(make_local_run("a")), 16) >= 0


# --- what must change it


@pytest.mark.parametrize(
    ("group", "changes"),
    [
        ("optimizer", {"learning_rate": 6e-5}),
        ("optimizer", {"algorithm": {"_target_": "torch.optim.AdamW", "eps": 1e-6}}),
        ("method", {"peft": {"_target_": "peft.LoraConfig"}}),
        ("data", {"batch_size": 16}),
        ("data", {"max_tokens": 64}),
        ("data", {"limit": 1}),
        ("data", {"metric": "mcc"}),
        ("data", {"language": "zh", "test": None}),
        ("trainer", {"max_epochs": 4}),
        ("trainer", {"max_steps": 4}),
        ("trainer", {"precision": Precision.bf16}),
        ("model", {"attention": "eager"}),
        ("model", {"do_lower_case": True}),
    ],
)
def test_an_option_that_can_change_the_result_changes_the_name(make_local_run, group, changes):
    run = make_local_run("a")
    assert name_of(change(run, group, **changes)) != name_of(run)


def test_the_seed_changes_the_name(make_local_run):
    assert name_of(make_local_run("a", seed=2)) != name_of(make_local_run("a", seed=1))


def test_one_byte_of_the_data_changes_the_name(make_local_run):
    assert name_of(make_local_run("a", rows=ROWS.replace("malo", "mala"))) != name_of(
        make_local_run("b")
    )


def test_one_byte_of_the_weights_changes_the_name(make_local_run):
    assert name_of(make_local_run("a", weights=b"weightz")) != name_of(make_local_run("b"))


def test_a_tokenizers_file_changes_the_name(make_local_run):
    before, run = name_of(make_local_run("a")), make_local_run("a")
    (Path(run.model.path) / "vocab.txt").write_text("[PAD]\n")
    assert name_of(run) != before


def test_the_same_file_in_another_split_changes_the_name(make_local_run):
    run = make_local_run("a")
    assert name_of(change(run, "data", test=None)) != name_of(run)
    assert name_of(change(run, "data", test={"zh": run.data.train})) != name_of(run)


def test_a_commit_of_the_hub_changes_the_name(make_local_run):
    names = {
        name_of(
            make_local_run(
                "a", model=Model("hub", ModelOrigin.hub, hub_id="a/b", revision=letter * 40)
            )
        )
        for letter in "abc"
    }
    assert len(names) == 3


# --- what must not


@pytest.mark.parametrize(
    ("group", "changes"),
    [
        ("logger", {"tracker": Tracker.none}),
        ("logger", {"project": "other"}),
        ("trainer", {"accelerator": "gpu"}),
        ("trainer", {"devices": 2, "strategy": "ddp"}),
        ("trainer", {"log_every_n_steps": 1}),
    ],
)
def test_an_option_that_cannot_change_the_result_keeps_the_name(make_local_run, group, changes):
    run = make_local_run("a")
    assert name_of(change(run, group, **changes)) == name_of(run)


@pytest.mark.parametrize(
    "changes", [{"experiment": "other"}, {"outputs": "elsewhere"}, {"allow": ["mine"]}]
)
def test_a_place_or_a_permission_keeps_the_name(make_local_run, changes):
    assert name_of(make_local_run("a", **changes)) == name_of(make_local_run("a"))


def is_the_same_anywhere(naming, make_local_run):
    """The law: the same content in another folder is the same run."""
    here, there = make_local_run("here"), make_local_run("there/and/deeper")
    return naming(here, read_splits(here.data, [])) == naming(there, read_splits(there.data, []))


def test_the_same_content_in_another_folder_is_the_same_run(make_local_run):
    assert is_the_same_anywhere(compute_run_id, make_local_run)


def test_that_law_finds_a_name_that_holds_paths(make_local_run):
    def with_paths(run, splits):
        config = to_dict(run)["data"]
        return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    assert not is_the_same_anywhere(with_paths, make_local_run)


def test_that_law_finds_a_name_that_holds_the_digests_names(make_local_run):
    def with_names(run, splits):
        return [split.digests for languages in splits.values() for split in languages.values()]

    assert not is_the_same_anywhere(with_names, make_local_run)


def test_a_file_that_is_compressed_keeps_the_name(make_local_run, write):
    run = make_local_run("a")
    packed = write("rows.tsv.gz", gzip.compress(ROWS.encode()))
    data = {"train": packed, "validation": packed, "test": packed}
    assert name_of(change(run, "data", **data)) == name_of(run)


# --- finding the weights


def test_random_weights_are_a_matter_of_the_seed_alone():
    assert digest_weights(Model("mini", ModelOrigin.scratch)) == "random"


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        (["method=ia3"], ["scales are not decayed"]),
        (["method=adalora"], ["scales are not decayed"]),
        (["method=adalora", "optimizer.weight_decay=0"], []),
        (["method=lora"], []),
    ],
)
def test_a_correction_changes_the_ids_of_the_runs_it_concerns(overrides, changes):
    run = compose_run(["data=demo_sentiment", "data.language=es", "logger=none", *overrides])
    assert list_result_changes(run, {}) == changes


@pytest.mark.parametrize("column", ["label", "tags"])
def test_a_corrected_mean_concerns_runs_with_labels_that_train_never_shows(make_local_run, column):
    run = make_local_run("a")
    rows = [{column: value if column == "label" else [value]} for value in "ab"]
    for tested, changes in ((rows[:1], []), (rows, ["a class for each unseen label"])):
        splits = {"train": {"es": Split(rows[:1], {})}, "test": {"es": Split(tested, {})}}
        assert list_result_changes(run, splits) == changes


@pytest.mark.parametrize(
    ("code", "concerned"), [("zh", False), ("es", False), ("zh-Hant", True), ("ja", True)]
)
def test_corrected_words_of_bleu_concern_other_scripts(code, concerned):
    files = ("data.train=a.tsv", "data.validation=a.tsv", "data.text=a", "data.target=b")
    words = ["data=files_generation", "model=mini_seq2seq", f"data.language={code}", *files]
    run = compose_run([*words, "data.test=null", "logger=none"])
    assert bool(list_result_changes(run, {})) is concerned


@pytest.mark.parametrize("kind", ["BertForTokenClassification", "BertForMaskedLM"])
def test_a_corrected_head_concerns_checkpoints_that_have_one(make_local_run, kind, tmp_path):
    run = make_local_run("a")
    (Path(run.model.path) / "config.json").write_text(json.dumps({"architectures": [kind]}))
    assert bool(list_result_changes(run, {})) is (kind == "BertForTokenClassification")
