"""The splits of a data set: read in all their languages, and what must hold between them.

Imports nothing heavy, so that a study can be planned and its data checked at once. Faults inside
one file are the readers' own. Called by `run.py`, `sweep.py` and `crosstune check`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from crosstune.config.instantiate import instantiate
from crosstune.config.schema import Data
from crosstune.data.split import Split
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.languages import check_language

SPLITS = ("train", "validation", "test")
Given = dict[str, str]  # `source`, and `name` where a data set on the hub has one for each language
Splits = dict[str, dict[str, Split]]  # "train" | "validation" | "test" -> language -> split


def read_splits(data: Data, allow: Sequence[str]) -> Splits:
    """Read every split of the data set: train in its languages, the others in all of theirs.

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
    for name, language, given in parts_of(data):
        languages = splits.setdefault(name, {})
        try:
            split = instantiate(data.reader, "data.reader", allow, **given)
        except DataError as error:
            faults += error.faults
            continue
        rows = [{**row, "language": language} for row in split.rows]
        languages[language] = Split(rows, split.digests)
        if not rows:
            faults.append(f"{given['source']}: no rows in it (data.{name}, {language})")
    return splits, faults


def parts_of(data: Data, names: Sequence[str] = SPLITS) -> Iterator[tuple[str, str, Given]]:
    """Yield split, language and what the reader is given, for all parts of the splits named.

    Raises:
        ConfigError: a split is not a source or {language: source}, or lacks the language of train.
    """
    for name in names:
        value = getattr(data, name)
        if value is None and name == "test":
            continue
        sources = _sources(name, value, data)
        for language in data.train_languages if name == "train" else sources:
            part = {} if data.languages is None else {"name": data.languages[language]}
            yield name, language, {"source": sources[language], **part}


def merge(languages: dict[str, Split]) -> Split:
    """Return the splits of several languages as one, in the order given."""
    digests = {
        file: digest for split in languages.values() for file, digest in split.digests.items()
    }
    return Split([row for split in languages.values() for row in split.rows], digests)


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


def _sources(name: str, value: Any, data: Data) -> dict[str, str]:
    """Return the source of a split for each language that it is read in."""
    needed = data.train_languages
    if isinstance(value, str):
        everywhere = name == "test" and data.languages is not None
        sources = dict.fromkeys(data.languages or needed, value) if everywhere else {}
        sources = sources or dict.fromkeys(needed if data.languages else [data.language], value)
    else:
        sources = value
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
