"""Dropout with masks that are cheap to draw on a CPU; the distribution is that of torch's dropout.

torch draws 32 random bits for each element, one after another, which took a tenth to a third of a
training step on a CPU. Here each draw of 64 bits decides four elements.
"""

from functools import partial

import numpy as np
import torch
from numpy.random import SFC64
from torch import Tensor, nn
from typing_extensions import override

from crosstune.models.acceleration.vmap_kernels import apply_batched, is_batched

LEVELS = 1 << 16  # values of the 16 bits that decide one element


class FastDropout(nn.Dropout):
    """`nn.Dropout` with masks of 16 random bits an element; torch's generator seeds each mask.

    The rate is p rounded to 1 / 65536, and the other elements are scaled by that rate, so that the
    mean is exact. In evaluation, on a GPU, and at the rates 0 and 1 it is torch's dropout.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        return apply_dropout(input, self.p) if self.training else input


def apply_dropout(input: Tensor, p: float) -> Tensor:
    """Return the input with a random share p set to 0 and the rest scaled up."""
    dropped = round(p * LEVELS)
    if input.device.type != "cpu" or not 0 < dropped < LEVELS:
        return nn.functional.dropout(input, p)
    kernel = partial(_drop, dropped=dropped)
    return apply_batched(kernel, input) if is_batched(input) else kernel(input)


def use_fast_dropout(model: nn.Module) -> None:
    """Turn every dropout module of a model into a `FastDropout`, in place."""
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            module.__class__ = FastDropout


def _drop(input: Tensor, dropped: int) -> Tensor:
    return input * _draw_mask(input, dropped)


def _draw_mask(input: Tensor, dropped: int) -> Tensor:
    """Return 0 or the scale for each value of the input."""
    # numpy draws 64 bits in a third of torch's time, and compares 16-bit numbers in an eighth
    seed = int(torch.empty((), dtype=torch.int64).random_())
    drawn = SFC64(seed).random_raw(-(-input.numel() // 4)).view(np.uint16)[: input.numel()]
    mask = torch.from_numpy(drawn >= dropped).view(torch.uint8).view(input.shape)
    return mask.to(input.dtype).mul_(LEVELS / (LEVELS - dropped))
