"""The confidence interval of each cell, and its paired difference to the baseline.

All differences of a table are corrected together (Holm). The statistics are in `statistics.py`.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from crosstune.errors import ConfigError, suggest
from crosstune.reporting.cells import NOT_MEASURED, Compared, Table
from crosstune.reporting.statistics import (
    Estimate,
    SignificanceRule,
    claim,
    estimate,
    pair_seeds,
)

MARK = "*"  # behind a score that may be claimed to differ from the baseline's
COMPARED_COLUMNS = tuple(one.name for one in fields(Compared) if one.name != "differences")


@dataclass(frozen=True)
class Comparison:
    """The baseline, a method or an arm, and the rule by which differences to it are judged."""

    baseline: str = "full"
    rule: SignificanceRule = field(default_factory=SignificanceRule)

    @property
    def percent(self) -> str:
        """The level of the intervals as text."""
        return f"{100 * self.rule.level:g} %"

    @property
    def requirement(self) -> str:
        """What a difference must have to be marked."""
        return f"p < {1 - self.rule.level:.2g} after Holm and at least {self.rule.to_claim} seeds"


def read_comparison(baseline: str, to_print: str, to_claim: str) -> Comparison:
    """Return the comparison that a command line asks for.

    Raises:
        ConfigError: a number of seeds is not a whole number of at least two.

    >>> read_comparison("full", "5", "10") == Comparison()
    True
    """
    for name, text in (("seeds_to_print", to_print), ("seeds_to_claim", to_claim)):
        if not (text.isascii() and text.isdigit()) or not 2 <= int(text) < 10**6:
            raise ConfigError(f"{name}={text}: must be a whole number of seeds, at least 2.")
    return Comparison(baseline, SignificanceRule(int(to_print), int(to_claim)))


def check_baseline(name: str, runs: Iterable[Mapping[str, Any]]) -> None:
    """Raise ConfigError if no run of a study is of the method or arm that is to be the baseline."""
    known = {run[key] for run in runs for key in ("method", "arm")}
    if name not in known:
        raise ConfigError(
            f"baseline={name}: no method or arm of this study. {suggest(name, sorted(known))}"
        )


@dataclass(frozen=True)
class ArmScores:
    """Scores by seed to compare with the baseline of the same `group`.

    A group is the cells of one column, model and set of conditions.
    """

    group: Hashable
    method: str
    arm: str
    scores: Mapping[int, float]


def compare_cells(candidates: Sequence[ArmScores], comparison: Comparison) -> list[Compared]:
    """Return each cell's interval and difference; all differences are one family of tests.

    The baseline of a cell is the only arm in its group with the name or method of
    `comparison.baseline`; where there are several, or none, there is no difference.
    """
    rule = comparison.rule
    baselines = _find_baselines(candidates, comparison.baseline)
    intervals = [estimate([*one.scores.values()], level=rule.level) for one in candidates]
    values = [_get_interval(interval, interval.n >= rule.to_print) for interval in intervals]
    pairs = {
        i: pair_seeds(candidate.scores, baseline.scores)
        for i, candidate in enumerate(candidates)
        if (baseline := baselines.get(candidate.group)) and baseline is not candidate
    }
    estimates = [estimate(differences, level=rule.level) for _, differences in pairs.values()]
    claims = claim(estimates, rule)
    for (i, (seeds, differences)), judged in zip(pairs.items(), claims, strict=True):
        values[i] |= {"baseline": baselines[candidates[i].group].arm}
        values[i] |= {"difference_seeds": tuple(seeds), "differences": tuple(differences)}
        values[i] |= {"difference": judged.estimate.mean, "p_holm": judged.adjusted}
        values[i] |= {"claimed": judged.significant}
        values[i] |= _get_interval(judged.estimate, judged.printed, "difference_")
        values[i] |= {"p": judged.estimate.p if judged.printed else math.nan}
    return [Compared(**one) for one in values]


def _get_interval(interval: Estimate, printed: bool, prefix: str = "") -> dict[str, Any]:
    low, high = (interval.low, interval.high) if printed else (math.nan, math.nan)
    return {f"{prefix}low": low, f"{prefix}high": high}


def _find_baselines(candidates: Iterable[ArmScores], name: str) -> dict[Hashable, ArmScores]:
    matches = defaultdict(list)
    for candidate in candidates:
        if name in (candidate.method, candidate.arm):
            matches[candidate.group].append(candidate)
    return {group: arms[0] for group, arms in matches.items() if len(arms) == 1}


def count_tests(cells: Iterable[Compared]) -> int:
    """Return how many differences of a table were tested."""
    return sum(not math.isnan(cell.p_holm) for cell in cells)


def explain_mark(cells: Sequence[Compared], comparison: Comparison) -> str:
    """Return the legend of the mark, or nothing if no cell has one."""
    if not any(cell.claimed for cell in cells):
        return ""
    return (
        f" {MARK} differs from {comparison.baseline}: {comparison.requirement} "
        f"(differences tested: {count_tests(cells)})."
    )


def render_difference(cell: Compared) -> str:
    """Return a difference in percentage points, with the interval if there are enough seeds.

    >>> render_difference(Compared(low=0, high=0, difference=0.012, difference_seeds=(1, 2)))
    '+1.2 (2)'
    """
    text = format_signed(100 * cell.difference, 1)
    if not math.isnan(cell.difference_low):
        low, high = (
            format_signed(100 * end, 1) for end in (cell.difference_low, cell.difference_high)
        )
        text += f" [{low}, {high}] p {cell.p_holm:.2g}"
    return f"{text} ({len(cell.difference_seeds)})" + (MARK if cell.claimed else "")


def format_signed(value: float, digits: int) -> str:
    """Return a number with its sign; a number that is rounded to 0 has none.

    >>> format_signed(-1.25, 1), format_signed(0.5, 1), format_signed(-0.01, 1)
    ('−1.2', '+0.5', '0.0')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def build_differences(table: Table, comparison: Comparison) -> Table | None:
    """Return the differences of a study to its baseline, or None if no seed is paired.

    Rows are the arms that have a difference, columns those of the study's table.
    """
    compared = [cell for cell in table.cells if cell.difference_seeds]
    if not compared:
        return None
    rows = sorted({cell.row for cell in compared})
    row_of = {row: index for index, row in enumerate(rows)}
    cells = tuple(replace(cell, row=row_of[cell.row]) for cell in compared)
    lines = [[table.rows[row][0], *[NOT_MEASURED] * len(table.columns)] for row in rows]
    for cell in cells:
        lines[cell.row][1 + cell.column] = render_difference(cell)
    groups = (
        (name, tuple(row_of[row] for row in members if row in row_of))
        for name, members in table.groups
    )
    return Table(
        experiment=table.experiment,
        caption=f"{table.experiment}: differences to {comparison.baseline} in percentage points, "
        f"seed by seed: mean [{comparison.percent} interval] p after Holm over "
        f"{count_tests(cells)} differences (number of seeds that both finished). Intervals and p "
        f"from {comparison.rule.to_print} seeds on; {MARK} where {comparison.requirement}.",
        headers=(table.headers[0], *table.columns),
        rows=tuple(map(tuple, lines)),
        notes=(
            "An interval is a t interval over seeds, and so about other seeds on the same test "
            "items, not about other test items.",
        ),
        columns=table.columns,
        cells=cells,
        groups=tuple((name, members) for name, members in groups if members),
    )
