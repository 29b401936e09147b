"""Read the train, validation and test splits of a data set, each in its languages.

Also finds rows that do not fit the task and labels that never occur in train. Leakage between
splits is found by `data/quality/duplicates.py`. Imports nothing heavy.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from crosstune.config.instantiate import instantiate, takes_argument
from crosstune.config.schema import Data
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.languages import BIDI_CONTROLS, ZERO_WIDTH, check_language

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """What a reader returns: rows in canonical columns, and the digests of what was read."""

    rows: list[dict[str, Any]]
    digests: dict[str, str]  # file or source name -> sha256 hex of its content


Splits = dict[str, dict[str, Split]]  # "train" | "validation" | "test" -> language -> split
ReaderArguments = dict[str, str]  # `source`, and `name` where the hub has one for each language


def read_splits(data: Data, allow: Sequence[str]) -> Splits:
    """Read every split of the data set: train in its languages, the others in all of theirs.

    Raises:
        ConfigError: a split is not a source or {language: source}, or lacks the language of train.
        DataError: a file is malformed or a split is empty; all faults of all files.
    """
    splits: Splits = {}
    faults: list[str] = []
    for name, language, arguments in iterate_sources(data):
        try:
            split = read_source(data, language, arguments, allow)
        except DataError as error:
            faults += error.faults
            continue
        rows = [{**row, "language": language} for row in split.rows]
        splits.setdefault(name, {})[language] = Split(rows, split.digests)
        if not rows:
            faults.append(f"{arguments['source']}: no rows in it (data.{name}, {language})")
    if faults:
        raise DataError(faults)
    return splits


def read_source(
    data: Data, language: str, arguments: ReaderArguments, allow: Sequence[str]
) -> Split:
    """Read one source; a reader with a parameter `language` gets the language of the source."""
    if takes_argument(data.reader, "language", "data.reader", allow):
        arguments = {**arguments, "language": language}
    return instantiate(data.reader, "data.reader", allow, **arguments)


def iterate_sources(
    data: Data, names: Sequence[str] = SPLITS
) -> Iterator[tuple[str, str, ReaderArguments]]:
    """Yield split, language and the reader's arguments for each file or part to be read.

    Raises:
        ConfigError: a split is not a source or {language: source}, or lacks the language of train.
    """
    for name in names:
        value = getattr(data, name)
        if value is None and name == "test":
            continue
        sources = _resolve_sources(name, value, data)
        for language in data.train_languages if name == "train" else sources:
            part = {} if data.languages is None else {"name": data.languages[language]}
            yield name, language, {"source": sources[language], **part}


def merge_languages(languages: dict[str, Split]) -> Split:
    """Return the splits of several languages as one, in the order of the dictionary."""
    rows = [row for split in languages.values() for row in split.rows]
    return Split(rows, collect_digests({"": languages}))


def collect_digests(splits: Splits) -> dict[str, str]:
    """Return file -> sha256 over all splits."""
    return {
        file: digest
        for languages in splits.values()
        for split in languages.values()
        for file, digest in split.digests.items()
    }


def iterate_rows(splits: Splits) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield split, language and row of all rows; train first, then validation, then test."""
    for name, languages in splits.items():
        for language, split in languages.items():
            for row in split.rows:
                yield name, language, row


def find_faults(splits: Splits, faults_of: Callable[[dict[str, Any]], list[str]]) -> list[str]:
    """Return every fault that a task finds in single rows, with file and line."""
    rows = (row for _, _, row in iterate_rows(splits))
    return [f"{row['where']}: {fault}" for row in rows for fault in faults_of(row)]


def find_unseen(
    splits: Splits, labels: Sequence[str], labels_of: Callable[[dict[str, Any]], list[str]]
) -> dict[str, list[str]]:
    """Return, by `split/language`, a fault for every label that never occurs in train."""
    known = set(labels)
    unseen: dict[str, list[str]] = {}
    for name, language, row in iterate_rows(splits):
        for label in labels_of(row) if name != "train" else ():
            if label not in known:
                fault = f"{row['where']}: label {label!r} never occurs in train"
                unseen.setdefault(f"{name}/{language}", []).append(fault)
    return unseen


def find_label_variants(
    splits: Splits, labels_of: Callable[[dict[str, Any]], list[str]]
) -> list[str]:
    """Return a fault for each label that looks like another: other spaces, or another Unicode form.

    The spelling that comes first in the data is taken as the right one.
    """
    first: dict[str, str] = {}
    faults: dict[str, str] = {}
    for _, _, row in iterate_rows(splits):
        for label in labels_of(row):
            spelled = first.setdefault(_fold_label(label), label)
            if spelled != label and label not in faults:
                faults[label] = (
                    f"{row['where']}: label {label!a} differs from {spelled!a} only in "
                    "spaces, invisible characters or the Unicode form of its characters: spell "
                    "both alike"
                )
    return list(faults.values())


@lru_cache(maxsize=4096)
def _fold_label(label: str) -> str:
    visible = re.sub(f"[{ZERO_WIDTH}{BIDI_CONTROLS}\ufeff]", "", label)
    return " ".join(unicodedata.normalize("NFKC", visible).split())


def _resolve_sources(name: str, value: Any, data: Data) -> dict[str, str]:
    """Return the source of a split by language."""
    needed = data.train_languages
    sources = value
    if isinstance(value, str):
        languages = needed if data.languages else [data.language]
        if data.languages and name == "test":
            languages = list(data.languages)
        sources = dict.fromkeys(languages, value)
    if not isinstance(sources, dict) or not all(isinstance(s, str) for s in sources.values()):
        raise ConfigError(
            f"data.{name}={value!r}: give one source (a file) or a source for each language, "
            f"data.{name}={{es: FILE, zh: FILE}}."
        )
    for code in sources:
        check_language(str(code))  # an unquoted `no` in YAML is false, not Norwegian
        if data.languages is not None and code not in data.languages:
            raise ConfigError(f"data.{name}: {code}. {suggest(code, list(data.languages))}")
    missing = [language for language in needed if language not in sources]
    if name != "test" and missing:
        raise ConfigError(
            f"data.{name} has sources for {', '.join(sources)}, but not for a language trained "
            f"on: {missing[0]} (data.language, data.further_languages)."
        )
    return sources
