"""What a task gives back for one item of the data: shared by every kind and by the writer."""

from typing import Any, NamedTuple

Output = tuple[int, Any, float]  # window, what the task read off the logits, score


class Prediction(NamedTuple):
    """One item's answer beside its gold.

    `score` is the log-probability of the prediction, but the margin over no answer in extraction
    and the standardised output in regression.
    """

    item: int  # row of the split
    id: str
    gold: Any
    prediction: Any
    score: float
