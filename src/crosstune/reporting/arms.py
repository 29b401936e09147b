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

from crosstune.runs.settings import collect_digests, have_digests, list_settings

_PLANNED = {"data", "language", "model", "method", "seed"}  # of a planned run
_GROUP = ("model", "method", "data", "train_language")


def name_datasets(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each run's data set: its name, with `#digest` where one name has several contents.

    A run that failed before it read every file gets the only content that fits its digests; `#?`
    marks a run whose files are not known.
    """
    groups = defaultdict(list)
    contents = [collect_digests(record) for record in records]
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
