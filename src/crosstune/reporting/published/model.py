"""A printed number, its unit and its protocol; a printed table and how its rows are found.

Read from `conf/published/*.yaml` by `published.py`, judged against ours in `verdict.py`. Values
stay as printed, mostly in percentage points; `Row.score` is the fraction that a record would hold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from crosstune.errors import ConfigError, suggest

SPLITS = ("train", "validation", "test", "challenge")
# "chosen": one of several runs, by its validation score; "max": by the printed score itself.
AGGREGATES = ("single", "mean", "median", "max", "chosen", "unknown")
# What a checkpoint was chosen on: "target_validation" is that of the tested language, "last" the
# end of training, "none" no choice at all.
SELECTIONS = ("validation", "target_validation", "last", "none", "unknown")
# What else tells rows apart, or says where they come from.
FACTS = frozenset(
    {
        *("setup", "setting", "domain", "context", "entity", "precision", "params"),
        *("trainable_params", "lr", "batch_size", "epochs", "best_epoch", "train_examples"),
        *("train_languages", "n_languages", "n_models_selected"),
        *("origin", "reported_elsewhere", "note"),
    }
)


class Unit(NamedTuple):
    """The range of a unit, and how much of it is the score 1 of a record, if it is a score."""

    low: float
    high: float
    whole: float | None


UNITS = {
    "percent": Unit(0, 100, 100),
    "percent_signed": Unit(-100, 100, 100),  # correlations, 100 times
    "percent_of_full": Unit(0, math.inf, None),  # a cost, full fine-tuning being 100
    "minutes": Unit(0, math.inf, None),
    "seconds": Unit(0, math.inf, None),
    "gigabytes": Unit(0, math.inf, None),
    "gibibytes": Unit(0, math.inf, None),
    "mebibytes": Unit(0, math.inf, None),
    "nats": Unit(-math.inf, math.inf, None),
}


class Procedure(NamedTuple):
    """How a number came about: the split it stands for, and of which runs it is what.

    `seeds` is None where their number is not known, `split` where a number belongs to none.
    """

    split: str | None
    aggregate: str
    seeds: int | None
    selected_on: str


@dataclass(frozen=True)
class Row:
    """One published number, as printed: `value`, `std` and `sem` are in `unit`.

    `seed` is that of a single run. `verified` says that the number stands in one of the sources,
    not that it is right. `facts` hold what else tells rows apart, by the names of `FACTS`.
    """

    table: str
    model: str
    method: str
    dataset: str
    language: str
    metric: str
    unit: str
    value: float
    verified: bool
    split: str | None = None
    aggregate: str = "unknown"
    seeds: int | None = None
    selected_on: str = "unknown"
    seed: int | None = None
    std: float | None = None
    sem: float | None = None
    facts: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Return the value as a fraction, as records hold scores; None for a cost."""
        whole = UNITS[self.unit].whole
        return None if whole is None else self.value / whole

    @property
    def protocol(self) -> Procedure:
        """Return how the number came about."""
        return Procedure(self.split, self.aggregate, self.seeds, self.selected_on)


NAMES = {column.name for column in fields(Row)} - {"table", "unit", "facts"} | FACTS


@dataclass(frozen=True)
class PublishedTable:
    """A published table; `selection` says in words how its numbers were picked.

    `recipe` is what is known of the training, `recipe_missing` what is not. `seed_list` are the
    published seeds, by data set where they differ.
    """

    name: str
    paper: Mapping[str, Any]
    table: Mapping[str, Any]
    sources: Sequence[Mapping[str, str]]
    selection: str
    rows: Sequence[Row]
    verified_scope: str = ""
    seed_list: Sequence[int] | Mapping[str, Sequence[int]] = ()
    notes: Sequence[str] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_missing: Sequence[str] = ()
    known_problems: Sequence[str] = ()
    checks: Sequence[str] = ()

    def find(self, **where: Any) -> list[Row]:
        """Return the rows that are equal to all of `where`, by the names of Row and FACTS.

        Raises:
            ConfigError: there is none; the message says what is allowed where nothing is left.
        """
        left = list(self.rows)
        for key, wanted in where.items():
            if key not in NAMES:
                raise ConfigError(f"{key}: rows have no such name. {suggest(key, sorted(NAMES))}")
            kept = [row for row in left if _of(row, key) == wanted]
            if not kept:
                allowed = sorted({str(_of(row, key)) for row in left})
                hint = suggest(str(wanted), allowed)
                raise ConfigError(f"published {self.name} has no row with {key}={wanted!r}. {hint}")
            left = kept
        return left


def _of(row: Row, key: str) -> Any:
    return row.facts.get(key) if key in FACTS else getattr(row, key)
