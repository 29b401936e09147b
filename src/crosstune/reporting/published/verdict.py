"""Compare our scores with a published number: the difference, and how the protocols differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from scipy.special import stdtrit

from crosstune.errors import ConfigError
from crosstune.reporting.cells import mean_std
from crosstune.reporting.published.model import Procedure, PublishedNumber
from crosstune.reporting.statistics import SignificanceRule

_NAMES = {"split": "split", "aggregate": "aggregate", "seeds": "seeds", "selected_on": "chosen on"}


@dataclass(frozen=True)
class Verdict:
    """How a published number relates to ours; `ours` and `difference` are fractions.

    `ours` is aggregated as the paper did, NaN where that cannot be: the best of more runs than
    ours, or of an unknown number. `expected` is whether the published number lies within the
    prediction interval for the mean of as many runs of ours, None if there is no such interval.
    `differs` lists the facts of protocol that differ or are not known.
    """

    ours: float
    difference: float
    expected: bool | None
    differs: tuple[str, ...]


STAND_IN = "stand-in data, not the paper's"


def reason_to_withhold(verdict: Verdict) -> Verdict:
    """Return the verdict on runs on stand-in data: no difference, no agreement."""
    return replace(verdict, difference=math.nan, expected=None, differs=(STAND_IN,))


def aggregate(scores: Sequence[float], procedure: str, seeds: int | None) -> float:
    """Return our scores aggregated as a paper aggregated its runs over `seeds` seeds.

    The expectation of a single or a chosen run is the mean; so is that of an unknown aggregation.

    >>> aggregate([0.5, 0.7, 0.9], "median", 5), aggregate([0.5, 0.75], "max", 1)
    (0.7, 0.625)
    """
    if not scores:
        return math.nan
    if procedure == "max":
        return math.nan if seeds is None else expect_best(scores, seeds)
    return median(scores) if procedure == "median" else math.fsum(scores) / len(scores)


def expect_best(scores: Sequence[float], runs: int) -> float:
    """Return the expected maximum of k = `runs` scores drawn from ours without replacement.

    The sum over i of x_(i) C(i - 1, k - 1) / C(n, k), where x_(i) is the i-th smallest of n scores.
    Unlike the estimate with replacement of Dodge et al. 2019 (https://arxiv.org/abs/1909.03004) it
    is unbiased. NaN for more runs than there are scores.

    >>> expect_best([0.25, 0.5, 1.0], 3), expect_best([0.0, 0.5, 1.0], 2)
    (1.0, 0.8333333333333334)
    """
    if not 1 <= runs <= len(scores):
        return math.nan
    weighted = (score * math.comb(i, runs - 1) for i, score in enumerate(sorted(scores)))
    return math.fsum(weighted) / math.comb(len(scores), runs)


def judge_published(
    scores: Sequence[float],
    protocol: Procedure,
    row: PublishedNumber,
    rule: SignificanceRule | None = None,
) -> Verdict:
    """Return how a published number relates to our scores, one per seed.

    Raises:
        ConfigError: the number is a cost.
    """
    if row.score is None:
        raise ConfigError(f"{row.table}: {row.metric} is a cost in {row.unit}, no score.")
    ours = aggregate(scores, row.aggregate, row.seeds)
    return Verdict(
        ours,
        ours - row.score,
        _is_expected(scores, row, rule or SignificanceRule()),
        (
            *_list_differences(protocol, row.protocol),
            *([] if row.verified else ["it is not verified"]),
        ),
    )


def _is_expected(
    scores: Sequence[float], row: PublishedNumber, rule: SignificanceRule
) -> bool | None:
    """Return whether |ours - theirs| <= t(n - 1) s √(1/n + 1/m) for a mean of m runs."""
    n = len(scores)
    runs = 1 if row.aggregate == "single" else row.seeds
    if row.score is None or row.aggregate not in ("single", "mean") or not runs:
        return None
    if n < max(2, rule.to_print):
        return None
    mean, spread = mean_std(scores)
    reach = float(stdtrit(n - 1, (1 + rule.level) / 2)) * spread * math.sqrt(1 / n + 1 / runs)
    return abs(mean - row.score) <= reach


def _list_differences(ours: Procedure, theirs: Procedure) -> list[str]:
    differences = []
    for key, name in _NAMES.items():
        here, there = getattr(ours, key), getattr(theirs, key)
        if there in (None, "unknown"):
            differences.append(f"{name}: {here} here, not stated there")
        elif here != there:
            differences.append(f"{name}: {here} here, {there} there")
    return differences
