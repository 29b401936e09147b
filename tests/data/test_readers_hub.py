"""Data sets of the hub: pinned, class indices as names; a local folder is read the same way."""

import pytest

from crosstune.data.readers import read_hub
from crosstune.errors import ConfigError, DataError


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """Return a data set's folder as the hub keeps it: parquet with declared class names."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "class": datasets.ClassLabel(names=["neg", "pos"]),
            "tokens": datasets.List(datasets.Value("string")),
            "ner": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
        }
    )
    rows = {
        "sentence": ["bueno", "malo"],
        "class": [1, 0],
        "tokens": [["Eva", "vive"], ["no"]],
        "ner": [[1, 0], [0]],
    }
    folder = tmp_path / "words"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(folder / "test.parquet")
    return str(folder)


def test_a_data_set_of_the_hub_gives_names_for_class_numbers(hub_folder):
    columns = {"text": "sentence", "label": "class", "words": "tokens", "tags": "ner"}
    split = read_hub("test", path=hub_folder, revision=None, columns=columns)
    assert split.rows[0] == {
        "id": "0",
        "text": "bueno",
        "label": "pos",
        "words": ["Eva", "vive"],
        "tags": ["B-PER", "O"],
        "where": f"{hub_folder}/test:0",
    }
    assert len(split.rows) == 2


def test_what_a_data_set_of_the_hub_lacks_is_told(hub_folder):
    with pytest.raises(ConfigError, match=r"has no column label\. Allowed: \['sentence', 'class'"):
        read_hub("test", path=hub_folder, revision=None, columns={"label": "label"})
    with pytest.raises(DataError, match=r"\(default, dev\): cannot be loaded"):
        read_hub("dev", path=hub_folder, revision=None, columns={"label": "class"})


@pytest.mark.parametrize("revision", [None, "main", "abc123"])
def test_a_data_set_of_the_hub_must_be_pinned(revision):
    with pytest.raises(ConfigError, match="name the 40-digit commit of owner/words"):
        read_hub("test", path="owner/words", revision=revision, columns={"text": "sentence"})


def test_answers_of_a_question_become_texts_and_starts(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "qa"
    folder.mkdir()
    rows = {
        "question": ["Who?", "When?"],
        "context": ["Ana came in May.", "Ana came."],
        "answers": [{"text": ["Ana"], "answer_start": [0]}, {"text": [], "answer_start": []}],
    }
    datasets.Dataset.from_dict(rows).to_parquet(folder / "train.parquet")
    columns = {name: name for name in rows}
    rows = read_hub("train", path=str(folder), revision=None, columns=columns).rows
    assert [row["answers"] for row in rows] == [[{"text": "Ana", "start": 0}], []]
