"""A hostile data file gives faults at file:line, or rows; never a crash, a hang or an escape."""

import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks.arena import Touch, attack

HEAD = b"text\tlabel\n"
GOOD = "".join(f"texto {n}\t{'ab'[n % 2]}\n" for n in range(8)).encode()
DEEP = b"[" * 100_000
TABLES: dict[str, bytes] = {
    "empty": b"",
    "header alone": HEAD,
    "null bytes": HEAD + GOOD + b"\x00\x00\ta\n",
    "invalid UTF-8": HEAD + GOOD + b"\xff\xfe\ta\n",
    "utf-16": (HEAD + GOOD).decode().encode("utf-16"),
    "utf-32": (HEAD + GOOD).decode().encode("utf-32"),
    "pickle": pickle.dumps(Touch()),
    "zip": b"PK\x03\x04" + bytes(100),
    "elf": b"\x7fELF" + bytes(100),
    "pdf": b"%PDF-1.7\n" + GOOD,
    "html": b"<!DOCTYPE html><script>touch('marker')</script>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "one long line": HEAD + b"a" * 5_000_000,
    "long cell": HEAD + GOOD + b"b" * 1_000_000 + b"\ta\n",
    "many columns": b"\t".join(b"c%d" % n for n in range(50_000)) + b"\n" + GOOD,
    "many labels": HEAD + b"".join(b"t%d\tl%d\n" % (n, n) for n in range(8_000)),
    "control characters": HEAD + GOOD + b"a\x1b[2J\x07\ta\n",
    "direction": HEAD + GOOD + "a\u202eb\u2066\ta\n".encode(),
    "hostile label": HEAD + GOOD + b"a\t\x1b]0;x\x07=cmd|' /C calc'!A0\n" * 12,
    "formulas": HEAD + b"".join(b"=1+%d\t@SUM(A1)\n+1%d\t-2\n" % (n, n) for n in range(6)),
    "markup": HEAD + GOOD + b"<img src=x onerror=touch('marker')>\t<b>\n" * 6,
    "latex": HEAD + GOOD + b"x\t\\input{/etc/passwd}\n" * 6,
    "path as a label": HEAD + GOOD + b"x\t../../marker\n" * 6,
    "label of spaces": HEAD + GOOD + b"x\t  \n",
    "repeated header": HEAD + GOOD + HEAD + GOOD,
    "same header twice": b"text\ttext\tlabel\na\tb\ta\n",
    "open quote": HEAD + GOOD + b'"a\ta\n',
    "carriage returns": (HEAD + GOOD).replace(b"\n", b"\r"),
    "form feeds": HEAD + GOOD + "a\x0b\x0cb\x85c\u2028d\ta\n".encode(),
    "combining": HEAD + GOOD + ("a" + "\u0301" * 100_000 + "\ta\n").encode(),
}
LINES: dict[str, bytes] = {
    "deep": DEEP + b"\n",
    "deep objects": b'{"text":' * 100_000,
    "long number": b'{"text": "a", "label": ' + b"9" * 5_000 + b"}\n",
    "infinity": b'{"text": "a", "label": 1e999}\n{"text": "b", "label": NaN}\n',
    "key twice": b'{"text": "a", "label": "a", "label": "b"}\n',
    "half a surrogate": b'{"text": "\\ud800", "label": "a"}\n',
    "types": b'{"text": [1], "label": {"a": 1}}\n{"text": null, "label": true}\n',
    "two kinds of one": b'{"text": "a", "label": 1}\n{"text": "b", "label": "1"}\n',
    "list": b'[{"text": "a", "label": "b"}]',
    "no line end": b'{"text": "a", "label": "a"}' * 3,
}
CONLL: dict[str, bytes] = {
    "tags": b"a\tB-\x1b[31m\n\n" * 5,
    "one long sentence": b"a\tO\n" * 50_000,
    "no tags": b"a\nb\n\n" * 5,
    "many types": b"".join(b"w\tB-T%d\n\n" % n for n in range(5_000)),
    "null bytes": b"a\tO\n\x00\tO\n\n",
    "markup": b"<script>touch('marker')</script>\tB-<b>\n\n" * 5,
    "columns": b"a\t" * 10_000 + b"O\n\n",
}
SQUAD: dict[str, bytes] = {
    "deep": DEEP,
    "list": b"[]",
    "types": b'{"data": {"a": 1}}',
    "no paragraphs": b'{"data": [{"paragraphs": null}]}',
    "start beyond": json.dumps(
        {
            "data": [
                {
                    "paragraphs": [
                        {
                            "context": "a b",
                            "qas": [
                                {
                                    "id": "1",
                                    "question": "q",
                                    "answers": [{"text": "z", "answer_start": 10**30}],
                                }
                            ],
                        }
                    ]
                }
            ]
        }
    ).encode(),
    "negative start": b'{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "1", "question": '
    b'"q", "answers": [{"text": "a", "answer_start": -1}]}]}]}]}',
}
SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "folder": Path.mkdir,
}


def check(folder: Path, file: str, kind: str, *columns: str) -> None:
    words = [f"data=files_{kind}", f"data.train={file}", f"data.test={file}", "data.language=es"]
    done = attack(folder, "check", *words, *columns)
    assert len(done.stdout + done.stderr) < 100_000


COLUMNS = ("data.text=text", "data.label=label")


@pytest.mark.parametrize("name", TABLES)
def test_a_hostile_table(tmp_path, name):
    (tmp_path / "x.tsv").write_bytes(TABLES[name])
    check(tmp_path, "x.tsv", "classification", *COLUMNS)


@pytest.mark.parametrize("name", LINES)
def test_hostile_json_lines(tmp_path, name):
    (tmp_path / "x.jsonl").write_bytes(LINES[name])
    check(tmp_path, "x.jsonl", "classification", *COLUMNS)


@pytest.mark.parametrize("name", CONLL)
def test_a_hostile_conll_file(tmp_path, name):
    (tmp_path / "x.conll").write_bytes(CONLL[name])
    check(tmp_path, "x.conll", "tagging")


@pytest.mark.parametrize("name", SQUAD)
def test_a_hostile_squad_file(tmp_path, name):
    (tmp_path / "x.json").write_bytes(SQUAD[name])
    check(tmp_path, "x.json", "extraction")


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_what_is_no_file(tmp_path, suffix, name):
    SPECIAL[name](tmp_path / f"x.{suffix}")
    check(tmp_path, f"x.{suffix}", "classification", *COLUMNS)


GZIP = {
    "empty": b"",
    "begun": b"\x1f\x8b",
    "cut": gzip.compress(HEAD + GOOD, mtime=0)[:-9],
    "not packed": HEAD + GOOD,
}


@pytest.mark.parametrize("name", GZIP)
def test_a_damaged_gzip_file(tmp_path, name):
    (tmp_path / "x.tsv.gz").write_bytes(GZIP[name])
    check(tmp_path, "x.tsv.gz", "classification", *COLUMNS)


def test_a_small_gzip_file_fills_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("crosstune.files.unpack_gzip.__defaults__", (10_000,))
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(HEAD + b"a" * 1_000_000))
    done = attack(
        *(tmp_path, "check", "data=files_classification", "data.train=x.tsv.gz"),
        *("data.language=es", *COLUMNS),
    )
    assert "over 10,000 bytes when unpacked" in done.stdout + done.stderr
