"""Which runs may be averaged: names for data sets and arms.

Runs equal in dataset, train_language, model and arm differ only in their seed. An arm is a method
with the settings that vary within it. Works on plain records.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crosstune.config.schema import OPTIONS, RETIRED_OPTIONS

_ALL_OPTIONS = OPTIONS | RETIRED_OPTIONS
# Runs that differ in these alone belong to one arm.
_IRRELEVANT = tuple(f"{key}." for key, facts in _ALL_OPTIONS.items() if not facts.changes_result)
_IRRELEVANT += ("seed.",)
_PLANNED = {"data", "language", "model", "method", "seed"}  # of a planned run
_SPLITS = ("data.train", "data.validation", "data.test")
# compared by content, not by path
_FILES = tuple(f"{key}." for key in OPTIONS if key.startswith("data.") and OPTIONS[key].is_path)
_GROUP = ("model", "method", "data", "train_language")

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


def name_datasets(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each run's data set: its name, with `#digest` where one name has several contents.

    A run that failed before it read every file gets the only content that fits its digests; `#?`
    marks a run whose files are not known.
    """
    groups = defaultdict(list)
    contents = [_collect_digests(record) for record in records]
    labels = [record["data"] for record in records]
    for i, record in enumerate(records):
        groups[record["data"], record["train_language"]].append(i)
    for members in groups.values():
        finished = {contents[i] for i in members if records[i]["status"] == "finished"}
        known = finished or {contents[i] for i in members if contents[i]}
        for i in members:
            supersets = [content for content in known if contents[i] < content]
            if contents[i] not in known and len(supersets) == 1:
                contents[i] = supersets[0]
        variants = {contents[i] for i in members}
        if len(variants) > 1:
            suffixes = _name_contents(variants)
            for i in members:
                labels[i] += suffixes[contents[i]]
    return labels


def _name_contents(variants: Iterable[frozenset[Any]]) -> dict[frozenset[Any], str]:
    digests = {
        variant: hashlib.sha256(repr(sorted(variant)).encode()).hexdigest() for variant in variants
    }
    length = 4
    while len({digest[:length] for digest in digests.values()}) < len(digests):
        length += 1
    return {variant: f"#{digests[variant][:length]}" if variant else "#?" for variant in digests}


def _collect_digests(record: Mapping[str, Any]) -> frozenset[Any]:
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


def name_arms(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each run's method, with `[key=value]` for every setting that varies in that method.

    A setting varies if it takes two values within one data set, train language, model and method.
    It is then shown for that model and method on every data set, so that rows line up.
    """
    groups = defaultdict(list)
    for i, record in enumerate(records):
        groups[_group(record)].append(i)
    settings: list[dict[str, str]] = [{} for _ in records]
    varying: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for group, members in groups.items():
        digested = have_digests([records[i] for i in members])
        for i in members:
            settings[i] = list_settings(records[i], digested)
        for key in set().union(*(settings[i] for i in members)):
            if len({settings[i].get(key) for i in members}) > 1:
                varying[group[:2]].add(key)
    labels = []
    for record, setting in zip(records, settings, strict=True):
        keys = sorted(varying[_group(record)[:2]])
        shown = ", ".join(f"{key}={render_setting(setting.get(key))}" for key in keys)
        labels.append(f"{record['method']} [{shown}]" if shown else record["method"])
    return labels


def have_digests(records: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether every finished run recorded the digests of its files."""
    return all(record["data_sha256"] for record in records if record["status"] == "finished")


def list_settings(record: Mapping[str, Any], digested: bool) -> dict[str, str]:
    """Return the settings that can change a run's result, flattened as by `flatten`.

    The digest of the weights replaces their path. Paths of data files are left out if `digested`,
    that is, if digests identify the files.
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
    return settings


def _group(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(record[key] for key in _GROUP)


def render_setting(text: str | None) -> str:
    """Return a setting's JSON text as a label shows it; different settings never look alike.

    >>> render_setting('"lora"'), render_setting('"3"'), render_setting("3"), render_setting(None)
    ('lora', '"3"', '3', 'none')
    """
    if text is None:
        return "none"
    value = json.loads(text)
    reserved = ("true", "false", "null", "none", "NaN", "Infinity")
    if isinstance(value, str) and re.fullmatch(r"[^\W\d][\w./:+-]*", value):
        text = text if value in reserved else value
    if len(text) <= 60:
        return text
    return f"{text[:48]}…#{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def mark_superseded(runs: Iterable[dict[str, Any]]) -> None:
    """Set `superseded_by` on all but one of the runs that are equal even in their seed.

    The one that counts is a finished run before any other, and then the one that ended last.
    """
    groups = defaultdict(list)
    for run in runs:
        groups[*_group(run), run["dataset"], run["arm"], run["seed"]].append(run)
    for equal in groups.values():
        equal.sort(key=lambda run: (run["status"] == "finished", run["finished"], run["run_id"]))
        for run in equal:
            run["superseded_by"] = "" if run is equal[-1] else equal[-1]["run_id"]


def name_plan(plan: Mapping[str, Any]) -> str:
    """Return a planned run's id, or its overrides if its configuration was refused.

    >>> name_plan({"overrides": ["method=lroa", "seed=1"], "error": "…"})
    'method=lroa seed=1'
    """
    return plan.get("run_id") or " ".join(plan.get("overrides", []))


def assign_missing_runs(
    missing: Iterable[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return a run for each planned one without a record, with its data set and arm.

    Its settings are not known. It joins the arm of its method if there is only one and that lacks
    its seed; otherwise its arm is `method [?]`, and its data set `data#?` where its files are in
    doubt. Plans that do not name data, language, model, method and seed are left out.
    """
    datasets, arms, counts = defaultdict(set), defaultdict(set), Counter()
    for run in runs:
        group = _group(run)
        datasets[group[2:]].add(run["dataset"])
        arms[group].add(run["arm"])
        arms[group[:2]].add(run["arm"])
        counts[*group, run["seed"]] += 1
    recorded = {run["run_id"] for run in runs}
    plans = {name_plan(plan): plan for plan in missing if plan.keys() >= _PLANNED}
    absent = [
        {key: plan[key] for key in _PLANNED - {"language"}}
        | {"run_id": run_id, "train_language": plan["language"]}
        for run_id, plan in plans.items()
        if run_id not in recorded
    ]
    counts.update((*_group(plan), plan["seed"]) for plan in absent)
    for plan in absent:
        group = _group(plan)
        files = datasets[group[2:]] or {plan["data"]}
        choices = arms[group] or arms[group[:2]] or {plan["method"]}
        certain = len(choices) == 1 and (counts[*group, plan["seed"]] == 1 or not arms[group[:2]])
        plan["dataset"] = min(files) if len(files) == 1 else f"{plan['data']}#?"
        plan["arm"] = min(choices) if certain else f"{plan['method']} [?]"
    return absent
