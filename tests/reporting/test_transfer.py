import csv
import io

import pytest

from crosstune.reporting.render import render_latex, render_markdown
from crosstune.reporting.transfer import (
    build_transfer,
    measure_transfer,
    render_transfer,
)
from tests.reporting.test_tables import HOSTILE, check_csv, check_markdown


def scored(**scores):
    return {"test": {language: {"f1": score} for language, score in scores.items()}}


def transfer_of(study, missing=()):
    return build_transfer(study.table(missing))


def cell(table, row, column):
    (line,) = [line for line in table.rows if line[0] == row]
    return line[table.headers.index(column)]


def test_the_gap_is_the_train_language_minus_the_mean_of_the_others():
    assert measure_transfer({"en": 0.75, "es": 0.5, "zh": 0.25}, "en") == {
        "train_languages": 0.75,
        "other_languages": 0.375,
        "average": 0.5,
        "transfer_gap": 0.375,
    }


def test_the_average_is_the_mean_of_train_and_other_languages_by_their_numbers():
    scores = {"en": 0.7, "es": 0.6, "zh": 0.1, "de": 0.4}
    found = measure_transfer(scores, "en+es")
    parts = 2 * found["train_languages"] + 2 * found["other_languages"]
    assert found["average"] == pytest.approx(parts / 4)


@pytest.mark.parametrize("train", ["es+zh", "es>zh"])
def test_several_train_languages_count_as_their_mean(train):
    found = measure_transfer({"es": 0.5, "zh": 0.75, "en": 0.25}, train)
    assert (found["train_languages"], found["transfer_gap"]) == (0.625, 0.375)


@pytest.mark.parametrize("scores", [{"es": 0.5}, {"zh": 0.5}])
def test_a_gap_needs_both_sides(scores):
    assert "transfer_gap" not in measure_transfer(scores, "es")


def test_a_study_tested_only_where_it_was_trained_has_no_transfer_table(study):
    study.add()
    study.add(train_language="zh", scores=scored(zh=0.5))
    study.add(train_language="es+zh", scores=scored(es=0.5, zh=0.5))
    assert transfer_of(study) is None


def test_a_failed_run_alone_makes_no_transfer_table(study):
    study.add()
    study.fail(train_language="zh")
    assert transfer_of(study) is None


def test_each_seed_has_its_gap_and_the_cell_is_their_mean_and_spread(study):
    study.add(seed=1, scores=scored(es=0.9, zh=0.5, en=0.7))
    study.add(seed=2, scores=scored(es=0.8, zh=0.5, en=0.5))
    table = transfer_of(study)
    assert table.headers[1:4] == ("en", "es", "zh")
    row = "lora · es"
    assert cell(table, row, "es") == "85.0 ± 7.1 (2)"
    assert cell(table, row, "transfer gap") == "30.0 ± 0.0 (2)"
    assert cell(table, row, "average") == "65.0 ± 7.1 (2)"


def test_each_method_and_train_language_is_a_row(study):
    for method in ("full", "lora"):
        for train in ("es", "zh", "es+zh"):
            study.add(method=method, train_language=train, scores=scored(es=0.5, zh=0.5))
    assert [row[0] for row in transfer_of(study).rows] == [
        f"{method} · {train}" for method in ("full", "lora") for train in ("es", "es+zh", "zh")
    ]


def test_joint_training_stands_beside_the_others_without_a_gap(study):
    study.add(scores=scored(es=0.75, zh=0.25))
    study.add(train_language="es+zh", scores=scored(es=0.75, zh=0.75))
    table = transfer_of(study)
    row = [cell(table, "lora · es+zh", name) for name in table.headers[-4:]]
    assert row == ["75.0 (1)", "–", "–", "75.0 (1)"]


def test_a_language_that_was_not_tested_is_empty(study):
    study.add(scores=scored(es=0.75, zh=0.25))
    study.add(method="full", scores=scored(es=0.75, en=0.25))
    assert cell(transfer_of(study), "full · es", "zh") == "–"


def test_a_seed_without_every_language_is_in_no_gap(study):
    study.add(seed=1, scores=scored(es=0.75, zh=0.25))
    study.add(seed=2, scores=scored(es=0.25))
    table = transfer_of(study)
    assert cell(table, "lora · es", "transfer gap") == "50.0 (1 of 2)"


def test_a_failed_arm_says_so_and_has_no_gap(study):
    study.add(scores=scored(es=0.75, zh=0.25))
    study.fail(method="full")
    table = transfer_of(study)
    assert [cell(table, "full · es", name) for name in ("zh", "transfer gap")] == [
        "failed (1)",
        "–",
    ]


def test_data_sets_without_transfer_are_left_out(study):
    study.add(scores=scored(es=0.75, zh=0.25))
    study.add(data="pairs")
    table = transfer_of(study)
    assert [row[0] for row in table.rows] == ["lora · es"]
    assert "f1 on tags" in table.caption


def test_two_data_sets_stand_in_the_row_labels(study):
    for data in ("tags", "pairs"):
        study.add(data=data, scores=scored(es=0.75, zh=0.25))
    assert [row[0] for row in transfer_of(study).rows] == [
        "pairs f1 · lora · es",
        "tags f1 · lora · es",
    ]


def test_validation_scores_are_no_transfer(study):
    study.add(scores={"validation": scored(es=0.5, zh=0.5)["test"]})
    assert transfer_of(study) is None


def test_the_csv_has_every_score_and_every_measure(study):
    study.add(seed=4, scores=scored(es=0.75, zh=0.25))
    lines = list(csv.DictReader(io.StringIO(render_transfer(transfer_of(study)))))
    found = {(line["measure"], line["language"]): line["mean"] for line in lines}
    assert found == {
        ("score", "es"): "0.75",
        ("score", "zh"): "0.25",
        ("train_languages", ""): "0.75",
        ("other_languages", ""): "0.25",
        ("transfer_gap", ""): "0.5",
        ("average", ""): "0.5",
    }
    assert {(line["seeds"], line["std"], line["n"]) for line in lines} == {("4", "", "1")}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_label_breaks_any_form_of_the_transfer_table(study, text):
    study.add(method=text, data=text, scores={"test": {"es": {"f1": 1}, text: {"f1": 0.5}}})
    table = transfer_of(study)
    check_markdown(render_markdown(table), 7)
    check_csv(render_transfer(table))
    assert not any(mark in render_latex(table) for mark in ("<", "\x1b", "\u202e", "=cmd() &="))


def test_a_transfer_table_holds_the_numbers_behind_it(study):
    study.add(scores=scored(es=0.75, zh=0.25))
    gaps = [row for row in transfer_of(study).numbers if row["measure"] == "transfer_gap"]
    assert [(row["arm"], row["mean"]) for row in gaps] == [("lora", 0.5)]
