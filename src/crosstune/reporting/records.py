"""Run records -> one pandas DataFrame, one row per score.

`read_records` reads and validates the records of a study; `to_frame` lays them out, with the labels
of `arms.py` that say which runs may be averaged.
"""

import json
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

COSTS = (
    "total_parameters",
    "trainable_parameters",
    "adapter_parameters",
    "head_parameters",
    "new_pooler_parameters",
    "embedding_parameters",
    "optimizer_bytes",
    "checkpoint_bytes",
    "peak_memory_bytes",
    "train_seconds",
    "train_tokens_per_second",
    "train_flops_per_token",
    "inference_seconds",
    "inference_tokens_per_second",
    "inference_flops_per_token",
)
AVERAGES = ("micro", "macro", "weighted")  # of a record's per-class report
STATUSES = ("finished", "failed", "diverged")
Run = dict[str, Any]

_RUN = ("experiment", "run_id", "status", "seed", "data", "model", "method", "train_language")
_LABELS = ("dataset", "arm", "headline", "finished", "superseded_by")
_SCORE = ("split", "language", "metric")
_NUMBER = int | float | None


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
            record = _validate(read_record(folder / "record.json"))
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


def _validate(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with absent parts as empty mappings.

    Raises:
        DataError: the record is unreadable or malformed.
    """
    if record.get("schema", 1) != 1:
        raise DataError([f"schema {record['schema']!r} is not known; this version reads 1"])
    if record.get("status") == "unreadable":
        raise DataError([str(record.get("error"))])
    parts = ("scores", "headline", "cost", "data_sha256", "environment", "config", "report")
    parts = (*parts, "majority")
    record = record | {part: {} if record.get(part) is None else record[part] for part in parts}
    record["warnings"] = record.get("warnings") or []
    texts = [key for key in _RUN if key not in ("status", "seed")]
    wrong = [key for key in texts if not isinstance(record.get(key), str)]
    wrong += [part for part in parts if not isinstance(record[part], dict)]
    seed = record.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or abs(seed) >= 2**63:
        wrong.append("seed")
    if record.get("status") not in STATUSES:
        wrong.append("status")
    if wrong:
        raise DataError([f"missing or of the wrong type: {', '.join(wrong)}"])
    _check_depth([record["config"], record["environment"], record.get("error")])
    finished = record["status"] == "finished"
    if not isinstance(record["headline"].get("metric", None if finished else ""), str):
        raise DataError(["headline.metric is missing or not a text"])
    _check_texts(list(record["data_sha256"].values()), "data_sha256")
    _check_texts(record["warnings"], "warnings")
    _check_numbers(record["scores"], 3, "scores", finished)
    _check_numbers(record["majority"], 3, "majority", True)
    for cost in COSTS:
        _check_numbers(record["cost"].get(cost), 0, f"cost.{cost}", finished)
    for split, languages in record["report"].items():
        for language, report in languages.items() if isinstance(languages, dict) else [("", None)]:
            path = f"report.{split}.{language}"
            if not isinstance(report, dict):
                raise DataError([f"{path} is not an object"])
            _check_numbers(report.get("classes", {}), 2, f"{path}.classes", finished)
            for average in AVERAGES:
                _check_numbers(report.get(average, {}), 1, f"{path}.{average}", finished)
    return record


def _check_depth(nested: Any) -> None:
    """Raise DataError for what is nested so deeply that later steps would fail."""
    for _ in range(20):
        nested = [nested]
    try:
        json.dumps(nested)
    except RecursionError as error:
        raise DataError(["it is nested too deeply"]) from error


def _check_texts(value: Any, path: str) -> None:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError([f"{path} holds a value that is not a text"])


def _check_numbers(value: Any, depth: int, path: str, finite: bool) -> None:
    """Raise DataError unless `value` nests numbers or nulls `depth` mappings deep."""
    if depth:
        if not isinstance(value, dict):
            raise DataError([f"{path} is not an object"])
        for key, child in value.items():
            _check_numbers(child, depth - 1, f"{path}.{key}", finite)
    elif isinstance(value, bool) or not isinstance(value, _NUMBER):
        raise DataError([f"{path} is {str(value)[:40]!r}, not a number"])
    elif finite and value is not None and not abs(value) < 2**63:
        raise DataError([f"{path} is {str(value)[:40]}, not a finite number"])


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


def uses_stand_in(record: Mapping[str, Any]) -> bool:
    """Return whether a run rehearsed on made-up rows in place of its data set's."""
    trainer = record["config"].get("trainer")
    return isinstance(trainer, dict) and bool(trainer.get("stand_in"))
