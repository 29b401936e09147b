"""SQuAD JSON: every question becomes a row with its line, and every fault is reported."""

import gzip
import json
from pathlib import Path

import pytest

from crosstune.data.readers import read_squad
from crosstune.errors import ConfigError, DataError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "qa"
CONTEXT = 'Ana vive en Málaga. Su "id": "q2" es falso.'


def question(name="q1", text="¿Dónde vive?", answers=(("Málaga", 12),), **more):
    listed = [{"text": answer, "answer_start": start} for answer, start in answers]
    return {"id": name, "question": text, "answers": listed, **more}


def squad(*questions, context=CONTEXT):
    return {
        "version": "1.1",
        "data": [{"title": "t", "paragraphs": [paragraph(context, questions)]}],
    }


def paragraph(context, questions):
    return {"context": context, "qas": list(questions)}


def faults_of(write, content):
    """Return the faults of a file, its name left out."""
    path = write("a.json", content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError) as caught:
        read_squad(path)
    assert all(fault.startswith(path) for fault in caught.value.faults)
    return [fault.removeprefix(path) for fault in caught.value.faults]


def test_a_question_becomes_a_row(write):
    path = write("a.json", json.dumps(squad(question()), indent=1))
    line = Path(path).read_text("utf-8").split("\n").index('       "id": "q1",') + 1
    assert read_squad(path).rows == [
        {
            "id": "q1",
            "question": "¿Dónde vive?",
            "context": CONTEXT,
            "answers": [{"text": "Málaga", "start": 12}],
            "where": f"{path}:{line}",
        }
    ]


def test_a_file_of_one_line_gives_the_column_of_the_id(write):
    content = json.dumps(squad(question(), question("q2")), ensure_ascii=False)
    path = write("a.json", content + "\n")
    columns = [int(row["where"].rpartition(":1:")[2]) for row in read_squad(path).rows]
    assert [content[column - 1 :][:4] for column in columns] == ['"q1"', '"q2"']


def test_an_id_inside_a_text_is_no_place(write):
    path = write("a.json", json.dumps(squad(question(), question("q2")), indent=1))
    lines = Path(path).read_text("utf-8").split("\n")
    where = int(read_squad(path).rows[1]["where"].rpartition(":")[2])
    assert lines[where - 1].strip() == '"id": "q2",'
    assert any("q2" in line for line in lines[: where - 2])  # the planted one stands before


def test_ids_of_articles_and_answers_are_passed_over(write):
    content = squad(question("1"), question("2"))
    content["data"][0]["id"] = content["data"][0]["paragraphs"][0]["id"] = "TRIAL_1"
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["id"] = "9"
    path = write("a.json", json.dumps(content, indent=0))
    lines = Path(path).read_text("utf-8").split("\n")
    ids = [lines[int(row["where"].rpartition(":")[2]) - 1] for row in read_squad(path).rows]
    assert ids == ['"id": "1",', '"id": "2",']


def test_an_id_may_be_a_number_or_written_with_escapes(write):
    text = json.dumps(squad(question(7), question("ñ")), indent=0)
    assert r"\u00f1" in text
    assert [row["id"] for row in read_squad(write("a.json", text)).rows] == ["7", "ñ"]


def test_gzip_a_byte_order_mark_and_another_encoding_are_read(write):
    text = json.dumps(squad(question()), ensure_ascii=False)
    sources = [
        (write("a.json.gz", gzip.compress(text.encode())), {}),
        (write("b.json", b"\xef\xbb\xbf" + text.encode()), {}),
        (write("c.json", text.encode("latin-1")), {"encoding": "latin-1"}),
    ]
    assert {read_squad(path, **how).rows[0]["question"] for path, how in sources} == {
        "¿Dónde vive?"
    }


def test_an_unknown_encoding_is_refused(write):
    with pytest.raises(ConfigError, match="no such encoding"):
        read_squad(write("a.json", "{}"), encoding="utf-9")


@pytest.mark.parametrize(
    "questions",
    [
        question(answers=()),
        question(answers=(), is_impossible=True),
        question(is_impossible=True),
        {"id": "q1", "question": "¿?", "is_impossible": True},
    ],
)
def test_a_question_that_cannot_be_answered_has_no_answers(write, questions):
    (row,) = read_squad(write("a.json", json.dumps(squad(questions)))).rows
    assert row["answers"] == []


FLAT = [
    {**question(), "context": CONTEXT},
    {
        "id": "q2",
        "question": "¿Quién?",
        "context": CONTEXT,
        "answers": {"text": ["Ana", "Ana"], "answer_start": [0, 0]},
    },
    {"id": "q3", "question": "¿Y?", "context": "x", "answers": {"text": [], "answer_start": []}},
]


def test_json_lines_of_questions_with_their_own_context_are_read(write):
    path = write("a.json", "".join(json.dumps(row) + "\n" for row in FLAT))
    rows = read_squad(path).rows
    expected = [("q1", CONTEXT), ("q2", CONTEXT), ("q3", "x")]
    assert [(row["id"], row["context"]) for row in rows] == expected
    assert [len(row["answers"]) for row in rows] == [1, 2, 0]
    assert rows[1]["answers"][0] == {"text": "Ana", "start": 0}
    assert rows[2]["where"] == f"{path}:3"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"id": "q1", "context": "c", "answers": []}, "no 'question'."),
        ({**FLAT[1], "context": None}, "$: 'context' holds null, not a string"),
        ({**FLAT[1], "answers": {"text": ["a"]}}, "'answers' holds an object, not a list"),
        ({**FLAT[1], "answers": {"text": ["a"], "answer_start": [0, 1]}}, "not a list"),
    ],
)
def test_a_fault_of_a_question_in_json_lines_names_its_line(write, row, fault):
    content = "".join(json.dumps(one) + "\n" for one in (FLAT[0], row, FLAT[2]))
    assert any(fault in found and ":2" in found for found in faults_of(write, content))


def test_several_answers_keep_their_order(write):
    answers = (("Málaga", 12), ("en Málaga", 9))
    (row,) = read_squad(write("a.json", json.dumps(squad(question(answers=answers))))).rows
    assert [(a["text"], a["start"]) for a in row["answers"]] == list(answers)


def test_malformed_json_is_named_with_line_and_column(write):
    assert faults_of(write, '{"data": [\n {"a" 1}]}') == [
        ":2:7: malformed JSON (Expecting ':' delimiter)"
    ]


@pytest.mark.parametrize("content", ["[" * 200_000, '{"data": 1' + "0" * 5000 + "}"])
def test_json_that_python_cannot_hold_is_malformed(write, content):
    (fault,) = faults_of(write, content)
    assert "malformed JSON" in fault


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], ": $: a list, where an object must stand"),
        ({"rows": []}, ": $: no 'data'. The keys are: rows"),
        ({"data": {}}, ": $: 'data' holds an object, not a list"),
        ({"data": ["a"]}, ": $.data[0]: a string, where an object must stand"),
        ({"data": [{}]}, ": $.data[0]: no 'paragraphs'. The keys are: none"),
        (
            {"data": [{"paragraphs": [{"qas": []}]}]},
            ": $.data[0].paragraphs[0]: no 'context'. The keys are: qas",
        ),
        (
            {"data": [{"paragraphs": [{"context": 3, "qas": []}]}]},
            ": $.data[0].paragraphs[0]: 'context' holds an integer, not a string",
        ),
        (
            {"data": [{"paragraphs": [{"context": "a", "qas": [4]}]}]},
            ": $.data[0].paragraphs[0].qas[0]: an integer, where an object must stand",
        ),
    ],
)
def test_a_file_of_another_form_is_named_with_its_path(write, content, fault):
    assert faults_of(write, content) == [fault]


PATH = "$.data[0].paragraphs[0].qas[0]"


@pytest.mark.parametrize(
    ("questions", "fault"),
    [
        ({"question": "a", "answers": []}, f"{PATH}: no 'id'. The keys are: question, answers"),
        (question(None), f"{PATH}: 'id' holds null, not a string"),
        (question(True), f"{PATH}: 'id' holds a boolean, not a string"),
        ({"id": "q1", "answers": []}, f"{PATH}: no 'question'. The keys are: id, answers"),
        (question(text=["a"]), f"{PATH}: 'question' holds a list, not a string"),
        ({"id": "q1", "question": "a"}, f"{PATH}: no 'answers'. The keys are: id, question"),
        (
            question(answers=((1, 2),)),
            f"{PATH}.answers[0]: 'text' holds an integer, not a string",
        ),
        (
            question(answers=(("a", 2.0),)),
            f"{PATH}.answers[0]: 'answer_start' holds the number 2.0, not an integer",
        ),
        (
            question(answers=(("a", "2"),)),
            f"{PATH}.answers[0]: 'answer_start' holds a string, not an integer",
        ),
        (
            question(answers=(("a", True),)),
            f"{PATH}.answers[0]: 'answer_start' holds a boolean, not an integer",
        ),
        (question(is_impossible="no"), f"{PATH}: 'is_impossible' holds a string, not a boolean"),
        (
            question(answers=(), is_impossible=False),
            f"{PATH}: no answer, though 'is_impossible' is false",
        ),
        (
            question(text="\ud83d"),
            f"{PATH}: 'question' holds half of a character (a lone surrogate)",
        ),
    ],
)
def test_a_malformed_question_is_named_with_its_path(write, questions, fault):
    (received,) = faults_of(write, squad(questions))
    assert received.endswith(f": {fault}")


def test_a_malformed_question_is_named_with_its_line(write):
    text = json.dumps(squad(question(), question("q2", answers=(("a", "2"),))), indent=1)
    line = text.split("\n").index('       "id": "q2",') + 1
    (fault,) = faults_of(write, text)
    assert fault.startswith(f":{line}: $.data[0].paragraphs[0].qas[1].answers[0]: ")


def test_an_id_that_stands_twice_is_named_with_both_places(write):
    text = json.dumps(squad(question(), question()), indent=1)
    first, second = [n for n, line in enumerate(text.split("\n"), 1) if '"id": "q1"' in line]
    (fault,) = faults_of(write, text)
    assert fault.startswith(f":{second}: {PATH.replace('qas[0]', 'qas[1]')}: the id 'q1' stands at")
    assert fault.endswith(f"a.json:{first} already")


def test_every_fault_of_a_file_is_named(write):
    questions = [question(text=3), question("q2", answers=(("a", None), (None, 1))), question("q3")]
    assert len(faults_of(write, squad(*questions, context=None))) == 4


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "rows"),
    [("es/xquad/test", 1190), ("zh/mlqa/train", 363), ("zh/cmrc2018_trial/test", 1002)],
)
def test_real_questions_stand_in_the_lines_they_are_said_to(file, rows):
    path = SHARED / f"{file}.json"
    split = read_squad(str(path))
    lines = path.read_text("utf-8").split("\n")
    places = [row["where"].removeprefix(f"{path}:").split(":") for row in split.rows]
    assert len(split.rows) == rows
    for row, (line, *column) in zip(split.rows, places, strict=True):
        start = int(column[0]) - 1 if column else 0
        assert f'"{row["id"]}"' in lines[int(line) - 1][start : start + 120]
