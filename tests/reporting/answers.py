"""Writes predictions.parquet beside a record of the study, as a run does."""

import random

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("id", "language", "gold", "prediction", "score")


def draw(seed) -> random.Random:
    return random.Random(seed)  # noqa: S311 - draws cases, keeps no secret


def write_answers(study, record, pairs, language="es"):
    """Write one row for each (gold, prediction); ids count from 0."""
    rows = [(str(i), language, gold, guess, -0.5) for i, (gold, guess) in enumerate(pairs)]
    write_rows(study, record, rows)


def write_rows(study, record, rows, **more):
    """Write rows of the usual columns; `more` are further columns by name."""
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns | more)
    pq.write_table(table, study.folder / record["run_id"] / "predictions.parquet")


def add_answers(study, kind, pairs, task=None, **changes):
    """Add a finished run of a task kind, tested on the pairs."""
    settings = {"data.kind": kind, **({"data.task": task} if task else {})}
    record = study.add(settings=settings, **changes)
    write_answers(study, record, pairs)
    return record


def draw_tags(rng: random.Random, count: int, types=("PER", "LOC", "")) -> list[str]:
    """Return tags of spans in no order that makes sense."""
    tags = ["O", *(f"{mark}-{kind}".strip("-") for mark in "BIESM" for kind in types)]
    return [rng.choice(tags) for _ in range(count)]
