"""A study's frame of rows -> means over seeds, for each arm, data set, language and class.

Works on frames only: labels come from `frame.py`, and how a number is printed is `tables.py`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from crosstune.reporting.records import AVERAGES, COSTS, Rows, list_runs

ARM = ["model", "method", "arm", "dataset", "train_language"]
UNSCORED = ("failed", "diverged", "unfinished", "unreadable", "missing")
MEASURES = ("precision", "recall", "f1", "support")


def summarise_scores(frame: Rows) -> Rows:
    """Return one row per arm x data set x language: mean, std and n of the headline metric.

    Only finished runs are averaged, and only those that nothing supersedes. `std` is the sample
    standard deviation, sqrt(sum (x - mean)^2 / (n - 1)), NaN for n = 1. `split` is `test`, or
    `validation` for a data set that no run has tested on. `planned` is the size of the union of
    the seeds seen anywhere (finished, failed, diverged, missing) for that data set and model,
    whatever the method: a method that was run with fewer seeds than its neighbours counts as
    incomplete. A run that was killed leaves no seed behind and counts only if it is passed as
    missing. `seeds`, `scores` and `run_ids` are tuples in the order of the seeds; `failed`,
    `diverged`, … count the arm's other runs; each cost is a mean over the arm's finished runs
    that measured it.
    """
    every = list_runs(frame)
    planned: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in every:
        planned[row["dataset"], row["model"]].add(row["seed"])
    shown = [row for row in every if not row["superseded_by"]]
    scored = [row for row in frame if row["metric"] == row["headline"] and _counts(row)]
    columns = _columns(shown, scored)
    cells, runs = defaultdict(list), defaultdict(dict)
    for row in scored:
        cells[(*_arm(row), row["split"], row["language"], row["metric"])].append(row)
    for row in shown:
        runs[_arm(row)][row["run_id"]] = row
    summary = []
    for arm, members in sorted(runs.items()):
        metrics = {row["headline"] for row in members.values()} - {""}
        for split, language, metric in sorted(columns[arm[3:]]):
            if not metrics or metric in metrics:
                summary.append(
                    dict(zip(ARM, arm, strict=True))
                    | {"split": split, "language": language, "metric": metric}
                    | _moments(cells[(*arm, split, language, metric)])
                    | {"planned": len(planned[arm[3], arm[0]])}
                    | _outcome(list(members.values()))
                )
    return summary


def list_validation(frame: Rows) -> dict[tuple[str, str], float]:
    """Return the headline metric of each run on validation, by (run_id, language)."""
    return {
        (row["run_id"], row["language"]): row["value"]
        for row in frame
        if row["split"] == "validation" and row["metric"] == row["headline"]
    }


def _counts(row: Mapping[str, Any]) -> bool:
    return row["status"] == "finished" and not row["superseded_by"]


def _arm(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[key] for key in ARM)


def _columns(
    shown: Sequence[Mapping[str, Any]], scored: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, ...], set[tuple[str, str, str]]]:
    """Return the (split, language, metric) to show for each (dataset, train_language).

    Where nothing has finished, that is the train language with the metric the runs aimed at.
    """
    found = defaultdict(set)
    for row in scored:
        key = (row["dataset"], row["train_language"], row["metric"])
        found[key].add((row["split"], row["language"], row["metric"]))
    columns: dict[tuple[str, ...], set[tuple[str, str, str]]] = defaultdict(set)
    aims = {(row["dataset"], row["train_language"], row["headline"]) for row in shown}
    for dataset, train, metric in sorted(aims, key=lambda aim: not aim[2]):  # unknown metric last
        scores = found[dataset, train, metric]
        tested = {score for score in scores if score[0] == "test"}
        if metric or not columns[dataset, train]:
            columns[dataset, train] |= tested or scores or {("test", train, metric)}
    return columns


def _moments(cell: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cell = sorted(cell, key=lambda row: row["seed"])
    values = [row["value"] for row in cell]
    mean, std = mean_std(values)
    return {
        "mean": mean,
        "std": std,
        "n": len(values),
        "seeds": tuple(row["seed"] for row in cell),
        "scores": tuple(values),
        "run_ids": tuple(row["run_id"] for row in cell),
    }


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; NaN where too few values define them.

    >>> mean_std([1, 2, 3])
    (2.0, 1.0)
    """
    n, mean = len(values), _mean(values)
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _outcome(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many of an arm's runs ended how, and the mean costs of the finished ones."""
    status = Counter(row["status"] for row in members)
    outcome: dict[str, Any] = {name: status[name] for name in UNSCORED}
    for cost in COSTS:
        measured = [row[cost] for row in members if _counts(row) and not math.isnan(row[cost])]
        outcome[cost] = _mean(measured)
    return outcome


def summarise_classes(frame: Rows, records: Sequence[Mapping[str, Any]]) -> Rows:
    """Return one row per arm x data set x language x class of the test split, averaged over seeds.

    Columns: precision, recall, f1 and support as means, `f1_std` (of n - 1), `n` runs, and
    `average`, true for the micro, macro and weighted rows, which come last.
    """
    arms = {row["run_id"]: _arm(row) for row in list_runs(frame) if _counts(row)}
    groups = defaultdict(list)
    for record in records:
        for language, report in record["report"].get("test", {}).items():
            named = [(0, label, numbers) for label, numbers in report.get("classes", {}).items()]
            named += [(1 + i, name, report.get(name)) for i, name in enumerate(AVERAGES)]
            for place, label, numbers in named:
                if numbers and record["run_id"] in arms:
                    groups[(*arms[record["run_id"]], language, place, label)].append(numbers)
    summary = []
    for (*arm, language, place, label), members in sorted(groups.items()):
        row = dict(zip(ARM, arm, strict=True)) | {"language": language}
        row |= {"average": place > 0, "label": label, "n": len(members)}
        for measure in MEASURES:
            measured = [numbers[measure] for numbers in members if numbers.get(measure) is not None]
            row[measure] = _mean(measured)
            if measure == "f1":
                row["f1_std"] = mean_std(measured)[1]
        summary.append(row)
    return summary
