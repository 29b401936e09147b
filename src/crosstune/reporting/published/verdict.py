"""Our scores beside a published number: the difference, and which facts of protocol differ.

Called for the published column of a table. The number itself is read by `published.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from scipy.special import stdtrit

from crosstune.errors import ConfigError
from crosstune.reporting.published.model import Procedure, Row
from crosstune.reporting.statistics import SignificanceRule

_NAMES = {"split": "split", "aggregate": "aggregate", "seeds": "seeds", "selected_on": "chosen on"}


@dataclass(frozen=True)
class Verdict:
    """How a published number relates to ours; `ours` and `difference` are fractions.

    `ours` is aggregated as the paper did, NaN where that cannot be: the best of more runs than
    ours, or of an unknown number. `expected` is whether the published number lies where the mean of
    as many runs of ours would at the rule's level, None where that cannot be said. `differs` names
    the facts of protocol that are not the same, or not known.
    """

    ours: float
    difference: float
    expected: bool | None
    differs: tuple[str, ...]


STAND_IN = "stand-in data, not the paper's"


def reason_to_withhold(verdict: Verdict) -> Verdict:
    """Return the verdict on runs that rehearsed on stand-in data: no difference, no agreement."""
    return replace(verdict, difference=math.nan, expected=None, differs=(STAND_IN,))


def aggregate(scores: Sequence[float], how: str, seeds: int | None) -> float:
    """Return our scores aggregated as a paper aggregated the runs of `seeds` seeds.

    A single or a chosen run is expected at the mean, as is a number of unknown aggregation.

    >>> aggregate([0.5, 0.7, 0.9], "median", 5), aggregate([0.5, 0.75], "max", 1)
    (0.7, 0.625)
    """
    if not scores:
        return math.nan
    if how == "max":
        return math.nan if seeds is None else expect_best(scores, seeds)
    return median(scores) if how == "median" else math.fsum(scores) / len(scores)


def expect_best(scores: Sequence[float], runs: int) -> float:
    """Return the expected maximum of so many runs, drawn from ours without replacement.

    Sum over the i-th smallest of n scores x_(i) C(i - 1, k - 1) / C(n, k), free of bias, unlike the
    estimate with replacement of Dodge et al. 2019, https://arxiv.org/abs/1909.03004. NaN for more
    runs than there are scores.

    >>> expect_best([0.25, 0.5, 1.0], 3), expect_best([0.0, 0.5, 1.0], 2)
    (1.0, 0.8333333333333334)
    """
    if not 1 <= runs <= len(scores):
        return math.nan
    weighted = (score * math.comb(i, runs - 1) for i, score in enumerate(sorted(scores)))
    return math.fsum(weighted) / math.comb(len(scores), runs)


def judge_published(
    scores: Sequence[float], protocol: Procedure, row: Row, rule: SignificanceRule | None = None
) -> Verdict:
    """Return the verdict on a published number, beside our scores, one a seed.

    Raises:
        ConfigError: the number is a cost.
    """
    if row.score is None:
        raise ConfigError(f"{row.table}: {row.metric} is a cost in {row.unit}, no score.")
    ours = aggregate(scores, row.aggregate, row.seeds)
    return Verdict(
        ours,
        ours - row.score,
        _expects(scores, row, rule or SignificanceRule()),
        (*_differences(protocol, row.protocol), *([] if row.verified else ["it is not verified"])),
    )


def _expects(scores: Sequence[float], row: Row, rule: SignificanceRule) -> bool | None:
    """Return whether |ours - theirs| <= t(n - 1) s √(1/n + 1/m) for a mean of m runs."""
    n = len(scores)
    runs = 1 if row.aggregate == "single" else row.seeds
    if row.score is None or row.aggregate not in ("single", "mean") or not runs:
        return None
    if n < max(2, rule.to_print):
        return None
    mean = math.fsum(scores) / n
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (n - 1))
    reach = float(stdtrit(n - 1, (1 + rule.level) / 2)) * spread * math.sqrt(1 / n + 1 / runs)
    return abs(mean - row.score) <= reach


def _differences(ours: Procedure, theirs: Procedure) -> list[str]:
    told = []
    for key, name in _NAMES.items():
        here, there = getattr(ours, key), getattr(theirs, key)
        if there in (None, "unknown"):
            told.append(f"{name}: {here} here, not stated there")
        elif here != there:
            told.append(f"{name}: {here} here, {there} there")
    return told
