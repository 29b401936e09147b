"""Kernels for a model that is mapped over runs: the runs become further items of the batch.

`torch.func.vmap` has no rule for attention on a CPU, and parts a linear layer into a product and a
sum. Where all runs share the weights, or a kernel has none, folding the runs into the batch is the
same and costs what one larger batch does. Called by `step.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class Folding(TorchFunctionMode):
    """Within it, attention and linear layers of mapped tensors are folded."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the folded kernel where there is one."""
        options = kwargs or {}
        if func is linear and _is_mapped(args[0]):
            return _Linear.apply(*args[:2], args[2] if len(args) > 2 else options.get("bias"))
        if func is scaled_dot_product_attention and _is_mapped(args[0]):
            rest = (options.get(name) for name in ("attn_mask", "scale"))
            return _Attention.apply(*args, *rest, options.get("dropout_p", 0.0))
        return func(*args, **options)


class _Linear(torch.autograd.Function):
    """A linear layer, with inputs of each run and weights of each or of all."""

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(input, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: only what `vmap` makes is differentiated, and by torch itself."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *operands: Any) -> Any:
        input, weight, bias = operands
        input = input.movedim(in_dims[0], 0)
        if in_dims[1] is None and in_dims[2] is None:
            return linear(input, weight, bias), 0
        runs = info.batch_size
        weight = _lead(weight, in_dims[1], runs).mT
        rows = input.reshape(runs, -1, input.shape[-1])
        if bias is None:
            output = torch.bmm(rows, weight)
        else:
            output = torch.baddbmm(_lead(bias, in_dims[2], runs).unsqueeze(1), rows, weight)
        return output.view(*input.shape[:-1], -1), 0


class _Attention(torch.autograd.Function):
    """Scaled dot-product attention, which has no weights."""

    @staticmethod
    def forward(*operands: Any) -> Tensor:
        query, key, value, mask, scale, rate = operands
        return scaled_dot_product_attention(query, key, value, mask, rate, scale=scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: only what `vmap` makes is differentiated, and by torch itself."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *operands: Any) -> Any:
        *tensors, scale, rate = operands
        folded: Any = (
            None if tensor is None else _lead(tensor, dim, info.batch_size).flatten(0, 1)
            for tensor, dim in zip(tensors, in_dims, strict=False)
        )
        query, key, value, mask = folded
        output = scaled_dot_product_attention(query, key, value, mask, rate, scale=scale)
        return output.unflatten(0, (info.batch_size, -1)), 0


def _is_mapped(tensor: Tensor) -> bool:
    return is_batchedtensor(tensor)


def _lead(tensor: Tensor, dim: int | None, runs: int) -> Tensor:
    """Return a tensor whose first dimension is that of the runs."""
    return tensor.expand(runs, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
