"""Encoded text: the windows of a split in flat arrays, padded when a batch is made.

A window is one input of the encoder; an item (a row of the split) has one window or more.
Independent of tokenizers and tasks.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from safetensors.torch import load_file

from crosstune.files import atomic_write

log = logging.getLogger(__name__)
IGNORE = -100  # label of a position without a label: torch's cross entropy skips it
UNSEEN = -1  # gold label that never occurs in train: no prediction can match it


@dataclass(frozen=True)
class EncodedDataset:
    """W windows with T subwords in total, special tokens included."""

    ids: np.ndarray  # (T,) int32 subword ids
    types: np.ndarray  # (T,) uint8 segment of each subword: 0, or 1 for a second text
    starts: np.ndarray  # (W + 1,) int64 first index of each window, then T
    items: np.ndarray  # (W,) int64 row of the split that each window belongs to
    labels: np.ndarray  # (W, …) or (T, …), by task type
    cut: np.ndarray  # (1,) int64 number of items that max_tokens truncated
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # further arrays of the task type

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> np.ndarray:
        """Subwords in each window, (W,)."""
        return np.diff(self.starts)

    def span(self, window: int) -> slice:
        """Return the slice of a window in the flat arrays."""
        return slice(int(self.starts[window]), int(self.starts[window + 1]))

    def pad(self, windows: Sequence[int], pad_id: int) -> dict[str, torch.Tensor]:
        """Return input_ids, attention_mask and token_type_ids, each (B, longest window)."""
        indices, mask = self._index_windows(windows)
        ids = np.where(mask, self.ids[indices], pad_id)
        return {
            "input_ids": torch.from_numpy(ids.astype(np.int64)),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "token_type_ids": torch.from_numpy((self.types[indices] * mask).astype(np.int64)),
        }

    def pad_labels(self, windows: Sequence[int]) -> torch.Tensor:
        """Return token labels (B, longest window), with IGNORE as padding."""
        indices, mask = self._index_windows(windows)
        return torch.from_numpy(np.where(mask, self.labels[indices], IGNORE))

    def _index_windows(self, windows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return indices into the flat arrays and their mask, each (B, longest window)."""
        chosen = np.asarray(windows, dtype=np.int64)
        lengths = self.lengths[chosen]
        offsets = np.arange(lengths.max())
        mask = offsets[None, :] < lengths[:, None]
        return np.where(mask, self.starts[chosen][:, None] + offsets[None, :], 0), mask

    def write(self, path: Path) -> None:
        """Write the arrays atomically, with a digest of them."""
        arrays = {name: array for name, array in vars(self).items() if name != "extra"}
        arrays |= {f"extra.{name}": array for name, array in self.extra.items()}
        # safetensors writes an array's buffer, whatever its strides
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with atomic_write(path) as partial:
            save_file(arrays, partial, {"sha256": _digest(arrays)})

    @classmethod
    def load(cls, path: Path) -> "EncodedDataset | None":
        """Memory-map a file that `write` wrote, so that parallel runs share its pages.

        None if there is no file, or it was damaged on disk.
        """
        if not path.is_file():
            return None
        try:
            arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
            with safe_open(path, "numpy") as file:
                written = (file.metadata() or {}).get("sha256")
        except (SafetensorError, ValueError, UnicodeDecodeError):
            arrays, written = {}, ""
        if not arrays or _digest(arrays) != written:
            log.warning("%s was damaged on disk: the texts are encoded again", path)
            return None
        extra = {n.removeprefix("extra."): arrays.pop(n) for n in list(arrays) if "." in n}
        return cls(**arrays, extra=extra)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def concatenate(
    windows: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]],
    items: Sequence[int],
    labels: Any,
    cut: int,
    **extra: Any,
) -> EncodedDataset:
    """Return windows as flat arrays; `labels` has one entry per window or per subword.

    Labels become int64, or float64 if one of them is no integer; `extra` are further arrays.
    """
    label_array = np.asarray(labels)
    if label_array.dtype.kind != "f" or not label_array.size:
        label_array = label_array.astype(np.int64)
    lengths = np.fromiter(map(len, windows), np.int64, len(windows))
    total = int(lengths.sum())
    return EncodedDataset(
        ids=np.fromiter(chain.from_iterable(windows), np.int32, total),
        types=np.fromiter(chain.from_iterable(types), np.uint8, total),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.asarray(items, np.int64),
        labels=label_array,
        cut=np.asarray([cut], np.int64),
        extra={name: np.asarray(array) for name, array in extra.items()},
    )
