"""What a record of a run must hold, whoever wrote it, for the state and the report of a study."""

import json
from collections.abc import Mapping
from typing import Any

from crosstune.errors import DataError

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
MAX_NAME = 20_000  # characters
_TEXTS = ("experiment", "run_id", "data", "model", "method", "train_language")
_NUMBER = int | float | None


def validate_record(record: dict[str, Any]) -> dict[str, Any]:
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
    wrong = [key for key in _TEXTS if not isinstance(record.get(key), str)]
    wrong += [part for part in parts if not isinstance(record[part], dict)]
    seed = record.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or abs(seed) >= 2**63:
        wrong.append("seed")
    if record.get("status") not in STATUSES:
        wrong.append("status")
    if wrong:
        raise DataError([f"missing or of the wrong type: {', '.join(wrong)}"])
    if long := [key for key in _TEXTS if len(record[key]) > MAX_NAME]:
        raise DataError([f"{long[0]} has {len(record[long[0]]):,} characters, over {MAX_NAME:,}"])
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


def uses_stand_in(record: Mapping[str, Any]) -> bool:
    """Return whether a run rehearsed on made-up rows in place of its data set's."""
    trainer = record["config"].get("trainer")
    return isinstance(trainer, dict) and bool(trainer.get("stand_in"))
