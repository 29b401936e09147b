"""The frame of a study -> means over seeds, for each arm, data set, language and class."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from crosstune.reporting.cells import UNSCORED, ScoreSummary
from crosstune.reporting.records import list_runs
from crosstune.runs.record_schema import AVERAGES, COSTS

ARM = ["model", "method", "arm", "dataset", "train_language"]
MEASURES = ["precision", "recall", "f1", "support"]
_COUNTED = "status == 'finished' and superseded_by == ''"


def summarise_scores(frame: pd.DataFrame) -> list[ScoreSummary]:
    """Return a summary of the headline metric per arm x data set x language.

    Only finished runs that no other run supersedes are averaged. `split` is `test`, or
    `validation` for a data set that no run has been tested on. `planned` counts the seeds of all
    runs, whatever their status and method, on that data set and model: a method with fewer seeds
    than another is incomplete. A run that was killed counts only if it is passed as missing.
    """
    runs = frame.drop_duplicates("run_id")
    by_model = _group(runs, ["dataset", "model"])
    means = runs.query(_COUNTED).groupby(ARM).agg(dict.fromkeys(COSTS, "mean"))
    costs: dict[Any, dict[str, float]] = means.to_dict("index")
    shown = runs.query("superseded_by == ''")
    scored = frame.query(f"{_COUNTED} and metric == headline").sort_values("seed", kind="stable")
    columns = _list_columns(shown, scored)
    cells = _group(scored, [*ARM, "split", "language", "metric"])
    summaries = []
    for arm, members in _group(shown, ARM).items():
        metrics = set(members["headline"]) - {""}
        status = Counter(members["status"])
        for split, language, metric in sorted(columns[arm[3:]]):
            if metrics and metric not in metrics:
                continue
            cell = cells.get((*arm, split, language, metric), scored[:0])
            summaries.append(
                ScoreSummary(
                    **dict(zip(ARM, arm, strict=True)),
                    split=split,
                    language=language,
                    metric=metric,
                    seeds=tuple(cell["seed"]),
                    scores=tuple(cell["value"]),
                    planned=len(set(by_model[arm[3], arm[0]]["seed"])),
                    run_ids=tuple(cell["run_id"]),
                    unscored={name: status[name] for name in UNSCORED},
                    costs=costs.get(arm, dict.fromkeys(COSTS, math.nan)),
                )
            )
    return summaries


def _group(frame: pd.DataFrame, keys: list[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    groups: Any = frame.groupby(keys)
    return dict(iter(groups))


def _list_columns(
    shown: pd.DataFrame, scored: pd.DataFrame
) -> Mapping[tuple[str, ...], set[tuple[str, str, str]]]:
    """Return the (split, language, metric) to show for each (dataset, train_language).

    Without a finished run, that is the train language with the headline metric of the runs.
    """
    measured = defaultdict(set)
    names = ["dataset", "train_language", "split", "language", "metric"]
    for dataset, train, split, language, metric in _group(scored, names):
        measured[dataset, train, metric].add((split, language, metric))
    columns: dict[tuple[str, ...], set[tuple[str, str, str]]] = defaultdict(set)
    aims = _group(shown, ["dataset", "train_language", "headline"])
    for dataset, train, metric in sorted(aims, key=lambda aim: not aim[2]):  # unknown metric last
        scores = measured[dataset, train, metric]
        tested = {score for score in scores if score[0] == "test"}
        if metric or not columns[dataset, train]:
            columns[dataset, train] |= tested or scores or {("test", train, metric)}
    return columns


def list_validation(frame: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the headline metric of each run on validation, by (run_id, language)."""
    rows = frame.query("split == 'validation' and metric == headline")
    keys = zip(rows["run_id"], rows["language"], strict=True)
    return dict(zip(keys, rows["value"], strict=True))


def summarise_classes(frame: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per arm x data set x language x class of the test split, averaged over seeds.

    Columns: precision, recall, f1 and support as means, `f1_std` (of n - 1), `n` runs, and
    `average`, true for the micro, macro and weighted rows, which come last.
    """
    arms = {run["run_id"]: [run[key] for key in ARM] for run in list_runs(frame.query(_COUNTED))}
    lines = []
    for record in records:
        reports = record["report"].get("test", {}) if record["run_id"] in arms else {}
        for language, report in reports.items():
            named = [(0, label, numbers) for label, numbers in report.get("classes", {}).items()]
            named += [(1 + i, name, report.get(name)) for i, name in enumerate(AVERAGES)]
            lines += [
                [*arms[record["run_id"]], language, order, label]
                + [numbers.get(measure) for measure in MEASURES]
                for order, label, numbers in named
                if numbers
            ]
    keys = [*ARM, "language", "order", "label"]
    classes = pd.DataFrame(lines, columns=[*keys, *MEASURES], dtype=object)
    summary = (
        classes.astype(dict.fromkeys(MEASURES, float))
        .groupby(keys, as_index=False)
        .agg(
            **{measure: (measure, "mean") for measure in MEASURES},
            f1_std=("f1", "std"),
            n=("f1", "size"),
        )
    )
    summary["average"] = summary["order"] > 0
    return summary
