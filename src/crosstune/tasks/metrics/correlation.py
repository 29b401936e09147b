"""Metrics of regression: Pearson's and Spearman's correlation, and errors in the labels' unit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from crosstune.errors import RunError


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation of two columns, 0 if one of them never varies.

    Without variation it is 0/0; a constant prediction has learnt nothing, and its score must be
    comparable with the next epoch's, so it is 0. Matthews correlation does the same.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0])), 4)
    0.9934
    >>> pearson(np.array([1.0, 1.0]), np.array([1.0, 2.0]))
    0.0
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    # scaled, so that no square of a large or tiny number overflows or vanishes
    x, y = (column / np.abs(column).max() for column in (x, y))
    cosine = (x / np.linalg.norm(x)) @ (y / np.linalg.norm(y))
    return float(np.clip(cosine, -1.0, 1.0))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, ties at their mean rank.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 700.0])), 9)
    1.0
    """
    return pearson(rankdata(x), rankdata(y))


class CorrelationReport(Metric):
    """Gather pairs of real numbers; report their correlations, root mean square and mean error.

    Ranks need all pairs, so the pairs are gathered. "pearson" and "spearman" are the scores, though
    they lie in [-1, 1]; "rmse" and "mae" have the unit of the numbers and are in the report.

    >>> metric = CorrelationReport()
    >>> metric.update([1.0, 2.0, 4.0], [1.0, 3.0, 4.0])
    >>> metric.compute()["report"]
    {'rmse': 0.5773502691896257, 'mae': 0.3333333333333333, 'items': 3}
    """

    full_state_update = False
    pairs: list[Tensor]  # (n, 2) each: prediction, gold

    def __init__(self) -> None:
        super().__init__()
        self.add_state("pairs", [], dist_reduce_fx="cat")

    def update(self, predictions: Sequence[float], golds: Sequence[float]) -> None:
        """Add pairs; every rank must call this, even without any, or the others wait.

        Raises:
            RunError: a prediction is infinite or not a number.
        """
        if not np.isfinite(list(predictions)).all():
            raise RunError("a prediction is infinite or not a number: the model has diverged")
        columns = list(zip(predictions, golds, strict=True))
        pairs = torch.tensor(columns, dtype=torch.float64, device=self.device)
        self.pairs.append(pairs.reshape(-1, 2))

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was gathered."""
        pairs = dim_zero_cat(self.pairs)
        if not len(pairs):
            return {"scores": {}, "report": {}}
        predictions, golds = pairs.cpu().numpy().T
        errors = predictions - golds
        scores = {"pearson": pearson(predictions, golds), "spearman": spearman(predictions, golds)}
        report = {
            "rmse": float(np.sqrt(np.mean(errors**2))),
            "mae": float(np.abs(errors).mean()),
            "items": len(errors),
        }
        return {"scores": scores, "report": report}
