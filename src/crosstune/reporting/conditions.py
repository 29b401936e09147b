"""Whether the rows of a table may be compared: everything but the method that differs in them.

Finds the differences, words them, and parts rows into groups of equal conditions. Works on a
frame's runs and plain records; `tables.py` calls it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crosstune.reporting.arms import flatten, list_settings, show_setting
from crosstune.reporting.records import Records, Rows, list_runs

Row = tuple[str, ...]  # model, method, arm
Cell = tuple[str, ...]  # data set, train language: what one comparison is about

# Every method may have its own best value of these, and one for all its seeds.
_TUNED = ("optimizer.learning_rate", "model.learning_rate_scale")
_Setting = tuple[Mapping[str, Any], Mapping[str, str]]  # a run, and the keys that count
_MOST = 12  # environment facts that are told


@dataclass(frozen=True)
class Difference:
    """A key with several values among runs that stand in one comparison.

    `holders` gives (row, seed) of the runs that hold each value. `parts` is true where rows of
    different values must not stand in one table.
    """

    place: Cell
    key: str
    holders: Mapping[str, Sequence[tuple[Row, int]]]
    parts: bool = False


@dataclass(frozen=True)
class Conditions:
    """What differs, in sentences, and the rows that stand under equal conditions.

    `groups` pairs rows with their conditions, and is empty where one table may hold all rows.
    """

    flags: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Row, ...]], ...]


def compare_conditions(frame: Rows, records: Records, labels: Mapping[Row, str]) -> Conditions:
    """Return in what the runs of a study differ, beside their methods and seeds.

    Compared are all settings, the contents of data of one name, and the environments. A learning
    rate may differ between methods, each at its own best, and not within one. Rows that differ in
    a setting are parted, unless they are of one method and differ in this setting alone: then it
    is what the study is about.
    """
    by_id = {record["run_id"]: record for record in records.records}
    runs = [run for run in list_runs(frame) if run["run_id"] in by_id and not run["superseded_by"]]
    places: dict[Cell, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        places[run["dataset"], run["train_language"]].append(run)
    found = _compare_data(runs)
    for place, members in sorted(places.items()):
        found += _compare_settings(place, members, by_id)
    flags = [*_word(found, labels), *_word_environments(runs, by_id, labels)]
    return Conditions(tuple(flags), _part(labels, [one for one in found if one.parts], [*places]))


def _row(run: Mapping[str, Any]) -> Row:
    return run["model"], run["method"], run["arm"]


def _compare_data(runs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Return the names of data that stand for several contents; these are columns apart already."""
    contents: dict[Cell, dict[str, list[tuple[Row, int]]]] = defaultdict(dict)
    for run in runs:
        named = contents[run["data"], run["train_language"]]
        if not run["dataset"].endswith("#?"):
            named.setdefault(run["dataset"], []).append((_row(run), run["seed"]))
    return [
        Difference(place, "data_sha256", holders)
        for place, holders in sorted(contents.items())
        if len(holders) > 1
    ]


def _compare_settings(
    place: Cell, runs: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]
) -> list[Difference]:
    digested = all(
        records[run["run_id"]]["data_sha256"] for run in runs if run["status"] == "finished"
    )
    settings = [(run, list_settings(records[run["run_id"]], digested)) for run in runs]
    keys = sorted({key for _, setting in settings for key in setting})
    own = [key for key in keys if key.startswith("model.") and key not in _TUNED]
    common = [
        key for key in keys if not key.startswith(("method.", "model.")) and key not in _TUNED
    ]
    whole = _vary(settings, common, ()) + _vary(settings, own, ("model",))
    arms = {(run["model"], run["method"]) for run in runs}
    parts = len(arms) > 1 or len(whole) > 1
    found = [Difference(place, key, holders, parts) for key, holders in whole]
    tuned = _vary(settings, _TUNED, ("model", "method"))
    return found + [Difference(place, key, holders) for key, holders in tuned]


def _vary(
    settings: Sequence[_Setting], keys: Iterable[str], within: Sequence[str]
) -> list[tuple[str, dict[str, list[tuple[Row, int]]]]]:
    """Return the keys with several values among runs equal in `within`, and their holders."""
    groups = defaultdict(list)
    for run, setting in settings:
        groups[tuple(run[name] for name in within)].append((run, setting))
    return [
        (key, holders)
        for key in keys
        for _, members in sorted(groups.items())
        if len(holders := _holders(members, key)) > 1
    ]


def _holders(settings: Iterable[_Setting], key: str) -> dict[str, list[tuple[Row, int]]]:
    holders: dict[str, list[tuple[Row, int]]] = defaultdict(list)
    for run, setting in settings:
        holders[show_setting(setting.get(key))].append((_row(run), run["seed"]))
    return dict(sorted(holders.items()))


def _word(found: Iterable[Difference], labels: Mapping[Row, str]) -> Iterable[str]:
    """Yield a sentence for each key and who holds which value, all its places together."""
    told: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    for one in found:
        where = " ".join(one.place)
        told[one.key, _who(one.holders, labels), one.parts].append(where)
    for (key, who, parts), places in told.items():
        verdict = "not one comparison, so the rows stand apart" if parts else "compare with care"
        yield f"Runs on {', '.join(dict.fromkeys(places))} differ in {key}: {who}; {verdict}."


def _word_environments(
    runs: Sequence[Mapping[str, Any]],
    records: Mapping[str, Mapping[str, Any]],
    labels: Mapping[Row, str],
) -> Iterable[str]:
    finished = [run for run in runs if run["status"] == "finished"]
    settings = [(run, flatten(records[run["run_id"]]["environment"])) for run in finished]
    keys = sorted({key for _, setting in settings for key in setting})
    varied = [
        f"{key}: {_who(holders, labels)}"
        for key in keys
        if len(holders := _holders(settings, key)) > 1
    ]
    if varied:
        more = f"; and {len(varied) - _MOST} more" if len(varied) > _MOST else ""
        told = "; ".join(varied[:_MOST])
        yield f"The runs differ in environment, {told}{more}: compare with care."


def _who(holders: Mapping[str, Sequence[tuple[Row, int]]], labels: Mapping[Row, str]) -> str:
    """Return each value with the rows that hold it, and their seeds where a row holds several."""
    values: dict[Row, set[str]] = defaultdict(set)
    for value, runs in holders.items():
        for row, _ in runs:
            values[row].add(value)
    parts = []
    for value, runs in holders.items():
        seeds: dict[Row, set[int]] = defaultdict(set)
        for row, seed in runs:
            seeds[row].add(seed)
        names = [
            labels[row] + (f" seed {', '.join(map(str, sorted(seeds[row])))}")
            if len(values[row]) > 1
            else labels[row]
            for row in sorted(seeds)
        ]
        parts.append(f"{value} ({', '.join(names)})")
    return ", ".join(parts)


def _part(
    labels: Mapping[Row, str], apart: Sequence[Difference], places: Sequence[Cell]
) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """Return groups of rows whose conditions are equal wherever both were run."""
    conditions: dict[Row, dict[tuple[Cell, str], str]] = {row: {} for row in labels}
    for one in apart:
        for value, holders in one.holders.items():
            for row, _ in holders:
                conditions[row][one.place, one.key] = value
    groups: list[tuple[dict[tuple[Cell, str], str], list[Row]]] = []
    for row, own in conditions.items():
        for shared, rows in groups:
            if all(shared.get(key, value) == value for key, value in own.items()):
                shared.update(own)
                rows.append(row)
                break
        else:
            groups.append((dict(own), [row]))
    if len(groups) < 2:
        return ()
    return tuple((_name(shared, places), tuple(rows)) for shared, rows in groups)


def _name(shared: Mapping[tuple[Cell, str], str], places: Sequence[Cell]) -> str:
    """Return conditions as text, with the place where they do not hold in every place."""
    values: dict[str, list[tuple[Cell, str]]] = defaultdict(list)
    for (place, key), value in sorted(shared.items()):
        values[key].append((place, value))
    named = []
    for key, held in sorted(values.items()):
        everywhere = len(held) == len(places) and len({value for _, value in held}) == 1
        named += (
            [f"{key}={held[0][1]}"]
            if everywhere
            else [f"{key}={value} on {' '.join(place)}" for place, value in held]
        )
    return ", ".join(named)
