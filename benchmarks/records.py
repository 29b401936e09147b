"""Records of runs: those that a study left, and generated ones for a report to read."""

import json
from pathlib import Path
from typing import Any

LANGUAGES = ("es", "zh", "en")
SEEDS, DATASETS = 5, 10


def read_all(outputs: Path) -> list[dict[str, Any]]:
    """Return the records of all runs below a folder of outputs."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(outputs.glob("*/*/record.json"))]


def write_study(folder: Path, count: int) -> None:
    """Write so many records of finished runs: seeds within data sets within methods."""
    numbers = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3}
    part: dict[str, Any] = {"classes": {f"C{i}": numbers for i in range(9)}}
    part |= dict.fromkeys(("micro", "macro", "weighted"), numbers)
    for number in range(count):
        arm = number // SEEDS
        method = f"method{arm // DATASETS}" if arm >= DATASETS else "full"
        scores = dict.fromkeys(("f1", "precision", "recall", "accuracy"), 0.5 + number % 7 / 99)
        record = {
            "schema": 1,
            "run_id": f"run{number:06}",
            "status": "finished",
            "experiment": folder.name,
            "seed": number % SEEDS,
            "data": f"data{arm % DATASETS}",
            "model": "mini",
            "method": method,
            "train_language": "es",
            "headline": {"split": "validation", "metric": "f1"},
            "scores": {s: dict.fromkeys(LANGUAGES, scores) for s in ("validation", "test")},
            "report": {"test": dict.fromkeys(LANGUAGES, part)},
            "cost": {"total_parameters": 1000, "trainable_parameters": 10, "train_seconds": 1.5},
            "data_sha256": {"train": f"{arm % DATASETS}"},
            "environment": {"torch": "2", "python": "3"},
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00",
            "config": {"data": {"batch_size": 32}, "trainer": {"max_epochs": 3}},
        }
        place = folder / record["run_id"]
        place.mkdir(parents=True)
        (place / "record.json").write_text(json.dumps(record), "utf-8")
