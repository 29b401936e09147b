"""A model's layers compiled by torch while it is trained; evaluation stays what it is.

All layers share the code of one, for sizes of any kind, so that compiling takes as long for twelve
as for one. Called by `learner.py`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer  # what is a layer, by its type

from crosstune.errors import ConfigError


class Compiled:
    """A model whose layers are compiled while gradients are asked for, until `end`."""

    def __init__(self, model: nn.Module):
        """Compile all layers, each at its first pass.

        Raises:
            ConfigError: the model has none that are known as such.
        """
        self.layers: list[Any] = [
            module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
        ]
        if not self.layers:
            raise ConfigError(
                f"trainer.compile=true: transformers marks no part of a {type(model).__name__} as "
                "a layer. Train it with trainer.compile=false."
            )
        for layer in self.layers:
            layer.forward = _choose(torch.compile(layer.forward, dynamic=True), layer.forward)

    def end(self) -> None:
        """Leave the model as it was."""
        for layer in self.layers:
            del layer.forward


def _choose(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **options: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*args, **options)

    return forward
