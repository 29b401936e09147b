"""The statistics behind a table: a cell's interval, a pair's difference, what may be claimed.

Pure functions over numbers: scores, one a seed, and counts of what was right, one a test item. They
do not know where these come from; nothing is printed here.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crosstune.reporting.student import t_below, t_quantile

Array = NDArray[np.float64]
Measure = Callable[[Array], Array]

_GROUPS = 1000  # more clusters than this are dealt into so many groups


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval, and the two-sided p value of "the mean is 0".

    NaN where the scores do not say: under two seeds or clusters, or no spread at all.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True)
class Resampled:
    """Scores on resampled test sets, draws x seeds; `clusters` is how many were drawn from.

    The difference of two is that of the arms on the same resampled test sets.
    """

    scores: Array
    clusters: int

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(self.scores - other.scores, min(self.clusters, other.clusters))


@dataclass(frozen=True)
class SignificanceRule:
    """From how many seeds on an interval is printed, and a difference may be claimed."""

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

    Without `resampled` the interval is about other seeds on this test set: mean ± t(n - 1) s/√n.
    With it, it is about other test sets as well. Seeds and test items are crossed, every run being
    tested on the same ones, so with the variances of the mean over seeds (S), over test sets (T)
    and of both at once (B, which is part of S and of T) its variance is T + max(S - B, 0), as in
    Owen, The pigeonhole bootstrap, 2007, https://doi.org/10.1214/07-AOAS122. The degrees of
    freedom are Satterthwaite's. For a pair pass differences, `ours - baseline`.

    >>> cell = estimate([0.80, 0.82, 0.81, 0.79, 0.83])
    >>> round(cell.mean, 3), round(cell.low, 4), round(cell.high, 4)
    (0.81, 0.7904, 0.8296)
    """
    n = len(scores)
    mean = math.fsum(scores) / n if n else math.nan
    unknown = Estimate(mean, math.nan, math.nan, math.nan, n)
    if n < 2 or (resampled is not None and resampled.clusters < 2):
        return unknown
    variance = math.fsum((score - mean) ** 2 for score in scores) / (n - 1) / n
    freedom = n - 1.0
    if resampled is not None:
        variance, freedom = _add_test_sets(variance, resampled)
    error = math.sqrt(variance)
    if error <= 1e-12 * max(map(abs, scores)):  # equal but for rounding
        return unknown
    half = t_quantile(freedom, (1 + level) / 2) * error
    p = 2 * t_below(freedom, -abs(mean) / error)
    return Estimate(mean, mean - half, mean + half, p, n)


def _add_test_sets(seeds: float, resampled: Resampled) -> tuple[float, float]:
    """Return the variance of the mean over seeds and test sets, and its degrees of freedom."""
    n, drawn = resampled.scores.shape[1], resampled.clusters
    means = resampled.scores.mean(axis=1)
    apart = resampled.scores - means[:, None]
    bias = drawn / (drawn - 1)  # drawing with replacement spreads too little by so much
    tests = bias * float(means.var(ddof=1))
    both = bias * float(apart.var(axis=0, ddof=1).sum()) / (n - 1) / n
    variance = tests + max(seeds - both, 0.0)
    parts = seeds**2 / (n - 1) + tests**2 / (drawn - 1)
    freedom = variance**2 / parts if parts else math.inf
    return variance, max(freedom, min(n, drawn) - 1.0)


def sum_clusters(counts: Array, clusters: Sequence[Hashable] | None = None) -> Array:
    """Return counts per seed and cluster from counts per seed and item.

    Items of one document are no independent evidence, so the document is drawn as a whole; without
    `clusters` each item is its own. Items within a drawn cluster are not drawn again: that would
    count their spread twice (Davison & Hinkley, Bootstrap Methods, 1997, section 3.8). More than
    1,000 clusters are dealt into 1,000 groups, which leaves the variance as it is.

    `counts` is seeds x items x whatever the measure asks for.

    >>> sum_clusters(np.array([[[1, 1], [0, 1], [1, 1]]]), ["a", "a", "b"]).tolist()
    [[[1.0, 2.0], [1.0, 1.0]]]
    """
    names = range(counts.shape[1]) if clusters is None else clusters
    places: dict[Hashable, int] = {}
    group = [places.setdefault(name, len(places)) % _GROUPS for name in names]
    sums = np.zeros((min(len(places), _GROUPS), counts.shape[0], *counts.shape[2:]))
    np.add.at(sums, group, np.moveaxis(counts, 1, 0))
    return np.moveaxis(sums, 0, 1)


def resample(counts: Array, measure: Measure, draws: int = 1000) -> Resampled:
    """Return every seed's score on test sets drawn from this one with replacement, cluster-wise.

    The draws are the same for all runs of as many clusters, so arms may be compared draw by draw.
    `counts` come from `sum_clusters`; `measure` turns their sum over clusters into a score.
    """
    clusters = counts.shape[1]
    totals = np.tensordot(_weights(clusters, draws), counts, axes=(1, 1))
    return Resampled(measure(totals), clusters)


@lru_cache(maxsize=4)
def _weights(clusters: int, draws: int) -> Array:
    """Return how often each cluster is in each drawn test set, draws x clusters."""
    random = np.random.default_rng(0)
    return random.multinomial(clusters, [1 / clusters] * clusters, draws).astype(float)


def measure_share(totals: Array) -> Array:
    """Return right / all, from counts of (right, all); right may be a partial credit.

    >>> measure_share(np.array([3.0, 4.0])).item()
    0.75
    """
    return totals[..., 0] / totals[..., 1]


def measure_f1(totals: Array) -> Array:
    """Return 2 tp / (2 tp + fp + fn), from counts of (tp, fp, fn); 0 where there is nothing.

    >>> measure_f1(np.array([[3.0, 1.0, 1.0], [0.0, 0.0, 0.0]])).tolist()
    [0.75, 0.0]
    """
    double = 2 * totals[..., 0]
    whole = double + totals[..., 1] + totals[..., 2]
    return np.divide(double, whole, out=np.zeros_like(whole), where=whole > 0)


def count_found(outcomes: Iterable[tuple[str, str]]) -> tuple[int, int, int]:
    """Return (tp, fp, fn) of an item judged in `outcomes.py` as spans, words or a set.

    >>> count_found([("PER", "correct"), ("LOC", "boundary"), ("LOC", "missed")])
    (1, 1, 2)
    """
    ends = [outcome for _, outcome in outcomes]
    right = ends.count("correct")
    missed, spurious = ends.count("missed"), ends.count("spurious")
    return right, len(ends) - right - missed, len(ends) - right - spurious


def pair_seeds(
    ours: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[list[int], list[float]]:
    """Return the seeds that both arms finished, and ours minus the baseline's score for each.

    >>> pair_seeds({3: 0.75, 1: 0.5}, {1: 0.25, 2: 0.5, 3: 0.5})
    ([1, 3], [0.25, 0.25])
    """
    seeds = sorted(ours.keys() & baseline.keys())
    return seeds, [ours[seed] - baseline[seed] for seed in seeds]


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values: min(1, the largest (m - i + 1) p_(i) so far), i from 1.

    The chance of any false positive among the m is then at most the level, however they depend on
    each other (Holm 1979, https://www.jstor.org/stable/4615733). NaN is no test and stays NaN.

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
    """Return what a table may say of its differences to the baseline, all of them tested at once.

    A difference of fewer seeds than are needed to print an interval is not tested.
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
