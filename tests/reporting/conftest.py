"""A study on disk, written record by record, as the other tests of `analysis` read it."""

import copy
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crosstune.reporting.records import read_records, to_frame
from crosstune.reporting.tables import build_table

EXPERIMENT = "study"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Study:
    """Writes records into `outputs/study/<run_id>/record.json`."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.folder = outputs / EXPERIMENT
        self.count = 0

    def record(self, **changes) -> dict:
        """Return a finished record; `score` and `settings` (dotted keys) are short forms."""
        self.count += 1
        score, settings = changes.pop("score", 0.8), changes.pop("settings", {})
        names = {"data": "tags", "model": "mini", "method": "lora", "train_language": "es"}
        names |= {key: changes.pop(key) for key in list(changes) if key in names}
        seed = changes.pop("seed", 1)
        config = {
            "experiment": EXPERIMENT,
            "seed": seed,
            "outputs": str(self.outputs),
            "data": {"name": names["data"], "language": names["train_language"], "metric": "f1"}
            | {"train": "a.tsv", "validation": "b.tsv", "test": "c.tsv", "limit": None},
            "model": {"name": names["model"], "path": None},
            "method": {"name": names["method"], "learning_rate": 0.001, "peft": {"r": 8}},
            "optimizer": {"learning_rate": 0.001},
            "trainer": {"max_epochs": 3},
            "logger": {"tracker": "none"},
        }
        for key, value in settings.items():
            group, _, name = key.rpartition(".")
            (config[group] if group else config)[name] = value
        language = names["train_language"]
        record = {
            "schema": 1,
            "run_id": hashlib.sha256(str(self.count).encode()).hexdigest()[:12],
            "status": "finished",
            "error": None,
            "experiment": EXPERIMENT,
            "seed": seed,
            **names,
            "scores": {
                "validation": {language: {"f1": score / 2}},
                "test": {language: {"f1": score, "accuracy": score / 4}},
            },
            "headline": {"split": "validation", "metric": "f1"},
            "cost": {
                "total_parameters": 9000,
                "trainable_parameters": 1234,
                "adapter_parameters": 1000,
                "head_parameters": 234,
                "train_seconds": 10.0,
                "peak_memory_bytes": 2**21,
            },
            "data_sha256": {"a.tsv": "aa", "b.tsv": "bb", "c.tsv": "cc"},
            "environment": {"packages": {"torch": "2.13.0"}},
            "started": "2026-01-01T00:00:00+00:00",
            "finished": (START + timedelta(seconds=self.count)).isoformat(),
            "config": config,
        }
        return copy.deepcopy(record | changes)

    def add(self, **changes) -> dict:
        record = self.record(**changes)
        self.write(record["run_id"], json.dumps(record))
        return record

    def fail(self, status: str = "failed", **changes) -> dict:
        kept = {"scores": {}, "cost": {}, "data_sha256": {}, "error": "RuntimeError: no luck"}
        return self.add(**(kept | {"status": status} | changes))

    def plan(self, seed: int = 1, **changes) -> dict:
        """Return a planned run that left no record."""
        names = {"data": "tags", "language": "es", "model": "mini", "method": "lora"}
        return names | {"run_id": f"plan{seed}", "seed": seed} | changes

    def read(self, missing=()):
        return replace(read_records(self.outputs, EXPERIMENT), missing=missing)

    def table(self, missing=()):
        records = self.read(missing)
        return build_table(EXPERIMENT, to_frame(records), records)

    def cell(self, row: str, column: str, missing=()) -> str:
        """Return one cell of the table by its row label and its column header."""
        table = self.table(missing)
        (line,) = [line for line in table.rows if line[0] == row]
        return line[table.headers.index(column)]

    def write(self, run_id: str, text: str, name: str = "record.json") -> None:
        (self.folder / run_id).mkdir(parents=True, exist_ok=True)
        (self.folder / run_id / name).write_text(text, encoding="utf-8")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "outputs")
