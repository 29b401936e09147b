"""Printed tables to fill: `conf/table/*.yaml` -> which runs of ours stand beside which number.

A layout crosses rows with columns. Each says what is `ours`, by the names of records, and what is
`theirs`, by those of the published table; `same` holds for every cell. Read strictly: each cell
finds exactly one published score, and every fault is told. `replication.py` fills it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crosstune.errors import ConfigError, DataError, suggest
from crosstune.reporting.published.model import PublishedTable, Row
from crosstune.reporting.published.read import choose_table
from crosstune.reporting.tables import label_column

NEEDED = ("model", "method", "data", "train_language", "language", "split", "metric")
_KEYS = {"name", "published", "baseline", "same", "rows", "columns"}
_PART = {"ours", "theirs"}


@dataclass(frozen=True)
class Slot:
    """A cell to fill: where it stands, which of our scores belong there, and the printed number.

    `ours` has every key of `NEEDED`; `settings` are the dotted keys of a run's configuration that
    tell arms of one method apart, with their values.
    """

    row: str
    column: str
    ours: Mapping[str, str]
    settings: Mapping[str, Any]
    theirs: Row


@dataclass(frozen=True)
class Target:
    """A printed table to fill; slots are in the order of rows, then columns."""

    name: str
    published: PublishedTable
    slots: Sequence[Slot]
    baseline: str = "full"


def read_target(conf: Path, name: str) -> Target:
    """Return the layout of that name from a folder of configuration.

    Raises:
        ConfigError: there is no such layout, or no such published table.
        DataError: it is malformed, or a cell finds no published score, or several.
    """
    known = sorted(path.stem for path in (conf / "table").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"table={name}: no such printed table. {suggest(name, known)}")
    path = conf / "table" / f"{name}.yaml"
    try:
        layout = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError([f"{path.name}: {' '.join(str(error).split())}"]) from error
    faults = _check_layout(name, layout)
    if faults:
        raise DataError([f"{path.name}: {fault}" for fault in faults])
    published = choose_table(conf / "published", layout["published"])
    slots = []
    for row in layout["rows"]:
        for column in layout["columns"]:
            try:
                slots.append(_open_slot(published, (layout.get("same", {}), row, column)))
            except ConfigError as error:
                faults.append(f"{path.name}: {_name_row(row)}: {error}")
    if faults:
        raise DataError(faults)
    return Target(name, published, tuple(slots), layout.get("baseline", "full"))


def _check_layout(name: str, layout: Any) -> list[str]:
    """Return what is wrong with the shape of a layout."""
    if not isinstance(layout, dict):
        return ["it holds no mapping"]
    faults = [f"unknown key {key!r}" for key in layout if key not in _KEYS]
    faults += [] if layout.get("name") == name else [f"its name is {layout.get('name')!r}"]
    for key in ("published", "baseline"):
        if not isinstance(layout.get(key, "" if key == "baseline" else None), str):
            faults.append(f"{key} is no name")
    for key in ("rows", "columns"):
        if not isinstance(layout.get(key), list) or not layout[key]:
            return [*faults, f"{key} is no list of parts"]
    parts = [layout.get("same", {}), *layout["rows"], *layout["columns"]]
    for part in parts:
        whole = isinstance(part, dict) and part.keys() <= _PART
        if not whole or not all(isinstance(value, dict) for value in part.values()):
            faults.append(f"{part!r} is no pair of ours and theirs")
        elif not isinstance(_settings_of(part), dict):
            faults.append(f"{part!r}: settings is no mapping")
    return faults


def _open_slot(published: PublishedTable, parts: Sequence[Mapping[str, Any]]) -> Slot:
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for part in parts:
        own = dict(part.get("ours", {}))
        settings |= own.pop("settings", {})
        ours |= own
        theirs |= part.get("theirs", {})
    ours.setdefault("train_language", ours.get("language"))
    wrong = [key for key in NEEDED if not isinstance(ours.get(key), str)]
    wrong += [key for key in ours if key not in NEEDED]
    if wrong:
        raise ConfigError(f"of ours, missing or unknown: {', '.join(wrong)}")
    found = published.find(**theirs)
    if len(found) > 1:
        raise ConfigError(f"published {published.name} has {len(found)} rows with {theirs}")
    if found[0].score is None:
        raise ConfigError(f"published {published.name}: {theirs} is a cost, no score")
    how = parts[2].get("theirs", {}).get("aggregate", "")
    return Slot(_name_row(parts[1]), _name_column(ours, parts[2], how), ours, settings, found[0])


def _settings_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return part.get("ours", {}).get("settings", {})


def _name_row(row: Mapping[str, Any]) -> str:
    names = [str(value) for key, value in row.get("ours", {}).items() if key != "settings"]
    settings = (f"{key}={value}" for key, value in _settings_of(row).items())
    return " · ".join([*names, *settings])


def _name_column(ours: Mapping[str, str], column: Mapping[str, Any], how: str) -> str:
    names = (ours["data"], ours["train_language"], ours["split"], ours["language"], ours["metric"])
    settings = (f"{key}={value}" for key, value in _settings_of(column).items())
    return " ".join([label_column(names), *filter(None, [how]), *settings])
