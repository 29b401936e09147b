"""Whether the rows of a table may be compared: what differs between them besides the method.

Finds the differences, describes them in sentences, and splits rows into groups of equal conditions.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from crosstune.reporting.arms import render_setting
from crosstune.reporting.records import Records, Run, list_runs
from crosstune.runs.settings import flatten, have_digests, list_settings

Row = tuple[str, str, str]  # model, method, arm
DataKey = tuple[str, str]  # data set, train language: what one comparison is about
Group = tuple[str, tuple[Row, ...]]  # conditions, and the rows under them

# A method may have a tuned value of its own for these, the same for all its seeds.
_TUNED = ("optimizer.learning_rate", "model.learning_rate_scale")
_MAX_FACTS = 12  # environment facts that are listed
_Setting = tuple[Run, Mapping[str, str]]  # a run and its settings
_Holders = Mapping[str, Sequence[tuple[Row, int]]]  # value -> the (row, seed) of runs with it


@dataclass(frozen=True)
class Difference:
    """A key that has several values among runs in one comparison.

    `splits` is true where rows of different values must not stand in one table.
    """

    data: DataKey
    key: str
    holders: _Holders
    splits: bool = False


@dataclass(frozen=True)
class Conditions:
    """The differences as sentences, and groups of rows under equal conditions.

    `groups` is empty where one table may hold all rows.
    """

    flags: tuple[str, ...]
    groups: tuple[Group, ...]


def compare_conditions(
    frame: pd.DataFrame, records: Records, labels: Mapping[Row, str]
) -> Conditions:
    """Return how the runs of a study differ, besides their methods and seeds.

    Compared are all settings, the contents of data of one name, and the environments. A learning
    rate may differ between methods but not within one. Rows that differ in a setting are split,
    unless they are of one method and differ in this setting alone: then the study is about it.
    """
    by_id = {record["run_id"]: record for record in records.records}
    runs = [run for run in list_runs(frame) if run["run_id"] in by_id and not run["superseded_by"]]
    by_data: dict[DataKey, list[Run]] = defaultdict(list)
    for run in runs:
        by_data[run["dataset"], run["train_language"]].append(run)
    differences = _compare_data(runs)
    for data, members in sorted(by_data.items()):
        differences += _compare_settings(data, members, by_id)
    flags = [*_describe(differences, labels), *_describe_environments(runs, by_id, labels)]
    splitting = [one for one in differences if one.splits]
    return Conditions(tuple(flags), _split_rows(labels, splitting, len(by_data)))


def _row_of(run: Run) -> Row:
    return run["model"], run["method"], run["arm"]


def _compare_data(runs: Sequence[Run]) -> list[Difference]:
    """Return the names of data with several contents, which are separate columns already."""
    contents: dict[DataKey, dict[str, list[tuple[Row, int]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        if not run["dataset"].endswith("#?"):
            holders = contents[run["data"], run["train_language"]][run["dataset"]]
            holders.append((_row_of(run), run["seed"]))
    return [
        Difference(data, "data_sha256", holders)
        for data, holders in sorted(contents.items())
        if len(holders) > 1
    ]


def _compare_settings(
    data: DataKey, runs: Sequence[Run], records: Mapping[str, Mapping[str, Any]]
) -> list[Difference]:
    digested = have_digests([records[run["run_id"]] for run in runs])
    settings = [(run, list_settings(records[run["run_id"]], digested)) for run in runs]
    keys = sorted({key for _, setting in settings for key in setting} - {*_TUNED})
    of_model = [key for key in keys if key.startswith("model.")]
    common = [key for key in keys if not key.startswith(("method.", "model."))]
    untuned = _list_varying(settings, common, ()) + _list_varying(settings, of_model, ("model",))
    methods = {(run["model"], run["method"]) for run in runs}
    splits = len(methods) > 1 or len(untuned) > 1
    tuned = _list_varying(settings, _TUNED, ("model", "method"))
    return [Difference(data, key, holders, splits) for key, holders in untuned] + [
        Difference(data, key, holders) for key, holders in tuned
    ]


def _list_varying(
    settings: Sequence[_Setting], keys: Iterable[str], within: Sequence[str]
) -> list[tuple[str, _Holders]]:
    """Return the keys with several values among runs equal in `within`, and their holders."""
    groups = defaultdict(list)
    for run, setting in settings:
        groups[tuple(run[name] for name in within)].append((run, setting))
    return [
        (key, holders)
        for key in keys
        for _, members in sorted(groups.items())
        if len(holders := _list_holders(members, key)) > 1
    ]


def _list_holders(settings: Iterable[_Setting], key: str) -> _Holders:
    holders: dict[str, list[tuple[Row, int]]] = defaultdict(list)
    for run, setting in settings:
        holders[render_setting(setting.get(key))].append((_row_of(run), run["seed"]))
    return dict(sorted(holders.items()))


def _describe(differences: Iterable[Difference], labels: Mapping[Row, str]) -> Iterable[str]:
    """Yield a sentence for each key and set of holders, for all data sets together."""
    data_of: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    for one in differences:
        data_of[one.key, _render_holders(one.holders, labels), one.splits].append(
            " ".join(one.data)
        )
    for (key, holders, splits), data in data_of.items():
        verdict = "not one comparison, so the rows stand apart" if splits else "compare with care"
        yield f"Runs on {', '.join(dict.fromkeys(data))} differ in {key}: {holders}; {verdict}."


def _describe_environments(
    runs: Sequence[Run], records: Mapping[str, Mapping[str, Any]], labels: Mapping[Row, str]
) -> Iterable[str]:
    finished = [run for run in runs if run["status"] == "finished"]
    settings = [(run, flatten(records[run["run_id"]]["environment"])) for run in finished]
    keys = sorted({key for _, setting in settings for key in setting})
    varied = [
        f"{key}: {_render_holders(holders, labels)}"
        for key, holders in _list_varying(settings, keys, ())
    ]
    if varied:
        more = f"; and {len(varied) - _MAX_FACTS} more" if len(varied) > _MAX_FACTS else ""
        listed = "; ".join(varied[:_MAX_FACTS])
        yield f"The runs differ in environment, {listed}{more}: compare with care."


def _render_holders(holders: _Holders, labels: Mapping[Row, str]) -> str:
    """Return each value with the rows that have it, and their seeds where a row has several."""
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
            f"{labels[row]} seed {', '.join(map(str, sorted(seeds[row])))}"
            if len(values[row]) > 1
            else labels[row]
            for row in sorted(seeds)
        ]
        parts.append(f"{value} ({', '.join(names)})")
    return ", ".join(parts)


def _split_rows(
    labels: Mapping[Row, str], differences: Sequence[Difference], data_sets: int
) -> tuple[Group, ...]:
    """Return groups of rows whose conditions are equal on every data set that they share."""
    conditions: dict[Row, dict[tuple[DataKey, str], str]] = {row: {} for row in labels}
    for one in differences:
        for value, holders in one.holders.items():
            for row, _ in holders:
                conditions[row][one.data, one.key] = value
    groups: list[tuple[dict[tuple[DataKey, str], str], list[Row]]] = []
    for row, values in conditions.items():
        for shared, rows in groups:
            if all(shared.get(key, value) == value for key, value in values.items()):
                shared.update(values)
                rows.append(row)
                break
        else:
            groups.append((dict(values), [row]))
    if len(groups) < 2:
        return ()
    return tuple((_name_conditions(shared, data_sets), tuple(rows)) for shared, rows in groups)


def _name_conditions(shared: Mapping[tuple[DataKey, str], str], data_sets: int) -> str:
    """Return conditions as text, with the data set where they do not hold on every one."""
    by_key: dict[str, list[tuple[DataKey, str]]] = defaultdict(list)
    for (data, key), value in sorted(shared.items()):
        by_key[key].append((data, value))
    named = []
    for key, values in sorted(by_key.items()):
        if len(values) == data_sets and len({value for _, value in values}) == 1:
            named.append(f"{key}={values[0][1]}")
        else:
            named += [f"{key}={value} on {' '.join(data)}" for data, value in values]
    return ", ".join(named)
