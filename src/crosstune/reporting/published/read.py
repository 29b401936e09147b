"""Read and validate the result tables of papers, `conf/published/*.yaml`.

A file has the paper, its sources, the unit of each metric, and rows of scores grouped by the values
that they share. Errors name the file and the row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from crosstune.errors import ConfigError, DataError, suggest
from crosstune.files import read_yaml
from crosstune.reporting.published.model import (
    COLUMNS,
    PublishedNumber,
    PublishedTable,
    RowGroup,
    TableFile,
    TableHeader,
    list_faults,
)

Model = TypeVar("Model", bound=BaseModel)


def read_published(folder: Path) -> dict[str, PublishedTable]:
    """Return every table of a folder by name.

    Raises:
        DataError: a file is unreadable or malformed; holds the faults of all files.
    """
    faults: list[str] = []
    tables = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            tables[path.stem] = _read_table(path)
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    return tables


def choose_table(folder: Path, name: str) -> PublishedTable:
    """Return the one table of that name of a folder.

    Raises:
        ConfigError: there is none.
        DataError: its file is unreadable or malformed.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"published={name} is not known. {suggest(name, known)}")
    return _read_table(folder / f"{name}.yaml")


def validate_yaml(path: Path, model: type[Model], *nested: type[BaseModel]) -> Model:
    """Return a YAML file as a model, whose name is that of the file; `nested` as in `list_faults`.

    Raises:
        DataError: the file is unreadable or malformed.
    """
    try:
        content = read_yaml(path)
        validated = model.model_validate(content)
    except ValidationError as error:
        faults = [f"{path.name}: {fault}" for fault in list_faults(error, (model, *nested))]
        raise DataError(faults) from error
    except ConfigError as error:
        raise DataError([str(error)]) from error
    if content["name"] != path.stem:
        raise DataError([f"{path.name}: its name is {content['name']!r}, not {path.stem!r}"])
    return validated


def _read_table(path: Path) -> PublishedTable:
    file = validate_yaml(path, TableFile, RowGroup)
    rows: dict[tuple[Any, ...], PublishedNumber] = {}
    faults: list[str] = []
    positions: dict[tuple[Any, ...], str] = {}
    for number, group in enumerate(file.groups, 1):
        shared = file.defaults | group.same
        wrong = _check_names(file.columns, shared)
        faults += [f"{path.name}: group {number}: {fault}" for fault in wrong]
        for index, cells in enumerate([] if wrong else group.rows, 1):
            position = f"group {number}, row {index}"
            try:
                row = _read_row(file, shared, cells)
            except DataError as error:
                faults += [f"{path.name}: {position}: {fault}" for fault in error.faults]
                continue
            if row.identity in rows:
                first = positions[row.identity]
                faults.append(f"{path.name}: {position}: it repeats {first}")
            rows[row.identity], positions[row.identity] = row, position
    if faults:
        raise DataError(faults)
    header = {name: getattr(file, name) for name in TableHeader.model_fields}
    return PublishedTable(rows=list(rows.values()), **header)


def _check_names(columns: Sequence[str], shared: Mapping[str, Any]) -> list[str]:
    repeated = sorted({name for name in columns if columns.count(name) > 1 or name in shared})
    unknown = [name for name in (*shared, *columns) if name not in COLUMNS]
    return [f"column {name!r} is there twice" for name in repeated] + [
        f"unknown column {name!r}. {suggest(name, list(COLUMNS))}" for name in unknown
    ]


def _read_row(file: TableFile, shared: Mapping[str, Any], cells: list[Any]) -> PublishedNumber:
    if len(cells) != len(file.columns):
        raise DataError([f"it has {len(cells)} cells, not {len(file.columns)}"])
    filled = {k: v for k, v in zip(file.columns, cells, strict=True) if v is not None}
    values = {**shared, **filled}
    metric = str(values.get("metric", ""))
    if metric not in file.units:
        raise DataError([f"metric {metric!r} has no unit. {suggest(metric, list(file.units))}"])
    try:
        return PublishedNumber(table=file.name, unit=file.units[metric], **values)
    except ValidationError as error:
        raise DataError(list_faults(error, (PublishedNumber,))) from error
