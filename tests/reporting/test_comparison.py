"""What a cell says beside its mean, in every form of a study's report."""

import csv
import io
import math
import random
import re

import pytest
from scipy import stats

from crosstune.errors import ConfigError
from crosstune.reporting.comparison import (
    ArmScores,
    Comparison,
    build_differences,
    compare_cells,
    read_comparison,
)
from crosstune.reporting.render import render_latex, render_markdown
from crosstune.reporting.report import ReportOptions, write_report
from crosstune.reporting.statistics import SignificanceRule
from tests.reporting.test_report import Page, check_page, printed
from tests.reporting.test_tables import HOSTILE, check_csv, check_latex, check_markdown


def add_arms(study, seeds, full=(0.0, 0.01), lora=(-0.05, 0.01), **changes):
    """Add runs of full and lora around 0.8, by their shift and spread; return their scores."""
    noise = random.Random(7)  # noqa: S311 - draws cases, keeps no secret
    scores = {"full": [], "lora": []}
    for seed in range(1, seeds + 1):
        for method, (shift, spread) in (("full", full), ("lora", lora)):
            score = 0.8 + shift + noise.gauss(0, spread)
            scores[method].append(score)
            study.add(method=method, seed=seed, score=score, **changes)
    return scores


def report_of(study, comparison=None):
    wanted = ReportOptions(comparison or Comparison())
    return write_report(study.outputs, "study", [], "crosstune report", wanted)


def lines_of(study, comparison=None):
    """Return the lines of the CSV by method."""
    text = report_of(study, comparison).paths["table.csv"].read_text("utf-8")
    return {line["arm"]: line for line in csv.DictReader(io.StringIO(text))}


def differences_of(study, comparison=None):
    """Return the rows of the table of differences by label."""
    table = build_differences(study.table(), comparison or Comparison())
    return {row[0]: row[1:] for row in table.rows}


def test_an_interval_is_the_t_interval_of_scipy(study):
    scores = add_arms(study, 5)["lora"]
    low, high = stats.t.interval(0.95, 4, sum(scores) / 5, stats.sem(scores))
    line = lines_of(study)["lora"]
    assert [float(line["low"]), float(line["high"])] == pytest.approx([low, high])


def test_a_difference_is_the_paired_t_test_of_scipy(study):
    scores = add_arms(study, 6)
    expected = stats.ttest_rel(scores["lora"], scores["full"])
    line = lines_of(study)["lora"]
    found = [float(line[key]) for key in ("difference_low", "difference_high", "p")]
    assert found == pytest.approx([*expected.confidence_interval(0.95), expected.pvalue])


def test_a_difference_is_of_the_seeds_that_both_finished(study):
    add_arms(study, 3)
    study.add(method="lora", seed=9, score=0.1)
    assert lines_of(study)["lora"]["difference_seeds"] == "1 2 3"


def test_the_p_values_of_a_table_are_one_family_of_holm(study):
    add_arms(study, 5)
    for seed in range(1, 6):
        study.add(method="bitfit", seed=seed, score=0.8 + 0.001 * (-1) ** seed)
    lines = lines_of(study)
    ordered = sorted(float(lines[arm]["p"]) for arm in ("lora", "bitfit"))
    adjusted = sorted(float(lines[arm]["p_holm"]) for arm in ("lora", "bitfit"))
    assert adjusted == pytest.approx([2 * ordered[0], min(1, max(ordered[1], 2 * ordered[0]))])


def test_the_csv_has_every_score_on_test_and_on_validation(study):
    study.add(seed=1, score=0.5)
    study.add(seed=2, score=0.75)
    line = lines_of(study)["lora"]
    keys = ("scores", "validation_scores", "validation_mean")
    assert [line[key] for key in keys] == ["0.5 0.75", "0.25 0.375", "0.3125"]


def test_a_language_that_validation_has_not_leaves_its_place_empty(study):
    study.add(scores={"validation": {"es": {"f1": 0.5}}, "test": {"zh": {"f1": 0.5}}})
    line = lines_of(study)["lora"]
    assert (line["validation_mean"], line["validation_scores"]) == ("", "")


@pytest.mark.parametrize(("seeds", "shown"), [(4, False), (5, True)])
def test_an_interval_and_a_test_take_five_seeds(study, seeds, shown):
    add_arms(study, seeds)
    line = lines_of(study)["lora"]
    assert [bool(line[key]) for key in ("low", "difference_low", "p_holm")] == [shown] * 3


@pytest.mark.parametrize(("seeds", "mark"), [(9, ""), (10, "*")])
def test_a_mark_takes_ten_seeds(study, seeds, mark):
    add_arms(study, seeds)
    cell = study.cell("lora", "tags es f1")
    assert cell.endswith(f"({seeds}){mark}")


def test_the_seeds_that_are_needed_can_be_set(study):
    add_arms(study, 3)
    comparison = read_comparison("full", "2", "3")
    assert lines_of(study, comparison)["lora"]["claimed"] == "True"


def test_arms_that_do_not_differ_bear_no_mark(study):
    add_arms(study, 10, lora=(0.0, 0.01))
    assert "*" not in study.table().caption
    assert study.cell("lora", "tags es f1").endswith("(10)")


def test_the_baseline_bears_no_mark(study):
    add_arms(study, 10)
    assert study.cell("full", "tags es f1").endswith("(10)")


def test_the_legend_of_the_mark_stands_where_a_cell_bears_it(study):
    add_arms(study, 10)
    assert study.table().caption.endswith(
        "* differs from full: p < 0.05 after Holm and at least 10 seeds (differences tested: 1)."
    )


def test_the_caption_of_the_differences_says_how_many_seeds_they_take(study):
    add_arms(study, 2)
    caption = build_differences(study.table(), Comparison()).caption
    assert "Intervals and p from 5 seeds on; * where p < 0.05" in caption
    assert "at least 10 seeds" in caption


def test_a_difference_of_few_seeds_is_a_bare_mean(study):
    study.add(method="full", score=0.5)
    study.add(method="lora", score=0.75)
    assert differences_of(study) == {"lora": ("+25.0 (1)",)}


def test_a_difference_of_many_seeds_has_interval_p_and_mark(study):
    add_arms(study, 10)
    (cell,) = differences_of(study)["lora"]
    assert re.fullmatch(r"−\d\.\d \[−\d\.\d, −\d\.\d\] p [\d.e-]+ \(10\)\*", cell)


def test_another_baseline_may_be_named(study):
    study.add(method="full", score=0.5)
    study.add(method="lora", score=0.75)
    table = report_of(study, Comparison("lora")).tables[1]
    assert (table.rows[0][:2], "differences to lora" in table.caption) == (
        ("full", "−25.0 (1)"),
        True,
    )


def test_each_model_has_its_own_baseline(study):
    for model, full in (("mini", 0.5), ("beto", 0.75)):
        study.add(model=model, method="full", score=full)
        study.add(model=model, method="lora", score=0.75)
    cells = {label: cell for label, (cell,) in differences_of(study).items()}
    assert cells == {"beto · lora": "0.0 (1)", "mini · lora": "+25.0 (1)"}


def test_rows_of_other_conditions_have_another_baseline(study):
    for epochs, full in ((3, 0.5), (5, 0.25)):
        for method, score in (("full", full), ("lora", 0.75)):
            study.add(method=method, score=score, settings={"trainer.max_epochs": epochs})
    assert sorted(cell for (cell,) in differences_of(study).values()) == ["+25.0 (1)", "+50.0 (1)"]


def test_two_arms_of_the_baseline_are_no_baseline(study):
    for rate in (0.1, 0.2):
        study.add(method="full", settings={"optimizer.learning_rate": rate})
    study.add(method="lora")
    assert build_differences(study.table(), Comparison()) is None


def test_a_study_without_the_baseline_has_no_differences(study):
    add_arms(study, 2)
    assert "differences.md" not in report_of(study, Comparison("bitfit")).paths


def test_differences_of_an_earlier_report_go_with_their_baseline(study):
    add_arms(study, 2)
    assert "differences.md" in report_of(study).paths
    report = report_of(study, Comparison("bitfit"))
    assert not (report.folder / "differences.md").exists()


def test_page_and_terminal_show_the_differences(study):
    study.add(method="full", score=0.5)
    study.add(method="lora", score=0.75)
    report = report_of(study)
    assert "+25.0 (1)" in Page(report.paths["index.html"].read_text("utf-8")).text
    assert "+25.0 (1)" in printed(report)


def test_under_a_score_the_page_has_interval_difference_and_validation(study):
    add_arms(study, 5)
    text = Page(report_of(study).paths["index.html"].read_text("utf-8")).text
    assert re.search(r"5 of 5 seeds 95 % interval 0\.\d+ to 0\.\d+ validation 0\.\d+ ±", text)
    assert re.search(r"difference to full −0\.\d+ 95 % interval .* p \S+, after Holm", text)


def test_under_a_score_of_few_seeds_the_page_says_what_an_interval_takes(study):
    study.add()
    text = Page(report_of(study).paths["index.html"].read_text("utf-8")).text
    assert "no interval: that takes 5 seeds" in text


@pytest.mark.parametrize("text", ["", "1", "x", "-5", "٥", "10000000"])
def test_a_number_of_seeds_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="seeds_to_claim"):
        read_comparison("full", "5", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_label_breaks_the_differences(study, text):
    study.add(method=text, score=0.5)
    study.add(method=f"{text}2", score=0.75)
    report = report_of(study, Comparison(text))
    table = report.tables[1]
    check_markdown(render_markdown(table), 2)
    check_latex(render_latex(table), 2)
    check_csv(report.paths["table.csv"].read_text("utf-8"))
    check_page(report.paths["index.html"].read_text("utf-8"))


# --- many tables whose truth is known


def claims_of(seed, shift, arms=4, seeds=10):
    """Return which of the arms a table of made-up scores claims to differ from full."""
    draw = random.Random(seed)  # noqa: S311 - draws cases, keeps no secret
    candidates = []
    for number in range(arms + 1):
        scores = [draw.gauss(0.8 + shift * (number > 0), 0.01) for _ in range(seeds)]
        method = f"arm{number}" if number else "full"
        candidates.append(ArmScores("group", method, method, dict(enumerate(scores))))
    return [cell.claimed for cell in compare_cells(candidates, Comparison())[1:]]


def test_of_a_thousand_tables_without_a_difference_about_one_in_twenty_claims_one_at_most():
    wrong = sum(any(claims_of(seed, 0.0)) for seed in range(1000))
    assert wrong / 1000 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_of_a_large_difference_nearly_every_table_claims_every_arm():
    assert sum(all(claims_of(seed, 0.05)) for seed in range(100)) > 95


def test_without_the_correction_too_many_tables_would_claim_something():
    wrong = 0
    for seed in range(300):
        draw = random.Random(seed)  # noqa: S311 - draws cases, keeps no secret
        table = [[draw.gauss(0.8, 0.01) for _ in range(10)] for _ in range(5)]
        wrong += any(stats.ttest_rel(arm, table[0]).pvalue < 0.05 for arm in table[1:])
    assert wrong / 300 > 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(2000):
        draw = random.Random(seed)  # noqa: S311 - draws cases, keeps no secret
        scores = dict(enumerate(draw.gauss(0.8, 0.01) for _ in range(5)))
        (cell,) = compare_cells([ArmScores("group", "full", "full", scores)], Comparison())
        held += cell.low <= 0.8 <= cell.high
    assert abs(held / 2000 - 0.95) < 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_the_rule_of_a_comparison_is_five_and_ten_seeds():
    assert Comparison().rule == SignificanceRule(5, 10, 0.95)


def test_the_cells_of_a_table_hold_what_was_compared(study):
    add_arms(study, 2)
    cells = {cell.arm: cell for cell in study.table().cells}
    pairs = zip(cells["lora"].scores, cells["full"].scores, strict=True)
    assert cells["lora"].differences == pytest.approx([ours - theirs for ours, theirs in pairs])
