import gzip
import io
import json
import zipfile

import pytest

from crosstune.config.schema import Model, ModelOrigin
from crosstune.data.readers import (
    read_clue,
    read_conll,
    read_conllu,
    read_parallel,
    read_segmented,
    read_squad,
    read_table,
    read_tacred,
    read_text,
)
from crosstune.errors import ConfigError, DataError
from crosstune.models.resolve import resolve_model

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab12\nsize 48213\n"
READERS = {
    "table.tsv": lambda path: read_table(path, text="text", label="label"),
    "table.csv": lambda path: read_table(path, text="text", label="label"),
    "table.jsonl": lambda path: read_table(path, text="text", label="label"),
    "words.conll": read_conll,
    "words.conllu": read_conllu,
    "words.txt": read_segmented,
    "plain.txt": read_text,
    "squad.json": read_squad,
    "clue.json": lambda path: read_clue(path, text="text", label="label"),
    "tacred.json": read_tacred,
}


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.tsv", "text\tlabel\n")
    return buffer.getvalue()


KINDS = {
    "a Git LFS pointer": LFS,
    "a zip archive": zipped(),
    "compressed with gzip": gzip.compress(b"text\tlabel\nbueno\tpos\n"),
    "an HTML page": b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n",
    "XML": b'<?xml version="1.0"?><rows/>',
    "a PDF": b"%PDF-1.7\n1 0 obj\n",
    "a Parquet file": b"PAR1\x15\x04",
    "a pickle": b"\x80\x04\x95\x10\x00",
    "text in UTF-16": "text\tlabel\nbueno\tpos\n".encode("utf-16"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_a_file_of_another_kind_for_text(name, kind, tmp_path):
    path = tmp_path / name
    path.write_bytes(KINDS[kind])
    with pytest.raises(DataError) as error:
        READERS[name](str(path))
    assert error.value.faults[0].startswith(f"{path}:1: this is {kind}")


def test_utf_16_is_read_where_it_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(KINDS["text in UTF-16"])
    (row,) = read_table(str(path), text="text", label="label", encoding="utf-16").rows
    assert row["label"] == "pos"


@pytest.mark.parametrize(
    "name", ["table.tsv", "table.csv", "words.conll", "words.txt", "plain.txt"]
)
@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"text": "hola", "label": "pos"}) + "\n",
        json.dumps([{"text": "hola", "label": "pos"}]),
        "\n" + json.dumps({"tokens": ["a"], "tags": ["O"]}) + "\n",
    ],
)
def test_json_under_another_name_is_no_text(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match="this is JSON"):
        READERS[name](str(path))


def test_text_that_starts_like_json_or_markup_is_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("[música] hola\n<b>negrita</b>\n{1, 2}\n")
    assert len(read_text(str(path)).rows) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_checkpoint_of_pointers_is_refused_by_name(name, tmp_path):
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        (tmp_path / file).write_bytes(LFS if file == name else b"{}")
    with pytest.raises(ConfigError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        resolve_model(Model("local", ModelOrigin.local, path=str(tmp_path)))


def test_pairs_of_texts_are_checked_too(tmp_path):
    for name in ("a.es", "a.zh"):
        (tmp_path / name).write_bytes(LFS)
    with pytest.raises(DataError, match="a Git LFS pointer"):
        read_parallel(str(tmp_path / "a"), suffixes=["es", "zh"])
