"""What a run costs: parameters, bytes, peak memory, seconds, floating-point operations.

What cannot be measured on this machine is left out of a record, never set to 0. `CostMeter` is the
callback that decides when to measure.
"""

import ctypes
import gc
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from typing_extensions import override

from crosstune.models.acceleration.onednn_linear import PRODUCT, count_product_flops
from crosstune.tasks.task import sum_losses

WARM_UP = 5  # batches that no rate counts: kernels are chosen and memory is laid out
FLOPS_WINDOWS = 4  # whose operations are counted: a whole batch would cost a step
SHARED_COSTS = ("train_seconds", "train_tokens_per_second", "peak_memory_bytes")  # of fused runs

# PyTorch counts the operations of its kernels for a GPU, but not of these for a CPU
_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ON_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_CPU_KERNELS: dict[Any, Any] = {
    PRODUCT: count_product_flops,
    _ON_CPU: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    _ON_CPU_BACKWARD: lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4]),
}


def count_parameters(model: nn.Module, head: Sequence[str]) -> dict[str, int]:
    """Return total, trainable, head and embedding parameters, and those of a peft model's adapter.

    In a peft model `trainable = head + adapter`. Embeddings are the tables of tokens, positions and
    segments, trained or not, which the size of a model often leaves out (Kaplan et al. 2020,
    https://arxiv.org/abs/2001.08361); a table in the head or the adapter counts there alone. Tied
    weights count once; the frozen copy that peft keeps of a trained head does not count. A trained
    pooler that the checkpoint lacks is part of the head; `new_pooler_parameters` says how many.
    """
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if ".original_module." not in name
    }
    trainable = {name: p.numel() for name, p in parameters.items() if p.requires_grad}
    in_head = {name for name in trainable if _is_within(name, head)}
    poolers = [module for module in head if module.endswith("pooler")]
    new_pooler = sum(n for name, n in trainable.items() if _is_within(name, poolers))
    new = trainable.keys() if isinstance(model, PeftModel) else in_head
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    counts = {
        "total_parameters": sum(parameter.numel() for parameter in parameters.values()),
        "trainable_parameters": sum(trainable.values()),
        "head_parameters": sum(trainable[name] for name in in_head),
        "embedding_parameters": sum(
            p.numel() for name, p in parameters.items() if id(p) in tables and name not in new
        ),
    }
    if new_pooler:
        counts["new_pooler_parameters"] = new_pooler
    if isinstance(model, PeftModel):
        counts["adapter_parameters"] = counts["trainable_parameters"] - counts["head_parameters"]
    return counts


def _is_within(name: str, head: Sequence[str]) -> bool:
    # a tuner stands between peft's model and ours, a prompt does not
    inner = (name.removeprefix("base_model.model."), name.removeprefix("base_model."))
    return any(plain.startswith(f"{module}.") for plain in (name, *inner) for module in head)


def measure_bytes(folder: Path) -> int:
    """Return the bytes of all safetensors files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def measure_state(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of the tensors in an optimizer's state, on this rank.

    Two float32 numbers a trainable parameter for AdamW, none for plain SGD.
    """
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


def count_flops(work: Callable[[], Any], device: torch.device) -> int:
    """Return the floating-point operations of `work`; does not advance the RNG.

    Matrix products, convolutions and attention count, a multiplication and an addition as two;
    element-wise operations (norms, activations, the optimizer's step) and look-ups do not. A linear
    layer of N weights takes 2N per token forward and 4N backward, so 6N per token if it is trained
    and about 4N if gradients only pass through it (Kaplan et al. 2020,
    https://arxiv.org/abs/2001.08361, section 2.1). The backward pass of a fused attention kernel
    includes what it recomputes.
    """
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        FlopCounterMode(display=False, custom_mapping=_CPU_KERNELS) as counter,
    ):
        work()
    return int(counter.get_total_flops())


def get_device_name(device: torch.device) -> str:
    """Return the name of the GPU or CPU; seconds mean nothing without it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class PeakMemory:
    """Peak memory between `start` and `read`, also in a long-lived process.

    On a GPU the tensors that PyTorch's allocator held at once; on a CPU the resident set of the
    whole process, including its libraries (some 500 MiB), so differences between runs mean more
    than ratios. Memory that earlier runs have freed returns to the system at `start`; what else
    they left is subtracted: libraries, and the caches of kernels, without which the sixth run in
    bf16 looked two fifths larger than in a separate process; now it is within a tenth. Where the C
    library is not glibc and cannot return memory, up to an earlier run's peak remains.
    """

    first: int | None = None  # resident in this process when its first run started, without weights

    def __init__(self) -> None:
        self.earlier: int | None = None  # peak of the process that a run resumes from
        self.inherited = 0  # bytes that earlier runs left

    def start(self, device: torch.device, model_bytes: int = 0) -> None:
        """Reset the peak; `model_bytes` of the memory in use belong to the run."""
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
        resident = _read_status("VmRSS") - model_bytes
        if PeakMemory.first is None:
            PeakMemory.first = resident
        self.inherited = max(0, resident - PeakMemory.first)

    def read(self) -> int | None:
        """Return the peak in bytes; None if the system cannot reset it."""
        if self.device.type == "cuda":
            peak = int(torch.cuda.max_memory_allocated(self.device))
        elif self.resettable:
            peak = _read_status("VmHWM") - self.inherited
        else:
            return None
        return max(peak, self.earlier or 0)


def _read_status(name: str) -> int:
    """Read one of Linux's sizes of this process, in bytes."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def release_memory() -> None:
    """Return memory that was freed, but that the C library retains, to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


class Throughput:
    """Seconds of a loop over batches, and subwords per second after the warm-up.

    The GPU is synchronised where the time starts and stops and once at the end of the warm-up,
    never at each batch.
    """

    def __init__(
        self, seconds: float = 0.0, cold_seconds: float = 0.0, batches: int = 0, tokens: int = 0
    ):
        self.seconds = seconds  # of all batches
        self.cold_seconds = cold_seconds  # of those that belong to the warm-up
        self.batches = batches
        self.tokens = tokens  # subwords after the warm-up, without padding
        self._device = torch.device("cpu")
        self._since: float | None = None

    def start(self, device: torch.device) -> None:
        """Start the clock."""
        self._device = device
        self._since = _synchronized_time(device)

    def stop(self) -> None:
        """Add the time since the last start, if the clock runs."""
        if self._since is not None:
            self.seconds += _synchronized_time(self._device) - self._since
            self._since = None

    def read(self) -> dict[str, float | int]:
        """Return the counts so far, for a checkpoint; the arguments of a new object."""
        running = _synchronized_time(self._device) - self._since if self._since is not None else 0.0
        counts = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**counts, "seconds": self.seconds + running}

    def count(self, tokens: int) -> None:
        """Count the subwords of a batch that begins now."""
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


def _synchronized_time(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class CostMeter(pl.Callback):
    """Measures what training and testing cost: seconds, rates, operations, state, memory.

    Rates and the seconds of inference leave out the first `WARM_UP` batches; the seconds of
    training do not. Operations are counted on separate batches while no time runs, which changes
    nothing that the run computes. Stages of training add up; inference is the last test.
    """

    def __init__(self) -> None:
        self.training, self.inference = Throughput(), Throughput()
        self.memory = PeakMemory()
        self.counted: dict[str, float | int] = {}
        self.device_name = ""

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "training": self.training.read(),
            "counted": self.counted,
            "peak": self.memory.read(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.training = Throughput(**state_dict["training"])
        self.counted, self.memory.earlier = state_dict["counted"], state_dict["peak"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count operations and start to watch the memory, once for all stages of training."""
        if self.device_name:
            return
        if trainer.max_epochs and "train_flops_per_token" not in self.counted:
            module = cast(Any, pl_module)
            module.model.train()
            with trainer.precision_plugin.train_step_context():
                loader = module.data.train_dataloader()
                self._count_flops("train", module, loader, partial(_differentiate, module.task))
        weights = [*pl_module.parameters(), *pl_module.buffers()]
        model_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
        self.memory.start(pl_module.device, model_bytes)
        self.device_name = get_device_name(pl_module.device)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training.start(pl_module.device)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training.stop()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.training.start(pl_module.device)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.training.count(batch["tokens"])

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training.stop()
        self._set_rate("train", self.training, trainer)
        self.counted["optimizer_bytes"] = sum(map(measure_state, trainer.optimizers))

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module = cast(Any, pl_module)
        with trainer.precision_plugin.test_step_context():
            loader = module.data.test_dataloader()[0]
            self._count_flops("inference", module, loader, module.task.predict_batch)
        self.inference = Throughput()
        self.inference.start(pl_module.device)

    @override
    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.inference.count(batch["tokens"])

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.inference.stop()
        self._set_rate("inference", self.inference, trainer)
        if self.inference.warm_seconds:
            self.counted["inference_seconds"] = round(self.inference.warm_seconds, 3)

    def read(self, fused: bool = False) -> dict[str, float | int]:
        """Return every measured cost by its name in the record.

        Runs that are `fused` share their steps: what those cost belongs to none of them.
        """
        cost = dict(self.counted)
        if self.training.seconds > 0:
            cost["train_seconds"] = round(self.training.seconds, 3)
        if (peak := self.memory.read()) is not None:
            cost["peak_memory_bytes"] = peak
        return {name: value for name, value in cost.items() if not (fused and name in SHARED_COSTS)}

    def _set_rate(self, name: str, throughput: Throughput, trainer: pl.Trainer) -> None:
        """Set the subwords per second of all ranks together."""
        share = torch.tensor(throughput.tokens, device=trainer.strategy.root_device)
        tokens = int(trainer.strategy.reduce(share, reduce_op="sum"))
        if seconds := throughput.warm_seconds:
            self.counted[f"{name}_tokens_per_second"] = round(tokens / seconds, 1)

    def _count_flops(
        self, name: str, module: Any, loader: DataLoader[Any], work: Callable[[Any, Any], Any]
    ) -> None:
        """Set the operations per subword of a few windows in the middle of a loader's order."""
        order: Any = list(cast(Any, loader.sampler))
        share = order[len(order) // 2]
        batch = loader.dataset[share._replace(windows=share.windows[:FLOPS_WINDOWS])]
        if tokens := batch["tokens"]:
            batch = module.trainer.strategy.batch_to_device(batch, module.device)
            flops = count_flops(lambda: work(module.model, batch), module.device)
            self.counted[f"{name}_flops_per_token"] = round(flops / tokens)


def _differentiate(task: Any, model: Any, batch: dict[str, Any]) -> None:
    """Run one forward and backward pass; sets no `grad`."""
    total, _ = sum_losses(task, model, batch["parts"])
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.autograd.grad(total, weights, allow_unused=True)
