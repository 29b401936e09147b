"""Metrics of masked language modelling: loss, accuracy and perplexity of predicted sub-words."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenLoss(Metric):
    """Sum the loss of predicted tokens; report their accuracy, mean loss and perplexity.

    Losses are in nats; perplexity = exp(mean loss). The sum is in float64, so other batches change
    the result by its rounding only.

    >>> metric = TokenLoss()
    >>> metric.update(torch.tensor([0.0, 0.0]), torch.tensor([True, False]))
    >>> metric.compute()["report"]
    {'loss': 0.0, 'perplexity': 1.0, 'tokens': 2}
    """

    full_state_update = False
    loss: Tensor
    tokens: Tensor  # (2,): predicted correctly, all

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, loss: Tensor, correct: Tensor) -> None:
        """Add one loss and one truth value per predicted token, both (n,)."""
        if loss.shape != correct.shape:
            raise ValueError(f"loss {loss.shape} and correct {correct.shape} differ in shape")
        self.loss = self.loss + loss.double().sum()
        agreeing = correct.long().sum()
        self.tokens = self.tokens + torch.stack([agreeing, torch.full_like(agreeing, loss.numel())])

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        correct, tokens = self.tokens.tolist()
        if not tokens:
            return {"scores": {}, "report": {}}
        loss = self.loss / tokens
        report = {"loss": loss.item(), "perplexity": loss.exp().item(), "tokens": tokens}
        return {"scores": {"accuracy": correct / tokens}, "report": report}
