"""Run records -> one pandas DataFrame, one row per score.

`read_records` reads and validates the records of a study; `to_frame` lays them out, with the labels
of `arms.py` that say which runs may be averaged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from crosstune.errors import ConfigError, DataError, suggest
from crosstune.reporting.arms import (
    assign_missing_runs,
    mark_superseded,
    name_arms,
    name_datasets,
)
from crosstune.runs.record import read_record
from crosstune.runs.record_schema import COSTS, validate_record

Run = dict[str, Any]

_RUN = ("experiment", "run_id", "status", "seed", "data", "model", "method", "train_language")
_LABELS = ("dataset", "arm", "headline", "finished", "superseded_by")
_SCORE = ("split", "language", "metric")


@dataclass(frozen=True)
class Records:
    """The records in the run folders of one study.

    Attributes:
        records: the valid records.
        unfinished: ids of runs without a record.
        unreadable: pairs of a folder's name and why its record cannot be used.
        missing: planned runs without a record, as the study's plan lists them: run_id, data,
            language, model, method and seed, or overrides and the error that refused them.
        folders: where each record was read, by run_id.
    """

    records: list[dict[str, Any]]
    unfinished: list[str]
    unreadable: list[tuple[str, str]]
    missing: Sequence[Mapping[str, Any]] = ()
    folders: dict[str, Path] = field(default_factory=dict)


def read_records(outputs: Path, experiment: str) -> Records:
    """Read every run folder of a study; an invalid record is listed as unreadable, not raised.

    Raises:
        ConfigError: the study has no run folder; the message names the studies that have one.
    """
    study = Records([], [], [])
    inside = not Path(experiment).is_absolute() and ".." not in Path(experiment).parts
    for folder in _list_run_folders(outputs / experiment) if inside and experiment else []:
        if not (folder / "record.json").exists():
            study.unfinished.append(folder.name)
            continue
        try:
            record = validate_record(read_record(folder / "record.json"))
            first = study.folders.setdefault(record["run_id"], folder)
            if first != folder:
                raise DataError(
                    [f"run_id {record['run_id']!r} was already read from {first.name!r}"]
                )
            study.records.append(record)
        except DataError as error:
            study.unreadable.append((folder.name, str(error)))
    if not (study.records or study.unfinished or study.unreadable):
        known = sorted(p.name for p in _list_folders(outputs) if any(_list_run_folders(p)))
        hint = suggest(experiment, known) if known else "No experiment has a run there yet."
        raise ConfigError(f"Experiment {experiment!r} has no run in {outputs}. {hint}")
    return study


def _list_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _list_run_folders(study: Path) -> Iterable[Path]:
    names = ("record.json", "config.yaml")
    return (run for run in _list_folders(study) if any((run / name).exists() for name in names))


def to_frame(records: Records) -> pd.DataFrame:
    """Return one row per run x split x language x metric; a run without scores keeps one row.

    A planned run without a record has status `missing`, `unfinished` or `unreadable`. Runs equal in
    `dataset` and `arm` (and model, method, train_language) may be averaged; where even the seed is
    equal, `superseded_by` names the run that counts. `headline` is the metric of the table. Costs
    that were not measured are NaN, and so is the value of a run without scores.
    """
    scores = [
        (record["run_id"], split, language, metric, value)
        for record in records.records
        for split, languages in record["scores"].items()
        for language, metrics in languages.items()
        for metric, value in metrics.items()
        if value is not None
    ]
    runs = pd.DataFrame(_label_runs(records), columns=[*_RUN, *_LABELS, *COSTS], dtype=object)
    values = pd.DataFrame(scores, columns=["run_id", *_SCORE, "value"], dtype=object)
    frame = runs.merge(values, on="run_id", how="left")
    frame[[*_SCORE]] = frame[[*_SCORE]].fillna("")
    return frame.astype(dict.fromkeys([*COSTS, "value"], float))


def _label_runs(records: Records) -> list[Run]:
    runs = []
    datasets, arms = name_datasets(records.records), name_arms(records.records)
    for record, dataset, arm in zip(records.records, datasets, arms, strict=True):
        run = {key: record[key] for key in _RUN} | {"dataset": dataset, "arm": arm}
        run |= {"headline": record["headline"].get("metric", "")}
        run |= {"finished": str(record.get("finished") or "")}
        runs.append(run | {cost: record["cost"].get(cost) for cost in COSTS})
    mark_superseded(runs)
    status = dict.fromkeys(records.unfinished, "unfinished")
    status |= dict.fromkeys((folder for folder, _ in records.unreadable), "unreadable")
    blank = {"experiment": "", "headline": "", "finished": "", "superseded_by": ""}
    return runs + [
        blank | _make_encodable(run) | {"status": status.get(run["run_id"], "missing")}
        for run in assign_missing_runs(records.missing, runs)
    ]


def _make_encodable(run: Run) -> Run:
    """Replace half of a surrogate pair, which a plan may hold and pandas refuses, by U+FFFD."""
    texts = {key: value for key, value in run.items() if isinstance(value, str)}
    return run | {
        key: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for key, text in texts.items()
    }


def list_runs(frame: pd.DataFrame) -> list[Run]:
    """Return one mapping per run, of whichever of its scores comes first.

    >>> list_runs(pd.DataFrame({"run_id": ["a", "a"], "value": [1, 2]}))
    [{'run_id': 'a', 'value': 1}]
    """
    return frame.drop_duplicates("run_id").to_dict("records")
