"""Masked language modelling: trains or continues an encoder on plain text.

Sub-words are masked as in BERT (Devlin et al. 2019, https://aclanthology.org/N19-1423): 15 % are
chosen, of which 80 % become the mask, 10 % a random piece and 10 % stay. Training draws anew each
epoch, from (seed, epoch, window); validation and test masks never change, so that all runs answer
the same questions. Long lines become several windows, none is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from crosstune.data.encoded import IGNORE, Encoded, join
from crosstune.errors import ConfigError
from crosstune.metrics.tokens import TokenLoss
from crosstune.tasks.pieces import special_pieces
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.task import Task


@dataclass
class MaskedLM(Task):
    """The task of one corpus; it has no labels."""

    mask_rate: float
    labels: list[str] = field(default_factory=list)  # the head's outputs are the vocabulary
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    peft_type: ClassVar[str] = "FEATURE_EXTRACTION"

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]], mask_rate: float = 0.15) -> "MaskedLM":
        """Return the task; `mask_rate` is the share of sub-words to be guessed."""
        if not 0 < mask_rate < 1:
            raise ConfigError(f"data.task.mask_rate={mask_rate}: must lie between 0 and 1.")
        return cls(mask_rate)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        return ("accuracy",)

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw text of a row, for training a tokenizer."""
        return [row["text"]]

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> Encoded:
        """Return the windows of each row; labels are the sub-words, IGNORE on special pieces."""
        before, after = special_pieces(tokenizer)
        room = max_tokens - len(before) - len(after)
        batch: Any = tokenizer(
            [row["text"] for row in rows], add_special_tokens=False, verbose=False
        )
        ids: list[list[int]] = []
        labels: list[int] = []
        items: list[int] = []
        for item, pieces in enumerate(batch["input_ids"]):
            for start in range(0, len(pieces), room):
                inside = pieces[start : start + room]
                ids.append([*before, *inside, *after])
                labels += [IGNORE] * len(before) + inside + [IGNORE] * len(after)
                items.append(item)
        return join(ids, [[0] * len(window) for window in ids], items, labels, cut=0)

    def collate(
        self,
        encoded: Encoded,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return masked inputs (B, L) and labels (B, L); `draw` seeds the choice."""
        pad_id: Any = tokenizer.pad_token_id
        mask_id: Any = tokenizer.mask_token_id
        inputs = encoded.pad(windows, pad_id)
        gold = encoded.pad_labels(windows)
        labels = torch.full_like(gold, IGNORE)
        for row, window in enumerate(windows):
            rng = np.random.default_rng([*draw, window])
            places = np.flatnonzero(gold[row].numpy() != IGNORE)
            count = max(1, round(self.mask_rate * len(places)))
            chosen = torch.from_numpy(rng.choice(places, count, replace=False))
            labels[row, chosen] = gold[row, chosen]
            dice = rng.random(count)
            inputs["input_ids"][row, chosen[torch.from_numpy(dice < 0.8)]] = mask_id
            random = chosen[torch.from_numpy(dice >= 0.9)]
            pieces = rng.integers(0, len(tokenizer), len(random))
            inputs["input_ids"][row, random] = torch.from_numpy(pieces)
        return {"inputs": inputs, "labels": labels}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy over masked sub-words and their number."""
        logits, labels = model(**batch["inputs"]).logits, batch["labels"]
        masked = labels != IGNORE
        return cross_entropy(logits[masked].float(), labels[masked], reduction="sum"), masked.sum()

    def read_off(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return, for each window, its gold and best pieces and the gold's log-probability."""
        logits, labels = model(**batch["inputs"]).logits, batch["labels"]
        masked = labels != IGNORE
        log_p = logits[masked].float().log_softmax(-1)
        gold = labels[masked]
        counts = masked.sum(-1).tolist()
        sums = [part.sum().item() for part in log_p.gather(1, gold[:, None]).split(counts)]
        golds, best = gold.split(counts), log_p.argmax(-1).split(counts)
        return [((g.tolist(), b.tolist()), s) for g, b, s in zip(golds, best, sums, strict=True)]

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: Encoded, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row: the ids of its masked sub-words and the guesses."""
        found: dict[int, Prediction] = {}
        for window, (gold, best), score in sorted(outputs, key=lambda output: output[0]):
            item = int(encoded.items[window])
            sofar = found.get(item, Prediction(item, rows[item]["id"], [], [], 0.0))
            found[item] = Prediction(
                item, sofar.id, sofar.gold + gold, sofar.prediction + best, sofar.score + score
            )
        return list(found.values())

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return masked-token accuracy, with loss and perplexity in the report."""
        meter = TokenLoss().to(device)
        gold = [piece for p in predictions for piece in p.gold]
        best = [piece for p in predictions for piece in p.prediction]
        # an item's score is a sum over its pieces; only sums count, so each bears an equal part
        losses = [-p.score / len(p.gold) for p in predictions for _ in p.gold]
        correct = [g == b for g, b in zip(gold, best, strict=True)]
        meter.update(
            torch.tensor(losses, dtype=torch.float64, device=device),
            torch.tensor(correct, dtype=torch.bool, device=device),
        )
        return meter.compute()
