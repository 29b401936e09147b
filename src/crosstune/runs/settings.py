"""What of a record can change its result: the options by the schema, and the files by content.

Reports and model cards average the runs that are equal in both but for their seeds. Works on plain
records.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from crosstune.config.schema import OPTIONS, RETIRED_OPTIONS

_ALL_OPTIONS = OPTIONS | RETIRED_OPTIONS
# Runs that differ in these alone belong to one arm.
_IRRELEVANT = tuple(f"{key}." for key, facts in _ALL_OPTIONS.items() if not facts.changes_result)
_IRRELEVANT += ("seed.",)
_SPLITS = ("data.train", "data.validation", "data.test")
# compared by content, not by path
_FILES = tuple(f"{key}." for key in OPTIONS if key.startswith("data.") and OPTIONS[key].is_path)
_ADAPTERS = "method.language_adapters."

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
# at these values an option is the same as absent: records of other versions lack it
_AS_ABSENT = {
    key: _encode(getattr(facts.default, "name", facts.default))
    for key, facts in _ALL_OPTIONS.items()
    if key in RETIRED_OPTIONS or facts.added_later
}


def flatten(nested: Mapping[str, Any]) -> dict[str, str]:
    """Return the leaves as dotted key -> JSON text; a null leaf counts as absent.

    >>> flatten({"data": {"limit": None, "metric": "f1"}, "seed": 3})
    {'seed': '3', 'data.metric': '"f1"'}
    """
    flat = {}
    stack: list[tuple[str, Any]] = [("", nested)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{path}.{key}" if path else key, child) for key, child in value.items()]
        elif value is not None:
            flat[path] = _encode(value)
    return flat


def collect_digests(record: Mapping[str, Any]) -> frozenset[Any]:
    """Return the digests of a run's files, with the splits each was used for if that is known."""
    roles = defaultdict(list)
    for key, text in flatten({"data": record["config"].get("data")}).items():
        if _starts_with(key, _FILES) and text.startswith('"'):
            # one file for a split is short for {train_language: file}
            role = f"{key}.{record['train_language']}" if key in _SPLITS else key
            roles[json.loads(text)].append(role)
    digests = record["data_sha256"].items()
    pairs = Counter((*sorted(roles[path]), digest) for path, digest in digests)
    return frozenset((pair, copy) for pair, count in pairs.items() for copy in range(count))


def _starts_with(key: str, prefixes: tuple[str, ...]) -> bool:
    return f"{key}.".startswith(prefixes)


def have_digests(records: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether every finished run recorded the digests of its files."""
    return all(record["data_sha256"] for record in records if record["status"] == "finished")


def list_settings(record: Mapping[str, Any], digested: bool) -> dict[str, str]:
    """Return the settings that can change a run's result, flattened as by `flatten`.

    The digests of weights and language adapters replace their paths. Paths of data files are left
    out if `digested`, that is, if digests identify the files.
    """
    dropped = (*_IRRELEVANT, *_FILES) if digested else _IRRELEVANT
    flat = flatten(record["config"])
    settings = {
        key: text
        for key, text in flat.items()
        if not _starts_with(key, dropped) and _AS_ABSENT.get(key) != text
    }
    if isinstance(record.get("model_sha256"), str):
        settings.pop("model.path", None)
        settings["model.weights"] = json.dumps(f"sha256:{record['model_sha256'][:12]}")
    adapters = record.get("language_adapters_sha256")
    if isinstance(adapters, dict) and adapters:
        settings = {k: v for k, v in settings.items() if not _starts_with(k, (_ADAPTERS,))}
        settings |= {
            f"{_ADAPTERS}{language}": json.dumps(f"sha256:{str(digest)[:12]}")
            for language, digest in adapters.items()
        }
    return settings
