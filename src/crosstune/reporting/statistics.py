"""The statistics of a report: intervals, paired differences, Holm's correction, the item bootstrap.

Pure functions over numbers: scores, one per seed, and counts, one per test item.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats has them too and takes a second to import

Array = NDArray[np.float64]
Measure = Callable[[Array], Array]

_MAX_CLUSTERS = 1000  # more clusters than this are merged into so many groups


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval, and the two-sided p value of "the mean is 0".

    Interval and p value are NaN for fewer than two seeds or clusters, and for equal scores.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True)
class Resampled:
    """Scores on resampled test sets, of shape (draws, seeds).

    `clusters` is the number of clusters in the test set. Subtracting two compares their arms on the
    same resampled test sets.
    """

    scores: Array
    clusters: int

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(self.scores - other.scores, min(self.clusters, other.clusters))


@dataclass(frozen=True)
class SignificanceRule:
    """The least seeds for printing an interval and for claiming a difference, and the level."""

    to_print: int = 5
    to_claim: int = 10
    level: float = 0.95


@dataclass(frozen=True)
class Claim:
    """A difference to the baseline; `adjusted` is its p value after Holm, NaN if not tested."""

    estimate: Estimate
    adjusted: float
    printed: bool
    significant: bool


def estimate(
    scores: Sequence[float], resampled: Resampled | None = None, level: float = 0.95
) -> Estimate:
    """Return the mean over seeds with its t interval.

    Without `resampled` the interval is over seeds on this test set: mean ± t(n - 1) s/√n. With it,
    it is over test sets as well. Seeds and test items are crossed, as every run is tested on the
    same items. With the variances of the mean over seeds (S), over test sets (T) and over both at
    once (B, which is part of S and of T), the variance is T + max(S - B, 0), as in Owen, The
    pigeonhole bootstrap, 2007, https://doi.org/10.1214/07-AOAS122. The degrees of freedom are
    Satterthwaite's. For a paired comparison pass differences, `ours - baseline`.

    >>> cell = estimate([0.80, 0.82, 0.81, 0.79, 0.83])
    >>> round(cell.mean, 3), round(cell.low, 4), round(cell.high, 4)
    (0.81, 0.7904, 0.8296)
    """
    n = len(scores)
    mean = math.fsum(scores) / n if n else math.nan
    unknown = Estimate(mean, math.nan, math.nan, math.nan, n)
    if n < 2 or (resampled is not None and resampled.clusters < 2):
        return unknown
    variance = float(np.var(scores, ddof=1)) / n
    freedom = n - 1.0
    if resampled is not None:
        variance, freedom = _add_test_sets(variance, resampled)
    error = math.sqrt(variance)
    if error <= 1e-12 * max(map(abs, scores)):  # equal up to rounding
        return unknown
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(mean) / error))
    return Estimate(mean, mean - half, mean + half, p, n)


def _add_test_sets(seeds: float, resampled: Resampled) -> tuple[float, float]:
    """Return the variance of the mean over seeds and test sets, and its degrees of freedom."""
    n, clusters = resampled.scores.shape[1], resampled.clusters
    means = resampled.scores.mean(axis=1)
    residuals = resampled.scores - means[:, None]
    correction = clusters / (clusters - 1)  # drawing with replacement underestimates the spread
    tests = correction * float(means.var(ddof=1))
    both = correction * float(residuals.var(axis=0, ddof=1).sum()) / (n - 1) / n
    variance = tests + max(seeds - both, 0.0)
    parts = seeds**2 / (n - 1) + tests**2 / (clusters - 1)
    freedom = variance**2 / parts if parts else math.inf
    return variance, max(freedom, min(n, clusters) - 1.0)


def sum_clusters(counts: Array, clusters: Sequence[Hashable] | None = None) -> Array:
    """Return counts per seed and cluster from counts per seed and item.

    Items of one document are not independent, so the document is drawn as a whole; without
    `clusters` each item is a cluster. Items within a drawn cluster are not drawn again, which would
    count their spread twice (Davison & Hinkley, Bootstrap Methods, 1997, section 3.8). More than
    1,000 clusters are merged into 1,000 groups, which does not change the variance.

    `counts` has the shape (seeds, items, counts of the measure).

    >>> sum_clusters(np.array([[[1, 1], [0, 1], [1, 1]]]), ["a", "a", "b"]).tolist()
    [[[1.0, 2.0], [1.0, 1.0]]]
    """
    names = range(counts.shape[1]) if clusters is None else clusters
    numbers: dict[Hashable, int] = {}
    group = [numbers.setdefault(name, len(numbers)) % _MAX_CLUSTERS for name in names]
    sums = np.zeros((min(len(numbers), _MAX_CLUSTERS), counts.shape[0], *counts.shape[2:]))
    np.add.at(sums, group, np.moveaxis(counts, 1, 0))
    return np.moveaxis(sums, 0, 1)


def resample(counts: Array, measure: Measure, draws: int = 1000) -> Resampled:
    """Return every seed's score on test sets whose clusters are drawn with replacement.

    All runs with the same number of clusters get the same draws, so arms can be compared draw by
    draw. `counts` comes from `sum_clusters`; `measure` turns the sum over clusters into a score.
    """
    clusters = counts.shape[1]
    totals = np.tensordot(_weights(clusters, draws), counts, axes=(1, 1))
    return Resampled(measure(totals), clusters)


@lru_cache(maxsize=4)
def _weights(clusters: int, draws: int) -> Array:
    """Return how often each cluster is in each drawn test set, of shape (draws, clusters)."""
    random = np.random.default_rng(0)
    return random.multinomial(clusters, [1 / clusters] * clusters, draws).astype(float)


def measure_share(totals: Array) -> Array:
    """Return correct / total from counts of (correct, total); a count may be a partial credit.

    >>> measure_share(np.array([3.0, 4.0])).item()
    0.75
    """
    return totals[..., 0] / totals[..., 1]


def measure_f1(totals: Array) -> Array:
    """Return 2 tp / (2 tp + fp + fn) from counts of (tp, fp, fn); 0 where all are 0.

    >>> measure_f1(np.array([[3.0, 1.0, 1.0], [0.0, 0.0, 0.0]])).tolist()
    [0.75, 0.0]
    """
    double = 2 * totals[..., 0]
    total = double + totals[..., 1] + totals[..., 2]
    return np.divide(double, total, out=np.zeros_like(total), where=total > 0)


def count_outcomes(outcomes: Iterable[tuple[str, str]]) -> tuple[int, int, int]:
    """Return (tp, fp, fn) of an item whose spans, words or labels were judged.

    >>> count_outcomes([("PER", "correct"), ("LOC", "boundary"), ("LOC", "missed")])
    (1, 1, 2)
    """
    names = [outcome for _, outcome in outcomes]
    correct = names.count("correct")
    missed, spurious = names.count("missed"), names.count("spurious")
    return correct, len(names) - correct - missed, len(names) - correct - spurious


def pair_seeds(
    ours: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[list[int], list[float]]:
    """Return the seeds that both arms finished, and our score minus the baseline's for each.

    >>> pair_seeds({3: 0.75, 1: 0.5}, {1: 0.25, 2: 0.5, 3: 0.5})
    ([1, 3], [0.25, 0.25])
    """
    seeds = sorted(ours.keys() & baseline.keys())
    return seeds, [ours[seed] - baseline[seed] for seed in seeds]


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values: min(1, the largest (m - i + 1) p_(i) so far), i from 1.

    The chance of any false positive among the m tests is then at most the level, however they
    depend on each other (Holm 1979, https://www.jstor.org/stable/4615733). NaN marks a pair that
    was not tested and stays NaN.

    >>> adjust_holm([0.01, 0.04, math.nan, 0.03])
    [0.03, 0.06, nan, 0.06]
    """
    tested = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: p_values[i])):
        largest = max(largest, (len(tested) - rank) * p_values[i])
        adjusted[i] = min(1.0, largest)
    return adjusted


def claim(differences: Sequence[Estimate], rule: SignificanceRule | None = None) -> list[Claim]:
    """Return what a table may claim of its differences to the baseline, tested as one family.

    A difference over fewer seeds than `rule.to_print` is not tested.
    """
    rule = rule or SignificanceRule()
    printed = [pair.n >= rule.to_print for pair in differences]
    tested = [
        pair.p if shown else math.nan for pair, shown in zip(differences, printed, strict=True)
    ]
    return [
        Claim(pair, p, shown, pair.n >= max(rule.to_claim, rule.to_print) and p < 1 - rule.level)
        for pair, p, shown in zip(differences, adjust_holm(tested), printed, strict=True)
    ]
