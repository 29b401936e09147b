"""Kernels on tensors that `torch.func.vmap` maps over, without its rules for them.

An `autograd.Function` with a `vmap` of its own does the same, and takes a quarter of a millisecond
to do it: over all layers of an encoder longer than its kernels on a GPU. Here it takes a fiftieth
of that, by functions that torch keeps for itself, so a test holds them against `vmap`'s own rules.
Called by `dropout.py` and `fused/folding.py`.
"""

from collections.abc import Callable

from torch import Tensor
from torch._C._functorch import _add_batch_dim, _unwrap_batched, current_level, is_batchedtensor
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack


def is_batched(tensor: Tensor) -> bool:
    """Return whether `vmap` maps over a dimension of a tensor."""
    return is_batchedtensor(tensor)


def apply_batched(kernel: Callable[..., Tensor], *operands: Tensor | None) -> Tensor:
    """Return what a kernel makes of tensors, at least one of them mapped, as a mapped tensor.

    The kernel gets whole tensors, the runs in the first dimension, and returns such a tensor; those
    that are the same for all runs come with a first dimension of 1.
    """
    level = current_level()
    whole = [None if operand is None else _lead(operand, level) for operand in operands]
    with temporarily_pop_interpreter_stack():
        made = kernel(*whole)
    return _add_batch_dim(made, 0, level)


def _lead(tensor: Tensor, level: int) -> Tensor:
    bare, dim = _unwrap_batched(tensor, level)
    return bare.unsqueeze(0) if dim is None else bare.movedim(dim, 0)
