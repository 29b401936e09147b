"""Dropout whose mask costs little on a CPU; the distribution is that of torch's own.

torch draws one random number of 32 bits for each value of a mask, one after another: on a CPU that
took a tenth to a third of a training step. Here each draw of 64 bits decides four values. Called by
`learner.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # values of the 16 bits that decide on one element


class CheapDropout(nn.Dropout):
    """`nn.Dropout` with masks of 16 random bits an element, from torch's own generator.

    The rate is p to the nearest 1 / 65536, and what is kept is scaled by what that rate leaves, so
    the mean stays exact. In evaluation, on a GPU and at the rates 0 and 1 it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a random share set to 0 and the rest scaled up."""
        dropped = round(self.p * LEVELS)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < LEVELS:
            return super().forward(input)
        return _Drop.apply(input, dropped)[0]


def make_cheap(model: nn.Module) -> None:
    """Let every dropout of a model be a cheap one; weights, names and hooks stay."""
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = CheapDropout


class _Drop(torch.autograd.Function):
    """Returns the input with some of it dropped, and what was kept: one byte an element."""

    @staticmethod
    def forward(input: Tensor, dropped: int) -> tuple[Tensor, Tensor]:
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: input.numel()].numpy()
        # numpy compares 16-bit numbers eight times as fast as torch
        kept = torch.from_numpy(drawn >= dropped - LEVELS // 2).view(torch.uint8).view(input.shape)
        return input * kept.to(input.dtype).mul_(_scale(dropped)), kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])  # where torch keeps four bytes an element
        ctx.scale = _scale(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grads[0] * kept.to(grads[0].dtype).mul_(ctx.scale), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], *operands: Any) -> Any:
        return _Drop.apply(*operands), (in_dims[0], in_dims[0])  # a mask of each one's own


def _scale(dropped: int) -> float:
    return LEVELS / (LEVELS - dropped)
