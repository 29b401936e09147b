"""Texts with two entities in four formats: offsets, labels and faults."""

import logging
from collections import Counter
from pathlib import Path

import pytest

from crosstune.data.readers import read_brat, read_marked, read_relation_table, read_semeval
from crosstune.errors import ConfigError, DataError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "relation"
BLOCK = '7\t"El <e1>niño</e1> come <e2>pan</e2>."\r\nUse(e1,e2)\r\nComment: x <e1>\r\n\r\n'
HEADER = ["head", "tail", "label", "text"]
COLUMNS = {column: column for column in HEADER}


def faults(reader, path, **options):
    """Return the faults that a reader finds, without the folder."""
    with pytest.raises(DataError) as caught:
        reader(path, **options)
    return [fault.replace(f"{path}", "FILE") for fault in caught.value.faults]


def entities(row):
    return [row["text"][slice(*row[name])] for name in ("head", "tail")]


# ---- marks ---------------------------------------------------------------------------------------


def test_a_block_of_semeval_is_a_row_with_offsets_and_the_number_of_its_line(write):
    path = write("a.txt", BLOCK * 2)
    row = read_semeval(path).rows[1]
    assert row.pop("where") == f"{path}:5"
    assert row == {
        "id": "7",
        "text": "El niño come pan.",
        "head": [3, 7],
        "tail": [13, 16],
        "label": "Use(e1,e2)",
    }


def test_a_block_may_end_with_the_file_and_lack_its_comment(write):
    path = write("a.txt", BLOCK + '8\t"<e2>a</e2> <e1>b</e1>"\nOther')
    assert entities(read_semeval(path).rows[1]) == ["b", "a"]


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ('8\t"<e1>a</e1> b"\nOther\n', "its marks are <e1> </e1>; each of <e1> </e1> <e2> </e2>"),
        ('8\t"a"\nOther\n', "its marks are none; each of"),
        ('8\t"<e1>a</e1> <e2></e2>"\nOther\n', "an entity is empty, or its marks"),
        ('8\t"</e1>a<e1> <e2>b</e2>"\nOther\n', "an entity is empty, or its marks"),
        ('8\t"<e1>a</e1> <e2>b</e2>"\n', "1 lines in a block"),
        ('8\t"<e1>a</e1> <e2>b</e2>"\nOther\nComment:\nOther\n', "4 lines in a block"),
        ('8\t"<e1>a</e1> <e2>b</e2>"\nOther\nUse(e1,e2)\n', "the third line of a block is its"),
        ("8 <e1>a</e1> <e2>b</e2>\nOther\n", "a block starts with a number, a tab and"),
    ],
)
def test_a_malformed_block_is_told_with_its_line(write, block, fault):
    (received,) = faults(read_semeval, write("a.txt", BLOCK + block))
    assert received.startswith(f"FILE:5: {fault}")


def test_a_table_may_hold_marked_texts(write):
    path = write("a.tsv", "s\tr\nUn <e2>niño</e2> y <e1>小明</e1>\tX\n")
    (row,) = read_marked(path, text="s", label="r").rows
    assert (row["text"], entities(row), row["label"]) == ("Un niño y 小明", ["小明", "niño"], "X")


def test_entities_may_hold_each_other(write):
    path = write("a.tsv", "s\tr\na <e1>b <e2>c</e2></e1>\tX\n")
    assert entities(read_marked(path, text="s", label="r").rows[0]) == ["b c", "c"]


def test_every_text_of_a_table_that_lacks_a_mark_is_told(write):
    path = write("a.tsv", "s\tr\na\tX\n<e1>a</e1> <e2>b</e2>\tX\n<e1>a</e1> <e1>b</e1>\tX\n")
    received = faults(read_marked, path, text="s", label="r")
    assert [fault.split(" ")[0] for fault in received] == ["FILE:2:", "FILE:4:"]


# ---- surface forms -------------------------------------------------------------------------------


def by_form(write, line, **options):
    path = write("a.txt", f"{line}\r\n")
    (row,) = read_relation_table(path, columns=COLUMNS, header=HEADER, **options).rows
    return row["head"], row["tail"]


@pytest.mark.parametrize(
    ("line", "head", "tail"),
    [
        ("Ana\tLima\tX\tAna y Lima y Ana", [0, 3], [6, 10]),
        ("Ana\tAna\tX\tAna y Ana", [0, 3], [6, 9]),  # the same form: the next occurrence
        ("母亲\t母亲家\tX\t母亲家里母亲", [4, 6], [0, 3]),  # the longer stands once alone
        ("母亲家\t母亲\tX\t母亲家里", [0, 3], [0, 2]),  # one stands inside the other
        ("aa\tb\tX\taaab", [0, 2], [3, 4]),
    ],
)
def test_forms_are_placed_at_their_first_occurrences_that_do_not_overlap(write, line, head, tail):
    assert by_form(write, line) == (head, tail)


def test_a_form_is_no_pattern(write):
    assert by_form(write, "a.c\t(\tX\tabc a.c (") == ([4, 7], [8, 9])


def test_forms_that_do_not_occur_are_told_with_their_lines(write):
    path = write("a.txt", "Ana\tLima\tX\tAna\nx\ty\tX\tz\n")
    assert faults(read_relation_table, path, columns=COLUMNS, header=HEADER) == [
        "FILE:1: tail 'Lima' does not occur in the text",
        "FILE:2: head 'x' does not occur in the text",
        "FILE:2: tail 'y' does not occur in the text",
    ]


def test_an_empty_form_is_told_by_its_option(write):
    path = write("a.txt", "\tLima\tX\tAna\n")
    assert faults(read_relation_table, path, columns=COLUMNS, header=HEADER) == [
        "FILE:1: column 'head' (data.reader.columns.head) is empty"
    ]


def test_columns_other_than_the_four_are_refused(write):
    with pytest.raises(ConfigError, match="name text, head, tail and label, not head, text"):
        read_relation_table(write("a.tsv", ""), columns={"text": "a", "head": "b"})


# ---- BRAT ----------------------------------------------------------------------------------------

TEXT = "Ana vive en Lima.\nLuis no.\n"
ANN = "T1\tPer 0 3\tAna\nT2\tLoc 12 16\tLima\nT3\tPer 18 22\tLuis\nR1\tlives Arg1:T1 Arg2:T2\t\n"


def brat(write, ann=ANN, text=TEXT):
    write("d.txt", text)
    return write("d.ann", ann).removesuffix(".ann")


def test_a_relation_is_a_row_with_its_line_of_text(write):
    stem = brat(write)
    assert read_brat(stem).rows == [
        {
            "id": "0",
            "text": "Ana vive en Lima.",
            "head": [0, 3],
            "tail": [12, 16],
            "label": "lives",
            "where": f"{stem}.ann:4",
        }
    ]


def test_both_files_are_digested(write):
    stem = brat(write)
    assert sorted(read_brat(stem).digests) == [f"{stem}.ann", f"{stem}.txt"]


def test_a_folder_is_all_its_pairs(write, tmp_path):
    stem = brat(write)
    for suffix in ("txt", "ann"):
        write(f"e.{suffix}", Path(f"{stem}.{suffix}").read_bytes())
    assert [row["id"] for row in read_brat(str(tmp_path)).rows] == ["0", "1"]


def test_a_text_without_annotations_is_told(write, tmp_path):
    write("d.txt", TEXT)
    assert faults(read_brat, str(tmp_path)) == ["FILE/d.ann: no such file"]


def test_a_relation_across_lines_has_all_of_them_as_its_text(write):
    stem = brat(write, ANN + "R2\tknows Arg1:T3 Arg2:T1\n")
    row = read_brat(stem).rows[1]
    assert row["text"] == "Ana vive en Lima.\nLuis no."
    assert entities(row) == ["Luis", "Ana"]


def test_a_second_line_counts_its_own_characters(write):
    stem = brat(write, ANN + "T4\tNeg 23 25\tno\nR2\tx Arg1:T4 Arg2:T3\n")
    assert entities(read_brat(stem).rows[1]) == ["no", "Luis"]


def test_an_equivalence_holds_both_ways(write):
    rows = read_brat(brat(write, f"{ANN}*\tsame T1 T2\n")).rows[1:]
    assert [(entities(row), row["label"]) for row in rows] == [
        (["Ana", "Lima"], "same"),
        (["Lima", "Ana"], "same"),
    ]


def test_all_other_ordered_pairs_of_a_line_are_rows_where_asked_for(write):
    more = "T4\tVerb 4 8\tvive\n"
    rows = read_brat(brat(write, ANN + more), negative="Other").rows
    pairs = {tuple(entities(row)): row["label"] for row in rows}
    assert Counter(pairs.values()) == {"Other": 5, "lives": 1}
    assert pairs["Ana", "Lima"] == "lives"
    assert pairs["Lima", "Ana"] == "Other"
    assert not any("Luis" in pair for pair in pairs)


@pytest.mark.parametrize(
    "line", ["A1\tNegated R1", "#1\tAnnotatorNotes T1\tx", "N1\tRef T1 W:1\tx", ""]
)
def test_lines_that_say_nothing_of_relations_are_passed_over(write, line):
    assert len(read_brat(brat(write, f"{ANN}{line}\n")).rows) == 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("T9\tPer 0 4\tAna", "T9 says 'Ana' where the text has 'Ana '"),
        ("T9\tPer 0 99\tAna", "T9 has offsets 0 99 in a text of 27 characters"),
        ("T9\tPer 3 3\t", "T9 has offsets 3 3 in a text of 27 characters"),
        ("T9\tPer 4 8;0 3\tvive Ana", "T9 has offsets 4 8;0 3 in a text of 27 characters"),
        ("T1\tPer 0 3\tAna", "T1 is the name of an earlier entity"),
        ("T9\tPer 0-3\tAna", "'T9\\tPer 0-3\\tAna' is not an entity: name, tab, type and"),
        ("T9\tPer 0 " + "9" * 5000 + "\tAna", "'T9\\tPer 0 999"),
        ("R9\tlives Arg1:T1 Arg2:T7", "no entity 'T7'"),
        ("*\tsame T1 T8", "no entity 'T8'"),
        ("R9\tlives Arg1:T1", "'R9\\tlives Arg1:T1' is no annotation of BRAT, or a malformed"),
        ("E1\tGo:T1 Arg:T2", "an event; only entities, relations and equivalences"),
        ("x", "'x' is no annotation of BRAT"),
    ],
)
def test_a_malformed_annotation_is_told_with_its_line(write, line, fault):
    stem = brat(write, f"{ANN}{line}\n")
    assert faults(read_brat, stem)[0].startswith(f"FILE.ann:5: {fault}")


def test_an_entity_in_parts_is_read_with_what_stands_between_and_is_counted(write, caplog):
    more = "T4\tX 0 3;9 11\tAna en\nT5\tX 4 8;9 11\tvive en\nR2\tx Arg1:T4 Arg2:T5\n"
    with caplog.at_level(logging.WARNING):
        row = read_brat(brat(write, ANN + more)).rows[1]
    assert entities(row) == ["Ana vive en", "vive en"]
    assert "1 of 5 entities are in parts" in caplog.text


def tagged(write, ann, text=TEXT):
    return [
        list(zip(row["words"], row["tags"], strict=True))
        for row in read_brat(brat(write, ann, text), as_="tagging").rows
    ]


def test_as_tagging_each_line_is_a_row_of_words_and_tags(write):
    first, second = tagged(write, ANN)
    assert first == [
        ("Ana", "B-Per"),
        ("vive", "O"),
        ("en", "O"),
        ("Lima", "B-Loc"),
        (".", "O"),
    ]
    assert second[0] == ("Luis", "B-Per")


def test_chinese_characters_are_words_and_neighbours_of_one_type_stay_apart(write):
    (row,) = tagged(write, "T1\tX 0 2\t小明\nT2\tX 2 4\t北京\n", "小明北京2024年")
    assert [tag for _, tag in row] == ["B-X", "I-X", "B-X", "I-X", "O", "O"]
    assert [word for word, _ in row] == ["小", "明", "北", "京", "2024", "年"]


def test_of_overlapping_entities_the_longest_is_kept_and_the_others_are_counted(write, caplog):
    ann = "T1\tA 0 3\tAna\nT2\tB 0 8\tAna vive\nT3\tC 12 22\tLima. Luis\n"
    with caplog.at_level(logging.WARNING):
        rows = tagged(write, ann)
    assert [tag for _, tag in rows[0]] == ["B-B", "I-B", "O", "O", "O"]
    assert "2 of 3 entities dropped" in caplog.text


def test_an_option_without_a_meaning_is_refused(write):
    with pytest.raises(ConfigError, match=r"as_=tags\. Allowed: relation, tagging\."):
        read_brat(brat(write), as_="tags")
    with pytest.raises(ConfigError, match="negative=Other"):
        read_brat(brat(write), as_="tagging", negative="Other")


# ---- real text -----------------------------------------------------------------------------------


@pytest.mark.shared
def test_semeval_2010_is_read_whole():
    sizes = {"train": 8000, "test": 2717}
    for name, size in sizes.items():
        rows = read_semeval(str(SHARED / f"en/semeval2010_task8/{name}.txt")).rows
        assert len(rows) == size
        assert len({row["id"] for row in rows}) == size
        assert len({row["label"] for row in rows}) == 19
        assert not any("<e" in row["text"] or "\r" in row["label"] for row in rows)


@pytest.mark.shared
def test_sanwen_is_read_whole_and_every_entity_is_its_form():
    for name, size in (("train", 17227), ("validation", 1793), ("test", 2220)):
        source = SHARED / f"zh/sanwen/{name}.txt"
        rows = read_relation_table(str(source), columns=COLUMNS, header=HEADER).rows
        lines = source.read_bytes().decode().split("\r\n")[:-1]
        assert len(rows) == size
        assert [entities(row) for row in rows] == [line.split("\t")[:2] for line in lines]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["train", "train_wikinews", "validation", "test"])
def test_ehealth_kd_2021_is_read_whole(name):
    source = str(SHARED / f"es/ehealthkd2021/{name}")
    ann = Path(f"{source}.ann").read_text("utf-8").splitlines()
    relations = sum(line[0] == "R" for line in ann)
    assert len(read_brat(source).rows) >= relations > 0
    sentences = Path(f"{source}.txt").read_text("utf-8").split("\n")
    assert len(read_brat(source, as_="tagging").rows) == sum(map(bool, sentences))
