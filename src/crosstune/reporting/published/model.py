"""Published tables as pydantic models: a table, its numbers, their units and their protocol.

Values stay as printed, mostly in percentage points; `PublishedNumber.score` is the fraction that a
record would hold.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from crosstune.errors import ConfigError, suggest

Split = Literal["train", "validation", "test", "challenge"]
# "chosen": one of several runs, by its validation score; "max": by the printed score itself.
Aggregate = Literal["single", "mean", "median", "max", "chosen", "unknown"]
# What a checkpoint was chosen on: "target_validation" is that of the tested language, "last" the
# end of training, "none" no choice at all.
Selection = Literal["validation", "target_validation", "last", "none", "unknown"]
Fact = str | int | float | None


class Unit(NamedTuple):
    """The range of a unit, and the value that is the score 1 of a record; None for a cost."""

    low: float
    high: float
    whole: float | None


UNITS = {
    "percent": Unit(0, 100, 100),
    "percent_signed": Unit(-100, 100, 100),  # correlations, 100 times
    "percent_of_full": Unit(0, math.inf, None),  # a cost relative to full fine-tuning
    "minutes": Unit(0, math.inf, None),
    "seconds": Unit(0, math.inf, None),
    "gigabytes": Unit(0, math.inf, None),
    "gibibytes": Unit(0, math.inf, None),
    "mebibytes": Unit(0, math.inf, None),
    "nats": Unit(-math.inf, math.inf, None),
}


def _check_unit(name: str) -> str:
    if name not in UNITS:
        raise ValueError(suggest(name, list(UNITS)))
    return name


def _check_language(code: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}(-[A-Z][a-z]{3})?|avg.*", code):
        raise ValueError("Allowed: an ISO code, or a text that starts with avg for a mean.")
    return code


UnitName = Annotated[str, AfterValidator(_check_unit)]


class Procedure(NamedTuple):
    """How a number came about: its split, and how the scores of `seeds` runs were aggregated.

    `seeds` is None where it is not known, `split` where a number belongs to none.
    """

    split: str | None
    aggregate: str
    seeds: int | None
    selected_on: str


STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class StrictModel(BaseModel):
    """A part of a YAML file: unknown keys and values of another type are refused."""

    model_config = STRICT


class PublishedNumber(StrictModel):
    """One published number, as printed: `value`, `std` and `sem` are in `unit`.

    `seed` is that of a single run. `verified` says that the number stands in one of the sources,
    not that it is right.
    """

    table: str
    model: str
    method: str
    dataset: str
    language: Annotated[str, AfterValidator(_check_language)]
    metric: str
    unit: UnitName
    value: float
    verified: bool
    split: Split | None = None
    aggregate: Aggregate = "unknown"
    seeds: int | None = None
    selected_on: Selection = "unknown"
    seed: int | None = None
    std: float | None = None
    sem: float | None = None
    # facts that tell numbers apart
    setup: Fact = None
    setting: Fact = None
    domain: Fact = None
    context: Fact = None
    entity: Fact = None
    precision: Fact = None
    params: Fact = None
    trainable_params: Fact = None
    lr: Fact = None
    batch_size: Fact = None
    epochs: Fact = None
    best_epoch: Fact = None
    train_examples: Fact = None
    train_languages: Fact = None
    n_languages: Fact = None
    n_models_selected: Fact = None
    origin: Fact = None
    # remarks, which do not
    reported_elsewhere: Fact = None
    note: Fact = None

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        faults = []
        if self.seed is not None and self.aggregate != "single":
            faults.append(f"seed is {self.seed}, but aggregate is {self.aggregate}, not single")
        low, high, _ = UNITS[self.unit]
        for key, least in (("value", low), ("std", 0), ("sem", 0)):
            number = getattr(self, key)
            if number is not None and not (least <= number <= high and math.isfinite(number)):
                faults.append(f"{key} {number} is outside {least} to {high} {self.unit}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def score(self) -> float | None:
        """Return the value as a fraction, as records hold scores; None for a cost."""
        whole = UNITS[self.unit].whole
        return None if whole is None else self.value / whole

    @property
    def protocol(self) -> Procedure:
        """Return how the number came about."""
        return Procedure(self.split, self.aggregate, self.seeds, self.selected_on)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Return what no other number of the table shares."""
        return tuple(getattr(self, name) for name in _IDENTITY)


COLUMNS = frozenset(PublishedNumber.model_fields) - {"table", "unit"}
_IDENTITY = sorted(
    COLUMNS
    - {"value", "std", "sem", "seeds", "selected_on", "verified", "reported_elsewhere", "note"}
)


class RepositoryFile(BaseModel):
    """A source: one file of a public repository."""

    kind: Literal["repo_file"]
    repo: str
    path: str
    commit: str


class Paper(StrictModel):
    """A source: the page of a paper, and which of its tables."""

    kind: Literal["paper"]
    url: Annotated[str, Field(pattern=r"https://\S+")]
    what: str


class TableHeader(BaseModel):
    """What is known of a published table; `selection` says how its numbers were picked.

    `recipe` is what is known of the training, `recipe_missing` what is not. `seed_list` are the
    published seeds, by data set where they differ.
    """

    model_config = STRICT

    name: str
    paper: Mapping[str, Any]
    table: Mapping[str, Any]
    sources: list[Annotated[RepositoryFile | Paper, Field(discriminator="kind")]] = Field(
        min_length=1
    )
    selection: str
    verified_scope: str = ""
    seed_list: list[int] | dict[str, list[int]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    recipe: Mapping[str, Any] = Field(default_factory=dict)
    recipe_missing: list[str] = Field(default_factory=list)
    known_problems: list[str] = Field(default_factory=list)
    checks: list[str] = Field(default_factory=list)


class RowGroup(StrictModel):
    """Rows of a file, each a list of cells in the order of `columns`, and what they share."""

    same: dict[str, Any]
    rows: list[list[Any]]


class TableFile(TableHeader):
    """A file of `conf/published`; `units` are by metric, `defaults` hold for every row."""

    units: dict[str, UnitName]
    defaults: dict[str, Any] = Field(default_factory=dict)
    columns: list[str]
    groups: list[RowGroup]


class PublishedTable(TableHeader):
    """A published table with its numbers."""

    rows: list[PublishedNumber]

    def find(self, **where: Any) -> list[PublishedNumber]:
        """Return the rows that are equal to all of `where`, by the names of their columns.

        Raises:
            ConfigError: there is none; the message says what is allowed where nothing is left.
        """
        left = list(self.rows)
        for key, wanted in where.items():
            if key not in COLUMNS:
                raise ConfigError(f"{key}: rows have no such name. {suggest(key, list(COLUMNS))}")
            matches = [row for row in left if getattr(row, key) == wanted]
            if not matches:
                allowed = sorted({str(getattr(row, key)) for row in left})
                hint = suggest(str(wanted), allowed)
                raise ConfigError(f"published {self.name} has no row with {key}={wanted!r}. {hint}")
            left = matches
        return left


def list_faults(error: ValidationError, models: Sequence[type[BaseModel]]) -> list[str]:
    """Return a sentence per fault: its key, what was received and what is allowed.

    `models` are the nested models from the outermost in; they name the keys that are allowed.
    """
    faults = []
    for fault in error.errors(include_url=False):
        names = [part for part in fault["loc"] if isinstance(part, str)]
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        key = "".join(parts).removeprefix(".")
        if fault["type"] == "missing":
            faults.append(f"{key} is missing")
        elif fault["type"] == "extra_forbidden":
            allowed = list(models[len(names) - 1].model_fields)
            faults.append(f"unknown key {key!r}. {suggest(names[-1], allowed)}")
        else:
            received = f"{key} is {fault['input']!r}. " if key else ""
            faults.append(received + fault["msg"].removeprefix("Value error, "))
    return faults
