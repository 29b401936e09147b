"""What a task reads from the model's outputs: one output a window, one prediction a row."""

from typing import Any, NamedTuple

Output = tuple[int, Any, float]  # window, what `Task.predict_batch` returns for it, score


class Prediction(NamedTuple):
    """The prediction for one row, next to its gold.

    `score` is the log-probability of the prediction, except in extraction (the margin over no
    answer) and in regression (the standardised output).
    """

    item: int  # index of the row in its split
    id: str
    gold: Any
    prediction: Any
    score: float
    extra: Any = None  # what the task's metrics need beyond that; never written to disk
