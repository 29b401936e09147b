"""Reads the file that a run is applied to, labelled or not, as rows of the run's task.

Labels in the file are never read; `complete_rows.py` puts placeholders in their place.
"""

from pathlib import Path
from typing import Any, NamedTuple

from crosstune.config.schema import Data, TaskType
from crosstune.data.readers.conll import read_conll, read_conllu
from crosstune.data.readers.files import read_text
from crosstune.data.readers.squad import read_squad
from crosstune.data.readers.tables import TableLayout, read_columns
from crosstune.errors import ConfigError, DataError
from crosstune.inference.complete_rows import check_kind, complete_rows
from crosstune.languages import check_language

Rows = list[dict[str, Any]]


class Source(NamedTuple):
    """A user's file, and the run's description of files like it."""

    path: str
    data: Data
    task: Any
    language: str

    @property
    def suffix(self) -> str:
        """The suffix of the file's name, without the .gz of a compressed file."""
        return Path(self.path.removesuffix(".gz")).suffix

    def option(self, name: str, default: Any) -> Any:
        """Return an option of the run's reader."""
        return self.data.reader.get(name, default)

    def column(self, name: str) -> str | None:
        """Return the name that a column has in the run's files."""
        columns = self.option("columns", None)
        columns = columns if isinstance(columns, dict) else {}
        return getattr(self.data, name) or self.option(name, None) or columns.get(name)


def read_input(source: Source) -> Rows:
    """Return the rows of a file: `id`, `where`, `language` and what the task encodes.

    Texts come one per line (.txt) or in the run's columns of a table, words as CoNLL or CoNLL-U,
    and questions in SQuAD's JSON.

    Raises:
        ConfigError: the task type predicts nothing, or does not read this format.
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
    encoding = source.option("encoding", "utf-8")
    if source.suffix == ".txt":
        if pair is not None:
            raise ConfigError(f"{source.path}: pairs of texts come in a table, not in lines.")
        return read_text(source.path, encoding=encoding).rows
    _check_suffix(source, ".txt", ".tsv", ".csv", ".jsonl", ".parquet")
    columns = {"text": source.column("text") or "text", **({"text_pair": pair} if pair else {})}
    layout = TableLayout(
        header=source.option("header", None),
        encoding=encoding,
        separator=source.option("separator", None),
    )
    return read_columns(source.path, columns, **layout).rows


def _read_questions(source: Source) -> Rows:
    _check_suffix(source, ".json", ".jsonl")
    encoding = source.option("encoding", "utf-8")
    return read_squad(source.path, answered=False, encoding=encoding).rows


def _read_words(source: Source) -> Rows:
    """Return rows with words, or with a text that is still to be split."""
    _check_suffix(source, ".txt", ".conll", ".bio", ".tsv", ".conllu")
    encoding = source.option("encoding", "utf-8")
    if source.suffix == ".txt":
        return read_text(source.path, encoding=encoding).rows
    if source.suffix == ".conllu":
        # feats is the one column that may be empty in every row
        characters = source.option("characters", False)
        return read_conllu(
            source.path, column="feats", characters=characters, encoding=encoding
        ).rows
    return read_conll(
        source.path,
        word=source.option("word", 0),
        tag=None,
        strip_digit=source.option("strip_digit", False),
        skip_empty=source.option("skip_empty", False),
        encoding=encoding,
    ).rows


def _check_suffix(source: Source, *suffixes: str) -> None:
    if source.suffix not in suffixes:
        raise ConfigError(
            f"input={source.path}: {source.data.kind.name} reads files that end in "
            f"{', '.join(suffixes)} (or .gz)."
        )


READERS = {TaskType.tagging: _read_words, TaskType.extraction: _read_questions}  # else texts
