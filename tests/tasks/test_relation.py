"""The relation of two entities: marked in the text, and never cut off."""

import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from crosstune.data.quality.duplicates import count_leakage, find_duplicates
from crosstune.data.readers import read_brat, read_relation_table, read_semeval
from crosstune.data.windows import UNSEEN
from crosstune.errors import ConfigError, DataError
from crosstune.tasks.relation import Relation, insert_markers, select_subwords
from tests.tiny import batch_of, saying

SHARED = Path(__file__).parents[3] / "shared" / "data" / "relation"
TEXT = "María Pérez vive en Buenos Aires desde 1998"
ROWS = [
    {"text": TEXT, "head": [0, 11], "tail": [20, 32], "label": "Lives(e1,e2)"},
    {"text": "小明住在北京，他喜欢喝茶。", "head": [4, 6], "tail": [0, 2], "label": "Other"},
    {"text": "the film", "head": [4, 8], "tail": [0, 3], "label": "New(e1,e2)"},
]
ROWS = [{"id": f"r{n}", "where": f"a.tsv:{n}", **row} for n, row in enumerate(ROWS)]
TASK = Relation.from_rows(ROWS[:2], "Other", "semeval")


def marked(text, head, tail):
    return insert_markers({"text": text, "head": head, "tail": tail})[0]


# ---- options and rows ----------------------------------------------------------------------------


def test_the_labels_are_those_of_train_sorted():
    assert TASK.labels == ["Lives(e1,e2)", "Other"]


def test_a_train_of_one_label_is_a_fault_of_its_file():
    with pytest.raises(DataError, match=r"^a\.tsv: train holds one label only, 'Other'$"):
        Relation.from_rows(ROWS[1:2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "tacred"}, r"data\.task\.rule=tacred\. Allowed: plain, semeval\."),
        ({"no_relation": "other"}, r"no_relation=other: train never shows it\. Did you mean Other"),
    ],
)
def test_an_option_without_a_meaning_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Relation.from_rows(ROWS, **options)


@pytest.mark.parametrize(
    "span", [None, [0], [3, 3], [4, 2], [-1, 2], [0, 99], ["0", "2"], [0.0, 2.0], "ab", [True, 2]]
)
def test_an_entity_that_is_no_stretch_of_the_text_is_told(span):
    faults = TASK.find_row_faults({**ROWS[0], "tail": span})
    assert faults == [f"tail is {span!r}, not [start, end] inside a text of 43 characters"]


def test_a_row_without_fault_has_none():
    assert [TASK.find_row_faults(row) for row in ROWS] == [[], [], []]


def test_another_pair_of_a_text_is_another_item_but_leaks_the_same():
    other = {**ROWS[0], "head": [20, 32], "tail": [0, 11]}
    assert TASK.row_texts(other) != TASK.row_texts(ROWS[0])
    assert TASK.leakage_texts(other) == TASK.leakage_texts(ROWS[0]) == [TEXT]


@pytest.mark.shared
def test_the_sentences_that_semeval_has_in_train_and_test_are_found():
    folder = SHARED / "en" / "semeval2010_task8"
    splits = {name: {"en": read_semeval(str(folder / f"{name}.txt"))} for name in ("train", "test")}
    found = Counter(f.rule for f in find_duplicates(splits, TASK.texts_of, TASK.leakage_texts))
    assert (found["D102"], found["D202"]) == (16, 1)  # one more but for case
    assert count_leakage(splits, TASK.leakage_texts) == {"test/en": 17}
    assert found["D101"] == 0, "the 25 sentences that train repeats have another pair each"


# ---- marks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        ([0, 2], [3, 5], "@ ab @ c # de #"),
        ([3, 5], [0, 2], "# ab # c @ de @"),
        ([0, 5], [1, 3], "@ a # bc # de @"),
        ([1, 3], [0, 5], "# a @ bc @ de #"),
        ([0, 3], [2, 5], "@ ab # c @ de #"),
        ([0, 2], [2, 5], "@ ab @ # cde #"),
        ([1, 3], [1, 3], "a @ # bc # @ de"),
        ([0, 5], [0, 2], "@ # ab # cde @"),
        ([0, 5], [3, 5], "@ abc # de # @"),
    ],
)
def test_entities_may_stand_anywhere_and_in_each_other(head, tail, expected):
    assert marked("abcde", head, tail) == expected


def test_marks_add_no_second_space():
    assert marked("a b c", [0, 1], [4, 5]) == "@ a @ b # c #"


def test_a_text_keeps_its_characters_and_each_marked_entity_holds_its_own():
    draw = random.Random(0)  # noqa: S311 - no secret
    for _ in range(300):
        text = "".join(draw.choices("abc ñ小,", k=draw.randint(2, 12)))
        row = {"text": text}
        for name in ("head", "tail"):
            start = draw.randrange(len(text))
            row[name] = [start, draw.randint(start + 1, len(text))]
        out, spans = insert_markers(row)
        assert "".join(out.replace("@", "").replace("#", "").split()) == "".join(text.split())
        for name, sign, (start, end) in zip(("head", "tail"), "@#", spans, strict=True):
            assert out[start] == out[end - 1] == sign
            assert out.count(sign) == 2
            inside = "".join(out[start:end].replace("@", "").replace("#", "").split())
            assert inside == "".join(text[slice(*row[name])].split())


def test_a_tokenizer_learns_from_marked_texts():
    assert TASK.row_texts(ROWS[0]) == ["@ María Pérez @ vive en # Buenos Aires # desde 1998"]


# ---- windows -------------------------------------------------------------------------------------


def test_a_window_keeps_both_entities_whenever_they_fit():
    draw = random.Random(1)  # noqa: S311 - no secret
    for _ in range(2000):
        count, room = draw.randint(1, 40), draw.randint(1, 45)
        spans = [sorted(draw.sample(range(count + 1), 2)) for _ in "ht"]
        needed = {place for span in spans for place in range(*span)}
        head, tail = (tuple(span) for span in spans)
        kept = select_subwords(head, tail, count, room)
        assert kept == sorted(set(kept))
        assert not kept or (needed <= set(kept) and len(kept) == min(count, room))
        assert bool(kept) == (count <= room or len(needed) <= room)


def test_context_on_one_side_only_fills_the_window():
    assert select_subwords((0, 1), (1, 2), 10, 5) == [0, 1, 2, 3, 4]
    assert select_subwords((8, 9), (9, 10), 10, 5) == [5, 6, 7, 8, 9]


def test_each_row_is_one_window_with_its_labels_number(tokenizer):
    encoded = TASK.encode(ROWS, tokenizer, 128)
    assert encoded.items.tolist() == [0, 1, 2]
    assert encoded.labels.tolist() == [0, 1, UNSEEN]
    assert encoded.cut.tolist() == [0]


def test_a_row_that_fits_is_its_marked_text_as_the_tokenizer_encodes_it(tokenizer):
    encoded = TASK.encode(ROWS, tokenizer, 128)
    for number, row in enumerate(ROWS):
        window = encoded.ids[encoded.starts[number] : encoded.starts[number + 1]]
        assert window.tolist() == tokenizer(insert_markers(row)[0])["input_ids"]


def long_rows():
    """Rows whose entities stand far from the start, and far from each other in the second."""
    filler = "la música de la niña en la casa "
    rows = []
    for between in (" y ", f" {filler * 4}"):
        text = f"{filler * 6}Málaga{between}Lima {filler * 6}"
        head, tail = text.index("Málaga"), text.index("Lima")
        spans = {"head": [head, head + 6], "tail": [tail, tail + 4]}
        rows.append({**ROWS[0], "text": text, **spans})
    return rows


@pytest.mark.parametrize("max_tokens", [40, 64])
def test_a_long_row_keeps_both_entities_and_is_counted(byte_bpe, max_tokens):
    encoded = TASK.encode(long_rows(), byte_bpe, max_tokens)
    assert encoded.lengths.tolist() == [max_tokens, max_tokens]
    assert encoded.cut.tolist() == [2]
    for start, end in zip(encoded.starts, encoded.starts[1:], strict=False):
        text = byte_bpe.decode(encoded.ids[start:end], skip_special_tokens=True)
        assert "@ Málaga @" in text
        assert "# Lima #" in text


def test_cutting_at_the_end_would_lose_them(byte_bpe):
    for row in long_rows():
        ids = byte_bpe(insert_markers(row)[0], truncation=True, max_length=64)["input_ids"]
        assert "Málaga" not in byte_bpe.decode(ids)


def test_entities_that_are_too_long_for_a_window_are_told_with_their_place(byte_bpe):
    with pytest.raises(DataError, match=r"a\.tsv:0: head and tail have .* data\.max_tokens=12$"):
        TASK.encode([ROWS[0], ROWS[2]], byte_bpe, 12)


# ---- answers -------------------------------------------------------------------------------------


def test_the_loss_is_the_sum_over_items_that_count():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    total, count = TASK.loss(saying(logits), batch_of(torch.tensor([0, 0, -100])))
    expected = -(logits.log_softmax(-1)[0, 0] + logits.log_softmax(-1)[1, 0])
    assert torch.isclose(total, expected)
    assert int(count) == 2


def test_a_prediction_is_the_best_label_with_its_log_probability(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    batch = TASK.collate(encoded, [2, 0], byte_bpe, None)
    logits = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    read = TASK.predict_batch(saying(logits), batch)
    outputs = [(window, *found) for window, found in zip([2, 0], read, strict=True)]
    first, second = TASK.decode(ROWS, encoded, outputs)
    assert (first.id, first.gold, first.prediction) == ("r2", "New(e1,e2)", "Other")
    assert second.score == pytest.approx(float(logits[1].log_softmax(0)[0]))


def test_the_scores_have_the_names_that_the_task_announces(byte_bpe):
    encoded = TASK.encode(ROWS, byte_bpe, 64)
    predictions = TASK.decode(ROWS, encoded, [(n, n % 2, 0.0) for n in range(3)])
    scores = TASK.compute_metrics(predictions, torch.device("cpu"))["scores"]
    assert set(scores) == set(TASK.metrics)
    assert scores["accuracy"] == pytest.approx(2 / 3)


# ---- real text -----------------------------------------------------------------------------------


def rows_of(name):
    if name == "semeval":
        return read_semeval(str(SHARED / "en/semeval2010_task8/test.txt")).rows
    if name == "ehealth":
        return read_brat(str(SHARED / "es/ehealthkd2021/test")).rows
    header = ["head", "tail", "label", "text"]
    columns = {column: column for column in header}
    source = str(SHARED / "zh/sanwen/validation.txt")
    return read_relation_table(source, columns=columns, header=header).rows


@pytest.mark.shared
@pytest.mark.parametrize("name", ["semeval", "sanwen", "ehealth"])
def test_no_entity_of_real_text_is_lost_in_short_windows(name, byte_bpe, tmp_path):
    rows = rows_of(name)
    task = Relation.from_rows(rows)
    assert [fault for row in rows for fault in task.find_row_faults(row)] == []
    longest = 0
    for row in rows:
        text, spans = insert_markers(row)
        size = sum(len(byte_bpe.tokenize(text[start:end])) for start, end in spans)
        longest = max(longest, size)
    encoded = task.encode(rows, byte_bpe, longest + 6)
    assert encoded.cut[0] > 0
    for row, start, end in zip(rows, encoded.starts, encoded.starts[1:], strict=False):
        window = bare(byte_bpe.decode(encoded.ids[start:end], skip_special_tokens=True))
        assert all(bare(row["text"][slice(*row[name])]) in window for name in ("head", "tail"))


def bare(text):
    """Return a text without space and marks."""
    return "".join(text.replace("@", "").replace("#", "").split())
