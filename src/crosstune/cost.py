"""What a run costs: parameters, bytes, peak memory, seconds.

What cannot be measured here is left out of a record, never set to 0.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn


def count_parameters(model: nn.Module, head: Sequence[str], peft: bool) -> dict[str, int]:
    """Return total, trainable and head parameters, and for a peft method those of the adapter.

    Tied weights count once; the frozen copy that peft keeps of a trained head counts not at all.
    """
    own = {
        name: parameter
        for name, parameter in model.named_parameters()
        if ".original_module." not in name
    }
    trainable = {name: p.numel() for name, p in own.items() if p.requires_grad}
    in_head = sum(size for name, size in trainable.items() if _belongs(name, head))
    counts = {
        "total_parameters": sum(parameter.numel() for parameter in own.values()),
        "trainable_parameters": sum(trainable.values()),
        "head_parameters": in_head,
    }
    if peft:
        counts["adapter_parameters"] = counts["trainable_parameters"] - in_head
    return counts


def _belongs(name: str, head: Sequence[str]) -> bool:
    plain = name.replace("base_model.model.", "", 1)
    return any(plain.startswith(module + ".") for module in head)


def measure_bytes(folder: Path) -> int:
    """Return the bytes of all safetensors files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class PeakMemory:
    """Peak memory of what happens between `start` and `read`, also in a long-lived process."""

    def start(self, device: torch.device) -> None:
        """Forget earlier peaks of this process or device."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # 5 resets the high-water mark of the resident set (man 5 proc_pid_clear_refs)
            Path("/proc/self/clear_refs").write_text("5")
            self.resettable = True
        except OSError:
            self.resettable = False

    def read(self) -> int | None:
        """Return the peak in bytes: the device's allocator on a GPU, resident memory on a CPU."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if not self.resettable:
            return None
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None


class Stopwatch:
    """Seconds between starts and stops, added up."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Let the time run."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Add the time since the last start, if it runs."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None
