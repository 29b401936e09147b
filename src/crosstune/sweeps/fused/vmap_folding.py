"""Kernels for a model that is mapped over runs: the runs become further items of the batch.

`torch.func.vmap` has no rule for attention on a CPU, and parts a linear layer into a product and a
sum. Where all runs share the weights, or a kernel has none, folding the runs into the batch is the
same and costs what one larger batch does. Called by `step.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from crosstune.models.acceleration import vmap_kernels as mapped


class VmapFolding(TorchFunctionMode):
    """Within it, attention and linear layers of mapped tensors are folded."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the folded kernel where there is one."""
        options = dict(kwargs or {})
        if func is linear and mapped.is_batched(args[0]):
            bias = args[2] if len(args) > 2 else options.get("bias")
            return mapped.apply_batched(_multiply, *args[:2], bias)
        if func is scaled_dot_product_attention and mapped.is_batched(args[0]):
            options |= zip(("attn_mask", "dropout_p", "is_causal"), args[3:], strict=False)
            tensors = (*args[:3], options.pop("attn_mask", None))
            return mapped.apply_batched(partial(_attend, **options), *tensors)
        return func(*args, **options)


def _multiply(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return a linear layer of input (runs, …, in), weight and bias of each run or of all."""
    runs = len(input)
    if len(weight) == 1 and (bias is None or len(bias) == 1):
        return linear(input, weight[0], None if bias is None else bias[0])
    rows, weights = input.reshape(runs, -1, input.shape[-1]), weight.mT.expand(runs, -1, -1)
    if bias is None:
        output = torch.bmm(rows, weights)
    else:
        output = torch.baddbmm(bias.unsqueeze(1), rows, weights)
    return output.view(*input.shape[:-1], -1)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **how: Any) -> Tensor:
    """Return attention, which has no weights, of tensors (runs, …)."""
    runs = len(query)
    tensors = (query, key, value) if mask is None else (query, key, value, mask)
    folded: Any = [t.expand(runs, *t.shape[1:]).flatten(0, 1) for t in tensors]
    return scaled_dot_product_attention(*folded, **how).unflatten(0, (runs, -1))
