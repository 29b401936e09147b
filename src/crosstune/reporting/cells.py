"""What a report is made of: scores by seed, the typed cells of a table, and the table itself.

Types only: `aggregate.py`, `comparison.py` and `tables.py` make them, the renderers read them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "–"  # in place of a number that was not measured
UNSCORED = ("failed", "diverged", "unfinished", "unreadable", "missing")  # statuses without score


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; NaN where there are too few values.

    >>> mean_std([1, 2, 3])
    (2.0, 1.0)
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """Scores in the order of their seeds; `planned` counts the seeds that were planned.

    `std` is the sample standard deviation, sqrt(sum (x - mean)^2 / (n - 1)), NaN for n = 1.
    """

    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    planned: int

    @property
    def n(self) -> int:
        """The number of scores."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return mean_std(self.scores)[0]

    @property
    def std(self) -> float:
        """The sample standard deviation over seeds."""
        return mean_std(self.scores)[1]


@dataclass(frozen=True, kw_only=True)
class ScoredArm:
    """What the scores of a cell are of: one arm on one data set, split and language.

    `unscored` counts the arm's runs without a score by status; `costs` are means over the arm's
    finished runs, NaN where none measured it.
    """

    model: str
    method: str
    arm: str
    dataset: str
    train_language: str
    split: str
    language: str
    metric: str
    run_ids: tuple[str, ...]
    unscored: Mapping[str, int]
    costs: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ScoreSummary(SeedScores, ScoredArm):
    """The scores of one arm in the headline metric."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A cell's t interval over seeds, and its difference to the baseline seed by seed.

    `differences` are our scores minus the baseline's for each of `difference_seeds`, the seeds that
    both finished. `baseline` is empty where there is none or several; intervals and p values are
    NaN for too few seeds. `claimed` is whether the table may claim a difference.
    """

    low: float
    high: float
    baseline: str = ""
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    difference_seeds: tuple[int, ...] = ()
    differences: tuple[float, ...] = ()
    p: float = math.nan
    p_holm: float = math.nan
    claimed: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell(SeedScores, ScoredArm, Compared):
    """One cell of a study's table; `row` and `column` are positions in its rows and columns.

    `validation_scores` are NaN for seeds without one, and empty where no seed has one. The last
    five fields are intervals over test sets as well as seeds, and the number of clusters that were
    resampled; NaN where the predictions do not give them.
    """

    row: int
    column: int
    conditions: str
    validation_scores: tuple[float, ...]
    low_over_items: float = math.nan
    high_over_items: float = math.nan
    difference_low_over_items: float = math.nan
    difference_high_over_items: float = math.nan
    clusters: float = math.nan

    @property
    def text(self) -> str:
        """The cell as it is printed, without the mark of a claim."""
        return render_scores(self, self.unscored)

    @property
    def validation_mean(self) -> float:
        """The mean over the seeds with a score on validation."""
        return mean_std(_drop_nan(self.validation_scores))[0]

    @property
    def validation_std(self) -> float:
        """The standard deviation over the seeds with a score on validation."""
        return mean_std(_drop_nan(self.validation_scores))[1]


def _drop_nan(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


@dataclass(frozen=True)
class Table:
    """A table as plain, unescaped text, with the numbers behind it.

    Attributes:
        headers: of the label column and of every further column; `columns` are those with scores.
        rows: the label and the text of each cell.
        cells: the cells of a study's table, and of its differences.
        numbers: what the CSV file of another table holds, one mapping per line.
        flags: sentences on differences between rows that should not be.
        references: rows below those of the arms, such as the majority's scores.
        groups: pairs of conditions and the positions of the rows under them; without groups all
            rows are one comparison.
    """

    experiment: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()
    numbers: tuple[Mapping[str, Any], ...] = ()
    flags: tuple[str, ...] = ()
    references: tuple[tuple[str, ...], ...] = ()
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, list[tuple[str, ...]]], ...]:
        """Conditions and rows of each comparison; "" and all rows if there is only one."""
        groups = self.groups or (("", tuple(range(len(self.rows)))),)
        return tuple(
            (name, [*(self.rows[row] for row in rows), *self.references]) for name, rows in groups
        )


def render_scores(scores: SeedScores, unscored: Mapping[str, int] | None = None) -> str:
    """Return "mean ± std (n)" in percentage points, "(n of planned)" where seeds are missing.

    Without any score it says how many runs ended how.

    >>> render_scores(SeedScores(seeds=(1, 2), scores=(0.5, 0.75), planned=3))
    '62.5 ± 17.7 (2 of 3)'
    """
    if not scores.n:
        counts = (unscored or {}).items()
        return ", ".join(f"{name} ({count})" for name, count in counts if count) or NOT_MEASURED
    spread = "" if math.isnan(scores.std) else f" ± {100 * scores.std:.1f}"
    seeds = f"{scores.n} of {scores.planned}" if scores.n < scores.planned else str(scores.n)
    return f"{100 * scores.mean:.1f}{spread} ({seeds})"
