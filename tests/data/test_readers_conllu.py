"""CoNLL-U and segmented text: contractions, empty nodes, and words as tagged characters."""

import pytest

from crosstune.data.readers import read_conllu, read_segmented
from crosstune.errors import ConfigError, DataError


def line(number, word="a", upos="NOUN", xpos="NN", feats="_", deprel="root"):
    return "\t".join([str(number), word, "_", upos, xpos, feats, "0", deprel, "_", "_"])


def text(*lines):
    return "\n".join([*lines, ""])


def faults(path, **options):
    """Return the faults that are found, without the folder."""
    with pytest.raises(DataError) as caught:
        read_conllu(path, **options)
    return [fault.replace(path, "FILE") for fault in caught.value.faults]


SPANISH = text(
    "# sent_id = 1",
    "# text = Vámonos al mar",
    line("1-2", "Vámonos", "_", "_", deprel="_"),
    line(1, "Vamos", "VERB", "v", "Mood=Imp", "root"),
    line(2, "nos", "PRON", "p", "_", "obj"),
    line("2.1", "ya", "ADV", "r"),
    line("3-4", "al", "_", "_", deprel="_"),
    line(3, "a", "ADP", "s", "_", "case"),
    line(4, "el", "DET", "d", "Definite=Def", "det"),
    line(5, "mar", "NOUN", "n", "_", "obl"),
    "",
    "# text = Sí",
    line(1, "Sí", "INTJ", "i"),
    "",
)


def test_the_words_are_the_lines_whose_id_is_a_whole_number(write):
    rows = read_conllu(write("a.conllu", SPANISH)).rows
    assert [row["words"] for row in rows] == [["Vamos", "nos", "a", "el", "mar"], ["Sí"]]
    assert [row["tags"] for row in rows] == [["VERB", "PRON", "ADP", "DET", "NOUN"], ["INTJ"]]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("xpos", ["v", "p", "s", "d", "n"]),
        ("feats", ["Mood=Imp", "_", "_", "Definite=Def", "_"]),
        ("deprel", ["root", "obj", "case", "det", "obl"]),
    ],
)
def test_another_column_can_be_read(write, column, expected):
    assert read_conllu(write("a.conllu", SPANISH), column=column).rows[0]["tags"] == expected


def test_a_sentence_knows_the_line_of_its_first_row(write):
    path = write("a.conllu", SPANISH)
    rows = read_conllu(path).rows
    assert [(row["id"], row["where"]) for row in rows] == [("0", f"{path}:3"), ("1", f"{path}:13")]


def test_the_last_sentence_needs_no_empty_line_after_it(write):
    path = write("a.conllu", line(1, "a") + "\n" + line(2, "b"))
    assert [row["words"] for row in read_conllu(path).rows] == [["a", "b"]]


def test_a_number_sign_and_an_underscore_may_be_words(write):
    path = write("a.conllu", text(line(1, "#", "SYM"), line(2, "_", "PUNCT")))
    assert [row["words"] for row in read_conllu(path).rows] == [["#", "_"]]


def test_an_empty_node_may_stand_before_the_first_word(write):
    path = write("a.conllu", text(line("0.1", "yo"), line(1, "voy")))
    assert [row["words"] for row in read_conllu(path).rows] == [["voy"]]


@pytest.mark.parametrize("upos", ["_", "", " "])
def test_a_word_without_its_value_is_a_fault(write, upos):
    path = write("a.conllu", text(line(1), line(2, "b", upos)))
    assert faults(path) == [f"FILE:2: no upos ({upos})"]


def test_an_empty_word_is_a_fault(write):
    assert faults(write("a.conllu", text(line(1, " ")))) == ["FILE:1: an empty word"]


def test_a_row_with_other_than_ten_columns_is_a_fault(write):
    path = write("a.conllu", text("1\ta\tNOUN", line(2), "# late", line(3, "b") + "\tx", line(4)))
    assert faults(path) == [
        "FILE:1: 3 columns where CoNLL-U has 10",
        "FILE:3: 1 columns where CoNLL-U has 10",
        "FILE:4: 11 columns where CoNLL-U has 10",
    ]


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        ((2,), "FILE:1: a first id 2"),
        ((1, 3), "FILE:2: the id 3 after the word 1"),
        ((1, 1), "FILE:2: the id 1 after the word 1"),
        ((1, "1-2", 2), "FILE:2: the id 1-2 after the word 1"),
        ((1, "2-1", 2), "FILE:2: the id 2-1 after the word 1"),
        ((1, "2.1", 2), "FILE:2: the id 2.1 after the word 1"),
        (("x",), "FILE:1: 'x' is no id of CoNLL-U"),
        ((1, "2-"), "FILE:2: '2-' is no id of CoNLL-U"),
    ],
)
def test_an_id_out_of_order_is_a_fault(write, ids, fault):
    path = write("a.conllu", text(*(line(number) for number in ids)))
    assert faults(path) == [fault]


def test_an_unknown_column_is_refused(write):
    with pytest.raises(ConfigError, match=r"column=pos\. Allowed: upos, xpos, feats, deprel"):
        read_conllu(write("a.conllu", SPANISH), column="pos")


def test_words_can_be_read_as_tagged_characters(write):
    path = write("a.conllu", text(line(1, "看似", "_"), line(2, "簡"), line(3, "二選一")))
    (row,) = read_conllu(path, characters=True).rows
    assert "".join(row["words"]) == "看似簡二選一"
    assert "".join(row["tags"]) == "BESBME"


# --- segmented text


@pytest.mark.parametrize("blank", [" ", "  ", "\t", "\u3000"], ids=ascii)
def test_blanks_part_words(write, blank):
    path = write("a.txt", f"{blank}看似{blank}簡{blank}二選一{blank}\n\n421{blank}號\n")
    rows = read_segmented(path).rows
    assert ["".join(row["words"]) for row in rows] == ["看似簡二選一", "421號"]
    assert ["".join(row["tags"]) for row in rows] == ["BESBME", "BMES"]
    assert [(row["id"], row["where"]) for row in rows] == [("0", f"{path}:1"), ("1", f"{path}:3")]


def test_a_no_break_space_parts_nothing(write):
    (row,) = read_segmented(write("a.txt", "a\xa0b c\n")).rows
    assert row["words"] == ["a", "\xa0", "b", "c"]


def test_a_segmented_file_without_words_has_no_rows(write):
    assert read_segmented(write("a.txt", "\n \n")).rows == []
