"""The splits of a data set: read in all their languages, and what must hold between them.

Imports nothing heavy, so that a study can be planned and its data checked at once. Faults inside
one file are the readers' own. Called by `run.py`, `sweep.py` and `crosstune check`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from crosstune.build import build
from crosstune.data.split import Split
from crosstune.errors import ConfigError, DataError
from crosstune.languages import check_language
from crosstune.schema import Data

Splits = dict[str, dict[str, Split]]  # "train" | "validation" | "test" -> language -> split


def read_splits(data: Data, allow: Sequence[str]) -> Splits:
    """Read every split of the data set: train in its one language, the others in all of theirs.

    Raises:
        ConfigError: a split is not a source or {language: source}, or lacks the language of train.
        DataError: a file is malformed or a split is empty.
    """
    splits, faults = read_each(data, allow)
    if faults:
        raise DataError(faults)
    return splits


def read_each(data: Data, allow: Sequence[str]) -> tuple[Splits, list[str]]:
    """Read what can be read of every split, with every fault of what cannot."""
    splits: Splits = {}
    faults: list[str] = []
    for name, value in {
        "train": data.train,
        "validation": data.validation,
        "test": data.test,
    }.items():
        if value is None and name == "test":
            continue
        sources = _sources(name, value, data.language)
        if name == "train":
            sources = {data.language: sources[data.language]}
        splits[name] = {}
        for language, source in sources.items():
            try:
                split = build(data.reader, "data.reader", allow, source=source)
            except DataError as error:
                faults += error.faults
                continue
            rows = [{**row, "language": language} for row in split.rows]
            splits[name][language] = Split(rows, split.digests)
            if not rows:
                faults.append(f"{source}: no rows in it (data.{name}, {language})")
    return splits, faults


def digests_of(splits: Splits) -> dict[str, str]:
    """Return file -> sha256 over all splits."""
    return {
        file: digest
        for languages in splits.values()
        for split in languages.values()
        for file, digest in split.digests.items()
    }


def find_faults(splits: Splits, faults_of: Callable[[dict[str, Any]], list[str]]) -> list[str]:
    """Return every fault that a task kind finds in single rows, with its place."""
    return [
        f"{row['where']}: {fault}"
        for languages in splits.values()
        for split in languages.values()
        for row in split.rows
        for fault in faults_of(row)
    ]


def find_unseen(
    splits: Splits, labels: Sequence[str], labels_of: Callable[[dict[str, Any]], list[str]]
) -> dict[str, list[str]]:
    """Return, for each `split/language`, a fault for every label that train never shows."""
    known = set(labels)
    unseen: dict[str, list[str]] = {}
    for name in ("validation", "test"):
        for language, split in splits.get(name, {}).items():
            faults = [
                f"{row['where']}: label {label!r} never occurs in train"
                for row in split.rows
                for label in labels_of(row)
                if label not in known
            ]
            if faults:
                unseen[f"{name}/{language}"] = faults
    return unseen


def _sources(name: str, value: Any, language: str) -> dict[str, str]:
    sources = {language: value} if isinstance(value, str) else value
    if not isinstance(sources, dict) or not all(isinstance(s, str) for s in sources.values()):
        raise ConfigError(
            f"data.{name}={value!r}: give one source (a file) or a source for each language, "
            f"data.{name}={{es: FILE, zh: FILE}}."
        )
    for code in sources:
        check_language(str(code))  # an unquoted `no` in YAML is false, not Norwegian
    if name != "test" and language not in sources:
        raise ConfigError(
            f"data.{name} has sources for {', '.join(sources)}, but not for the language trained "
            f"on: data.language={language}."
        )
    return sources
