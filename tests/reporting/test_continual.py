"""The accuracy matrix of continual learning, against numbers worked out by hand."""

import math

import pytest

from crosstune.reporting.continual import (
    average_accuracy,
    backward_transfer,
    build_stage_tables,
    build_stages,
)
from crosstune.reporting.records import read_records, to_frame
from crosstune.reporting.render import render_latex, render_markdown
from tests.reporting.test_tables import check_markdown


def by_seed(*matrices):
    return dict(enumerate(matrices))


FIRST = [[0.9, 0.1, 0.2], [0.7, 0.8, 0.3], [0.6, 0.7, 0.8]]
SECOND = [[0.7, 0.1, 0.2], [0.7, 0.8, 0.3], [0.8, 0.7, 0.6]]


def test_average_accuracy_is_the_mean_of_the_last_row():
    assert average_accuracy(FIRST) == pytest.approx((0.6 + 0.7 + 0.8) / 3)


def test_backward_transfer_is_the_change_since_each_part_was_trained_on():
    assert backward_transfer(FIRST) == pytest.approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2)


def test_what_nothing_followed_has_no_part_in_backward_transfer():
    changed = [*FIRST[:2], [0.6, 0.7, 0.1]]
    assert backward_transfer(changed) == backward_transfer(FIRST)


def test_scores_on_parts_to_come_have_no_part_in_backward_transfer():
    changed = [[0.9, 0.99, 0.99], [0.7, 0.8, 0.99], FIRST[2]]
    assert backward_transfer(changed) == backward_transfer(FIRST)


def test_one_stage_has_no_backward_transfer():
    assert math.isnan(backward_transfer([[0.5]]))


def test_a_matrix_of_stages_is_a_table_of_means_over_seeds():
    table = build_stages("study", "lora", by_seed(FIRST, SECOND), ["a", "b", "c"])
    assert table.headers == ("stage · trained on", "a", "b", "c", "average")
    assert table.rows[0][:3] == ("1 · a", "80.0 ± 14.1 (2)", "10.0 ± 0.0 (2)")
    assert table.rows[2][4] == "70.0 ± 0.0 (2)"


def test_the_notes_of_a_matrix_give_average_accuracy_and_backward_transfer():
    (note,) = build_stages("study", "lora", by_seed(FIRST, SECOND), ["a", "b", "c"]).notes
    assert "last stage: 70.0 ± 0.0 (2)" in note
    assert "on earlier: -10.0 ± 14.1 (2)" in note


def test_a_score_that_was_not_measured_is_in_no_mean_of_a_matrix():
    partial = [*SECOND[:2], [*SECOND[2][:2], math.nan]]
    table = build_stages("study", "lora", by_seed(FIRST, partial), ["a", "b", "c"])
    assert table.rows[2][3:] == ("80.0 (1 of 2)", "70.0 (1 of 2)")


def test_a_matrix_renders_like_the_main_table():
    table = build_stages("study", "a|b", by_seed(FIRST), ["a", "b", "c"])
    check_markdown(render_markdown(table), 5)
    assert r"3 \textperiodcentered{} c & 60.0 (1)" in render_latex(table)


def in_turn(matrix):
    """Return the stages of a record, and its last scores, for languages a, b and c."""
    tested = [dict(zip("abc", row, strict=True)) for row in matrix]
    return [
        {"languages": [one], "scores": {"test": {name: {"f1": v} for name, v in row.items()}}}
        for one, row in zip("abc", tested, strict=True)
    ]


def test_the_stages_of_finished_records_make_a_matrix_for_each_arm(study):
    for method in ("full", "lora"):
        for seed, matrix in enumerate((FIRST, SECOND)):
            stages = in_turn(matrix)
            scores = stages[-1]["scores"]
            study.add(
                method=method, seed=seed, train_language="a>b>c", stages=stages, scores=scores
            )
    study.add(method="full", train_language="a", seed=9)
    records = read_records(study.outputs, "study")
    tables = build_stage_tables("study", to_frame(records), records)
    assert ["full" in table.caption for table in tables] == [True, False]
    direct = build_stages("study", "x", by_seed(FIRST, SECOND), ["a", "b", "c"])
    assert [table.rows for table in tables] == [direct.rows, direct.rows]
