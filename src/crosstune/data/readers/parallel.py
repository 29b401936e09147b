"""Reader for text-to-text data such as translation, summarization or dialogue.

It reads two columns of one table, or two files with one text per line. In a table, a list of source
sentences is joined by spaces; a list of targets becomes several references.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Unpack

from crosstune.data.readers.files import has_lone_surrogate, iterate_lines, make_split, read_file
from crosstune.data.readers.tables import TableLayout, Values, parse_table
from crosstune.data.splits import Split
from crosstune.errors import ConfigError


def read_parallel(
    source: str,
    *,
    text: str | None = None,
    target: str | None = None,
    suffixes: Sequence[str] | None = None,
    **layout: Unpack[TableLayout],
) -> Split:
    """Read parallel text: rows with `text`, `target` and all `references`, `target` the first.

    Either `text` and `target` name columns of a table, with `layout` as in `read_table`; or
    `source` is the stem of two files with equally many lines: data/train with `suffixes` [en, es]
    is data/train.en, whose lines are the texts, and data/train.es.

    Raises:
        DataError: a file is missing or malformed, a side is empty, or the files differ in lines.
        ConfigError: neither two columns nor two suffixes are named, or the file is no table.
    """
    if suffixes is not None and text is None and target is None:
        if len(suffixes) != 2 or isinstance(suffixes, str):
            raise ConfigError(
                f"data.reader.suffixes={suffixes}: give two, that of the texts and that of the "
                "targets, as in [en, es]."
            )
        files = [f"{source}.{suffix}" for suffix in suffixes]
        return _read_line_pairs(files, layout.get("encoding", "utf-8"))
    if text is None or target is None or suffixes is not None:
        raise ConfigError(
            f"data.reader: text={text}, target={target}, suffixes={suffixes}. Give the columns "
            "text and target of a table, or the suffixes of two files, not both."
        )
    columns = {"text": text, "target": target}

    def parse(values: Values) -> tuple[Values, list[str]]:
        sides = {ours: _read_texts(value) for ours, value in values.items()}
        faults = [
            f"column {columns[ours]!r} (data.{ours}) holds no text, or an empty one: "
            f"{str(values[ours])[:40]!a}"
            for ours, texts in sides.items()
            if not texts
        ]
        return {} if faults else _make_pair(" ".join(sides["text"]), sides["target"]), faults

    return parse_table(source, columns, parse, **layout)


def _read_line_pairs(files: list[str], encoding: str) -> Split:
    sides: list[list[str]] = []
    digests: dict[str, str] = {}
    for file in files:
        content, digests[file] = read_file(file, encoding)
        sides.append([line.strip() for _, line in iterate_lines(content.removesuffix("\n"))])
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, pair in enumerate(zip_longest(*sides), start=1):
        if None in pair:
            short = pair.index(None)
            sizes = f"{len(sides[0])} and {len(sides[1])} lines"
            faults.append(f"{files[1 - short]}:{number}: no such line in {files[short]} ({sizes})")
            break
        empty = [file for file, line in zip(files, pair, strict=True) if not line]
        faults += [f"{file}:{number}: an empty line" for file in empty]
        columns = _make_pair(pair[0], [pair[1]])
        rows.append({"id": str(len(rows)), **columns, "where": f"{files[0]}:{number}"})
    return make_split(rows, faults, digests)


def _read_texts(value: Any) -> list[str]:
    """Return the texts of one cell; none if one of them is missing, empty or broken."""
    items = value if isinstance(value, list) else [value]
    scalars = [item for item in items if isinstance(item, str | int | float)]
    texts = [str(item).strip() for item in scalars if item == item]  # JSON's NaN is not itself
    complete = len(texts) == len(items) and all(texts)
    return texts if complete and not any(map(has_lone_surrogate, texts)) else []


def _make_pair(text: str, references: list[str]) -> dict[str, Any]:
    return {"text": text, "target": references[0], "references": references}
