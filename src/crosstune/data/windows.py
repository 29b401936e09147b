"""Encoded text: every window of a split end to end in flat arrays, with padding on demand.

A window is what the encoder reads at once; an item (a row of the split) has one window or more.
Made by the task kinds, cached and batched by `data/module.py`. Knows no tokenizer and no task.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from crosstune.files import atomic_write

IGNORE = -100  # label of a position without a label: torch's cross entropy skips it
UNSEEN = -1  # gold label that never occurs in train: no prediction can meet it


@dataclass(frozen=True)
class EncodedDataset:
    """W windows with T sub-words in all, special pieces included."""

    ids: np.ndarray  # (T,) int32 sub-word ids
    types: np.ndarray  # (T,) uint8 segment of each sub-word: 0, or 1 for a second text
    starts: np.ndarray  # (W + 1,) int64 first position of each window, then T
    items: np.ndarray  # (W,) int64 row of the split that each window belongs to
    labels: np.ndarray  # (W, …) or (T, …), by kind
    cut: np.ndarray  # (1,) int64 number of items that lost sub-words to max_tokens
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # arrays of the kind's own

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> np.ndarray:
        """Sub-words in each window, (W,)."""
        return np.diff(self.starts)

    def span(self, window: int) -> slice:
        """Return where the sub-words of a window stand in the flat arrays."""
        return slice(int(self.starts[window]), int(self.starts[window + 1]))

    def pad(self, windows: Sequence[int], pad_id: int) -> dict[str, torch.Tensor]:
        """Return input_ids, attention_mask and token_type_ids, each (B, longest window)."""
        places, mask = self._places(windows)
        return {
            "input_ids": torch.from_numpy(
                np.where(mask, self.ids[places], pad_id).astype(np.int64)
            ),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "token_type_ids": torch.from_numpy((self.types[places] * mask).astype(np.int64)),
        }

    def pad_labels(self, windows: Sequence[int]) -> torch.Tensor:
        """Return token labels (B, longest window), IGNORE where there is padding."""
        places, mask = self._places(windows)
        return torch.from_numpy(np.where(mask, self.labels[places], IGNORE))

    def _places(self, windows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.asarray(windows, dtype=np.int64)
        lengths = self.lengths[chosen]
        offsets = np.arange(lengths.max())
        mask = offsets[None, :] < lengths[:, None]
        return np.where(mask, self.starts[chosen][:, None] + offsets[None, :], 0), mask

    def write(self, path: Path) -> None:
        """Write the arrays, whole or not at all."""
        arrays = {name: array for name, array in vars(self).items() if name != "extra"}
        arrays |= {f"extra.{name}": array for name, array in self.extra.items()}
        with atomic_write(path) as partial:
            # the format takes an array's bytes as they lie
            save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, partial)

    @classmethod
    def load(cls, path: Path) -> "EncodedDataset":
        """Map what `write` left into memory: runs side by side share it, and read what they use."""
        arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
        own = {n.removeprefix("extra."): arrays.pop(n) for n in list(arrays) if "." in n}
        return cls(**arrays, extra=own)


def concatenate(
    windows: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]],
    items: Sequence[int],
    labels: Any,
    cut: int,
    **extra: Any,
) -> EncodedDataset:
    """Return windows as flat arrays; `labels` has one entry a window, or one a sub-word.

    Labels are int64, or float64 where one of them is no integer; `extra` are arrays of the kind's.
    """
    lengths = np.fromiter(map(len, windows), np.int64, len(windows))
    total = int(lengths.sum())
    return EncodedDataset(
        ids=np.fromiter(chain.from_iterable(windows), np.int32, total),
        types=np.fromiter(chain.from_iterable(types), np.uint8, total),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.asarray(items, np.int64),
        labels=numbers
        if (numbers := np.asarray(labels)).dtype.kind == "f" and numbers.size
        else numbers.astype(np.int64),
        cut=np.asarray([cut], np.int64),
        extra={name: np.asarray(array) for name, array in extra.items()},
    )
