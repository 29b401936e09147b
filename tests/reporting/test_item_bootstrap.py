"""Intervals over other test sets: from predictions, and only where these give the scores again."""

import csv
import io
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from crosstune.reporting.comparison import Comparison
from crosstune.reporting.errors.gather import gather_errors
from crosstune.reporting.item_bootstrap import add_item_intervals, measure_macro_f1
from crosstune.reporting.records import to_frame
from crosstune.reporting.report import write_report
from crosstune.reporting.tables import build_table
from tests.reporting.answers import add_answers, write_rows

ITEMS = 200


def widened(study):
    records = study.read()
    scores = to_frame(records)
    table = build_table("study", scores, records)
    errors = gather_errors(table, scores, records)
    return add_item_intervals(table, errors, Comparison().rule).cells


def cell_of(study, arm="lora"):
    (cell,) = [cell for cell in widened(study) if cell.arm == arm]
    return cell


def add_runs(study, rights, metric="accuracy", score=None, **changes):
    """Add a run for each row of `rights` (seeds x items), which says what it gets right."""
    for seed, right in enumerate(rights, 1):
        pairs = [("a", "a" if one else "b") for one in right]
        value = sum(right) / len(right) if score is None else score
        scores = {"test": {"es": {metric: value}}}
        headline = {"split": "validation", "metric": metric}
        names = {"seed": seed, "scores": scores, "headline": headline}
        add_answers(study, "classification", pairs, **names, **changes)


def chances(share=0.8, seeds=5):
    return np.random.default_rng(0).random((seeds, ITEMS)) < share


def test_the_variance_over_test_sets_is_that_of_a_share(study):
    same = np.array([chances()[0]] * 5)
    same[4, 0] = not same[4, 0]  # seeds add next to nothing
    add_runs(study, same)
    cell = cell_of(study)
    p = np.mean(same, axis=0)
    error = p.std(ddof=1) / math.sqrt(ITEMS)
    half = (cell.high_over_items - cell.low_over_items) / 2
    assert half == pytest.approx(1.97 * error, rel=0.15)


def test_an_interval_over_test_sets_is_wider_where_seeds_agree(study):
    add_runs(study, [chances()[0]] * 4 + [chances()[1]])
    cell = cell_of(study)
    assert cell.low_over_items < cell.low < cell.high < cell.high_over_items


def test_a_score_that_does_not_follow_from_the_predictions_has_no_such_interval(study):
    add_runs(study, chances(), score=0.123)
    assert math.isnan(cell_of(study).low_over_items)


def test_a_run_without_predictions_leaves_the_cell_without(study):
    add_runs(study, chances())
    next(study.folder.glob("*/predictions.parquet")).unlink()
    assert math.isnan(cell_of(study).low_over_items)


def test_four_seeds_are_too_few(study):
    add_runs(study, chances(seeds=4))
    assert math.isnan(cell_of(study).low_over_items)


def test_the_difference_of_two_arms_has_an_interval_over_the_same_test_sets(study):
    right = chances()
    worse = right & (np.arange(ITEMS) % 10 > 0)
    add_runs(study, right, method="full")
    add_runs(study, worse)
    cell = cell_of(study)
    low, high = cell.difference_low_over_items, cell.difference_high_over_items
    assert low < cell.difference < high
    alone = cell.high_over_items - cell.low_over_items
    assert high - low < 0.8 * alone  # what both find hard is no difference


def test_questions_on_one_text_are_drawn_together(study):
    for seed, right in enumerate(chances(), 1):
        score = {"test": {"es": {"exact_match": float(np.mean(right))}}}
        headline = {"split": "validation", "metric": "exact_match"}
        settings = {"data.kind": "extraction"}
        record = study.add(seed=seed, scores=score, headline=headline, settings=settings)
        rows = [
            (f"DEV_{i // 4}_QUERY_{i % 4}", "es", ["a"], "a" if one else "b", -0.5)
            for i, one in enumerate(right)
        ]
        write_rows(study, record, rows)
    assert cell_of(study).clusters == ITEMS / 4


@pytest.mark.parametrize("metric", ["f1", "em"])
def test_answers_are_resampled_by_their_own_scores(study, metric):
    rng = np.random.default_rng(1)
    for seed in range(1, 6):
        f1 = np.round(rng.random(ITEMS), 2)
        items = {"f1": f1.tolist(), "em": (f1 > 0.7).astype(float).tolist()}
        score = {"test": {"es": {metric: float(np.mean(items[metric]))}}}
        headline = {"split": "validation", "metric": metric}
        settings = {"data.kind": "extraction"}
        record = study.add(seed=seed, scores=score, headline=headline, settings=settings)
        rows = [(str(i), "es", ["the Nile"], "Nile river", -0.5) for i in range(ITEMS)]
        write_rows(study, record, rows, **items)
    cell = cell_of(study)
    assert cell.low_over_items < cell.mean < cell.high_over_items


def test_answers_without_scores_of_their_own_have_no_interval_for_f1(study):
    for seed in range(1, 6):
        score = {"test": {"es": {"f1": 0.5}}}
        settings = {"data.kind": "extraction"}
        record = study.add(seed=seed, scores=score, settings=settings)
        rows = [(str(i), "es", ["the Nile"], "Nile river", -0.5) for i in range(ITEMS)]
        write_rows(study, record, rows)
    assert math.isnan(cell_of(study).low_over_items)


def test_spans_are_resampled_by_their_counts(study):
    for seed in range(1, 6):
        right = [i % (seed + 3) > 0 for i in range(ITEMS)]
        pairs = [(["B-PER", "O"], ["B-PER", "O"] if one else ["O", "B-PER"]) for one in right]
        scores = {"test": {"es": {"f1": sum(right) / ITEMS}}}
        add_answers(study, "tagging", pairs, seed=seed, scores=scores)
    assert cell_of(study).clusters == ITEMS


def count_classes(pairs, labels):
    """Return (tp, fp, fn) of each label."""
    found = []
    for label in labels:
        gold, guess = ([pair[i] == label for pair in pairs] for i in (0, 1))
        right = sum(a and b for a, b in zip(gold, guess, strict=True))
        found.append((right, sum(guess) - right, sum(gold) - right))
    return np.array(found, float)


def test_macro_f1_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    gold, guess = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    counts = count_classes(list(zip(gold.tolist(), guess.tolist(), strict=True)), range(4))
    expected = f1_score(gold, guess, average="macro")
    assert measure_macro_f1(counts) == pytest.approx(expected)


def test_macro_f1_is_resampled_by_class(study):
    rng = np.random.default_rng(2)
    for seed in range(1, 6):
        gold = rng.integers(0, 3, ITEMS)
        pairs = [("abc"[g], "abc"[g if rng.random() < 0.7 else 0]) for g in gold]
        pairs = [("abc"[i % 3], pair[1]) for i, pair in enumerate(pairs)]
        counts = count_classes(pairs, "abc")
        scores = {"test": {"es": {"macro_f1": float(measure_macro_f1(counts))}}}
        headline = {"split": "validation", "metric": "macro_f1"}
        add_answers(study, "classification", pairs, seed=seed, scores=scores, headline=headline)
    cell = cell_of(study)
    assert cell.low_over_items < cell.mean < cell.high_over_items


def test_page_and_csv_give_the_interval(study):
    add_runs(study, chances())
    paths = write_report(study.outputs, "study", [], "").paths
    (line,) = csv.DictReader(io.StringIO(paths["table.csv"].read_text("utf-8")))
    low = float(line["low_over_items"])
    page = paths["index.html"].read_text("utf-8")
    assert f"over other test sets, too {low:.6f} to" in page
    assert f"({ITEMS} clusters)" in page
