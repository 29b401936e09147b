"""Read predictions.parquet of one run: its test items by language, with gold and prediction."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from crosstune.errors import DataError

if TYPE_CHECKING:  # slow to import
    import pyarrow as pa

Key = tuple[str, int]  # an item's id, and which of the items with that id it is, from 1

# Types of gold and prediction, by task type. Free text and masked subwords are not judged.
_TYPES = {
    "classification": ("string", "string"),
    "relation": ("string", "string"),
    "cloze": ("string", "string"),
    "tagging": ("list", "list"),
    "extraction": ("list", "string"),
    "regression": ("float64", "float64"),
}
KINDS = frozenset(_TYPES)
ITEM_SCORES = {"extraction": ("f1", "em")}  # columns with the scores of single items


class RunPredictions(NamedTuple):
    """The test items of one language; the lists stand in the order of `golds`.

    `item_scores` has the scores of single items by metric, where a run has written them.
    """

    golds: dict[Key, Any]
    predictions: list[Any]
    item_scores: dict[str, list[float]]


def read_predictions(path: Path, kind: str) -> dict[str, RunPredictions]:
    """Return a run's predictions by test language; tags and accepted answers are tuples.

    Raises:
        DataError: the file is unreadable, or its columns are not those of the task type `kind`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ("id", "language", "gold", "prediction")
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        absent = [name for name in columns if names.count(name) != 1]
        if absent:
            raise DataError([f"columns absent or double: {', '.join(absent)}"])
        scored = [name for name in ITEM_SCORES.get(kind, ()) if names.count(name) == 1]
        table = file.read(columns=[*columns, *scored])
        multilabel = kind == "classification" and pa.types.is_list(table.schema.field("gold").type)
        written = ("string", "string", *(("list", "list") if multilabel else _TYPES[kind]))
        types = {"string": pa.string(), "list": pa.list_(pa.string()), "float64": pa.float64()}
        ids, languages, golds, predictions = (
            _to_values(table.column(name).cast(types[kind_of_column]), name)
            for name, kind_of_column in zip(columns, written, strict=True)
        )
        scores = {name: _to_values(table.column(name).cast(pa.float64()), name) for name in scored}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError([f"{type(error).__name__}: {error}"]) from error
    indices = defaultdict(list)
    for index, language in enumerate(languages):
        indices[language].append(index)
    return {
        language: RunPredictions(
            dict(zip(_make_keys([ids[i] for i in rows]), [golds[i] for i in rows], strict=True)),
            [predictions[i] for i in rows],
            {name: [values[i] for i in rows] for name, values in scores.items()},
        )
        for language, rows in indices.items()
    }


def _to_values(column: "pa.ChunkedArray", name: str) -> Sequence[Any]:
    import pyarrow as pa

    array = column.combine_chunks()
    flat = array.flatten() if pa.types.is_list(array.type) else array
    if array.null_count or flat.null_count:
        raise DataError([f"{name} holds nulls"])
    if pa.types.is_floating(flat.type):
        numbers = flat.to_pylist()
        if not all(map(math.isfinite, numbers)):
            raise DataError([f"{name} holds a number that is not finite"])
        return numbers
    encoded = flat.dictionary_encode()  # each distinct text becomes a Python string once
    texts = encoded.dictionary.to_pylist()
    values = [texts[index] for index in encoded.indices.to_pylist()]
    if flat is array:
        return values
    ends = list(accumulate(array.value_lengths().to_pylist()))
    return [tuple(values[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def _make_keys(ids: Sequence[str]) -> Iterable[Key]:
    if len(set(ids)) == len(ids):
        return [(name, 1) for name in ids]
    seen: Counter[str] = Counter()
    keys = []
    for name in ids:
        seen[name] += 1
        keys.append((name, seen[name]))
    return keys
