"""The accuracy matrix of continual learning: scores on every language after each stage."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from crosstune.reporting.cells import SeedScores, Table, render_scores
from crosstune.reporting.records import Records, list_runs

Matrix = Sequence[Sequence[float]]


def build_stage_tables(experiment: str, frame: pd.DataFrame, records: Records) -> tuple[Table, ...]:
    """Return the accuracy matrix of every arm of a study that was trained in stages."""
    staged = {record["run_id"]: record for record in records.records if record.get("stages")}
    arms: dict[tuple[str, ...], dict[int, Matrix]] = defaultdict(dict)
    for run in list_runs(frame):
        if run["run_id"] in staged and run["status"] == "finished" and not run["superseded_by"]:
            key = tuple(run[name] for name in ("dataset", "model", "method", "arm"))
            sequence = run["train_language"].split(">")
            matrix = _read_matrix(staged[run["run_id"]], sequence)
            arms[(*key, run["train_language"])][run["seed"]] = matrix
    return tuple(
        build_stages(
            experiment,
            " · ".join(dict.fromkeys(name for name in names if name)),
            matrices,
            train_language.split(">"),
        )
        for (*names, train_language), matrices in sorted(arms.items())
    )


def _read_matrix(record: Mapping[str, Any], sequence: Sequence[str]) -> Matrix:
    """Return the headline metric by stage and language, NaN where it was not measured."""
    metric = record["headline"]["metric"]
    stages = [stage["scores"] for stage in record["stages"]]
    tested = [scores.get("test") or scores["validation"] for scores in stages]
    tested += [{}] * (len(sequence) - len(tested))
    return [
        [scores.get(name, {}).get(metric, math.nan) for name in sequence]
        for scores in tested[: len(sequence)]
    ]


def average_accuracy(accuracy: Matrix) -> float:
    """Return the mean score over all parts after the last stage.

    `accuracy[i][j]` is the score on part j (a data set, a language) after training on parts 0 to i
    in turn. The mean of its last row is ACC of Lopez-Paz & Ranzato 2017
    (https://arxiv.org/abs/1706.08840).

    >>> average_accuracy([[0.75, 0.25], [0.5, 1.0]])
    0.75
    """
    return fmean(accuracy[-1])


def backward_transfer(accuracy: Matrix) -> float:
    """Return how much later stages changed the scores on earlier parts; below 0 is forgetting.

    BWT of Lopez-Paz & Ranzato 2017 (https://arxiv.org/abs/1706.08840): with T stages, the mean
    over j < T of accuracy[T][j] - accuracy[j][j]. NaN for one stage.

    >>> backward_transfer([[0.75, 0.25], [0.5, 1.0]])
    -0.25
    """
    changes = [accuracy[-1][j] - accuracy[j][j] for j in range(len(accuracy) - 1)]
    return fmean(changes) if changes else math.nan


def build_stages(
    experiment: str, arm: str, matrices: Mapping[int, Matrix], sequence: Sequence[str]
) -> Table:
    """Return the accuracy matrix of an arm trained on the parts of `sequence` in turn.

    A part is a data set or a language, trained on once. `matrices` has the matrix of each seed, as
    `average_accuracy` takes it, NaN where a score was not measured. Rows are stages, columns parts
    and their average. The notes give average accuracy and backward transfer, over the seeds that
    have every score these need.
    """
    rows = []
    for stage, name in enumerate(sequence):
        scores = {seed: [*matrix[stage], fmean(matrix[stage])] for seed, matrix in matrices.items()}
        columns = [{seed: row[i] for seed, row in scores.items()} for i in range(len(sequence) + 1)]
        rows.append((f"{stage + 1} · {name}", *map(_render_seeds, columns)))
    average, backward = (
        _render_seeds({seed: measure(matrix) for seed, matrix in matrices.items()})
        for measure in (average_accuracy, backward_transfer)
    )
    return Table(
        experiment=experiment,
        caption=f"{experiment}: {arm} after each stage, mean ± standard deviation over seeds "
        "(number of seeds), in percentage points.",
        headers=("stage · trained on", *sequence, "average"),
        rows=tuple(rows),
        notes=(
            f"Average accuracy after the last stage: {average}. Backward transfer, the change on "
            f"what was trained on earlier: {backward} (Lopez-Paz & Ranzato 2017); below 0 is "
            "forgetting.",
        ),
    )


def _render_seeds(scores: Mapping[int, float]) -> str:
    measured = {seed: score for seed, score in scores.items() if not math.isnan(score)}
    seeds, values = tuple(measured), tuple(measured.values())
    return render_scores(SeedScores(seeds=seeds, scores=values, planned=len(scores)))
