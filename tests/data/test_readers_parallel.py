"""Parallel text from a table or from two files: nothing shifts, no side is empty."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from crosstune.data.readers import read_parallel
from crosstune.errors import ConfigError, DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def table(path, **more):
    return read_parallel(path, **{"text": "es", "target": "en", **more})


def faults(path, **options):
    """Return the faults that the reader finds, without the folder."""
    with pytest.raises(DataError) as caught:
        read_parallel(path, **options)
    return [fault.replace(path, "FILE") for fault in caught.value.faults]


def pairs(split):
    return [(row["text"], row["target"]) for row in split.rows]


# --- tables


def test_a_row_of_a_table_has_text_target_and_its_one_reference(write):
    path = write("a.tsv", "n\tes\ten\n1\tun tren\ta train\n2\tdos\ttwo\n")
    sides = {"text": "un tren", "target": "a train", "references": ["a train"]}
    assert table(path).rows[0] == {"id": "0", **sides, "where": f"{path}:2"}
    assert list(table(path).digests) == [path]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'es,en\n"un, dos","one\n""two"""\n'),
        ("a.jsonl", '{"en": "one\\n\\"two\\"", "es": "un, dos"}\n'),
    ],
)
def test_csv_and_jsonl_are_read_likewise(write, name, content):
    assert pairs(table(write(name, content))) == [("un, dos", 'one\n"two"')]


def test_the_columns_of_a_table_without_a_header_are_named(write):
    split = table(write("a.tsv", "one\tuno\ntwo\tdos\n"), header=["en", "es"])
    assert pairs(split) == [("uno", "one"), ("dos", "two")]


def test_a_list_of_sentences_is_one_text_and_a_list_of_targets_is_references(write):
    row = {"es": ["Una frase. ", "Otra.\n"], "en": [" first ", "second"]}
    (pair,) = table(write("a.jsonl", json.dumps(row))).rows
    assert pair["text"] == "Una frase. Otra."
    assert (pair["target"], pair["references"]) == ("first", ["first", "second"])


@pytest.mark.parametrize("value", ["", "  ", None, [], ["a", ""], [None], {"a": 1}, "\ud800"])
@pytest.mark.parametrize("side", ["es", "en"])
def test_a_side_that_holds_no_text_is_a_fault_with_its_line(write, side, value):
    good = {"es": "uno", "en": "one"}
    path = write("a.jsonl", f"{json.dumps(good)}\n{json.dumps({**good, side: value})}\n")
    (fault,) = faults(path, text="es", target="en")
    ours = {"es": "text", "en": "target"}[side]
    assert fault.startswith(f"FILE:2: column '{side}' (data.{ours}) holds no text, or an empty one")


def test_a_number_is_a_text_and_not_a_number_is_none(write):
    assert pairs(table(write("a.jsonl", '{"es": 7, "en": 1.5}'))) == [("7", "1.5")]
    assert faults(write("b.jsonl", '{"es": NaN, "en": 1.5}'), text="es", target="en")


def test_a_missing_column_is_told_once_for_a_table_with_a_header(write):
    path = write("a.tsv", "es\tfr\nuno\tun\ndos\tdeux\n")
    expected = ["FILE:2: no column 'en' (data.target). The columns are: es, fr"]
    assert faults(path, text="es", target="en") == expected


def test_a_missing_key_is_told_for_every_row_of_jsonl(write):
    path = write("a.jsonl", '{"es": "uno"}\n{"en": "two"}\n')
    assert [fault[:16] for fault in faults(path, text="es", target="en")] == [
        "FILE:1: no colum",
        "FILE:2: no colum",
    ]


def test_a_ragged_row_is_a_fault(write):
    path = write("a.tsv", "es\ten\nuno\n")
    expected = ["FILE:2: 1 columns where the header has 2"]
    assert faults(path, text="es", target="en") == expected


# --- two files


def stem(write, texts, targets, more=""):
    path = write(f"train.es{more}", texts)
    write(f"train.en{more}", targets)
    return path.removesuffix(f".es{more}")


def test_two_files_are_aligned_by_their_lines(write):
    path = stem(write, "uno\r\ndos tres\r\n", "one\ntwo three")
    split = read_parallel(path, suffixes=["es", "en"])
    assert pairs(split) == [("uno", "one"), ("dos tres", "two three")]
    assert split.rows[1]["where"] == f"{path}.es:2"
    assert set(split.digests) == {f"{path}.es", f"{path}.en"}


def test_the_suffixes_say_the_direction(write):
    path = stem(write, "uno\n", "one\n")
    assert pairs(read_parallel(path, suffixes=["en", "es"])) == [("one", "uno")]


def test_two_packed_files_are_read(write):
    path = stem(write, gzip.compress(b"uno\n"), gzip.compress(b"one\n"), ".gz")
    assert pairs(read_parallel(path, suffixes=["es.gz", "en.gz"])) == [("uno", "one")]


def test_only_line_feeds_end_a_line(write):
    path = stem(write, "uno\u2028dos\x0btres\n", "one\n")
    assert len(read_parallel(path, suffixes=["es", "en"]).rows) == 1


@pytest.mark.parametrize(
    ("texts", "targets", "longer", "shorter"),
    [("a\nb\n", "A\nB\nC\n", "en", "es"), ("a\nb\nc", "A\nB\n", "es", "en")],
)
def test_files_of_different_length_are_a_fault_at_the_first_lone_line(
    write, texts, targets, longer, shorter
):
    path = stem(write, texts, targets)
    (fault,) = faults(path, suffixes=["es", "en"])
    assert fault.startswith(f"FILE.{longer}:3: no such line in FILE.{shorter}")


def test_an_empty_line_is_a_fault_and_never_dropped_for_that_would_shift_all_others(write):
    path = stem(write, "a\n\nc\n", "A\nB\n \n")
    expected = ["FILE.es:2: an empty line", "FILE.en:3: an empty line"]
    assert faults(path, suffixes=["es", "en"]) == expected


def test_a_missing_file_is_named(write):
    path = stem(write, "a\n", "A\n")
    assert faults(path, suffixes=["es", "fr"]) == ["FILE.fr: no such file"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"text": "es"},
        {"target": "en"},
        {"text": "es", "target": "en", "suffixes": ["es", "en"]},
        {"suffixes": ["es"]},
        {"suffixes": "es"},
    ],
)
def test_options_that_name_neither_two_columns_nor_two_files_are_refused(write, options):
    path = stem(write, "a\n", "A\n")
    with pytest.raises(ConfigError, match=r"^data\.reader"):
        read_parallel(path, **options)


# --- planted bug: what dropping empty lines would do


def test_dropping_empty_lines_would_pair_strangers():
    texts, targets = ["a", "", "c"], ["A", "B", "C"]
    assert list(zip(filter(None, texts), targets, strict=False))[1] == ("c", "B")


# --- real text


@pytest.mark.shared
def test_real_translations_in_two_files_are_read_whole():
    split = read_parallel(str(SHARED / "parallel/en-es-zh/ntrex128/test"), suffixes=["en", "zh"])
    assert len(split.rows) == 1997
    assert split.rows[0]["target"].startswith("威尔士")


@pytest.mark.shared
def test_real_summaries_have_several_references():
    path = SHARED / "summarization/en/scitldr_a/test.jsonl"
    split = read_parallel(str(path), text="source", target="target")
    assert len(split.rows) == 200
    assert max(len(row["references"]) for row in split.rows) > 1
    with path.open() as file:
        for line, row in zip(islice(file, 20), split.rows, strict=False):
            assert "".join("".join(json.loads(line)["source"]).split()) == "".join(
                row["text"].split()
            )
