import csv
import io
import json
import subprocess
import sys
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import confusion_matrix

from crosstune.data.tag_schemes import read_spans
from crosstune.reporting.errors.gather import (
    gather_errors,
    rank_distances,
    render_counts,
    render_items,
)
from crosstune.reporting.errors.judge import ANSWER_OUTCOMES, compare_answers, compare_spans, judge
from crosstune.reporting.errors.view import build_confusion, choose_labels, show_errors
from crosstune.reporting.records import to_frame
from crosstune.reporting.tables import build_table
from tests.reporting.answers import add_answers, draw, draw_tags, write_answers, write_rows

LABELS = ["neg", "neu", "pos"]


def errors_of(study):
    records = study.read()
    scores = to_frame(records)
    return gather_errors(build_table("study", scores, records), scores, records)


def section_of(study):
    (section,) = errors_of(study).sections
    return section


def draw_pairs(seed, count, labels=LABELS):
    """Return (gold, prediction) pairs; golds do not depend on the seed."""
    golds, guesses = draw(0), draw(seed)
    return [(golds.choice(labels), guesses.choice(labels)) for _ in range(count)]


def check_spans_add_up(outcomes, gold, guessed):
    """Fail unless every gold and every guessed span has exactly one outcome."""
    found = Counter(outcome for _, outcome in outcomes)
    paired = sum(found[name] for name in ("correct", "boundary", "type", "boundary and type"))
    assert paired + found["missed"] == len(gold)
    assert paired + found["spurious"] == len(guessed)
    assert found["correct"] == len(gold & guessed)


def check_confusion_adds_up(section):
    """Fail unless a matrix counts every item of every run, rows as often as their gold label."""
    golds = Counter(section.golds.values())
    for arm in section.arms.values():
        confusion = build_confusion(arm.tally, choose_labels([arm.tally], 2))
        assert sum(map(sum, confusion.counts)) == len(section.golds) * len(arm.run_ids)
        for label, row in zip(confusion.labels[:2], confusion.counts, strict=False):
            assert sum(row) == golds[label] * len(arm.run_ids)


def test_every_span_gold_or_guessed_has_one_outcome():
    rng = draw(2)
    for _ in range(300):
        gold, guessed = (frozenset(read_spans(draw_tags(rng, 9))) for _ in range(2))
        check_spans_add_up(compare_spans(gold, guessed), gold, guessed)


def test_the_law_of_spans_sees_a_span_that_is_paired_twice():
    gold, guessed = frozenset([("A", 0, 2)]), frozenset([("A", 0, 1), ("A", 1, 2)])
    with pytest.raises(AssertionError):
        check_spans_add_up([("A", "boundary"), ("A", "boundary")], gold, guessed)


@pytest.mark.parametrize(
    ("gold", "guessed", "outcomes"),
    [
        ([("A", 0, 2)], [("A", 0, 2)], [("A", "correct")]),
        ([("A", 0, 2)], [("A", 0, 3)], [("A", "boundary")]),
        ([("A", 0, 2)], [("A", 1, 2)], [("A", "boundary")]),
        ([("A", 0, 2)], [("B", 0, 2)], [("A", "type")]),
        ([("A", 0, 2)], [("B", 1, 3)], [("A", "boundary and type")]),
        ([("A", 0, 2)], [("A", 2, 3)], [("A", "missed"), ("A", "spurious")]),
        ([("A", 0, 2)], [], [("A", "missed")]),
        ([], [("B", 0, 2)], [("B", "spurious")]),
        ([], [], []),
        # one gold span torn in two: the wider half is its boundary error, the other spurious
        ([("A", 0, 5)], [("A", 0, 2), ("A", 2, 5)], [("A", "boundary"), ("A", "spurious")]),
        # the same type comes before a wider overlap
        ([("A", 0, 5)], [("B", 0, 4), ("A", 4, 5)], [("A", "boundary"), ("B", "spurious")]),
        # the same ends come before the same type
        (
            [("A", 0, 2), ("A", 2, 4)],
            [("B", 0, 2), ("A", 3, 4)],
            [("A", "type"), ("A", "boundary")],
        ),
    ],
)
def test_a_span_has_the_outcome_of_its_pair(gold, guessed, outcomes):
    found = compare_spans(frozenset(gold), frozenset(guessed))
    assert sorted(found) == sorted(outcomes)


@pytest.mark.parametrize(
    ("accepted", "prediction", "outcome"),
    [
        (["the Nile"], "The NILE!", "exact"),
        (["1999", "in 1999"], "in 1999", "exact"),
        (["el río"], "el río Nilo", "overlap"),
        (["尼罗河"], "河", "overlap"),
        (["ニロ"], "ロマ", "overlap"),
        (["cat"], "category", "disjoint"),
        (["a"], "b", "disjoint"),
        ([], "b", "should have been empty"),
        ([""], "b", "should have been empty"),
        (["a"], "", "should not have been empty"),
        (["a"], " ", "should not have been empty"),
        ([], "", "rightly empty"),
        (["", "a"], "", "rightly empty"),
        (["", "a"], "a", "exact"),
        (["?"], "!", "disjoint"),
        (["?"], "?", "exact"),
    ],
)
def test_an_answer_has_its_outcome(accepted, prediction, outcome):
    assert compare_answers(accepted, prediction) == outcome


def test_a_confusion_matrix_is_that_of_scikit_learn(study):
    every = []
    for seed in (1, 2, 3):
        pairs = draw_pairs(seed, 50)
        every += pairs
        add_answers(study, "classification", pairs, seed=seed)
    tally = section_of(study).arms["lora"].tally
    golds, guesses = zip(*every, strict=True)
    expected = confusion_matrix(golds, guesses, labels=LABELS).tolist()
    assert [list(row) for row in build_confusion(tally, LABELS).counts] == expected


@pytest.mark.parametrize("kind", ["classification", "relation", "cloze"])
def test_a_confusion_matrix_counts_every_item_of_every_seed(study, kind):
    for method in ("lora", "full"):
        for seed in (1, 2, 3):
            add_answers(study, kind, draw_pairs(seed, 40), method=method, seed=seed)
    check_confusion_adds_up(section_of(study))


def test_the_law_of_confusion_sees_an_item_that_was_not_counted(study):
    add_answers(study, "classification", draw_pairs(1, 40))
    section = section_of(study)
    section.arms["lora"].tally["neg", "neg"] -= 1
    with pytest.raises(AssertionError):
        check_confusion_adds_up(section)


def test_labels_beyond_the_most_frequent_are_summed_up_as_others():
    tally = Counter({("a", "a"): 5, ("b", "c"): 2, ("d", "a"): 1, ("c", "c"): 3})
    confusion = build_confusion(tally, choose_labels([tally], 2))
    assert (confusion.labels, confusion.left_out) == (("a", "c", "others (2)"), 2)
    assert confusion.counts == ((5, 0, 0), (0, 3, 0), (1, 2, 0))


def hard_items(runs):
    """Return the positions that every run got wrong, read off the pairs."""
    return {i for i, pairs in enumerate(zip(*runs, strict=True)) if all(g != p for g, p in pairs)}


def test_the_items_of_an_arm_are_those_that_each_of_its_runs_got_wrong(study):
    runs = [draw_pairs(seed, 60) for seed in (1, 2, 3)]
    for seed, pairs in enumerate(runs):
        add_answers(study, "classification", pairs, seed=seed)
    wrong = section_of(study).arms["lora"].wrong
    assert {int(name) for name, _ in wrong} == hard_items(runs) != set()


def test_the_items_of_all_arms_are_those_that_every_run_got_wrong(study):
    runs = [draw_pairs(seed, 60) for seed in (1, 2, 3, 4)]
    for seed, pairs in enumerate(runs):
        method = ("lora", "full")[seed % 2]
        add_answers(study, "classification", pairs, method=method, seed=seed)
    shared = section_of(study).shared()
    assert {int(name) for name, _ in shared} == hard_items(runs) != set()
    assert {len(guesses) for guesses in shared.values()} == {4}


def test_mistakes_are_counted_over_all_runs(study):
    runs = [draw_pairs(seed, 60) for seed in (1, 2, 3)]
    for seed, pairs in enumerate(runs):
        add_answers(study, "classification", pairs, seed=seed)
    expected = sum(gold != guess for pairs in runs for gold, guess in pairs)
    assert section_of(study).arms["lora"].mistakes == expected


def test_span_errors_of_a_study_add_up_by_type(study):
    rng = draw(3)
    golds = [draw_tags(rng, 8) for _ in range(30)]
    guesses = [[draw_tags(rng, 8) for _ in golds] for _ in range(2)]
    for seed, found in enumerate(guesses):
        add_answers(study, "tagging", zip(golds, found, strict=True), seed=seed)
    tally = section_of(study).arms["lora"].tally
    expected = Counter(kind for tags in golds for kind, _, _ in read_spans(tags))
    counted = Counter()
    for (kind, outcome), count in tally.items():
        counted[kind] += count * (outcome != "spurious")
    assert counted == {kind: 2 * count for kind, count in expected.items()}


def test_tags_that_mark_no_spans_are_counted_in_pairs(study):
    pairs = [(["DET", "NOUN"], ["DET", "VERB"]), (["NOUN"], ["VERB"])]
    add_answers(study, "tagging", pairs)
    section = section_of(study)
    assert section.form == "tags"
    assert section.arms["lora"].tally == {("DET", "DET"): 1, ("NOUN", "VERB"): 2}


def test_tags_of_spans_are_counted_in_pairs_where_the_study_says_so(study):
    add_answers(study, "tagging", [(["B"], ["I"])], task={"scheme": "tags"})
    assert section_of(study).arms["lora"].tally == {("B", "I"): 1}


def test_segmented_words_are_compared_by_their_ends(study):
    pairs = [(["我们", "去", "学校"], ["我们", "去学", "校"])]
    add_answers(study, "tagging", pairs, task={"scheme": "words"})
    assert section_of(study).arms["lora"].tally == {
        ("word", "correct"): 1,
        ("word", "boundary"): 2,
    }


def test_sets_of_labels_are_counted_by_label(study):
    add_answers(study, "classification", [(["joy", "fear"], ["joy"]), ([], ["joy"]), ([], [])])
    section = section_of(study)
    expected = {("joy", "correct"): 1, ("fear", "missed"): 1, ("joy", "spurious"): 1}
    assert section.arms["lora"].tally == expected
    assert len(section.arms["lora"].wrong) == 2


def test_every_answer_is_counted_once(study):
    rng = draw(4)
    words = ["", "a", "b", "a b", "尼"]
    pairs = [(rng.sample(words, rng.randrange(3)), rng.choice(words)) for _ in range(80)]
    add_answers(study, "extraction", pairs)
    section = section_of(study)
    assert section.arms["lora"].tally.total() == 80
    assert {outcome for _, outcome in section.arms["lora"].tally} == set(ANSWER_OUTCOMES)


def test_answers_that_are_all_empty_can_be_read(study):
    add_answers(study, "extraction", [([], ""), ([], "a")])
    assert section_of(study).arms["lora"].mistakes == 1


def test_numbers_are_ranked_by_their_mean_absolute_error(study):
    add_answers(study, "regression", [(1.0, 1.5), (2.0, 2.0), (3.0, 1.0)], seed=1)
    add_answers(study, "regression", [(1.0, 0.5), (2.0, 3.0), (3.0, 6.0)], seed=2)
    section = section_of(study)
    ranked = rank_distances(section.arms["lora"], section.golds)
    assert ranked == [(2.5, ("2", 1)), (0.5, ("0", 1)), (0.5, ("1", 1))]


def test_free_text_has_no_errors(study):
    add_answers(study, "generation", [("a", "b")])
    assert errors_of(study).sections == []


def test_a_number_is_neither_right_nor_wrong():
    assert judge("numbers", 1.0, 1.0) == ([], False)


def test_each_language_and_model_is_a_section(study):
    for model in ("mini", "beto"):
        record = study.add(model=model, settings={"data.kind": "classification"})
        rows = [(str(i), language, "a", "b", 0.0) for i in range(2) for language in ("es", "zh")]
        write_rows(study, record, rows)
    found = [(section.language, section.model) for section in errors_of(study).sections]
    assert sorted(found) == [("es", "beto"), ("es", "mini"), ("zh", "beto"), ("zh", "mini")]


def test_two_items_of_one_id_are_two_items(study):
    record = study.add(settings={"data.kind": "classification"})
    write_rows(study, record, [("7", "es", "a", "a", 0.0), ("7", "es", "a", "b", 0.0)])
    assert list(section_of(study).arms["lora"].wrong) == [("7", 2)]


def test_the_order_of_items_in_a_run_does_not_matter(study):
    settings = {"data.kind": "classification"}
    rows = [("1", "es", "a", "b", 0.0), ("2", "es", "b", "b", 0.0)]
    write_rows(study, study.add(seed=1, settings=settings), rows)
    write_rows(study, study.add(seed=2, settings=settings), rows[::-1])
    assert list(section_of(study).arms["lora"].wrong) == [("1", 1)]


def test_a_run_that_failed_or_is_superseded_is_not_counted(study):
    old = add_answers(study, "classification", [("a", "b")], seed=1)
    new = add_answers(study, "classification", [("a", "a")], seed=1)
    record = study.fail(seed=2, settings={"data.kind": "classification"})
    write_answers(study, record, [("a", "b")])
    assert section_of(study).arms["lora"].run_ids == [new["run_id"]] != [old["run_id"]]


def test_a_run_is_read_where_its_record_lies(study):
    record = study.record(settings={"data.kind": "classification"}, run_id="../elsewhere")
    study.write("moved", json.dumps(record))
    write_answers(study, {"run_id": "moved"}, [("a", "b")])
    assert section_of(study).arms["lora"].mistakes == 1


def break_file(path):
    path.write_bytes(b"PAR1 no parquet")


def drop_column(path):
    pq.write_table(pq.read_table(path).drop_columns(["gold"]), path)


def add_null(path):
    table = pq.read_table(path)
    nulls = pa.array([None] * len(table), pa.string())
    pq.write_table(table.set_column(2, "gold", nulls), path)


def nest_golds(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "gold", pa.array([[[1]]] * len(table))), path)


def break_text(path):
    table = pq.read_table(path)
    broken = pa.array([b"\xff"] * len(table)).view(pa.string())
    pq.write_table(table.set_column(3, "prediction", broken), path)


@pytest.mark.parametrize("bug", [break_file, drop_column, add_null, nest_golds, break_text])
def test_predictions_that_cannot_be_trusted_are_named_and_counted_nowhere(study, bug):
    broken = add_answers(study, "classification", [("a", "b")], seed=1)
    bug(study.folder / broken["run_id"] / "predictions.parquet")
    sound = add_answers(study, "classification", [("a", "a")], seed=2)
    errors = errors_of(study)
    assert errors.sections[0].arms["lora"].run_ids == [sound["run_id"]]
    assert broken["run_id"] in errors.notes[0]


@pytest.mark.parametrize(
    ("kind", "task", "bad"),
    [
        ("tagging", None, (["B-A"], ["B-A", "O"])),
        ("tagging", None, (["B-A"], ["X"])),
        ("tagging", {"scheme": "words"}, (["ab"], ["a"])),
        ("regression", None, (1.0, float("nan"))),
        ("classification", None, ("c", "a")),
    ],
)
def test_predictions_that_cannot_be_judged_are_named_and_counted_nowhere(study, kind, task, bad):
    good = {"regression": (1.0, 2.0), "classification": ("a", "b")}.get(kind, (["B-A"], ["B-A"]))
    sound = add_answers(study, kind, [good], task, seed=1)
    add_answers(study, kind, [bad], task, seed=2)
    errors = errors_of(study)
    assert errors.sections[0].arms["lora"].run_ids == [sound["run_id"]]
    assert len(errors.notes) == 1


def test_a_first_run_that_cannot_be_judged_sets_no_standard(study):
    add_answers(study, "tagging", [(["B-A"], ["B-A", "O"])], seed=1)
    sound = add_answers(study, "tagging", [(["B-A", "O"], ["B-A", "O"])], seed=2)
    assert section_of(study).arms["lora"].run_ids == [sound["run_id"]]


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_counts_in_the_csv_add_up(study):
    for seed in (1, 2):
        add_answers(study, "classification", draw_pairs(seed, 40), seed=seed)
    lines = read_csv(render_counts(errors_of(study)))
    assert sum(int(line["count"]) for line in lines) == 80
    assert {(line["items"], line["runs"]) for line in lines} == {("40", "2")}


def test_items_in_the_csv_are_all_of_them(study):
    add_answers(study, "classification", [("a", "b")] * 70)
    lines = read_csv(render_items(errors_of(study)))
    assert [line["id"] for line in lines] == [str(i) for i in range(70)]


def test_the_csv_of_numbers_has_the_error_of_every_item(study):
    add_answers(study, "regression", [(1.0, 1.25), (2.0, 5.0)])
    lines = read_csv(render_items(errors_of(study)))
    assert [(line["id"], line["absolute_error"]) for line in lines] == [("1", "3.0"), ("0", "0.25")]


def test_a_text_that_begins_a_formula_gets_an_apostrophe_in_both_csvs(study):
    add_answers(study, "classification", [("=cmd()", "@x")], data="+data")
    errors = errors_of(study)
    for text in (render_counts(errors), render_items(errors)):
        assert all(line["gold"] == "'=cmd()" for line in read_csv(text))
        assert all(line["dataset"] == "'+data" for line in read_csv(text))


def show(study):
    return show_errors(errors_of(study))


def test_at_most_fifty_items_are_listed_and_the_total_is_said(study):
    add_answers(study, "classification", [("a", "b")] * 70)
    items = show(study)["sections"][0]["arms"][0]["listed"]
    assert (len(items["rows"]), items["title"]) == (
        50,
        "Wrong: 70 of 70 items, the first 50 shown.",
    )


def test_at_most_thirty_labels_are_shown_and_the_rest_is_said(study):
    add_answers(study, "classification", [(f"l{i}", f"l{i}") for i in range(40)])
    (section,) = show(study)["sections"]
    assert section["arms"][0]["matrix"]["labels"][-1] == "others (10)"
    assert "Of 40 labels the 30 most frequent are shown" in section["legend"]


def test_shades_are_shares_of_the_row(study):
    add_answers(study, "classification", [("a", "a")] * 2 + [("a", "b")] + [("b", "b")] * 100)
    rows = show(study)["sections"][0]["arms"][0]["matrix"]["rows"]
    assert [[cell["shade"] for cell in row["cells"]] for row in rows] == [[6, 3], [0, 9]]


def test_long_labels_that_begin_alike_look_different(study):
    add_answers(study, "classification", [("x" * 99 + "a", "x" * 99 + "b")])
    labels = show(study)["sections"][0]["arms"][0]["matrix"]["labels"]
    assert len(set(labels)) == 2
    assert max(map(len, labels)) <= 40


def test_types_beyond_thirty_are_summed_up_and_all_adds_up(study):
    add_answers(study, "tagging", [([f"B-T{i}"], [f"B-T{i}"]) for i in range(40)])
    rows = show(study)["sections"][0]["arms"][0]["rows"]
    assert [rows[-2][:3], rows[-1][:3], len(rows)] == [
        ["others (10)", "10", "10"],
        ["all", "40", "40"],
        32,
    ]


def test_confused_tags_and_correct_words_are_all_words(study):
    rng = draw(5)
    tags = [f"T{i}" for i in range(9)]
    pairs = [([rng.choice(tags)], [rng.choice(tags)]) for _ in range(500)]
    add_answers(study, "tagging", pairs)
    rows = show(study)["sections"][0]["arms"][0]["rows"]
    assert sum(int(row[2]) for row in rows) == 500
    assert len(rows) == 22


def test_no_more_than_sixty_arms_are_shown_and_the_page_says_so(study):
    for number in range(62):
        add_answers(study, "classification", [("a", "b")], data=f"data{number}")
    shown = show(study)
    assert len(shown["sections"]) == 60
    assert shown["cut"] == "The page shows the first 60 of 62 parts."


MEASURE = """
import sys, time
from pathlib import Path
from crosstune.reporting.report import write_report
began = time.process_time()
report = write_report(Path(sys.argv[1]), "study", [], "")
print(time.process_time() - began, report.paths["index.html"].stat().st_size)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_the_errors_of_twenty_runs_on_ten_thousand_items_are_quick_and_small(study, kind):
    labels = [f"label{i}" for i in range(12)]
    golds = draw(0)
    if kind == "classification":
        truth = [golds.choice(labels) for _ in range(10_000)]
    else:
        truth = [draw_tags(golds, 25, labels) for _ in range(10_000)]
    for method in ("full", "lora", "bitfit", "prefix"):
        for seed in range(5):
            rng = draw(f"{method} {seed}")
            guesses = [gold if rng.random() < 0.7 else rng.choice(truth) for gold in truth]
            pairs = zip(truth, guesses, strict=True)
            add_answers(study, kind, pairs, method=method, seed=seed)
    command = [sys.executable, "-c", MEASURE, str(study.outputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, size = map(float, done.stdout.split())
    assert size < 300_000
    assert seconds < 30
