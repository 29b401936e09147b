"""What is to be predicted: a user's file as rows of the run's kind, whether labelled or not.

Labels that the file may hold are never read: each row gets a stand-in that the task accepts and
that no prediction depends on. Called by `predict.py`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from crosstune.data.readers.conll import read_conll
from crosstune.data.readers.conllu import read_conllu
from crosstune.data.readers.markers import unmark
from crosstune.data.readers.squad import read_squad
from crosstune.data.readers.tables import read_columns
from crosstune.data.readers.text import read_text
from crosstune.errors import ConfigError, DataError
from crosstune.languages import LANGUAGES, check_language
from crosstune.schema import Data, Kind

SPACELESS = {"Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt", "Yiii"}
TABLES = (".tsv", ".csv", ".jsonl", ".parquet")
Rows = list[dict[str, Any]]


class Source(NamedTuple):
    """A user's file, and what the run says of files like it."""

    path: str
    data: Data
    task: Any
    language: str

    @property
    def suffix(self) -> str:
        """How the file's name ends, less the .gz of a packed one."""
        return Path(self.path.removesuffix(".gz")).suffix

    def option(self, name: str, default: Any) -> Any:
        """Return an option of the run's reader."""
        return self.data.reader.get(name, default)

    def column(self, name: str) -> str | None:
        """Return the run's own name of a column."""
        named = self.option("columns", None)
        named = named if isinstance(named, dict) else {}
        return getattr(self.data, name) or self.option(name, None) or named.get(name)


def is_spaced(language: str) -> bool:
    """Say whether a language is written with spaces between its words.

    >>> is_spaced("es"), is_spaced("zh"), is_spaced("zh-Hant-TW"), is_spaced("es-x-medical")
    (True, False, False, True)
    """
    code, *rest = language.split("-")
    script = next((part for part in rest if len(part) == 4 and part.istitle()), None)
    known = LANGUAGES.get(code)
    return (script or (known.script if known else "")) not in SPACELESS


def read_input(source: Source) -> Rows:
    """Return the rows of a file: `id`, `where`, `language` and what the run's kind encodes.

    Texts stand one a line (.txt), in the run's columns of a table, as words of CoNLL or CoNLL-U, or
    as questions in SQuAD's JSON.

    Raises:
        ConfigError: the kind predicts nothing, or has no such format.
        DataError: the file is malformed or empty.
    """
    check_language(source.language)
    if source.data.kind not in READERS:
        raise ConfigError(
            f"kind {source.data.kind.name}: it answers nothing about a text. Its encoder is what "
            "others train on: model=local model.path=RUN."
        )
    rows = [{**row, "language": source.language} for row in READERS[source.data.kind](source)]
    faults = [f"{row['where']}: {f}" for row in rows for f in source.task.faults_of(row)]
    if faults or not rows:
        raise DataError(faults or [f"{source.path}: no rows in it"])
    return rows


def _read_texts(source: Source) -> Rows:
    pair = source.column("text_pair")
    if source.suffix == ".txt":
        if pair is not None:
            raise ConfigError(f"{source.path}: pairs of texts come in a table, not in lines.")
        return read_text(source.path, encoding=source.option("encoding", "utf-8")).rows
    _admit(source, ".txt", *TABLES)
    wanted = {"text": source.column("text") or "text", **({"text_pair": pair} if pair else {})}
    header, encoding = source.option("header", None), source.option("encoding", "utf-8")
    return read_columns(source.path, wanted, header, encoding).rows


def _read_labelled(source: Source) -> Rows:
    labels = getattr(source.task, "classes", source.task.labels)
    return [{**row, "label": labels[0]} for row in _read_texts(source)]


def _read_numbered(source: Source) -> Rows:
    return [{**row, "label": "0"} for row in _read_texts(source)]


def _read_sources(source: Source) -> Rows:
    return [{**row, "target": "-"} for row in _read_texts(source)]


def _read_marked(source: Source) -> Rows:
    rows = _read_labelled(source)
    faults: list[str] = []
    for row in rows:
        try:
            row.update(unmark(row["text"])._asdict())
        except ValueError as error:
            faults.append(f"{row['where']}: {error}")
    if faults:
        raise DataError(faults)
    return rows


def _read_questions(source: Source) -> Rows:
    _admit(source, ".json")
    encoding = source.option("encoding", "utf-8")
    return read_squad(source.path, answered=False, encoding=encoding).rows


def _read_words(source: Source) -> Rows:
    """Return rows with `words`, their `text` and where in it each word starts."""
    _admit(source, ".txt", ".conll", ".bio", ".tsv", ".conllu")
    encoding, spaced = source.option("encoding", "utf-8"), is_spaced(source.language)
    if source.suffix == ".txt":
        rows = read_text(source.path, encoding=encoding).rows
        pattern = re.compile(r"\S+" if spaced and source.task.scheme != "words" else r"\S")
        for row in rows:
            found = list(pattern.finditer(row["text"]))
            row["words"], row["starts"] = [m.group() for m in found], [m.start() for m in found]
    else:
        rows = _read_columns(source, encoding)
        for row in rows:
            row["starts"] = place(row["words"], spaced)
            row["text"] = (" " if spaced else "").join(row["words"])
    return [{**row, "tags": source.task.labels[:1] * len(row["words"])} for row in rows]


def _read_columns(source: Source, encoding: str) -> Rows:
    if source.suffix == ".conllu":
        characters = source.option("characters", False)
        # of all its columns, feats alone may be empty in every row
        found = read_conllu(source.path, column="feats", characters=characters, encoding=encoding)
        return found.rows
    word, digit = source.option("word", 0), source.option("strip_digit", False)
    return read_conll(
        source.path,
        word=word,
        tag=None,
        strip_digit=digit,
        skip_empty=source.option("skip_empty", False),
        encoding=encoding,
    ).rows


def place(words: list[str], spaced: bool) -> list[int]:
    """Return where each word starts in the text of all, with or without a space between them.

    >>> place(["el", "niño"], True), place(["小", "明"], False)
    ([0, 3], [0, 1])
    """
    starts, end = [], 0
    for word in words:
        starts.append(end)
        end += len(word) + spaced
    return starts


def _admit(source: Source, *suffixes: str) -> None:
    if source.suffix not in suffixes:
        raise ConfigError(
            f"input={source.path}: {source.data.kind.name} reads files that end in "
            f"{', '.join(suffixes)} (or .gz)."
        )


READERS: dict[Kind, Callable[[Source], Rows]] = {
    Kind.classification: _read_labelled,
    Kind.cloze: _read_labelled,
    Kind.entailment: _read_labelled,
    Kind.regression: _read_numbered,
    Kind.relation: _read_marked,
    Kind.generation: _read_sources,
    Kind.tagging: _read_words,
    Kind.extraction: _read_questions,
}
