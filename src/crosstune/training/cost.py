"""What a run costs: parameters, bytes, peak memory, seconds, floating-point operations.

What cannot be measured here is left out of a record, never set to 0. `callbacks.CostMeter` says
when to measure.
"""

import ctypes
import gc
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from crosstune.models.acceleration.onednn_linear import PRODUCT, count_product_flops

WARM_UP = 5  # batches of a loop that no rate counts: kernels are chosen and memory is laid out

# PyTorch knows the operations of its kernels for a GPU, and not of those for a CPU
_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ON_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_CPU_KERNELS: dict[Any, Any] = {
    PRODUCT: count_product_flops,
    _ON_CPU: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    _ON_CPU_BACKWARD: lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4]),
}


def count_parameters(model: nn.Module, head: Sequence[str], peft: bool) -> dict[str, int]:
    """Return total, trainable, head and embedding parameters, and for a peft method the adapter's.

    Head and adapter are trained: `trainable = head + adapter` for a peft method. Embeddings are the
    tables of tokens, positions and segments, trained or not, without which the size of a model is
    often told (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361); a table that belongs to the
    head or the adapter counts there alone. Tied weights count once; the frozen copy that peft
    keeps of a trained head counts not at all.
    """
    own = {
        name: parameter
        for name, parameter in model.named_parameters()
        if ".original_module." not in name
    }
    trainable = {name: p.numel() for name, p in own.items() if p.requires_grad}
    in_head = {name for name in trainable if _belongs(name, head)}
    new = trainable.keys() if peft else in_head
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    counts = {
        "total_parameters": sum(parameter.numel() for parameter in own.values()),
        "trainable_parameters": sum(trainable.values()),
        "head_parameters": sum(trainable[name] for name in in_head),
        "embedding_parameters": sum(
            p.numel() for name, p in own.items() if id(p) in tables and name not in new
        ),
    }
    if peft:
        counts["adapter_parameters"] = counts["trainable_parameters"] - counts["head_parameters"]
    return counts


def _belongs(name: str, head: Sequence[str]) -> bool:
    # a tuner stands between peft's model and ours, a prompt does not
    inner = (name.removeprefix("base_model.model."), name.removeprefix("base_model."))
    return any(plain.startswith(f"{module}.") for plain in (name, *inner) for module in head)


def measure_bytes(folder: Path) -> int:
    """Return the bytes of all safetensors files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def measure_state(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of the tensors that an optimizer keeps beside the weights, on this rank.

    Two float32 numbers a trainable parameter for AdamW, none for plain SGD.
    """
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


def count_flops(work: Callable[[], Any], device: torch.device) -> int:
    """Return the floating-point operations of what is done, and leave torch's dice as they were.

    Matrix products, convolutions and attention count, a multiplication and an addition as two;
    what goes element by element (norms, activations, the optimizer's step) and look-ups do not.
    A linear layer of N weights makes 2N a token forward and 4N backward, so 6N a token where all
    is trained and about 4N where only the way back to small parts is gone (Kaplan et al. 2020,
    https://arxiv.org/abs/2001.08361, section 2.1). Backward through a fused attention kernel counts
    what it computes anew.
    """
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        FlopCounterMode(display=False, custom_mapping=_CPU_KERNELS) as counter,
    ):
        work()
    return int(counter.get_total_flops())


def name_device(device: torch.device) -> str:
    """Return the name of the processor that does the work, without which seconds say nothing."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text("utf-8", "replace").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class PeakMemory:
    """Peak memory of what happens between `start` and `read`, also in a long-lived process.

    On a GPU the tensors that PyTorch's allocator held at once; on a CPU the resident set of the
    whole process, its libraries among it (some 500 MiB), so differences between runs say more than
    ratios. What earlier runs in the process have freed goes back to the system at `start`; what
    else they left is taken off: libraries, and the caches of kernels, which made the sixth run in
    bf16 look two fifths larger than in a process of its own; it is within a tenth now. Where the C
    library cannot give memory back (it is no glibc), up to an earlier run's peak remains.
    """

    first: int | None = None  # resident in this process when its first run started, but for its own

    def __init__(self) -> None:
        self.earlier: int | None = None  # peak of the process that a run goes on from
        self.inherited = 0  # bytes that earlier runs left

    def start(self, device: torch.device, own: int = 0) -> None:
        """Forget earlier peaks of this process or device; `own` bytes in memory are the run's."""
        self.device = device
        gc.collect()  # an earlier run's trainer and model hold each other
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        release_memory()
        try:
            # 5 resets the high-water mark of the resident set (man 5 proc_pid_clear_refs)
            Path("/proc/self/clear_refs").write_text("5")
            self.resettable = True
        except OSError:
            self.resettable = False
            return
        others = _status("VmRSS") - own
        if PeakMemory.first is None:
            PeakMemory.first = others
        self.inherited = max(0, others - PeakMemory.first)

    def read(self) -> int | None:
        """Return the peak in bytes: the device's allocator on a GPU, resident memory on a CPU."""
        peak = self._read()
        return max(peak, self.earlier or 0) if peak is not None else None

    def _read(self) -> int | None:
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if not self.resettable:
            return None
        return _status("VmHWM") - self.inherited


def _status(name: str) -> int:
    """Return one of the sizes in bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def release_memory() -> None:
    """Hand memory that was freed, and that the C library keeps for later, to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


class Throughput:
    """Seconds of a loop over batches, and sub-words a second once it is warm.

    Work on a GPU is waited for where the time starts and stops and once at the end of the
    warm-up, never by batch.
    """

    def __init__(
        self, seconds: float = 0.0, cold_seconds: float = 0.0, batches: int = 0, tokens: int = 0
    ):
        self.seconds = seconds  # of all batches
        self.cold_seconds = cold_seconds  # of those that belong to the warm-up
        self.batches = batches
        self.tokens = tokens  # sub-words after the warm-up, padding left out
        self._device = torch.device("cpu")
        self._since: float | None = None

    def start(self, device: torch.device) -> None:
        """Let the time run."""
        self._device = device
        self._since = _time_when_done(device)

    def stop(self) -> None:
        """Add the time since the last start, if it runs."""
        if self._since is not None:
            self.seconds += _time_when_done(self._device) - self._since
            self._since = None

    def read(self) -> dict[str, float | int]:
        """Return what was counted, the time since the last start among it, to go on from."""
        running = _time_when_done(self._device) - self._since if self._since is not None else 0.0
        counts = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**counts, "seconds": self.seconds + running}

    def count(self, tokens: int) -> None:
        """Count a batch that begins now."""
        self.batches += 1
        if self.batches == WARM_UP + 1:
            self.stop()
            self.cold_seconds = self.seconds
            self.start(self._device)
        if self.batches > WARM_UP:
            self.tokens += tokens

    @property
    def warm_seconds(self) -> float:
        """Seconds after the warm-up; 0 if the loop was not longer."""
        return self.seconds - self.cold_seconds if self.batches > WARM_UP else 0.0


def _time_when_done(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
