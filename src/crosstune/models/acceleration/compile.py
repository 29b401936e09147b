"""Compile a model's layers with torch.compile for training; evaluation runs the plain layers.

All layers share the code of one, for batches of any size, so that compiling twelve layers takes as
long as compiling one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from crosstune.errors import ConfigError


class Compiled:
    """Runs compiled layers where gradients are computed, until `end`."""

    def __init__(self, model: nn.Module):
        """Compile all layers, each at its first pass.

        Raises:
            ConfigError: transformers marks none of the modules as a layer.
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
        """Restore the layers."""
        for layer in self.layers:
            del layer.forward


def _choose(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **options: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*args, **options)

    return forward
