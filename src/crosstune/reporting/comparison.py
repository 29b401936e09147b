"""What a cell says beside its mean: its interval, and its difference to the baseline, seed by seed.

`tables.py` and `replication.py` hand in the cells of one table, which is one family of tests; the
statistics are those of `compare.py`. The second table of a study, its differences, is built here.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crosstune.errors import ConfigError
from crosstune.reporting.statistics import Claim, SignificanceRule, claim, estimate, pair_seeds

Cell = dict[str, Any]
MARK = "*"  # behind a score that may be claimed to differ from the baseline's
TOLD = (  # the fields that a comparison adds to a cell, but for `differences`
    "low",
    "high",
    "baseline",
    "difference",
    "difference_low",
    "difference_high",
    "difference_seeds",
    "p",
    "p_holm",
    "claimed",
)


@dataclass(frozen=True)
class Comparison:
    """What scores are compared with, a method or an arm, and from how many seeds on."""

    baseline: str = "full"
    rule: SignificanceRule = field(default_factory=SignificanceRule)

    @property
    def percent(self) -> str:
        """Return the level of the intervals as text."""
        return f"{100 * self.rule.level:g} %"

    @property
    def demand(self) -> str:
        """Return what a difference must have to be marked."""
        return f"p < {1 - self.rule.level:.2g} after Holm and at least {self.rule.to_claim} seeds"


def read_comparison(baseline: str, to_print: str, to_claim: str) -> Comparison:
    """Return the comparison that a command line asks for.

    Raises:
        ConfigError: a number of seeds is none, or less than two.

    >>> read_comparison("full", "5", "10") == Comparison()
    True
    """
    for name, text in (("seeds_to_print", to_print), ("seeds_to_claim", to_claim)):
        if not (text.isascii() and text.isdigit()) or not 2 <= int(text) < 10**6:
            raise ConfigError(f"{name}={text}: must be a whole number of seeds, at least 2.")
    return Comparison(baseline, SignificanceRule(int(to_print), int(to_claim)))


def compare_cells(cells: Sequence[Cell], comparison: Comparison) -> None:
    """Add the fields of `TOLD` and `differences` to every cell; all differences are one family.

    The baseline of a cell is the arm in its column, of its model and under its conditions, that is
    named so or of a method named so; where there are several, or none, `baseline` is empty. What
    too few seeds leave unsaid is NaN. `differences` are ours minus the baseline's score for each of
    `difference_seeds`, the seeds that both finished.
    """
    baselines = _find_baselines(cells, comparison.baseline)
    rule = comparison.rule
    compared = []
    for cell in cells:
        own = estimate(cell["scores"], level=rule.level)
        shown = own.n >= rule.to_print
        cell |= {"low": own.low if shown else math.nan, "high": own.high if shown else math.nan}
        base = baselines.get(_place(cell))
        cell |= {"baseline": "", "difference_seeds": (), "differences": (), "claimed": False}
        cell |= dict.fromkeys(("difference", "difference_low", "difference_high"), math.nan)
        cell |= {"p": math.nan, "p_holm": math.nan}
        if base and base is not cell:
            seeds, differences = pair_seeds(_by_seed(cell), _by_seed(base))
            cell |= {"baseline": base["arm"], "difference_seeds": tuple(seeds)}
            cell["differences"] = tuple(differences)
            compared.append(cell)
    pairs = [estimate(cell["differences"], level=rule.level) for cell in compared]
    for cell, told in zip(compared, claim(pairs, rule), strict=True):
        cell |= _tell(told)


def _tell(told: Claim) -> Cell:
    pair = told.estimate
    fields = {"difference": pair.mean, "claimed": told.significant, "p_holm": told.adjusted}
    if told.printed:
        fields |= {"difference_low": pair.low, "difference_high": pair.high, "p": pair.p}
    return fields


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["column"], cell["model"], cell["conditions"]


def _by_seed(cell: Mapping[str, Any]) -> dict[int, float]:
    return dict(zip(cell["seeds"], cell["scores"], strict=True))


def _find_baselines(cells: Iterable[Cell], name: str) -> dict[tuple[Any, ...], Cell]:
    named = defaultdict(list)
    for cell in cells:
        if name in (cell["method"], cell["arm"]):
            named[_place(cell)].append(cell)
    return {place: found[0] for place, found in named.items() if len(found) == 1}


def count_tests(cells: Iterable[Mapping[str, Any]]) -> int:
    """Return how many differences of a table were tested."""
    return sum(not math.isnan(cell["p_holm"]) for cell in cells)


def explain_mark(cells: Sequence[Mapping[str, Any]], comparison: Comparison) -> str:
    """Return the legend of the mark, or nothing where no cell bears one."""
    if not any(cell["claimed"] for cell in cells):
        return ""
    return (
        f" {MARK} differs from {comparison.baseline}: {comparison.demand} "
        f"(differences tested: {count_tests(cells)})."
    )


def show_difference(cell: Mapping[str, Any], absent: str) -> str:
    """Return a difference in percentage points, with what its number of seeds allows.

    >>> cell = {"difference": 0.012, "difference_seeds": (1, 2), "difference_low": math.nan}
    >>> show_difference(cell | {"claimed": False}, "–")
    '+1.2 (2)'
    """
    seeds = len(cell["difference_seeds"])
    if not seeds:
        return absent
    text = format_signed(100 * cell["difference"], 1)
    if not math.isnan(cell["difference_low"]):
        low, high = (format_signed(100 * cell[f"difference_{end}"], 1) for end in ("low", "high"))
        text += f" [{low}, {high}] p {cell['p_holm']:.2g}"
    return f"{text} ({seeds})" + (MARK if cell["claimed"] else "")


def format_signed(value: float, digits: int) -> str:
    """Return a number with its sign; what rounds to nothing has none.

    >>> format_signed(-1.25, 1), signed(0.5, 1), signed(-0.01, 1)
    ('−1.2', '+0.5', '0.0')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")
