"""Apply kernels to the tensors behind `torch.func.vmap`, past its batching rules.

An `autograd.Function` with a `vmap` method does the same, but takes a quarter of a millisecond a
call, longer than the kernels of an encoder on a GPU. This takes a fiftieth of that. It uses private
functions of torch, so a test compares it with `vmap`'s own rules.
"""

from collections.abc import Callable

from torch import Tensor
from torch._C._functorch import _add_batch_dim, _unwrap_batched, current_level, is_batchedtensor
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack


def is_batched(tensor: Tensor) -> bool:
    """Return whether `vmap` maps over a dimension of a tensor."""
    return is_batchedtensor(tensor)


def apply_batched(kernel: Callable[..., Tensor], *operands: Tensor | None) -> Tensor:
    """Apply a kernel to tensors, at least one of them batched by `vmap`; return a batched tensor.

    The kernel gets the full tensors with the mapped dimension first, which is 1 where a tensor is
    not batched, and must return such a tensor.
    """
    level = current_level()
    full = [None if operand is None else _unwrap(operand, level) for operand in operands]
    with temporarily_pop_interpreter_stack():
        output = kernel(*full)
    return _add_batch_dim(output, 0, level)


def _unwrap(tensor: Tensor, level: int) -> Tensor:
    full, dim = _unwrap_batched(tensor, level)
    return full.unsqueeze(0) if dim is None else full.movedim(dim, 0)
