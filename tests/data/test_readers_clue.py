"""The files of CLUE's classification tasks, and of TACRED."""

import json

import pytest

from crosstune.data.readers import read_clue, read_tacred
from crosstune.errors import DataError

PAIR = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}
SENTENCE = {
    "id": "e1",
    "relation": "per:title",
    "token": ["Ana", "López", ",", "doctor", "in", "Lima"],
    "subj_start": 0,
    "subj_end": 1,
    "obj_start": 3,
    "obj_end": 3,
}


@pytest.fixture
def lines(write):
    """Return a function that writes objects as a file of JSON, one a line."""

    def write_lines(*objects):
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
        return write("train.json", text)

    return write_lines


def texts_of(split):
    return [{k: v for k, v in row.items() if k not in ("id", "where")} for row in split.rows]


def test_a_pair_is_read_by_the_names_of_its_task(lines):
    path = lines({"sentence1": "你好", "sentence2": "您好", "label": "1", "more": 3})
    split = read_clue(path, **PAIR)
    assert texts_of(split) == [{"text": "你好", "text_pair": "您好", "label": "1"}]
    assert split.rows[0]["where"] == f"{path}:1"


def test_keywords_become_one_text(lines):
    path = lines({"keyword": ["水体", "污染"], "abst": "摘要", "label": "0"})
    (row,) = texts_of(read_clue(path, text="keyword", text_pair="abst", label="label"))
    assert row["text"] == "水体 污染"


def test_the_spans_of_a_schema_are_marked_in_their_text(lines):
    spans = {"span1_text": "小明", "span1_index": 0, "span2_text": "他", "span2_index": 3}
    path = lines({"text": "小明说他累", "target": spans, "label": "true"})
    (row,) = texts_of(read_clue(path, text="text", spans="target", label="label"))
    assert row == {"text": "[小明]说_他_累", "label": "true"}


def test_a_row_that_the_annotators_left_undecided_is_left_out(lines):
    row = {"sentence1": "a", "sentence2": "b"}
    path = lines({**row, "label": "-"}, {**row, "label": "neutral"})
    (row,) = read_clue(path, **PAIR, undecided="-").rows
    assert (row["label"], row["where"]) == ("neutral", f"{path}:2")


def test_every_faulty_line_is_told(write):
    wrong = {"span1_text": "x", "span1_index": 9, "span2_text": "a", "span2_index": 0}
    path = write(
        "dev.json",
        '{"text": "a"\n{"text": "a"}\n{"text": " ", "label": "0"}\n[1]\n'
        + json.dumps({"text": "a", "label": "0", "target": wrong}),
    )
    with pytest.raises(DataError) as caught:
        read_clue(path, text="text", label="label", spans="target")
    faults = caught.value.faults
    assert [fault.split(": ")[0] for fault in faults] == [f"{path}:{n}" for n in range(1, 6)]
    assert "malformed JSON" in faults[0]
    assert "no key 'label'" in faults[1]
    assert "a value is empty" in faults[2]
    assert "span1 'x' does not stand at 9" in faults[4]


def test_entities_of_words_are_found_in_the_text(write):
    path = write("train.json", json.dumps([SENTENCE]))
    (row,) = read_tacred(path).rows
    assert row["text"] == "Ana López , doctor in Lima"
    assert [row["text"][slice(*row[name])] for name in ("head", "tail")] == ["Ana López", "doctor"]
    assert (row["id"], row["label"], row["where"]) == ("e1", "per:title", f"{path}:1")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[", "malformed JSON"),
        ("{}", "no JSON list of sentences"),
        (json.dumps([{**SENTENCE, "obj_end": 6}]), "no words 3 to 6: the sentence has 6"),
        (json.dumps([{**SENTENCE, "relation": ""}]), "its id or relation is no text"),
        ('[{"token": []}]', "no key 'subj_start'"),
        ("[1]", "not subscriptable"),
    ],
)
def test_a_file_or_sentence_that_is_malformed_is_told(write, content, fault):
    with pytest.raises(DataError, match=fault):
        read_tacred(write("train.json", content))


@pytest.mark.parametrize("undecided", [None, "-"])
def test_a_row_without_a_label_is_a_fault_and_not_left_out(lines, undecided):
    path = lines({"sentence1": "你好", "sentence2": "您好", "label": None})
    with pytest.raises(DataError) as error:
        read_clue(path, **PAIR, undecided=undecided)
    assert error.value.faults == [f"{path}:1: a value is empty"]
