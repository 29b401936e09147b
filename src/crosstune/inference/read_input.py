"""What is to be predicted: a user's file as rows of the run's kind, whether labelled or not.

Labels that the file may hold are never read: `items.py` makes whole rows of what is. Called by
`predict.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from crosstune.config.schema import Data, TaskType
from crosstune.data.readers.conll import read_conll, read_conllu
from crosstune.data.readers.files import read_text
from crosstune.data.readers.squad import read_squad
from crosstune.data.readers.tables import read_columns
from crosstune.errors import ConfigError, DataError
from crosstune.inference.complete_rows import check_kind, complete_rows
from crosstune.languages import check_language

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


def read_input(source: Source) -> Rows:
    """Return the rows of a file: `id`, `where`, `language` and what the run's kind encodes.

    Texts stand one a line (.txt), in the run's columns of a table, as words of CoNLL or CoNLL-U, or
    as questions in SQuAD's JSON.

    Raises:
        ConfigError: the kind predicts nothing, or has no such format.
        DataError: the file is malformed or empty.
    """
    kind = source.data.kind
    check_kind(kind)
    check_language(source.language)
    if not (rows := READERS.get(kind, _read_texts)(source)):
        raise DataError([f"{source.path}: no rows in it"])
    return complete_rows(rows, kind, source.task, source.language)


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


def _read_questions(source: Source) -> Rows:
    _admit(source, ".json")
    encoding = source.option("encoding", "utf-8")
    return read_squad(source.path, answered=False, encoding=encoding).rows


def _read_words(source: Source) -> Rows:
    """Return rows with words, or a text to be parted."""
    _admit(source, ".txt", ".conll", ".bio", ".tsv", ".conllu")
    encoding = source.option("encoding", "utf-8")
    if source.suffix == ".txt":
        return read_text(source.path, encoding=encoding).rows
    return _read_columns(source, encoding)


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


def _admit(source: Source, *suffixes: str) -> None:
    if source.suffix not in suffixes:
        raise ConfigError(
            f"input={source.path}: {source.data.kind.name} reads files that end in "
            f"{', '.join(suffixes)} (or .gz)."
        )


READERS: dict[TaskType, Callable[[Source], Rows]] = {  # the others read texts
    TaskType.tagging: _read_words,
    TaskType.extraction: _read_questions,
}
