"""The statistics of a table, against scipy and against simulations whose truth is known."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from crosstune.reporting.statistics import (
    Resampled,
    SignificanceRule,
    adjust_holm,
    claim,
    estimate,
    measure_f1,
    measure_share,
    pair_seeds,
    resample,
    sum_clusters,
)

DRAWS = 10_000


@pytest.fixture
def random():
    return np.random.default_rng(20260101)


# --- one cell, one pair


@pytest.mark.parametrize("n", [2, 5, 10])
def test_the_interval_is_that_of_scipy(random, n):
    scores = random.normal(0.8, 0.02, n)
    found = estimate(scores.tolist())
    expected = stats.t.interval(0.95, n - 1, scores.mean(), stats.sem(scores))
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)


def test_the_p_value_of_a_pair_is_that_of_the_paired_t_test(random):
    ours, baseline = random.normal(0.81, 0.02, 7), random.normal(0.8, 0.02, 7)
    _, differences = pair_seeds(dict(enumerate(ours)), dict(enumerate(baseline)))
    assert estimate(differences).p == pytest.approx(stats.ttest_rel(ours, baseline).pvalue)


def test_another_level_gives_another_width(random):
    scores = random.normal(0.8, 0.02, 6).tolist()
    assert estimate(scores, level=0.99).low < estimate(scores).low


@pytest.mark.parametrize("scores", [[], [0.5], [0.1 + 0.2, 0.3, 0.3]])
def test_scores_without_spread_have_no_interval(scores):
    found = estimate(scores)
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_one_document_has_no_interval_over_test_sets(random):
    counts = sum_clusters(random.integers(0, 2, (5, 20, 2)).astype(float), ["a"] * 20)
    assert math.isnan(estimate([0.1, 0.2, 0.3, 0.4, 0.5], resample(counts, measure_share)).low)


# --- Holm


def test_holm_is_right_on_the_worked_example_of_r():
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert adjust_holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx(
        [0.05, 0.08, 0.09, 0.09, 0.09]
    )


def stepped_down(p_values, level):
    """Return which hypotheses fall, by the rule as it was published, one step at a time."""
    left, fallen = list(range(len(p_values))), set()
    while left:
        least = min(left, key=lambda i: p_values[i])
        if p_values[least] > level / len(left):
            break
        fallen.add(least)
        left.remove(least)
    return fallen


def test_holm_rejects_what_the_stepwise_rule_rejects(random):
    for _ in range(300):
        p_values = (random.random(random.integers(1, 9)) ** 3).tolist()
        adjusted = adjust_holm(p_values)
        for level in (0.01, 0.05, 0.2):
            assert {i for i, p in enumerate(adjusted) if p <= level} == stepped_down(
                p_values, level
            )


def test_adjusted_values_keep_the_order_and_stay_probabilities(random):
    p_values = sorted(random.random(20).tolist())
    adjusted = adjust_holm(p_values)
    assert all(a <= b for a, b in pairwise(adjusted))
    assert max(adjusted) == 1


# --- what may be claimed


def pairs(n, size=1.0):
    return [estimate([size + 0.01 * i for i in range(n)])]


@pytest.mark.parametrize(
    ("n", "printed", "significant"),
    [(4, False, False), (5, True, False), (9, True, False), (10, True, True)],
)
def test_five_seeds_print_an_interval_and_ten_make_a_claim(n, printed, significant):
    (found,) = claim(pairs(n))
    assert (found.printed, found.significant) == (printed, significant)


def test_the_least_numbers_of_seeds_can_be_set():
    (found,) = claim(pairs(5), SignificanceRule(to_print=3, to_claim=5))
    assert found.significant


def test_a_difference_of_too_few_seeds_is_not_among_the_tested():
    few, many = pairs(4), pairs(10, size=0.02)
    assert claim(many)[0].adjusted == claim([*few, *many])[1].adjusted
    assert math.isnan(claim([*few, *many])[0].adjusted)


# --- test sets


def test_a_cluster_is_drawn_as_a_whole(random):
    right = random.integers(0, 2, (3, 6)).astype(float)
    counts = np.stack([right, np.ones_like(right)], axis=-1)
    summed = sum_clusters(counts, [("d", 1), ("d", 2), ("d", 1), ("d", 2), ("d", 3), ("d", 3)])
    assert summed.shape == (3, 3, 2)
    assert (summed[:, 0] == counts[:, 0] + counts[:, 2]).all()


def test_a_draw_is_a_sum_over_drawn_clusters():
    counts = np.array([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]])
    drawn = resample(counts, lambda totals: totals.sum(-1), draws=50)
    assert (drawn.scores == 3).all()


def test_two_arms_are_tested_on_the_same_draws(random):
    counts = random.integers(0, 2, (4, 30, 3)).astype(float)
    same = resample(counts, measure_f1) - resample(counts.copy(), measure_f1)
    assert not same.scores.any()


def test_the_spread_over_test_sets_is_that_of_a_share(random):
    right = (random.random((1, 800)) < 0.7).astype(float)
    counts = sum_clusters(np.stack([right, np.ones_like(right)], axis=-1))
    drawn = resample(counts, measure_share).scores.std()
    assert drawn == pytest.approx(math.sqrt(right.mean() * (1 - right.mean()) / 800), rel=0.08)


def test_dealing_many_items_into_groups_leaves_the_spread(random):
    right = (random.random((1, 20_000)) < 0.7).astype(float)
    counts = sum_clusters(np.stack([right, np.ones_like(right)], axis=-1))
    assert counts.shape == (1, 1000, 2)
    drawn = resample(counts, measure_share).scores.std()
    assert drawn == pytest.approx(math.sqrt(0.21 / 20_000), rel=0.08)


def test_f1_over_test_sets_agrees_with_drawing_items_one_by_one(random):
    counts = random.integers(0, 3, (1, 60, 3)).astype(float)
    drawn = resample(sum_clusters(counts), measure_f1).scores.std()
    items = random.integers(0, 60, (4000, 60))
    tp, fp, fn = np.moveaxis(counts[0][items].sum(axis=1), -1, 0)
    assert drawn == pytest.approx((2 * tp / (2 * tp + fp + fn)).std(), rel=0.08)


# --- simulated scores whose truth is known


def covered(simulated, truth, interval):
    found = [interval(scores) for scores in simulated]
    return sum(low <= truth <= high for low, high in found) / len(found)


def t_interval(scores):
    found = estimate(scores)
    return found.low, found.high


def planted_normal_interval(scores):
    mean, error = np.mean(scores), np.std(scores, ddof=1) / math.sqrt(len(scores))
    return mean - 1.96 * error, mean + 1.96 * error


def planted_ddof_interval(scores):
    n, mean = len(scores), np.mean(scores)
    half = stats_t[n] * np.std(scores, ddof=0) / math.sqrt(n)
    return mean - half, mean + half


stats_t = {n: float(stats.t.ppf(0.975, n - 1)) for n in (5, 10)}


@pytest.mark.parametrize("n", [5, 10])
def test_intervals_over_seeds_cover_the_truth(random, n):
    simulated = random.normal(0.8, 0.02, (DRAWS, n)).tolist()
    assert 0.94 <= covered(simulated, 0.8, t_interval) <= 0.96


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("planted", [planted_normal_interval, planted_ddof_interval])
def test_a_normal_quantile_or_a_biased_spread_would_be_found(random, n, planted):
    simulated = random.normal(0.8, 0.02, (DRAWS, n)).tolist()
    assert covered(simulated, 0.8, planted) < 0.94


def false_positives(random, n, arms, judge):
    """Return the share of tables with a claim on an arm that is no better than the baseline.

    Of so many arms every third is better indeed; all are compared with the same baseline.
    """
    better = np.arange(arms) % 3 == 2
    wrong = 0
    for _ in range(DRAWS // 10):
        scores = random.normal(0.8, 0.02, (10, arms + 1, n))
        differences = scores[:, 1:] + 0.03 * better[:, None] - scores[:, :1]
        for table in differences.tolist():
            found = judge([estimate(pair) for pair in table])
            wrong += any(hit for hit, real in zip(found, better, strict=True) if not real)
    return wrong / DRAWS


def claims(rule):
    return lambda table: [found.significant for found in claim(table, rule)]


@pytest.mark.parametrize("n", [5, 10])
def test_at_most_one_table_in_twenty_holds_a_false_claim(random, n):
    assert false_positives(random, n, 6, claims(SignificanceRule(to_claim=n))) <= 0.05


def test_five_seeds_never_claim_unless_they_are_allowed_to(random):
    assert false_positives(random, 5, 3, claims(SignificanceRule())) == 0


def test_p_values_that_nobody_adjusted_would_be_found(random):
    assert false_positives(random, 10, 6, lambda table: [pair.p < 0.05 for pair in table]) > 0.1


def simulate_runs(random, seeds, documents, per_document):
    """Return right or wrong, seeds x items, of runs whose expected share of right is one half.

    Documents, items, seeds and what a seed makes of an item each have an effect of their own.
    """
    items = documents * per_document
    logit = random.normal(0, 0.3, (seeds, 1)) + random.normal(0, 1.0, items)
    logit = logit + np.repeat(random.normal(0, 1.0, documents), per_document)
    return (logit + random.logistic(0, 1, (seeds, items)) > 0).astype(float)


def cover_test_sets(random, rounds, seeds, interval):
    inside = 0
    documents, per_document = 60, 5
    of = np.repeat(np.arange(documents), per_document).tolist()
    for _ in range(rounds):
        right = simulate_runs(random, seeds, documents, per_document)
        counts = np.stack([right, np.ones_like(right)], axis=-1)
        low, high = interval(right.mean(axis=1).tolist(), counts, of)
        inside += low <= 0.5 <= high
    return inside / rounds


def whole_interval(scores, counts, of):
    found = estimate(scores, resample(sum_clusters(counts, of), measure_share, draws=400))
    return found.low, found.high


def planted_items_alone(scores, counts, of):
    found = estimate(scores, resample(sum_clusters(counts), measure_share, draws=400))
    return found.low, found.high


def planted_draws_of_its_own_for_each_seed(scores, counts, of):
    """Resample the test set anew for each seed, as if the runs had been tested on others."""
    summed = sum_clusters(counts, of)
    drawn = resample(summed, measure_share, draws=400)
    apart = np.stack([np.roll(seed, 7 * i) for i, seed in enumerate(drawn.scores.T)], axis=1)
    found = estimate(scores, Resampled(apart, drawn.clusters))
    return found.low, found.high


def seeds_alone(scores, counts, of):
    return t_interval(scores)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10])
def test_intervals_over_seeds_and_test_sets_cover_the_truth(random, seeds):
    assert 0.94 <= cover_test_sets(random, DRAWS, seeds, whole_interval) <= 0.96


@pytest.mark.parametrize("seeds", [5, 10])
def test_intervals_over_seeds_and_test_sets_cover_the_truth_of_few_draws(random, seeds):
    assert 0.93 <= cover_test_sets(random, 1000, seeds, whole_interval) <= 0.975


def test_two_equal_arms_are_told_apart_on_one_test_set_in_twenty(random):
    told = 0
    of = np.repeat(np.arange(60), 5).tolist()
    for _ in range(1000):
        right = simulate_runs(random, 10, 60, 5)
        counts = sum_clusters(np.stack([right, np.ones_like(right)], axis=-1), of)
        drawn = [resample(arm, measure_share, draws=400) for arm in (counts[:5], counts[5:])]
        means = right.mean(axis=1)
        told += estimate((means[:5] - means[5:]).tolist(), drawn[0] - drawn[1]).p < 0.05
    assert 0.025 <= told / 1000 <= 0.07


@pytest.mark.parametrize(
    "planted", [planted_items_alone, planted_draws_of_its_own_for_each_seed, seeds_alone]
)
def test_an_interval_that_forgets_documents_or_that_all_share_them_would_be_found(random, planted):
    assert cover_test_sets(random, 500, 5, planted) < 0.93
