"""Loads `conf/table/*.yaml`, which map the cells of a paper's table to our runs.

Each row and column has filters for our records (`ours`) and for the published table (`theirs`). A
cell combines those of its row and column, and must match exactly one published score.
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


class RecordFilter(StrictModel):
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


REQUIRED = tuple(name for name in RecordFilter.model_fields if name != "settings")


class CellFilter(StrictModel):
    """A row or a column of a layout, or what all of its cells share."""

    ours: RecordFilter = RecordFilter()
    theirs: dict[str, Any] = Field(default_factory=dict)

    def __or__(self, other: "CellFilter") -> "CellFilter":
        settings = self.ours.settings | other.ours.settings
        ours = RecordFilter(settings=settings, **(self.ours.names | other.ours.names))
        return CellFilter(ours=ours, theirs=self.theirs | other.theirs)


class Layout(StrictModel):
    """A file of `conf/table`; `same` holds for every cell."""

    name: str
    published: str
    baseline: str = "full"
    same: CellFilter = CellFilter()
    rows: list[CellFilter] = Field(min_length=1)
    columns: list[CellFilter] = Field(min_length=1)


@dataclass(frozen=True)
class Slot:
    """A cell to fill: its headers, which of our scores belong there, and the printed number.

    `ours` has every key of `REQUIRED`; `settings` are the dotted keys of a run's configuration that
    tell arms of one method apart, with their values.
    """

    row: str
    column: str
    ours: Mapping[str, str]
    settings: Mapping[str, Any]
    theirs: PublishedNumber


@dataclass(frozen=True)
class ReplicationTable:
    """A printed table to fill; slots are in the order of rows, then columns."""

    published: PublishedTable
    slots: Sequence[Slot]
    baseline: str


def read_target(conf: Path, name: str) -> ReplicationTable:
    """Return the layout of that name from a folder of configuration.

    Raises:
        ConfigError: there is no such layout, or no such published table.
        DataError: it is malformed, or a cell matches no published score, or several.
    """
    known = sorted(path.stem for path in (conf / "table").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"table={name}: no such printed table. {suggest(name, known)}")
    path = conf / "table" / f"{name}.yaml"
    layout = validate_yaml(path, Layout, CellFilter, RecordFilter)
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
    return ReplicationTable(published, slots, layout.baseline)


def _make_slot(
    published: PublishedTable, cell: CellFilter, row: CellFilter, column: CellFilter
) -> Slot:
    ours = cell.ours.names
    ours.setdefault("train_language", ours.get("language", ""))
    missing = [name for name in REQUIRED if not ours.get(name)]
    if missing:
        raise ConfigError(f"missing in ours: {', '.join(missing)}")
    matches = published.find(**cell.theirs)
    if len(matches) > 1:
        raise ConfigError(f"published {published.name} has {len(matches)} rows with {cell.theirs}")
    if matches[0].score is None:
        raise ConfigError(f"published {published.name}: {cell.theirs} is a cost, no score")
    header = _name_column(ours, column)
    return Slot(_name_row(row), header, ours, cell.ours.settings, matches[0])


def _name_row(row: CellFilter) -> str:
    return " · ".join([*row.ours.names.values(), *_name_settings(row)])


def _name_column(ours: Mapping[str, str], column: CellFilter) -> str:
    names = (ours["data"], ours["train_language"], ours["split"], ours["language"], ours["metric"])
    aggregate = [column.theirs["aggregate"]] if "aggregate" in column.theirs else []
    return " ".join([label_column(names), *aggregate, *_name_settings(column)])


def _name_settings(part: CellFilter) -> list[str]:
    return [f"{key}={value}" for key, value in part.ours.settings.items()]
