"""Tables without a header, tables of Parquet, and tables with empty labels."""

import json

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from crosstune.config.instantiate import instantiate
from crosstune.data.readers import read_label_sets, read_table
from crosstune.errors import ConfigError, DataError


def table(path, **more):
    return read_table(path, text="text", label="label", **more)


def faults(path, **options):
    """Return the faults that the reader finds, without the folder."""
    with pytest.raises(DataError) as caught:
        table(path, **options)
    return [fault.replace(f"{path}", "FILE") for fault in caught.value.faults]


def save(tmp_path, **columns):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(columns), path)
    return str(path)


# ---- no header -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tab"), [("a.tsv", "\t"), ("a.csv", ","), ("a.txt", "\t")])
def test_a_file_without_a_header_has_the_columns_that_are_named(write, name, tab):
    path = write(name, f"uno{tab}x{tab}a\r\ndos{tab}y{tab}b\r\n")
    rows = table(path, header=["text", "other", "label"]).rows
    assert [(row["text"], row["label"], row["where"]) for row in rows] == [
        ("uno", "a", f"{path}:1"),
        ("dos", "b", f"{path}:2"),
    ]


def test_a_first_row_that_is_taken_for_a_header_would_be_lost(write):
    assert len(read_table(write("a.tsv", "uno\ta\ndos\tb\n"), text="uno", label="a").rows) == 1


def test_a_row_that_does_not_fit_the_named_columns_is_told(write):
    path = write("a.tsv", "uno\tx\ndos\n")
    assert faults(path, header=["text", "label"]) == ["FILE:2: 1 columns where the header has 2"]


def test_a_name_given_twice_is_told(write):
    path = write("a.tsv", "uno\tx\ty\n")
    assert faults(path, header=["text", "label", "text"]) == [
        "FILE:1: the header names the column 'text' twice"
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_rows_that_name_their_own_columns_take_no_header(write, name):
    with pytest.raises(ConfigError, match=r"data\.reader\.header=.* names its own columns"):
        table(write(name, ""), header=["text", "label"])


def test_a_text_file_needs_a_header_to_be_a_table(write):
    with pytest.raises(ConfigError, match=r"\(or \.gz\), or in \.parquet"):
        table(write("a.txt", "text\tlabel\n"))


# ---- Parquet -------------------------------------------------------------------------------------


def test_a_row_of_parquet_is_placed_by_its_number(tmp_path):
    path = save(tmp_path, text=["uno", "二"], label=[3, 4], other=[[1], [2]])
    assert table(path).rows == [
        {"id": "0", "text": "uno", "label": "3", "where": f"{path}:1"},
        {"id": "1", "text": "二", "label": "4", "where": f"{path}:2"},
    ]


def test_many_row_groups_are_numbered_through(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [str(n) for n in range(50)]
    parquet.write_table(pa.table({"text": texts, "label": texts}), path, row_group_size=7)
    rows = table(str(path)).rows
    assert [row["text"] for row in rows] == texts
    assert rows[-1]["where"] == f"{path}:50"


def test_every_fault_of_parquet_is_told_with_its_row(tmp_path):
    path = save(tmp_path, text=["uno", None, "tres"], label=["a", "b", " "])
    assert faults(path) == [
        "FILE:2: column 'text' (data.text) is empty",
        "FILE:3: column 'label' (data.label) is empty",
    ]


def test_bytes_are_no_text(tmp_path):
    path = save(tmp_path, text=[b"uno"], label=["a"])
    assert faults(path) == ["FILE:1: column 'text' holds a bytes, not one value"]


@pytest.mark.parametrize(
    "odd",
    [
        pa.StringArray.from_buffers(
            2, pa.array([0, 3, 4], pa.int32()).buffers()[1], pa.py_buffer(b"uno\xff")
        ),
        pa.array([0, 2**40], pa.timestamp("s")),
    ],
    ids=["UTF-8", "date"],
)
def test_a_value_of_parquet_that_has_no_python_value_is_a_fault_of_its_row(tmp_path, odd):
    (fault,) = faults(save(tmp_path, text=["a", "b"], label=odd))
    assert fault.startswith("FILE:2: column 'label' holds a value that cannot be read (")


def test_a_missing_column_of_parquet_is_told_once(tmp_path):
    path = save(tmp_path, text=["uno", "dos"], y=["a", "b"])
    assert faults(path) == ["FILE:1: no column 'label' (data.label). The columns are: text, y"]


def test_a_file_that_is_no_parquet_is_told(write):
    assert faults(write("a.parquet", "text\tlabel\n"))[0].startswith("FILE: no readable Parquet (")


def test_a_missing_file_is_told(tmp_path):
    assert faults(str(tmp_path / "a.parquet")) == ["FILE: no such file"]


def test_a_digest_is_of_the_content(tmp_path):
    digests = [
        next(iter(table(save(tmp_path, text=["a"], label=[label])).digests.values()))
        for label in ("x", "x", "y")
    ]
    assert digests[0] == digests[1] != digests[2]


# ---- empty labels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "text\tlabel\nuno\ta,b\ndos\t\n"),
        ("a.csv", 'text,label\nuno,"a,b"\ndos,\n'),
        ("a.jsonl", '{"text": "uno", "label": "a,b"}\n{"text": "dos", "label": null}\n'),
    ],
)
def test_a_label_set_may_be_empty(write, name, content):
    rows = read_label_sets(write(name, content), text="text", label="label").rows
    assert [row["label"] for row in rows] == ["a,b", ""]


SETS = [["a", "b, c"], [], [3]]


def test_a_label_set_may_be_a_list(write, tmp_path):
    lines = [json.dumps({"text": "uno", "label": labels}) for labels in SETS]
    rows = read_label_sets(write("a.jsonl", "\n".join(lines)), text="text", label="label").rows
    assert [row["label"] for row in rows] == [["a", "b, c"], [], ["3"]]
    path = save(tmp_path, text=["uno", "dos"], label=[["a"], []])
    assert [row["label"] for row in read_label_sets(path, text="text", label="label").rows] == [
        ["a"],
        [],
    ]


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (["a", [3]], "column 'label' holds a list, not one value"),
        ({"a": 1}, "column 'label' holds a dict, not one value"),
        (["a", " "], "column 'label' (data.label) is empty"),
        (["\ud800"], "column 'label' holds half of a character (a lone surrogate)"),
    ],
)
def test_a_list_of_other_things_than_texts_is_told(write, labels, fault):
    path = write("a.jsonl", json.dumps({"text": "uno", "label": labels}))
    with pytest.raises(DataError) as caught:
        read_label_sets(path, text="text", label="label")
    assert caught.value.faults == [f"{path}:1: {fault}"]


def test_a_list_is_no_single_label(write):
    path = write("a.jsonl", json.dumps({"text": "uno", "label": ["a"]}))
    assert faults(path) == ["FILE:1: column 'label' holds a list, not one value"]


def test_one_label_may_not_be_empty(write):
    path = write("a.tsv", "text\tlabel\nuno\ta\ndos\t\n")
    assert faults(path) == ["FILE:3: column 'label' (data.label) is empty"]


def test_a_text_may_never_be_empty(write):
    path = write("a.tsv", "text\tlabel\n\ta\n")
    with pytest.raises(DataError, match=r"column 'text' \(data\.text\) is empty"):
        read_label_sets(path, text="text", label="label")


# ---- what a cell may not hold --------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["['viajes', 'precio']", '["viajes"]', "[ 'a' ]", "['a' 'b']"])
@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl"])
def test_a_printed_list_is_no_label(write, name, cell):
    row = f"text\tlabel\nuno\t{cell}\n"
    text = row if name == "a.tsv" else json.dumps({"text": "uno", "label": cell})
    (fault,) = faults(write(name, text))
    assert "holds a printed list" in fault
    assert "data=files_multilabel" in fault


@pytest.mark.parametrize("cell", ["[a]", "['a']b", "[1, 2]", "it's"])
def test_a_label_in_brackets_is_a_label(write, cell):
    assert table(write("a.tsv", f"text\tlabel\nuno\t{cell}\n")).rows[0]["label"] == cell


@pytest.mark.parametrize("tab", ["\t", ","])
def test_a_header_that_is_repeated_is_no_row(write, tab):
    path = write(
        "a.tsv" if tab == "\t" else "a.csv", f"text{tab}label\nuno{tab}a\ntext{tab}label\n"
    )
    assert faults(path) == ["FILE:3: the header is repeated; a file has one, in its first line"]


# ---- quoted TSV ----------------------------------------------------------------------------------


def test_tsv_that_pandas_quoted_is_read_without_its_quotes(tmp_path):
    texts = ['dijo "hola"', "sin comillas", 'con\ttabulador y "comillas"', "dos\nlíneas"]
    path = tmp_path / "a.tsv"
    pd.DataFrame({"text": texts, "label": ["a", "b", "a", "b"]}).to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError):  # a cell with a tab is no cell without it
        table(str(path))
    kept = [texts[0], texts[1], texts[3]]
    pd.DataFrame({"text": kept[:2], "label": ["a", "b"]}).to_csv(path, sep="\t", index=False)
    assert [row["text"] for row in table(str(path)).rows] == kept[:2]


@pytest.mark.parametrize(
    "texts",
    [['"hola"', "x"], ['a "" b', "x"], ['"a" b', 'c "d"'], ['"', "x"], ['"a ""b""', '5" c']],
)
def test_quotes_of_tsv_that_is_not_quoted_are_characters(write, texts):
    path = write("a.tsv", "text\tlabel\n" + "".join(f"{text}\ta\n" for text in texts))
    assert [row["text"] for row in table(path).rows] == texts


# ---- separators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("separator", [";", "|", "\t", ","])
def test_another_separator_is_recognised_and_read_by_its_option(write, name, separator):
    rows = [["text", "label"], ["uno", "a"], ["dos", "b"]]
    path = write(name, "".join(separator.join(row) + "\n" for row in rows))
    spelt = "\\t" if separator == "\t" else separator
    assert [row["text"] for row in table(path, separator=spelt).rows] == ["uno", "dos"]
    if separator != {"a.csv": ",", "a.tsv": "\t"}[name]:
        (fault,) = faults(path)
        assert "may be what separates several" in fault
        assert fault.endswith(f"\"data.reader.separator='{spelt}'\" reads it so")


def test_another_separator_is_recognised_where_texts_hold_commas(write):
    path = write("a.csv", "text;label\nuno, dos;a\n")
    assert "';' may be what separates several" in faults(path)[0]
    assert table(path, separator=";").rows[0]["text"] == "uno, dos"


@pytest.mark.parametrize("separator", [";;", '"', "\n", "\r"])
def test_a_separator_is_one_character(write, separator):
    with pytest.raises(ConfigError, match="give one character"):
        table(write("a.csv", "text,label\n"), separator=separator)


def test_jsonl_takes_no_separator(write):
    with pytest.raises(ConfigError, match="names its own columns"):
        table(write("a.jsonl", json.dumps({"text": "a", "label": "b"})), separator=";")


def test_the_options_of_a_table_are_checked_like_any_other(write):
    node = {"_target_": "crosstune.data.readers.read_table", "text": "text", "label": "label"}
    path = write("a.csv", "text;label\nuno;a\n")
    read = instantiate({**node, "separator": ";"}, "data.reader", source=path)
    assert read.rows[0]["label"] == "a"
    with pytest.raises(ConfigError, match=r"data\.reader\.seperator: unknown .* mean separator\?"):
        instantiate({**node, "seperator": ";"}, "data.reader", source=path)
    with pytest.raises(ConfigError, match=r"data\.reader\.separator=1 is a int, but must be"):
        instantiate({**node, "separator": 1}, "data.reader", source=path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_line_ends_of_carriage_returns_alone_are_named(write, name):
    (fault,) = faults(write(name, b"text,label\runo,a\rdos,b\r"))
    assert "3 line ends are carriage returns alone" in fault
    assert "tr '\\r' '\\n'" in fault


def test_a_column_inside_an_object_is_located(write):
    path = write("a.jsonl", '{"data": {"text": "a"}, "label": "b"}\n')
    assert "The object 'data' holds 'text': columns are read from the top" in faults(path)[0]


def test_a_json_array_is_named_as_such(write):
    (fault,) = faults(write("a.jsonl", json.dumps([{"text": "a", "label": "b"}])))
    assert "a JSON array, where each line holds one object" in fault
