"""The accuracy matrix of continual learning: what is kept when training goes on.

Reads the `stages` of finished records; each arm trained in turn gives one `Table`, which
`tables.py` renders and `report.py` writes.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from crosstune.reporting.records import Records, Rows, list_runs
from crosstune.reporting.tables import Table, cell_text
from crosstune.reporting.transfer import moments


def build_stage_tables(experiment: str, scores: Rows, records: Records) -> tuple[Table, ...]:
    """Return the accuracy matrix of every arm of a study that was trained in stages."""
    stages = {record["run_id"]: record for record in records.records if record.get("stages")}
    arms: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in list_runs(scores):
        if run["run_id"] in stages and run["status"] == "finished" and not run["superseded_by"]:
            key = tuple(run[name] for name in ("dataset", "model", "method", "arm"))
            arms[(*key, run["train_language"])] += _list_scores(stages[run["run_id"]])
    return tuple(
        build_stages(
            experiment,
            " · ".join(dict.fromkeys(name for name in key[:4] if name)),
            rows,
            key[4].split(">"),
        )
        for key, rows in sorted(arms.items())
    )


def _list_scores(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per stage and language tested after it, of the headline metric."""
    metric = record["headline"]["metric"]
    return [
        {"stage": number, "tested": language, "seed": record["seed"], "value": found[metric]}
        for number, stage in enumerate(record["stages"], start=1)
        for language, found in (
            stage["scores"].get("test") or stage["scores"]["validation"]
        ).items()
        if metric in found
    ]


def average_accuracy(accuracy: Sequence[Sequence[float]]) -> float:
    """Return the mean score over all parts after the last stage.

    `accuracy[i][j]` is the score on part j (a data set, a language) after training on parts 0 to i
    in turn. The mean of its last row is ACC of Lopez-Paz & Ranzato 2017
    (https://arxiv.org/abs/1706.08840).

    >>> average_accuracy([[0.75, 0.25], [0.5, 1.0]])
    0.75
    """
    return fmean(accuracy[-1])


def backward_transfer(accuracy: Sequence[Sequence[float]]) -> float:
    """Return how much later stages changed the scores on earlier parts; below 0 is forgetting.

    BWT of Lopez-Paz & Ranzato 2017 (https://arxiv.org/abs/1706.08840): with T stages, the mean
    over j < T of accuracy[T][j] - accuracy[j][j]. NaN for one stage.

    >>> backward_transfer([[0.75, 0.25], [0.5, 1.0]])
    -0.25
    """
    changes = [accuracy[-1][j] - accuracy[j][j] for j in range(len(accuracy) - 1)]
    return fmean(changes) if changes else math.nan


def build_stages(experiment: str, arm: str, scores: Rows, sequence: Sequence[str]) -> Table:
    """Return the accuracy matrix of an arm trained on the parts of `sequence` in turn.

    A part is a data set or a language, trained on once. `scores` has rows of stage (from 1),
    tested (a part), seed and value; a score that is absent was not measured. Rows are stages,
    columns parts and their average; the notes give average accuracy and backward transfer, over the
    seeds that have every score these need.
    """
    values: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for row in scores:
        values[row["stage"], row["tested"]][row["seed"]] = row["value"]
    seeds = sorted({row["seed"] for row in scores})
    stages = range(1, len(sequence) + 1)
    matrices = [
        [[values[stage, name].get(seed, math.nan) for name in sequence] for stage in stages]
        for seed in seeds
    ]
    lines = []
    for stage, name in zip(stages, sequence, strict=True):
        columns = [*zip(*(matrix[stage - 1] for matrix in matrices), strict=True)]
        columns.append(tuple(fmean(matrix[stage - 1]) for matrix in matrices))
        lines.append((f"{stage} · {name}", *(_over_seeds(column) for column in columns)))
    average = _over_seeds([average_accuracy(matrix) for matrix in matrices])
    backward = _over_seeds([backward_transfer(matrix) for matrix in matrices])
    return Table(
        experiment=experiment,
        caption=f"{experiment}: {arm} after each stage, mean ± standard deviation over seeds "
        "(number of seeds), in percentage points.",
        headers=("stage · trained on", *sequence, "average"),
        rows=tuple(lines),
        notes=(
            f"Average accuracy after the last stage: {average}. Backward transfer, the change on "
            f"what was trained on earlier: {backward} (Lopez-Paz & Ranzato 2017); below 0 is "
            "forgetting.",
        ),
        cells=scores,
    )


def _over_seeds(values: Sequence[float]) -> str:
    measured = [value for value in values if not math.isnan(value)]
    return cell_text({**moments(measured), "planned": len(values)})
