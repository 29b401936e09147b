"""One window for a text or a pair of texts: what the kinds that label whole texts share.

What does not fit into `data.max_tokens` is cut from the longer text and counted. Called by the
kinds that give a whole text a label or a number.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.tasks.prediction import Output, Prediction


def row_texts(row: dict[str, Any]) -> list[str]:
    """Return the text of a row, and its second text where it has one."""
    return [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]


def encode_texts(
    rows: Sequence[dict[str, Any]], labels: Any, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> EncodedDataset:
    """Return one window a row; `labels` has one entry a row."""
    second = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    batch: Any = tokenizer(
        [row["text"] for row in rows],
        second,
        truncation="longest_first",
        max_length=max_tokens,
        return_token_type_ids=True,
        return_attention_mask=False,
        verbose=False,
    )
    cut = sum(bool(batch[number].overflowing) for number in range(len(rows)))
    return concatenate(batch["input_ids"], batch["token_type_ids"], range(len(rows)), labels, cut)


def collate_windows(
    encoded: EncodedDataset, windows: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Return inputs (B, L) and the labels of B windows."""
    pad_id: Any = tokenizer.pad_token_id
    labels = torch.from_numpy(encoded.labels[list(windows)])
    return {"inputs": encoded.pad(windows, pad_id), "labels": labels}


def label_loss(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross entropy of logits (B, C) and the number of items."""
    logits, labels = model(**batch["inputs"]).logits, batch["labels"]
    total = cross_entropy(logits.float(), labels, reduction="sum", ignore_index=IGNORE)
    return total, (labels != IGNORE).sum()


def read_labels(model: Any, batch: dict[str, Any]) -> list[tuple[int, float]]:
    """Return the best label of each window and its log-probability."""
    logits = model(**batch["inputs"]).logits
    scores, best = logits.float().log_softmax(-1).max(-1)
    return list(zip(best.tolist(), scores.tolist(), strict=True))


def decode_labels(
    rows: Sequence[dict[str, Any]],
    encoded: EncodedDataset,
    outputs: Sequence[Output],
    labels: Sequence[str],
) -> list[Prediction]:
    """Return one prediction a row, as label texts."""
    return [
        Prediction(item, rows[item]["id"], rows[item]["label"], labels[best], score)
        for item, best, score in ((int(encoded.items[w]), b, s) for w, b, s in outputs)
    ]
