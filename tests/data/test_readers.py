"""Users' files: read character for character, with every fault reported at its line."""

import gzip

import pytest

from crosstune.data.readers import read_conll, read_table, read_text
from crosstune.errors import ConfigError, DataError


def table(path, **more):
    return read_table(path, text="text", label="label", **more)


def texts(split):
    return [row["text"] for row in split.rows]


def faults(reader, path, **options):
    """Return the faults that a reader finds, without the folder."""
    with pytest.raises(DataError) as caught:
        reader(path, **options)
    return [fault.replace(f"{path}", "FILE") for fault in caught.value.faults]


# --- tables


def test_a_row_has_canonical_columns_and_knows_its_line(write):
    path = write("a.tsv", "id\tsentence\tclass\nx\tuno\tpos\ny\tdos\tneg\n")
    split = read_table(path, text="sentence", label="class")
    assert split.rows == [
        {"id": "0", "text": "uno", "label": "pos", "where": f"{path}:2"},
        {"id": "1", "text": "dos", "label": "neg", "where": f"{path}:3"},
    ]


def test_a_pair_has_two_texts(write):
    path = write("a.tsv", "text\tother\tlabel\nuno\tdos\tpos\n")
    assert table(path, text_pair="other").rows[0]["text_pair"] == "dos"


def test_a_quote_in_a_tsv_is_a_character_like_any_other(write):
    path = write("a.tsv", 'text\tlabel\n"hola\ta\ndijo "sí"\tb\n""\tb\n')
    assert texts(table(path)) == ['"hola', 'dijo "sí"', '""']


def test_a_quoted_field_of_a_csv_may_hold_commas_quotes_and_line_feeds(write):
    path = write("a.csv", 'text,label\n"uno, dos",a\n"dijo ""sí""",b\n"uno\ndos",a\n')
    assert texts(table(path)) == ["uno, dos", 'dijo "sí"', "uno\ndos"]


def test_a_csv_row_is_placed_where_it_starts(write):
    path = write("a.csv", 'text,label\n"a\nb\nc",x\nd,y\n"e\n",z\nf,x\n')
    assert [row["where"].rpartition(":")[2] for row in table(path).rows] == ["2", "5", "6", "8"]


def test_numbers_and_truth_values_of_jsonl_are_labels_too(write):
    path = write("a.jsonl", '{"text": "a", "label": 3}\n{"text": 4, "label": true}\n')
    assert [(row["text"], row["label"]) for row in table(path).rows] == [("a", "3"), ("4", "True")]


def test_an_object_of_jsonl_may_have_its_own_keys_in_any_order(write):
    path = write("a.jsonl", '{"label": 1, "text": "a"}\n\n{"text": "b", "x": [], "label": 0}\n')
    assert [row["where"].rpartition(":")[2] for row in table(path).rows] == ["1", "3"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "text\tlabel\nseñal 你好\ta\n"),
        ("a.csv", "text,label\nseñal 你好,a\n"),
        ("a.jsonl", '{"text": "se\\u00f1al 你好", "label": "a"}\n'),
    ],
)
def test_a_file_may_be_compressed_with_the_same_digest(write, name, content):
    plain = table(write(name, content))
    packed = table(write(f"{name}.gz", gzip.compress(content.encode())))
    assert texts(plain) == texts(packed) == ["señal 你好"]
    assert list(plain.digests.values()) == list(packed.digests.values())


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_header(write, name):
    content = "\ufefftext\tlabel\nhola\ta\n"
    content = content.replace("\t", ",") if name == "a.csv" else content
    assert texts(table(write(name, content))) == ["hola"]


def test_a_carriage_return_before_a_line_feed_ends_the_line_with_it(write):
    path = write("a.tsv", "text\tlabel\r\nuno\ta\r\ndos\tb\r\n")
    assert [row["label"] for row in table(path).rows] == ["a", "b"]


LINE_BREAKERS = ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e")


@pytest.mark.parametrize("odd", LINE_BREAKERS, ids=ascii)
def test_only_a_line_feed_ends_a_line(write, odd):
    text = f"uno{odd}dos"
    assert texts(table(write("a.tsv", f"text\tlabel\n{text}\ta\n"))) == [text]
    assert texts(table(write("a.csv", f"text,label\n{text},a\n"))) == [text]
    assert texts(read_text(write("a.txt", f"{text}\n"))) == [text]
    assert read_conll(write("a.conll", f"{text}\tO\n")).rows[0]["words"] == [text]


@pytest.mark.parametrize("odd", LINE_BREAKERS[:3], ids=ascii)  # JSON has no bare control ones
def test_only_a_line_feed_ends_a_line_of_jsonl(write, odd):
    line = f'{{"text": "uno{odd}dos", "label": "a"}}\n'
    assert texts(table(write("a.jsonl", line * 2))) == [f"uno{odd}dos"] * 2


@pytest.mark.parametrize("odd", LINE_BREAKERS, ids=ascii)
def test_those_characters_would_break_the_lines_of_a_careless_reader(odd):
    assert len(f"uno{odd}dos".splitlines()) == 2


def test_a_last_line_without_a_line_feed_counts(write):
    assert texts(table(write("a.tsv", "text\tlabel\nuno\ta"))) == ["uno"]


def test_every_ragged_row_is_told_with_its_line(write):
    path = write("a.tsv", "text\tlabel\nuno\na\tb\nx\ty\tz\n")
    assert faults(table, path) == [
        "FILE:2: 1 columns where the header has 2",
        "FILE:4: 3 columns where the header has 2",
    ]


def test_of_many_faults_five_are_shown_and_all_are_counted(write):
    path = write("a.tsv", "text\tlabel\n" + "uno\n" * 12)
    with pytest.raises(DataError, match=r"a\.tsv:6: 1 columns.*; and 7 more faults$"):
        table(path)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("\ta", "FILE:2: column 'text' (data.text) is empty"),
        (" \ta", "FILE:2: column 'text' (data.text) is empty"),
        ("uno\t", "FILE:2: column 'label' (data.label) is empty"),
        ("", "FILE:2: an empty line"),
    ],
)
def test_an_empty_text_label_or_line_is_a_fault(write, row, fault):
    assert faults(table, write("a.tsv", f"text\tlabel\n{row}\nb\tc\n")) == [fault]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": null, "label": 1}', "FILE:1: column 'text' (data.text) is empty"),
        ('{"text": "a", "label": NaN}', "FILE:1: column 'label' (data.label) is empty"),
        ('{"text": ["a"], "label": 1}', "FILE:1: column 'text' holds a list, not one value"),
        ('{"text": {}, "label": 1}', "FILE:1: column 'text' holds a dict, not one value"),
        ('{"text": "a"}', "FILE:1: no column 'label' (data.label). The columns are: text"),
        ('["a", 1]', "FILE:1: not a JSON object"),
        ('{"text": "a"', "FILE:1: malformed JSON at column 13 (Expecting ',' delimiter)"),
        (
            '{"text": "\\ud83d", "label": 1}',
            "FILE:1: column 'text' holds half of a character (a lone surrogate)",
        ),
    ],
)
def test_a_line_of_jsonl_that_is_no_row_is_a_fault(write, line, fault):
    path = write("a.jsonl", f'{line}\n{{"text": "b", "label": 2}}\n')
    assert faults(table, path) == [fault]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('text,label\n"uno,a\ndos,b\n', "FILE:2: malformed CSV (unexpected end of data)"),
        ('text,label\n"uno"x,a\n', "FILE:2: malformed CSV (',' expected after '\"')"),
        ('"text,label\nuno,a\n', "FILE:1: malformed CSV (unexpected end of data)"),
        ("text,label\nuno\n", "FILE:2: 1 columns where the header has 2"),
    ],
)
def test_a_malformed_csv_is_told_with_its_line(write, content, fault):
    assert faults(table, write("a.csv", content)) == [fault]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_missing_column_is_told_once_with_those_there_are(write, name):
    content = "sentence\tclass\nuno\ta\ndos\tb\n"
    content = content.replace("\t", ",") if name == "a.csv" else content
    assert faults(table, write(name, content)) == [
        "FILE:2: no column 'text' (data.text). The columns are: sentence, class"
    ]


def test_a_column_that_the_header_names_twice_is_a_fault(write):
    assert faults(table, write("a.tsv", "text\tlabel\ttext\nuno\ta\tdos\nx\ty\tz\n")) == [
        "FILE:2: the header names the column 'text' twice"
    ]


def test_columns_without_a_name_may_be_many(write):
    assert texts(table(write("a.tsv", "text\tlabel\t\t\nuno\ta\t\t\n"))) == ["uno"]


# --- any file


READERS = [(table, "a.tsv"), (table, "a.jsonl.gz"), (read_conll, "a.conll"), (read_text, "a.txt")]


@pytest.mark.parametrize(("reader", "name"), READERS)
def test_a_missing_file_is_told(tmp_path, reader, name):
    assert faults(reader, str(tmp_path / name)) == ["FILE: no such file"]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.tsv").mkdir()
    assert "Is a directory" in faults(table, str(tmp_path / "a.tsv"))[0]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("reader", "name"), [(table, "a.tsv"), (read_conll, "a"), (read_text, "a")]
)
def test_bytes_that_are_not_utf8_are_told_with_their_line(write, reader, name, mark):
    path = write(name, mark + b"text\tlabel\nuno\ta\nni\xf1o\tb\n")
    assert faults(reader, path) == ["FILE:3: byte 0xf1 is not UTF-8"]


@pytest.mark.parametrize("name", ["a.txt", "a.xlsx", "a", "a.tsv.zip", "a.gz"])
def test_a_table_of_an_unknown_suffix_is_refused(write, name):
    content = gzip.compress(b"text\tlabel\n") if name.endswith(".gz") else "text\tlabel\n"
    with pytest.raises(ConfigError, match=r"ends in one of \.tsv, \.csv, \.jsonl \(or \.gz\)"):
        table(write(name, content))


def test_a_compressed_file_that_was_cut_short_is_told(write):
    path = write("a.tsv.gz", gzip.compress(b"text\tlabel\n" * 100)[:-12])
    assert "ended before the end-of-stream marker" in faults(table, path)[0]


def test_a_compressed_file_that_is_damaged_is_told(write):
    damaged = bytearray(gzip.compress(b"".join(b"%d\ta\n" % (n * n) for n in range(500))))
    damaged[60:62] = bytes(255 - byte for byte in damaged[60:62])
    assert "FILE: Error" in faults(table, write("a.tsv.gz", bytes(damaged)))[0]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_an_empty_file_has_no_rows(write, name):
    assert table(write(name, "")).rows == []


@pytest.mark.parametrize(("name", "content"), [("a.tsv", "text\tlabel\n"), ("a.csv", "text,label")])
def test_a_header_alone_has_no_rows(write, name, content):
    assert table(write(name, content)).rows == []


def test_a_digest_is_of_the_content(write):
    first, same, other = (table(write(f"{n}.tsv", f"text\tlabel\nuno\t{n % 2}")) for n in (1, 3, 2))
    assert [*first.digests.values()] == [*same.digests.values()] != [*other.digests.values()]


def test_a_line_of_plain_text_is_a_paragraph_and_blank_lines_are_none(write):
    split = read_text(write("a.txt", "  uno \n\n \t\ndos\r\n"))
    assert texts(split) == ["uno", "dos"]
    assert [row["where"].rpartition(":")[2] for row in split.rows] == ["1", "4"]
