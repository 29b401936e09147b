"""Read layouts of printed tables: `conf/table/*.yaml` -> our scores beside published numbers.

A layout crosses rows with columns. Each part says what is `ours`, by the names of records, and what
is `theirs`, by the columns of the published table. A cell must match exactly one published score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from crosstune.errors import ConfigError, DataError, suggest
from crosstune.reporting.published.model import PublishedNumber, PublishedTable, StrictModel
from crosstune.reporting.published.read import choose_table, validate_yaml
from crosstune.reporting.tables import label_column


class Ours(StrictModel):
    """Which of our scores; `settings` are dotted keys of the configuration, with their values."""

    model: str | None = None
    method: str | None = None
    data: str | None = None
    train_language: str | None = None
    language: str | None = None
    split: str | None = None
    metric: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """Return the names that are set."""
        return self.model_dump(exclude_none=True, exclude={"settings"})


NEEDED = tuple(name for name in Ours.model_fields if name != "settings")


class Part(StrictModel):
    """A row or a column of a layout, or what all of its cells share."""

    ours: Ours = Ours()
    theirs: dict[str, Any] = Field(default_factory=dict)

    def __or__(self, other: "Part") -> "Part":
        settings = self.ours.settings | other.ours.settings
        ours = Ours(settings=settings, **(self.ours.names | other.ours.names))
        return Part(ours=ours, theirs=self.theirs | other.theirs)


class Layout(StrictModel):
    """A file of `conf/table`; `same` holds for every cell."""

    name: str
    published: str
    baseline: str = "full"
    same: Part = Part()
    rows: list[Part] = Field(min_length=1)
    columns: list[Part] = Field(min_length=1)


@dataclass(frozen=True)
class Slot:
    """A cell to fill: its headers, which of our scores belong there, and the printed number.

    `ours` has every key of `NEEDED`; `settings` are the dotted keys of a run's configuration that
    tell arms of one method apart, with their values.
    """

    row: str
    column: str
    ours: Mapping[str, str]
    settings: Mapping[str, Any]
    theirs: PublishedNumber


@dataclass(frozen=True)
class Target:
    """A printed table to fill; slots are in the order of rows, then columns."""

    published: PublishedTable
    slots: Sequence[Slot]
    baseline: str


def read_target(conf: Path, name: str) -> Target:
    """Return the layout of that name from a folder of configuration.

    Raises:
        ConfigError: there is no such layout, or no such published table.
        DataError: it is malformed, or a cell matches no published score, or several.
    """
    known = sorted(path.stem for path in (conf / "table").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"table={name}: no such printed table. {suggest(name, known)}")
    path = conf / "table" / f"{name}.yaml"
    layout = validate_yaml(path, Layout, Part, Ours)
    published = choose_table(conf / "published", layout.published)
    slots, faults = [], []
    for row in layout.rows:
        for column in layout.columns:
            try:
                slots.append(_make_slot(published, layout.same | row | column, row, column))
            except ConfigError as error:
                faults.append(f"{path.name}: {_name_row(row)}: {error}")
    if faults:
        raise DataError(faults)
    return Target(published, slots, layout.baseline)


def _make_slot(published: PublishedTable, cell: Part, row: Part, column: Part) -> Slot:
    ours = cell.ours.names
    ours.setdefault("train_language", ours.get("language", ""))
    missing = [name for name in NEEDED if not ours.get(name)]
    if missing:
        raise ConfigError(f"missing in ours: {', '.join(missing)}")
    matches = published.find(**cell.theirs)
    if len(matches) > 1:
        raise ConfigError(f"published {published.name} has {len(matches)} rows with {cell.theirs}")
    if matches[0].score is None:
        raise ConfigError(f"published {published.name}: {cell.theirs} is a cost, no score")
    header = _name_column(ours, column)
    return Slot(_name_row(row), header, ours, cell.ours.settings, matches[0])


def _name_row(row: Part) -> str:
    return " · ".join([*row.ours.names.values(), *_name_settings(row)])


def _name_column(ours: Mapping[str, str], column: Part) -> str:
    names = (ours["data"], ours["train_language"], ours["split"], ours["language"], ours["metric"])
    aggregate = [column.theirs["aggregate"]] if "aggregate" in column.theirs else []
    return " ".join([label_column(names), *aggregate, *_name_settings(column)])


def _name_settings(part: Part) -> list[str]:
    return [f"{key}={value}" for key, value in part.ours.settings.items()]
