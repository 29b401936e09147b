"""Safetensors files of a run in training, with a checksum of their content in the header.

Checkpoints lie on the disk while a run is stopped; a bit that flips there would give other numbers.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_CHECKSUM = "crc32"  # finds every flipped bit, and takes a ninth of the time of sha256


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and texts as safetensors, with a checksum of both."""
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    texts = dict(metadata or {})
    save_file(on_cpu, path, {**texts, _CHECKSUM: _sum_up(on_cpu, texts)})


def is_undamaged(path: Path) -> bool:
    """Return whether a file of `save_tensors` is there as it was written."""
    try:
        with safe_open(path, "pt") as file:
            texts = dict(file.metadata() or {})
            written = texts.pop(_CHECKSUM, "")
            return written == _sum_up({name: file.get_tensor(name) for name in file.keys()}, texts)  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return False


def _sum_up(tensors: Mapping[str, torch.Tensor], texts: Mapping[str, str]) -> str:
    checksum = zlib.crc32(json.dumps(texts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        header = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        checksum = zlib.crc32(header.encode(), checksum)
        raw = tensor.reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(raw.data, checksum)
    return f"{checksum:08x}"
