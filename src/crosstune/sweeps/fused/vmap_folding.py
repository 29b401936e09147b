"""Kernels for a model under `torch.func.vmap`: the runs become further items of the batch.

vmap has no rule for attention on a CPU, and splits a linear layer into a product and a sum. Where
all runs share the weights, folding the runs into the batch gives the same at the cost of one batch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from crosstune.models.acceleration import vmap_kernels


class VmapFolding(TorchFunctionMode):
    """Within this context, attention and linear layers of mapped tensors are folded."""

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func is linear and vmap_kernels.is_batched(args[0]):
            bias = args[2] if len(args) > 2 else options.get("bias")
            return vmap_kernels.apply_batched(_folded_linear, *args[:2], bias)
        if func is scaled_dot_product_attention and vmap_kernels.is_batched(args[0]):
            options |= zip(("attn_mask", "dropout_p", "is_causal"), args[3:], strict=False)
            tensors = (*args[:3], options.pop("attn_mask", None))
            return vmap_kernels.apply_batched(partial(_folded_attention, **options), *tensors)
        return func(*args, **options)


def _folded_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer to input (runs, …, in); weight and bias are of (1 or runs, …)."""
    runs = len(input)
    if len(weight) == 1 and (bias is None or len(bias) == 1):
        return linear(input, weight[0], None if bias is None else bias[0])
    rows, weights = input.reshape(runs, -1, input.shape[-1]), weight.mT.expand(runs, -1, -1)
    if bias is None:
        output = torch.bmm(rows, weights)
    else:
        output = torch.baddbmm(bias.unsqueeze(1), rows, weights)
    return output.view(*input.shape[:-1], -1)


def _folded_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> Tensor:
    """Apply attention, which has no weights, to tensors of (1 or runs, …)."""
    runs = len(query)
    tensors = (query, key, value) if mask is None else (query, key, value, mask)
    folded: Any = [t.expand(runs, *t.shape[1:]).flatten(0, 1) for t in tensors]
    return scaled_dot_product_attention(*folded, **options).unflatten(0, (runs, -1))
