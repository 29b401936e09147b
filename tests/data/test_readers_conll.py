"""CoNLL files: tabs or spaces, comments, document marks, unusual words."""

import pytest

from crosstune.data.readers import read_conll
from crosstune.errors import DataError


def faults(path, **options):
    """Return the faults that are found, without the folder."""
    with pytest.raises(DataError) as caught:
        read_conll(path, **options)
    return [fault.replace(path, "FILE") for fault in caught.value.faults]


def words(path, **options):
    return [row["words"] for row in read_conll(path, **options).rows]


def tags(path, **options):
    return [row["tags"] for row in read_conll(path, **options).rows]


@pytest.mark.parametrize("part", ["\t", " ", "   "])
def test_columns_are_parted_by_tabs_or_by_spaces(write, part):
    lines = ["Eva B-PER", "vive O", "", "小 B-LOC", "明 I-LOC", ""]
    path = write("a.conll", "\n".join(line.replace(" ", part) for line in lines))
    assert words(path) == [["Eva", "vive"], ["小", "明"]]
    assert tags(path) == [["B-PER", "O"], ["B-LOC", "I-LOC"]]


def test_the_word_is_in_the_first_column_and_the_tag_in_the_last(write):
    path = write("a.conll", "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n")
    assert (words(path), tags(path)) == ([["EU", "rejects"]], [["B-ORG", "O"]])


def test_other_columns_are_read_by_their_number(write):
    path = write("a.conll", "1\tEva\tPROPN\tB-PER\t_\n")
    assert (words(path, word=1, tag=3), tags(path, word=1, tag=2)) == ([["Eva"]], [["PROPN"]])


def test_a_sentence_knows_where_it_starts(write):
    path = write("a.conll", "# one\na\tO\n\n\n# two\n# three\nb\tO\nc\tO\n")
    rows = read_conll(path).rows
    assert [(row["id"], row["where"]) for row in rows] == [("0", f"{path}:2"), ("1", f"{path}:7")]


def test_comments_of_tabbed_files_are_lines_without_a_tab(write):
    path = write("a.conll", "# text = a # b\n#newdoc\n#\ta\n#tag\tb\nc\td\n\n# id = 2\ne\tf\n")
    assert words(path) == [["#", "#tag", "c"], ["e"]]


def test_comments_of_spaced_files_have_an_equals_sign_or_mark_a_document(write):
    path = write("a.conll", "# newdoc id = x\n# sent_id = 3\n# O\n#tag O\n\n# newpar\na O\n")
    assert words(path) == [["#", "#tag"], ["a"]]


def test_a_number_sign_inside_a_sentence_is_a_word(write):
    assert words(write("a.conll", "a O\n# O\n#1 O\n")) == [["a", "#", "#1"]]
    assert words(write("b.conll", "# O\n# O\n")) == [["#", "#"]]


def test_a_document_mark_is_no_sentence_and_parts_sentences(write):
    path = write("a.conll", "-DOCSTART- -X- O\n\na N O\n-DOCSTART- -X- O\nb N O\n")
    assert words(path) == [["a"], ["b"]]


@pytest.mark.parametrize("blank", ["", "\t", "  ", "\t\t", "\r"], ids=ascii)
def test_a_line_of_nothing_but_space_parts_sentences(write, blank):
    assert words(write("a.conll", f"a\tO\n{blank}\nb\tO")) == [["a"], ["b"]]


@pytest.mark.parametrize(
    "word", ["10\xa0000", "a\u3000b", "New York", "a\u200bb", "\u200b", "\x01", "\ufffd", "你好"]
)
def test_a_tabbed_word_is_kept_as_it_is(write, word):
    assert words(write("a.conll", f"{word}\tO\n")) == [[word]]


@pytest.mark.parametrize("word", ["10\xa0000", "a\u3000b", "a\x0cb", "\u200b", "\ufffd"], ids=ascii)
def test_a_spaced_word_is_parted_at_no_other_space(write, word):
    assert words(write("a.conll", f"{word} O\n")) == [[word]]


def test_every_ragged_row_of_a_sentence_is_told(write):
    path = write("a.conll", "a\tN\tO\nb\tO\n\nc\tN\tO\nd\tN\tO\tx\n")
    assert faults(path) == [
        "FILE:2: 2 columns where the first row has 3",
        "FILE:5: 4 columns where the first row has 3",
    ]


EMPTY = (
    "FILE:2: an empty word: it is {}. data.reader.skip_empty=true leaves such rows out where their "
    "tag is O"
)


@pytest.mark.parametrize("row", ["b\t", "b\t "])
def test_an_empty_tag_is_a_fault(write, row):
    assert faults(write("a.conll", f"a\tO\n{row}\n")) == ["FILE:2: an empty tag"]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("\tO", "U+0020 SPACE"),
        ("\xa0\tO", "U+00A0 NO-BREAK SPACE"),
        ("\u3000\tO", "U+3000 IDEOGRAPHIC SPACE"),
        ("\u3000 O", "U+3000 IDEOGRAPHIC SPACE"),
        ("\u2003 O", "U+2003 EM SPACE"),
        ("  O", "U+0020 SPACE"),
    ],
)
def test_a_word_that_is_a_blank_is_named_with_the_option_that_reads_it(write, row, name):
    separator = "\t" if "\t" in row else " "
    path = write("a.conll", f"a{separator}O\n{row}\nb{separator}O\n")
    assert faults(path) == [EMPTY.format(name)]
    assert words(path, skip_empty=True) == [["a", "b"]]


@pytest.mark.parametrize(
    ("comment", "width"),
    [
        ("# id 1100ab-cd domain=mixto", 2),
        ("# id 1100ab-cd domain=mixto", 4),
        ("# id 1100ab-cd\tdomain=mixto", 4),
        ("# id 1100ab-cd\tdomain=mixto", 2),
        ("# sent_id 12", 2),
        ("# sent_id 12", 3),
        ("# 12", 2),
        ("# text: a b", 4),
    ],
)
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_comment_is_no_word_and_decides_no_separator(write, comment, width, separator):
    cells = [separator.join(["a", *["_"] * (width - 2), tag]) for tag in ("B-PER", "O")]
    path = write("a.conll", "".join(f"{comment}\n{cells[0]}\n{cells[1]}\n\n" for _ in range(2)))
    assert words(path) == [["a", "a"]] * 2
    assert tags(path) == [["B-PER", "O"]] * 2


@pytest.mark.parametrize("content", ["# O\na O\n", "# B-X\na O\n", "#a O\nb O\n", "# B-X\n"])
def test_a_word_that_is_a_hash_is_a_word(write, content):
    assert words(write("a.conll", content))[0][0].startswith("#")


def test_a_hash_with_too_many_columns_is_a_ragged_row(write):
    assert faults(write("a.conll", "a O\n\n# b O\n")) == [
        "FILE:3: 3 columns where the first row has 2"
    ]


def test_a_file_without_blank_lines_is_no_sentence(write):
    assert faults(write("a.conll", "a\tO\n" * 1001)) == [
        "FILE: the file is one sentence of 1,001 words; put a blank line between sentences"
    ]
    assert len(words(write("b.conll", "a\tO\n" * 1001 + "\nb\tO\n"))) == 2


def test_a_file_without_tags_is_refused_whole(write):
    assert faults(write("a.conll", "a\nb\n\nc\n")) == [
        "FILE: 1 columns, but the word is column 0 and the tag column -1"
    ]


def test_a_column_that_the_file_lacks_is_refused(write):
    assert faults(write("a.conll", "a\tO\n"), tag=3) == [
        "FILE: 2 columns, but the word is column 0 and the tag column 3"
    ]


@pytest.mark.parametrize("content", ["", "\n\n", "# only = comments\n\n"])
def test_a_file_without_words_has_no_sentences(write, content):
    assert words(write("a.conll", content)) == []


def test_a_digit_at_the_end_of_each_word_can_be_stripped(write):
    path = write("a.conll", "科0\tO\n技1\tO\n00\tO\n")
    assert words(path, strip_digit=True) == [["科", "技", "0"]]
    assert words(path) == [["科0", "技1", "00"]]


@pytest.mark.parametrize("word", ["科", "0", "0科", "科０"])
def test_a_word_without_the_digit_to_strip_is_a_fault(write, word):
    assert faults(write("a.conll", f"a0\tO\n{word}\tO\n"), strip_digit=True) == [
        f"FILE:2: {word!r} is no word and a digit (data.reader.strip_digit)"
    ]


def test_a_row_without_a_word_can_be_left_out_if_its_tag_is_o(write):
    path = write("a.conll", "1\t\tO\n2\ta\tO\n3\t\tO\n4\tb\tO\n\n5\t\tO\n\n6\tc\tO\n")
    assert words(path, word=1, skip_empty=True) == [["a", "b"], ["c"]]


def test_a_row_without_a_word_but_with_a_tag_is_a_fault_even_so(write):
    path = write("a.conll", "1\ta\tB-X\n2\t\tI-X\n")
    assert faults(path, word=1, skip_empty=True) == [EMPTY.format("U+0020 SPACE")]
