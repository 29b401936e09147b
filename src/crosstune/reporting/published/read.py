"""Published tables as data: `conf/published/*.yaml` -> typed rows, see `printed.py`.

One file a table: its paper and sources, the unit of each metric, and its rows in groups that share
model, method and whatever else. Read strictly: a file that cannot be trusted is refused, and every
fault names file, group and row.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from crosstune.errors import ConfigError, DataError, suggest
from crosstune.reporting.published.model import (
    AGGREGATES,
    FACTS,
    NAMES,
    SELECTIONS,
    SPLITS,
    UNITS,
    PublishedTable,
    Row,
)

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?|avg.*")  # or the printed mean over several
_REMARKS = ("reported_elsewhere", "note")  # these do not tell rows apart
_NEEDED = {column.name for column in fields(Row) if column.default is MISSING} & NAMES
_LAYOUT = {"units", "defaults", "columns", "groups"}  # from which rows are made
_TOP = {column.name for column in fields(PublishedTable)} - {"rows"} | _LAYOUT
_REQUIRED = {"name", "paper", "table", "sources", "selection", "units", "columns", "groups"}
_SOURCES = {
    "repo_file": {"repo", "path", "commit"},
    "indexed_text_copy": {"index_file_id", "what"},
}
_CLOSED = {"split": SPLITS, "aggregate": AGGREGATES, "selected_on": SELECTIONS}
_TYPES = {
    **dict.fromkeys(("model", "method", "dataset", "language", "metric"), str),
    **dict.fromkeys(("value", "std", "sem"), (int, float)),
    **dict.fromkeys(("seeds", "seed"), int),
    **dict.fromkeys(FACTS, (str, int, float)),
    "verified": bool,
}


def read_published(folder: Path) -> dict[str, PublishedTable]:
    """Return every table of a folder by name.

    Raises:
        DataError: a file is unreadable or malformed; every fault names file, group and row.
    """
    faults: list[str] = []
    tables = {path.stem: _read_table(path, faults) for path in sorted(folder.glob("*.yaml"))}
    if faults:
        raise DataError(faults)
    return {name: table for name, table in tables.items() if table}


def choose_table(folder: Path, name: str) -> PublishedTable:
    """Return the one table of that name of a folder.

    Raises:
        ConfigError: there is none.
        DataError: its file is unreadable or malformed.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"published={name} is not known. {suggest(name, known)}")
    faults: list[str] = []
    table = _read_table(folder / f"{name}.yaml", faults)
    if table is None or faults:
        raise DataError(faults)
    return table


def _read_table(path: Path, faults: list[str]) -> PublishedTable | None:
    try:
        content = yaml.load(path.read_text("utf-8"), _LOADER)  # noqa: S506 - a safe loader
    except (OSError, ValueError, yaml.YAMLError) as error:
        faults.append(f"{path.name}: {type(error).__name__}: {' '.join(str(error).split())}")
        return None
    wrong = _check_top(path.stem, content)
    if wrong:
        faults += [f"{path.name}: {fault}" for fault in wrong]
        return None
    rows, seen = [], {}
    for place, cells in _cells(content, wrong):
        found = _check_row(cells, content["units"])
        if not found:
            row = _make_row(path.stem, content["units"], cells)
            first = seen.setdefault(_identity(row), place)
            found = [f"it repeats {first}"] if first != place else []
            rows.append(row)
        wrong += [f"{place}: {fault}" for fault in found]
    faults += [f"{path.name}: {fault}" for fault in wrong]
    return PublishedTable(rows=rows, **{k: v for k, v in content.items() if k not in _LAYOUT})


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is five times as fast


def _check_top(stem: str, content: Any) -> list[str]:
    """Return what is wrong with a file apart from its rows."""
    if not isinstance(content, dict):
        return ["it holds no mapping"]
    faults = [f"{key} is missing" for key in sorted(_REQUIRED - content.keys())]
    faults += [f"unknown key {key!r}" for key in content if key not in _TOP]
    shapes = {"units": dict, "defaults": dict, "paper": dict, "table": dict, "recipe": dict}
    shapes |= dict.fromkeys(("sources", "columns", "groups"), list)
    faults += [
        f"{key} is no {shape.__name__}"
        for key, shape in shapes.items()
        if not isinstance(content.get(key, shape()), shape)
    ]
    if faults:
        return faults
    if not all(isinstance(column, str) for column in content["columns"]):
        faults.append("columns holds something that is no name")
    if content["name"] != stem:
        faults.append(f"its name is {content['name']!r}")
    faults += [
        f"unit {unit!r} of {metric!r}: {suggest(str(unit), list(UNITS))}"
        for metric, unit in content["units"].items()
        if str(unit) not in UNITS
    ]
    faults += [
        f"source {number}: its kind asks for {', '.join(sorted(_SOURCES.get(kind, _SOURCES)))}"
        for number, source in enumerate(content["sources"], 1)
        for kind in [str(source.get("kind")) if isinstance(source, dict) else ""]
        if kind not in _SOURCES or not _SOURCES[kind] <= source.keys()
    ]
    return faults if content["sources"] else [*faults, "it names no source"]


def _cells(content: Mapping[str, Any], faults: list[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield (place, the named cells of a row without the empty ones); a faulty row is told."""
    columns, defaults = content["columns"], content.get("defaults", {})
    for number, group in enumerate(content["groups"], 1):
        place = f"group {number}"
        parts = [group.get(key) for key in ("same", "rows")] if isinstance(group, dict) else []
        if [type(part) for part in parts] != [dict, list] or len(group) != len(parts):
            faults.append(f"{place}: it is no pair of same and rows")
            continue
        shared = {**defaults, **group["same"]}
        double = sorted({str(c) for c in columns if columns.count(c) > 1 or c in shared})
        wrong = [f"given twice: {', '.join(double)}"] if double else []
        wrong += [f"unknown column {key!r}" for key in (*shared, *columns) if key not in NAMES]
        wrong = wrong or _check_values(shared)
        faults += [f"{place}: {fault}" for fault in wrong]
        for position, row in enumerate([] if wrong else group["rows"], 1):
            where = f"{place}, row {position}"
            if not isinstance(row, list) or len(row) != len(columns):
                faults.append(f"{where}: it is no list of {len(columns)} cells")
                continue
            own = {k: v for k, v in zip(columns, row, strict=True) if v is not None}
            wrong_here = _check_values(own)
            faults += [f"{where}: {fault}" for fault in wrong_here]
            if not wrong_here:
                yield where, {**shared, **own}


def _check_values(cells: Mapping[str, Any]) -> list[str]:
    """Return which cells hold what their column cannot."""
    faults = []
    for key, value in cells.items():
        allowed = _CLOSED.get(key)
        if allowed:
            if value not in allowed:
                faults.append(f"{key} is {value!r}, not one of {', '.join(allowed)}")
        elif not isinstance(value, _TYPES[key]) or isinstance(value, bool) != (key == "verified"):
            faults.append(f"{key} is {value!r}")
        elif key == "language" and not _LANGUAGE.fullmatch(value):
            faults.append(f"language {value!r} is no ISO code and no avg")
    return faults


def _check_row(cells: Mapping[str, Any], units: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a row as a whole; its cells are checked already."""
    faults = [f"{key} is missing" for key in sorted(_NEEDED - cells.keys())]
    if "seed" in cells and cells.get("aggregate") != "single":
        faults.append("it has a seed but is no single run")
    if cells.get("metric") not in units:
        return [*faults, f"metric {cells.get('metric')!r} has no unit"]
    name = units[cells["metric"]]
    low, high, _ = UNITS[name]
    for key, least in (("value", low), ("std", 0), ("sem", 0)):
        number = cells.get(key, 0)
        if not (least <= number <= high and math.isfinite(number)):
            faults.append(f"{key} {number} is outside {least} to {high} {name}")
    return faults


def _make_row(table: str, units: Mapping[str, str], cells: Mapping[str, Any]) -> Row:
    facts = {key: value for key, value in cells.items() if key in FACTS}
    known = {key: value for key, value in cells.items() if key not in FACTS}
    return Row(table=table, unit=units[cells["metric"]], facts=facts, **known)


def _identity(row: Row) -> tuple[Any, ...]:
    told = sorted(item for item in row.facts.items() if item[0] not in _REMARKS)
    where = (row.model, row.method, row.dataset, row.language, row.split, row.metric)
    return (*where, row.aggregate, row.seed, *told)
