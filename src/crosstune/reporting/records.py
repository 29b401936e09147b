"""Run records -> one tidy frame of rows.

`read_records` reads and checks the records of a study; `to_frame` lays them out, one row per score,
labelled by `arms.py` with what may be averaged. Nothing is averaged here: that is `stats.py`.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosstune.errors import ConfigError, DataError, suggest
from crosstune.reporting.arms import (
    mark_superseded,
    name_arms,
    name_datasets,
    place_missing,
)

COSTS = (
    "total_parameters",
    "trainable_parameters",
    "adapter_parameters",
    "head_parameters",
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
Row = dict[str, Any]
Rows = list[Row]  # as a data frame: pandas.DataFrame(rows) is one

_RUN = ("experiment", "run_id", "status", "seed", "data", "model", "method", "train_language")
_SCORE = ("split", "language", "metric", "value")
_LABELS = ("dataset", "arm", "headline", "finished", "superseded_by")


@dataclass(frozen=True)
class Records:
    """What the run folders of one study hold.

    `unfinished` are the ids of runs without a record; `unreadable` pairs a folder with the reason.
    `missing` are the planned runs that left no record, as the study's plan names them: run_id,
    data, language, model, method and seed, or overrides and the error that refused them. `folders`
    says where each record was read, by run_id.
    """

    records: list[dict[str, Any]]
    unfinished: list[str]
    unreadable: list[tuple[str, str]]
    missing: Sequence[Mapping[str, Any]] = ()
    folders: dict[str, Path] = field(default_factory=dict)


def read_records(outputs: Path, experiment: str) -> Records:
    """Read every run folder of a study; a record that cannot be trusted is listed, not raised.

    Raises:
        ConfigError: the study has no run folder; the message names the studies that have one.
    """
    found = Records([], [], [])
    inside = not Path(experiment).is_absolute() and ".." not in Path(experiment).parts
    for folder in _run_folders(outputs / experiment) if inside and experiment else []:
        if not (folder / "record.json").exists():
            found.unfinished.append(folder.name)
            continue
        try:
            record = _read_record(folder / "record.json")
            other = found.folders.setdefault(record["run_id"], folder)
            if other != folder:
                raise DataError(
                    [f"run_id {record['run_id']!r} was already read from {other.name!r}"]
                )
            found.records.append(record)
        except DataError as error:
            found.unreadable.append((folder.name, str(error)))
    if not (found.records or found.unfinished or found.unreadable):
        others = sorted(p.name for p in _folders(outputs) if any(_run_folders(p)))
        hint = suggest(experiment, others) if others else "No experiment has a run there yet."
        raise ConfigError(f"Experiment {experiment!r} has no run in {outputs}. {hint}")
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _run_folders(study: Path) -> Iterable[Path]:
    marks = ("record.json", "config.yaml")
    return (run for run in _folders(study) if any((run / mark).exists() for mark in marks))


def _read_record(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair cannot be written as UTF-8 again
            whole = json.dumps(record, ensure_ascii=False)
            record = json.loads(whole.encode("utf-8", "replace"))
        return _checked(record)
    except (OSError, ValueError) as error:
        raise DataError([f"{type(error).__name__}: {error}"]) from error
    except RecursionError as error:
        raise DataError(["it is nested too deeply"]) from error


def _checked(record: Any) -> dict[str, Any]:
    """Return the record with absent parts as empty mappings; raise DataError if it is malformed."""
    if not isinstance(record, dict):
        raise DataError([f"it holds a {type(record).__name__}, not an object"])
    if record.get("schema", 1) != 1:
        raise DataError([f"schema {record['schema']!r} is not known; this version reads 1"])
    parts = ("scores", "headline", "cost", "data_sha256", "environment", "config", "report")
    record = record | {part: {} if record.get(part) is None else record[part] for part in parts}
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
    nested: Any = [record["config"], record["environment"], record.get("error")]
    for _ in range(20):
        nested = [nested]
    json.dumps(nested)  # what is too deep for the work to come fails here, where it is caught
    finished = record["status"] == "finished"
    if not isinstance(record["headline"].get("metric", "" if not finished else None), str):
        raise DataError(["headline.metric is missing or no text"])
    if not all(isinstance(digest, str) for digest in record["data_sha256"].values()):
        raise DataError(["data_sha256 holds something that is no text"])
    _check_numbers(record["scores"], 3, "scores", finite=finished)
    for cost in COSTS:
        if (value := record["cost"].get(cost)) is not None:
            _check_numbers(value, 0, f"cost.{cost}", finite=finished)
    _check_report(record["report"], finite=finished)
    return record


def _check_report(report: dict[str, Any], finite: bool) -> None:
    for split, languages in report.items():
        for language, parts in (languages if isinstance(languages, dict) else {"": None}).items():
            where = f"report.{split}.{language}"
            if not isinstance(parts, dict):
                raise DataError([f"{where} is no object"])
            for part in ("classes", *AVERAGES):
                depth = 2 if part == "classes" else 1
                _check_numbers(parts.get(part, {}), depth, f"{where}.{part}", finite)


def _check_numbers(value: Any, depth: int, where: str, finite: bool) -> None:
    """Raise unless `value` nests numbers `depth` mappings deep; null is "not measured"."""
    if depth and not isinstance(value, dict):
        raise DataError([f"{where} is no object"])
    if depth:
        for key, child in value.items():
            plain = depth == 1 and (type(child) is float or type(child) is int)
            if not (plain and -(2**63) < child < 2**63):
                _check_numbers(child, depth - 1, f"{where}.{key}", finite)
    elif isinstance(value, bool) or not isinstance(value, int | float | None):
        raise DataError([f"{where} is {str(value)[:40]!r}, not a number"])
    # Whole numbers beyond 64 bits do not fit a data frame.
    elif finite and value is not None and not abs(value) < 2**63:
        raise DataError([f"{where} is {str(value)[:40]}, not a finite number"])


def to_frame(records: Records) -> Rows:
    """Return one row per run x split x language x metric; a run without scores keeps one row.

    A planned run without a record has status `missing`, `unfinished` or `unreadable`. `dataset`
    and `arm` are the names under which runs may be averaged; where even the seed is equal,
    `superseded_by` names the run that counts. `headline` is the metric of the table. Costs that
    were not measured are NaN, and so is the value of a run without scores.
    """
    blank = {"split": "", "language": "", "metric": "", "value": math.nan}
    rows = []
    for position, run in enumerate(_runs(records)):
        run |= {cost: _number(run.get(cost)) for cost in COSTS}
        recorded = position < len(records.records)
        scores = records.records[position]["scores"] if recorded else {}
        found = [
            run | {"split": split, "language": language, "metric": metric, "value": float(value)}
            for split, languages in scores.items()
            for language, metrics in languages.items()
            for metric, value in metrics.items()
            if value is not None
        ]
        rows += found or [run | blank]
    return rows


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def list_runs(rows: Rows) -> Rows:
    """Return one row per run, whichever of its scores that row holds.

    >>> list_runs([{"run_id": "a", "value": 1}, {"run_id": "a", "value": 2}])
    [{'run_id': 'a', 'value': 1}]
    """
    runs: dict[str, Row] = {}
    for row in rows:
        runs.setdefault(row["run_id"], row)
    return list(runs.values())


def stands_in(record: Mapping[str, Any]) -> bool:
    """Return whether a run was a rehearsal on made-up rows in place of its data set's."""
    trainer = record["config"].get("trainer")
    return isinstance(trainer, dict) and bool(trainer.get("stand_in"))


def _runs(records: Records) -> list[dict[str, Any]]:
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
        blank | run | {"status": status.get(run["run_id"], "missing")}
        for run in place_missing(records.missing, runs)
    ]
