"""Linear layers that train with oneDNN, where torch's default is slow in fp32.

torch uses MKL, which has AVX-512 kernels for Intel's processors alone; on others oneDNN took less
than half of the time (Zen 5: 213 against 93 GFLOP/s a core).
"""

# Results differ in their last digits: so only training uses oneDNN, and evaluation gives what any
# other program computes with the weights. oneDNN keeps a kernel of about a megabyte for each size
# of a batch, so sizes should be few: a masked LM, whose batches have any size, took half as much
# memory again, and a tagging head, which sees the padding, 100 MiB more.

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

CPUINFO = Path("/proc/cpuinfo")
PRODUCT: Any = getattr(
    torch.ops.mkldnn, "_linear_pointwise", None
)  # x, weight, bias, fused operation


class OneDnnLinear(nn.Linear):
    """`nn.Linear` that trains with oneDNN; in evaluation and except in fp32 it is `nn.Linear`."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        if not _supports(input, self.weight):
            return super().forward(input)
        rows = input.flatten(0, -2).contiguous()  # otherwise backward takes twenty times as long
        output: Any = _Product.apply(rows, self.weight, self.bias)
        return output.unflatten(0, input.shape[:-1])


def _supports(x: Tensor, weight: Tensor) -> bool:
    is_fp32 = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    is_plain = x.device.type == "cpu" and not torch._C._are_functorch_transforms_active()
    return torch.is_grad_enabled() and is_fp32 and is_plain and x.ndim > 1 and x.numel() > 0


def use_onednn_linear(model: nn.Module) -> None:
    """Turn every linear layer of a model into a `OneDnnLinear` where that is faster, in place."""
    if prefers_onednn():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear


def prefers_onednn() -> bool:
    """Return whether this processor has AVX-512 and is not Intel's."""
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
