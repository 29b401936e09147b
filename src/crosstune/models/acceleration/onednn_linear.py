"""Matrix products of a model's layers by oneDNN, where torch's own library is slow in fp32.

torch leaves them to MKL, which keeps its AVX-512 kernels for Intel's processors: on others oneDNN,
which is part of torch too, took less than half of the time (Zen 5: 213 against 93 GFLOP/s a core).
The numbers are those of fp32 either way, but for their last digits: so only training does it, and
what a run says of a text is what any other program says with its weights. A kernel is made for each
size of a batch, a megabyte that lies between the batches' memory, so sizes should be few: a masked
LM, whose batches have any size, took half as much memory again, and a head of tags, which sees the
padding, 100 MiB. Called by `learner.py`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CPUINFO = Path("/proc/cpuinfo")
PRODUCT: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # x, weight, bias, what follows


class OneDnnLinear(nn.Linear):
    """`nn.Linear` that trains by oneDNN; in evaluation, and in all but fp32, it is torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input (…, in) times the weight, plus the bias: (…, out)."""
        if not _is_for(input, self.weight):
            return super().forward(input)
        rows = input.flatten(0, -2).contiguous()  # others take twenty times as long on the way back
        said: Any = _Product.apply(rows, self.weight, self.bias)
        return said.unflatten(0, input.shape[:-1])


def _is_for(x: Tensor, weight: Tensor) -> bool:
    exact = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    joint = torch._C._are_functorch_transforms_active()  # runs trained together
    alike = exact and not joint and x.device.type == "cpu"
    return torch.is_grad_enabled() and alike and x.ndim > 1 and x.numel() > 0


def use_onednn_linear(model: nn.Module) -> None:
    """Let every linear layer of a model train quickly, where it is so; weights and names stay."""
    if prefers_onednn():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear


def prefers_onednn() -> bool:
    """Return whether this processor has AVX-512 and is not of the make that MKL is meant for."""
    if PRODUCT is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return CPUINFO.is_file() and "GenuineIntel" not in CPUINFO.read_text("utf-8", "replace")


def count_product_flops(x: Any, weight: Any, *rest: Any, **options: Any) -> int:
    """Return the floating-point operations of a product of these shapes."""
    return 2 * x[0] * weight[0] * weight[1]


class _Product(torch.autograd.Function):
    """x (B, in), weight (out, in) and bias (out,) or None to (B, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), grad = ctx.saved_tensors, grads[0]
        return (
            _multiply(grad, weight.t()) if ctx.needs_input_grad[0] else None,
            _multiply(grad.t(), x.t()) if ctx.needs_input_grad[1] else None,
            grad.sum(0) if ctx.needs_input_grad[2] else None,
        )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x (B, in) times the transpose of weight (out, in), plus bias (out,)."""
    return PRODUCT(x, weight, bias, "none", [], "")
