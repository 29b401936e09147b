"""The splits of a data set in all their languages, and what must hold between them."""

from dataclasses import replace

import pytest

from crosstune.config.schema import Data, TaskType
from crosstune.data.splits import (
    Split,
    collect_digests,
    find_label_variants,
    find_unseen,
    merge_languages,
    read_splits,
)
from crosstune.errors import ConfigError, DataError

READER = {"_target_": "crosstune.data.readers.read_table", "text": "text", "label": "label"}


@pytest.fixture
def data(write):
    """Return a data set of three files that are as they should be."""
    files = {name: write(f"{name}.tsv", f"text\tlabel\n{name}\ta\nx\tb\n") for name in "abc"}
    return Data("d", TaskType.classification, "es", READER, files["a"], files["b"], files["c"])


def labels_of(row):
    return [row["label"]]


def test_a_single_source_is_of_the_language_trained_on(data):
    splits = read_splits(data, [])
    assert {name: list(languages) for name, languages in splits.items()} == {
        "train": ["es"],
        "validation": ["es"],
        "test": ["es"],
    }
    assert splits["validation"]["es"].rows[0]["text"] == "b"


def test_a_split_may_be_given_by_language(data, write):
    chinese = write("zh.tsv", "text\tlabel\n你好\ta\n")
    splits = read_splits(replace(data, test={"es": data.test, "zh": chinese}), [])
    assert [row["text"] for row in splits["test"]["zh"].rows] == ["你好"]


def test_the_test_may_lack_the_language_trained_on(data):
    assert list(read_splits(replace(data, test={"zh": data.test}), [])["test"]) == ["zh"]


def test_only_one_language_is_trained_on(data):
    train = {"es": data.train, "zh": data.validation}
    assert list(read_splits(replace(data, train=train), [])["train"]) == ["es"]


def test_without_a_test_there_is_none(data):
    assert list(read_splits(replace(data, test=None), [])) == ["train", "validation"]


@pytest.mark.parametrize("value", [None, 3, ["a.tsv"], {"es": 3}, {"es": ["a.tsv"]}])
def test_what_is_no_source_is_refused(data, value):
    with pytest.raises(ConfigError, match=r"data\.train=.*give one source \(a file\) or a source"):
        read_splits(replace(data, train=value), [])


@pytest.mark.parametrize("name", ["train", "validation"])
def test_train_and_validation_need_the_language_trained_on(data, name):
    with pytest.raises(
        ConfigError, match=f"data.{name} has sources for zh, but not for a language trained on: es"
    ):
        read_splits(replace(data, **{name: {"zh": data.train}}), [])


def test_a_language_that_does_not_exist_is_refused(data):
    with pytest.raises(ConfigError, match=r"'spanish' is not a language code"):
        read_splits(replace(data, test={"spanish": data.test}), [])


def test_norwegian_that_yaml_took_for_false_is_told(data):
    with pytest.raises(ConfigError, match=r"Did you mean no \(Norwegian\)"):
        read_splits(replace(data, test={False: data.test}), [])


def test_a_split_without_rows_is_a_fault(data, write):
    empty = write("empty.tsv", "text\tlabel\n")
    with pytest.raises(DataError, match=r"empty\.tsv: no rows in it \(data\.test, zh\)"):
        read_splits(replace(data, test={"zh": empty}), [])


def test_the_faults_of_all_splits_are_told_at_once(data, write):
    ragged = write("ragged.tsv", "text\tlabel\nuno\ndos\n")
    with pytest.raises(DataError) as caught:
        read_splits(replace(data, validation=ragged, test={"zh": "nowhere.tsv"}), [])
    where = [fault.partition(": ")[0].rpartition("/")[2] for fault in caught.value.faults]
    assert where == ["ragged.tsv:2", "ragged.tsv:3", "nowhere.tsv"]


def test_the_digests_of_all_files_are_together(data):
    digests = collect_digests(read_splits(data, []))
    assert list(digests) == [data.train, data.validation, data.test]
    assert len(set(digests.values())) == 3


def test_labels_that_train_shows_are_no_fault(data):
    assert find_unseen(read_splits(data, []), ["a", "b"], labels_of) == {}


def test_a_label_that_train_never_shows_is_told_with_its_line(data, write):
    path = write("new.tsv", "text\tlabel\nuno\ta\ndos\tc\ntres\td\n")
    splits = read_splits(replace(data, test={"es": data.test, "zh": path}), [])
    assert find_unseen(splits, ["a", "b"], labels_of) == {
        "test/zh": [
            f"{path}:3: label 'c' never occurs in train",
            f"{path}:4: label 'd' never occurs in train",
        ]
    }


# --- joint training, and parts by language


def test_further_languages_are_trained_on_with_the_main_one(data):
    sources = {"zh": data.validation, "es": data.train}
    joint = replace(data, further_languages=["zh"], train=sources, validation=sources)
    splits = read_splits(joint, [])
    assert list(splits["train"]) == list(splits["validation"])[::-1] == ["es", "zh"]
    merged = merge_languages(splits["train"])
    assert [row["language"] for row in merged.rows] == ["es", "es", "zh", "zh"]
    assert sorted(merged.digests) == sorted(sources.values())


def test_a_joint_language_without_a_source_is_refused(data):
    with pytest.raises(ConfigError, match=r"not for a language trained on: zh"):
        read_splits(replace(data, further_languages=["zh"], train={"es": data.train}), [])


def read_part(source, *, name):
    """Read one row that says what was asked for: a reader as `data.languages` needs it."""
    return Split([{"id": "0", "text": f"{name}/{source}", "label": "a", "where": "x:1"}], {})


PART = {"_target_": f"{__name__}.read_part"}


def test_languages_name_the_readers_parts_and_the_test_covers_all_of_them(data):
    parts = {"es": "spanish", "zh": "chinese"}
    named = replace(data, reader=PART, languages=parts, train="t", validation="v", test="T")
    splits = read_splits(named, [__name__.partition(".")[0]])
    texts = {n: [s.rows[0]["text"] for s in languages.values()] for n, languages in splits.items()}
    assert texts["train"] == ["spanish/t"]
    assert texts["validation"] == ["spanish/v"]
    assert texts["test"] == ["spanish/T", "chinese/T"]


def test_a_language_without_a_part_is_refused(data):
    named = replace(data, reader=PART, languages={"zh": "chinese"})
    with pytest.raises(ConfigError, match=r"data\.train: es\."):
        read_splits(named, [__name__])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("política", "poli\u0301tica"),
        ("pos", "pos "),
        ("pos", "pos\u200b"),
        ("muy bueno", "muy\u00a0bueno"),
        ("Ａ", "A"),
    ],
)
def test_labels_that_look_alike_are_faults_with_both_spelled_out(one, other):
    rows = [{"label": label, "where": f"a.tsv:{n}"} for n, label in enumerate((one, "x", other))]
    splits = {"train": {"es": Split(rows[:2], {})}, "test": {"es": Split(rows[2:], {})}}
    (fault,) = find_label_variants(splits, labels_of)
    assert fault.startswith(f"a.tsv:2: label {other!a} differs from {one!a} only in")


@pytest.mark.parametrize(("one", "other"), [("pos", "Pos"), ("a", "á"), ("1", "1.0")])
def test_labels_that_differ_to_the_eye_are_two(one, other):
    rows = [{"label": label, "where": "a.tsv:1"} for label in (one, other)]
    assert find_label_variants({"train": {"es": Split(rows, {})}}, labels_of) == []
