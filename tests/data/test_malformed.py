"""Malformed files: each fault is reported by its rule at its line, and nothing else is.

Each case is a file that serves as train; what is compared is every finding but those on balance,
which small files cannot help. The look-alikes at the end are odd and right.
"""

import gzip
import json
from dataclasses import replace
from functools import lru_cache

import pytest

from crosstune.cli.check import examine
from crosstune.config.compose import compose_run
from crosstune.data.readers.files import read_file
from crosstune.errors import DataError

KINDS = {
    "table": ("data=files_classification", "data.text=text", "data.label=label"),
    "pair": (
        "data=files_classification",
        "data.text=text",
        "data.text_pair=other",
        "data.label=label",
    ),
    "tags": ("data=files_tagging",),
    "questions": ("data=files_extraction",),
    "plain": ("data=files_masked_lm",),
}


@lru_cache
def run_of(kind):
    splits = [f"data.{name}=null" for name in ("train", "validation", "test")]
    return compose_run([*KINDS[kind], *splits, "data.language=es"])


def faults_in(path, kind, **reader):
    """Return rule and line of every finding, in order; line 0 where the whole file is meant."""
    run = run_of(kind)
    data = replace(run.data, train=path, reader={**run.data.reader, **reader})
    findings = [f for f in examine(replace(run, data=data)).findings if f.rule[0] != "B"]
    lines = [f.place.removeprefix(path).split(":") for f in findings]
    return sorted((f.rule, int([*line, 0][1])) for f, line in zip(findings, lines, strict=True))


def tsv(*rows):
    """Return a table whose faulty rows start at line 4."""
    good = [b"text\tlabel", b"uno\ta", b"dos\tb"]
    rows = [row if isinstance(row, bytes) else row.encode() for row in rows]
    return b"\n".join([*good, *rows, b"cuatro\ta", b""])


def csv(*rows):
    return tsv(*rows).replace(b"\t", b",")


def jsonl(*rows):
    good = ['{"text": "uno", "label": "a"}', '{"text": "dos", "label": "b"}']
    return "\n".join([*good, *rows, '{"text": "cuatro", "label": "a"}', ""]).encode()


def conll(*rows):
    good = ["Eva B-PER", "vive O", "", "en O", "Lima B-LOC", "Norte I-LOC", ""]
    return "\n".join([*good, *rows, "", "fin O", ""]).encode()


def squad(**changes):
    """Return one question, one key a line, with changes to it or to its surroundings."""
    answer = {"text": "Lima", "answer_start": 12}
    question = {"id": "q1", "question": "¿Dónde?", "answers": [answer]} | changes
    other = {"id": "q2", "question": "¿Quién?", "answers": [{"text": "Eva", "answer_start": 0}]}
    paragraph = {"context": "Eva vive en Lima.", "qas": [other, question]}
    return json.dumps({"data": [{"paragraphs": [paragraph]}]}, indent=0).encode()


ID_LINE = 19  # of the question that `squad` changes
EMPTY = gzip.compress(tsv())

CASES = {
    # bytes and characters
    "latin-1": ("a.tsv", tsv(b"ni\xf1o\ta"), "table", [("R102", 4)]),
    "gb18030": ("a.tsv", tsv("你好".encode("gb18030") + b"\ta"), "table", [("R102", 4)]),
    "two bad bytes": (
        "a.tsv",
        tsv(b"\xf1x\ta", b"z\ta", b"\xff\tb"),
        "table",
        [("R102", 4), ("R102", 6)],
    ),
    "half a character": ("a.tsv", tsv(b"x\xe4\xbd\ta"), "table", [("R102", 4)]),
    "an encoded surrogate": ("a.tsv", tsv(b"x\xed\xa0\x80\ta"), "table", [("R102", 4)]),
    "bad bytes in plain text": ("a.txt", b"uno\nni\xf1o\n", "plain", [("R102", 2)]),
    "bad bytes in columns": ("a.conll", conll("x O").replace(b"x", b"\xff"), "tags", [("R102", 8)]),
    "bad bytes in JSON": (
        "a.jsonl",
        jsonl('{"text": "%", "label": "a"}').replace(b"%", b"\xff"),
        "table",
        [("R102", 3)],
    ),
    "NUL": ("a.tsv", tsv("x\0y\ta"), "table", [("C101", 4)]),
    "NUL spelled out": (
        "a.jsonl",
        jsonl(r'{"text": "x\u0000", "label": "a"}'),
        "table",
        [("C101", 3)],
    ),
    "escape": ("a.tsv", tsv("\x1b[31mx\ta"), "table", [("C102", 4)]),
    "escape spelled out": (
        "a.jsonl",
        jsonl(r'{"text": "x\u001b[m", "label": "a"}'),
        "table",
        [("C102", 3)],
    ),
    "a carriage return alone": ("a.tsv", tsv("x\ry\ta"), "table", [("C102", 4)]),
    "a C1 control": ("a.tsv", tsv("x\x9by\ta"), "table", [("C102", 4)]),
    "a lost character": ("a.tsv", tsv("ni\ufffdo\ta"), "table", [("C103", 4)]),
    "a byte order mark inside": ("a.tsv", tsv("\ufeffx\ta"), "table", [("C104", 4)]),
    "a second byte order mark": (
        "a.conll",
        b"\xef\xbb\xbf\xef\xbb\xbf" + conll("x O"),
        "tags",
        [("C104", 1)],
    ),
    "overridden direction": ("a.tsv", tsv("x\u202ey\ta"), "table", [("C105", 4)]),
    "zero width": ("a.tsv", tsv("x\u200by\ta"), "table", [("C106", 4)]),
    "mixed line ends": ("a.tsv", tsv("tres\ta\r"), "table", [("C107", 4)]),
    "mixed line ends, mostly CRLF": (
        "a.txt",
        b"uno\r\ndos\r\ntres\ncinco\r\n",
        "plain",
        [("C107", 3)],
    ),
    "half of a pair": (
        "a.jsonl",
        jsonl(r'{"text": "\ud83d", "label": "a"}'),
        "table",
        [("C108", 3)],
    ),
    # files
    "cut gzip": ("a.tsv.gz", EMPTY[:-12], "table", [("R101", 0)]),
    "no gzip": ("a.tsv.gz", tsv(), "table", [("R101", 0)]),
    "an empty file": ("a.tsv", b"", "table", [("R108", 0)]),
    "a header alone": ("a.tsv", b"text\tlabel\n", "table", [("R108", 0)]),
    "blank lines alone": ("a.conll", b"\n\n", "tags", [("R108", 0)]),
    # rows
    "a column too few": ("a.tsv", tsv("tres"), "table", [("R103", 4)]),
    "a column too many": ("a.tsv", tsv("tres\ta\tb"), "table", [("R103", 4)]),
    "ragged CSV": ("a.csv", csv("tres", "x,y,z"), "table", [("R103", 4), ("R103", 5)]),
    "ragged in a gzip": ("a.tsv.gz", gzip.compress(tsv("tres")), "table", [("R103", 4)]),
    "an empty text": ("a.tsv", tsv("\ta"), "table", [("R104", 4)]),
    "a text of ideographic spaces": ("a.tsv", tsv("\u3000\ta"), "table", [("R104", 4)]),
    "an empty label": ("a.tsv", tsv("tres\t"), "table", [("R104", 4)]),
    "an empty line": ("a.tsv", tsv(""), "table", [("R104", 4)]),
    "an empty second text": (
        "a.tsv",
        b"text\tother\tlabel\nx\t\ta\ny\tz\tb\nw\tz\ta\n",
        "pair",
        [("R104", 2)],
    ),
    "a quote that never closes": ("a.csv", csv('"tres,a'), "table", [("R105", 4)]),
    "a letter behind a quote": ("a.csv", csv('"tres"x,a'), "table", [("R105", 4)]),
    "two malformed rows of CSV": (
        "a.csv",
        csv('"tres"x,a', "z,b", '"y"x,a'),
        "table",
        [("R105", 4), ("R105", 6)],
    ),
    "CSV that is malformed, then ragged": (
        "a.csv",
        csv('"tres"x,a', "z"),
        "table",
        [("R103", 5), ("R105", 4)],
    ),
    "malformed JSON": ("a.jsonl", jsonl('{"text": "a"'), "table", [("R105", 3)]),
    "a column named twice": (
        "a.tsv",
        b"text\tlabel\ttext\nuno\ta\tx\ndos\tb\ty\n",
        "table",
        [("R106", 2)],
    ),
    "a missing column": ("a.tsv", b"texto\tlabel\nuno\ta\ndos\tb\n", "table", [("R106", 2)]),
    "a missing key": ("a.jsonl", jsonl('{"text": "tres"}'), "table", [("R106", 3)]),
    "no object": ("a.jsonl", jsonl('["tres", "a"]'), "table", [("R107", 3)]),
    "a list for a text": (
        "a.jsonl",
        jsonl('{"text": ["tres"], "label": "a"}'),
        "table",
        [("R107", 3)],
    ),
    "an object for a label": (
        "a.jsonl",
        jsonl('{"text": "tres", "label": {}}'),
        "table",
        [("R107", 3)],
    ),
    "null for a text": ("a.jsonl", jsonl('{"text": null, "label": "a"}'), "table", [("R104", 3)]),
    "NaN for a label": ("a.jsonl", jsonl('{"text": "tres", "label": NaN}'), "table", [("R104", 3)]),
    # columns
    "a word without a tag": ("a.conll", conll("tres"), "tags", [("R103", 8)]),
    "a third column": ("a.conll", conll("tres O O"), "tags", [("R103", 8)]),
    "an empty tag": (
        "a.conll",
        conll("x O").replace(b" ", b"\t").replace(b"x\tO", b"x\t"),
        "tags",
        [("R104", 8)],
    ),
    "an empty word": (
        "a.conll",
        conll("x O").replace(b" ", b"\t").replace(b"x", b""),
        "tags",
        [("R104", 8)],
    ),
    "words without tags": ("a.conll", b"uno\ndos\n", "tags", [("R103", 0)]),
    "inside without a beginning": ("a.conll", conll("x O", "y I-PER"), "tags", [("G101", 8)]),
    "inside of another type": ("a.conll", conll("x B-PER", "y I-LOC"), "tags", [("G101", 8)]),
    # questions
    "a wrong offset": (
        "a.json",
        squad(answers=[{"text": "Lima", "answer_start": 11}]),
        "questions",
        [("T103", ID_LINE)],
    ),
    "an offset beyond the end": (
        "a.json",
        squad(answers=[{"text": "Lima", "answer_start": 99}]),
        "questions",
        [("T103", ID_LINE)],
    ),
    "an id twice": ("a.json", squad(id="q2"), "questions", [("I101", ID_LINE)]),
    "an empty question": ("a.json", squad(question=" "), "questions", [("R104", ID_LINE)]),
    "an offset of letters": (
        "a.json",
        squad(answers=[{"text": "Lima", "answer_start": "12"}]),
        "questions",
        [("R107", ID_LINE)],
    ),
    "answers that are no list": ("a.json", squad(answers="Lima"), "questions", [("R107", ID_LINE)]),
    "JSON that ends early": ("a.json", squad()[:-5], "questions", [("R105", 31)]),
    # between rows
    "a text twice": ("a.tsv", tsv("uno\ta"), "table", [("D101", 4)]),
    "a text in other letters": ("a.tsv", tsv("ＵＮＯ\ta"), "table", [("D201", 4)]),
    "a text with two labels": ("a.tsv", tsv("uno\tb"), "table", [("D101", 4), ("L103", 4)]),
    "a label with a space": ("a.tsv", tsv("tres\ta "), "table", [("L102", 4)]),
    # several at once: a faulty line hides no other
    "many": (
        "a.tsv",
        tsv("tres", "\x1bx\ta", b"\xff\tb", "uno\ta", "\tb", "cinco\tA", "uno"),
        "table",
        [
            ("C102", 5),
            ("D101", 7),
            ("L102", 9),
            ("R102", 6),
            ("R103", 4),
            ("R103", 10),
            ("R104", 8),
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_fault_is_told_at_its_line_and_nothing_else(write, case):
    name, content, kind, expected = CASES[case]
    assert faults_in(write(name, content), kind) == expected


def test_the_corpus_is_large_and_breaks_every_rule_on_files_and_rows():
    rules = {rule for _, _, _, expected in CASES.values() for rule, _ in expected}
    assert len(CASES) >= 60
    assert rules >= {f"C10{n}" for n in range(1, 9)} | {f"R10{n}" for n in range(1, 9)}


@pytest.mark.parametrize("name", ["nowhere.tsv", "nowhere.csv.gz"])
def test_a_missing_file_is_told(tmp_path, name):
    assert faults_in(str(tmp_path / name), "table") == [("R101", 0)]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.tsv").mkdir()
    assert faults_in(str(tmp_path / "a.tsv"), "table") == [("R101", 0)]


def test_a_file_in_another_encoding_is_sound_where_it_is_named(write):
    path = write("a.tsv", tsv("niño\ta").decode().encode("latin-1"))
    assert faults_in(path, "table") == [("R102", 4)]
    assert faults_in(path, "table", encoding="latin-1") == []


def test_utf16_is_seen_at_once(write):
    findings = faults_in(write("a.tsv", tsv().decode().encode("utf-16")), "table")
    assert ("R102", 1) in findings
    assert {("C101", line) for line in range(1, 5)} <= set(findings)


LOOK_ALIKES = {
    "a line separator in a text": ("a.tsv", tsv("x\u2028y\ta"), "table"),
    "a paragraph separator in a text": (
        "a.jsonl",
        jsonl('{"text": "x\u2029y", "label": "a"}'),
        "table",
    ),
    "quotes in a TSV": ("a.tsv", tsv('"tres\ta', 'dijo "sí"\tb'), "table"),
    "a quoted field of two lines": ("a.csv", csv('"tres\nmás",a'), "table"),
    "CRLF": ("a.tsv", tsv("tres\ta").replace(b"\n", b"\r\n"), "table"),
    "CRLF in columns": ("a.conll", conll("x O").replace(b"\n", b"\r\n"), "tags"),
    "a byte order mark in front": ("a.tsv", b"\xef\xbb\xbf" + tsv(), "table"),
    "a hash as a word": ("a.conll", conll("# O", "uno O"), "tags"),
    "comments and document marks": (
        "a.conll",
        b"-DOCSTART- O\n\n" + conll("# text = x", "x O"),
        "tags",
    ),
    "a pair of surrogates": ("a.jsonl", jsonl(r'{"text": "\ud83d\ude00", "label": "a"}'), "table"),
    "blank lines between objects": (
        "a.jsonl",
        jsonl("", '{"text": "x", "label": "a"}', ""),
        "table",
    ),
    "words that mean nothing elsewhere": ("a.tsv", tsv("NA\ta", "null\tb", "NaN\ta"), "table"),
    "no last line feed": ("a.tsv", tsv("tres\ta").rstrip(), "table"),
    "a no-break space in a word": ("a.conll", conll("x\u00a0y O"), "tags"),
    "IOB1": ("a.conll", b"Eva I-PER\nvive O\n\nLima I-LOC\nSur I-LOC\nCusco B-LOC\n", "tags"),
    "a question without an answer": ("a.json", squad(answers=[], is_impossible=True), "questions"),
    "gzip": ("a.tsv.gz", EMPTY, "table"),
    "decomposed letters": ("a.tsv", tsv("nin\u0303o\ta"), "table"),
}


@pytest.mark.parametrize("case", LOOK_ALIKES)
def test_what_is_odd_and_right_is_no_fault(write, case):
    name, content, kind = LOOK_ALIKES[case]
    assert faults_in(write(name, content), kind) == []


# --- planted bugs: what a careless check would make of the corpus


def test_a_reader_alone_would_tell_one_of_two_bad_bytes(write):
    name, content, _, expected = CASES["two bad bytes"]
    with pytest.raises(DataError) as caught:
        read_file(write(name, content))
    assert len(caught.value.faults) < len(expected)


def test_lines_by_splitlines_would_be_other_lines(write):
    path = write("a.tsv", tsv("x\u2028y\ta", "tres"))
    assert faults_in(path, "table") == [("R103", 5)]
    with open(path, encoding="utf-8") as file:
        careless = [n for n, line in enumerate(file.read().splitlines(), 1) if "\t" not in line]
    assert careless != [5]
