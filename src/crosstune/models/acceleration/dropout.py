"""Dropout whose mask costs little on a CPU; the distribution is that of torch's own.

torch draws one random number of 32 bits for each value of a mask, one after another: on a CPU that
took a tenth to a third of a training step. Here each draw of 64 bits decides four values. Called by
`learner.py` and `unpadding.py`.
"""

from functools import partial

import numpy as np
import torch
from numpy.random import SFC64
from torch import Tensor, nn

from crosstune.models.acceleration import vmap_kernels as mapped

LEVELS = 1 << 16  # values of the 16 bits that decide on one element


class FastDropout(nn.Dropout):
    """`nn.Dropout` with masks of 16 random bits an element; torch's own generator seeds each.

    The rate is p to the nearest 1 / 65536, and what is kept is scaled by what that rate leaves, so
    the mean stays exact. In evaluation, on a GPU and at the rates 0 and 1 it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a random share set to 0 and the rest scaled up."""
        return apply_dropout(input, self.p) if self.training else input


def apply_dropout(input: Tensor, p: float) -> Tensor:
    """Return the input with a random share p set to 0 and the rest scaled up."""
    dropped = round(p * LEVELS)
    if input.device.type != "cpu" or not 0 < dropped < LEVELS:
        return nn.functional.dropout(input, p)
    kernel = partial(_drop, dropped=dropped)
    return mapped.apply_batched(kernel, input) if mapped.is_batched(input) else kernel(input)


def use_fast_dropout(model: nn.Module) -> None:
    """Let every dropout of a model be a cheap one; weights, names and hooks stay."""
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = FastDropout


def _drop(input: Tensor, dropped: int) -> Tensor:
    return input * _draw_mask(input, dropped)


def _draw_mask(input: Tensor, dropped: int) -> Tensor:
    """Return 0 or the scale for each value of the input."""
    # numpy's generator draws 64 bits in a third of torch's time, and compares 16-bit numbers in an
    # eighth
    seed = int(torch.empty((), dtype=torch.int64).random_())
    drawn = SFC64(seed).random_raw(-(-input.numel() // 4)).view(np.uint16)[: input.numel()]
    kept = torch.from_numpy(drawn >= dropped).view(torch.uint8).view(input.shape)
    return kept.to(input.dtype).mul_(LEVELS / (LEVELS - dropped))
