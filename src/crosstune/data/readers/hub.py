"""Data sets of the Hugging Face hub at a pinned commit, or their copies in a local folder."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crosstune.data.readers.files import collect_faults
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError


def read_hub(
    source: str,
    *,
    path: str,
    revision: str | None,
    columns: dict[str, str],
    name: str | None = None,
) -> Split:
    """Read one split of a data set on the Hugging Face hub, or in a local folder.

    `source` is the split's name, `columns` maps our canonical columns to the data set's. Class
    indices become the names that the data set declares for them.

    Raises:
        ConfigError: the revision is no commit, or a column does not exist.
        DataError: the data set cannot be loaded.
    """
    local = Path(path).is_dir()
    if not local and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ConfigError(
            f"data.reader.revision={revision}: name the 40-digit commit of {path}, so that the "
            "data cannot change under the study."
        )
    import datasets  # slow to import, and only this reader needs it

    try:
        table: Any = datasets.load_dataset(
            path, name, split=source, revision=None if local else revision
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            [f"{path} ({name or 'default'}, {source}): cannot be loaded: {error}"]
        ) from error
    missing = [theirs for theirs in columns.values() if theirs not in table.column_names]
    if missing:
        raise ConfigError(f"{path} has no column {missing[0]}. Allowed: {table.column_names}.")
    decode = {ours: _make_decoder(table.features[theirs]) for ours, theirs in columns.items()}
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, record in enumerate(table):
        where = f"{path}/{source}:{number}"
        with collect_faults(faults, where):
            decoded = {ours: decode[ours](record[theirs]) for ours, theirs in columns.items()}
            rows.append({"id": str(number), **decoded, "where": where})
    if faults:
        raise DataError(faults)
    content = json.dumps([[row[ours] for ours in columns] for row in rows])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Split(rows, {f"{path}/{name or 'default'}/{source}": digest})


def _make_decoder(feature: Any) -> Callable[[Any], Any]:
    inner = getattr(feature, "feature", feature)  # a list of class labels holds its feature
    if hasattr(inner, "int2str"):
        if inner is feature:
            return lambda value: _name_class(value, inner.names)
        return lambda values: [_name_class(value, inner.names) for value in values]
    if isinstance(feature, dict) and {"text", "answer_start"} <= set(feature):  # as in SQuAD
        return lambda value: [
            {"text": text, "start": start}
            for text, start in zip(value["text"], value["answer_start"], strict=True)
        ]
    return lambda value: [str(v) for v in value] if isinstance(value, list) else str(value)


def _name_class(index: int | None, names: list[str]) -> str:
    if index is None or not 0 <= index < len(names):
        raise ValueError(
            f"class {index}, but the data set names the classes 0 to {len(names) - 1}: the split "
            "may have no labels (data.test=null leaves it out)"
        )
    return names[index]
