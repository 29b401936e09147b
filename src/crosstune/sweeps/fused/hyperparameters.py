"""Numbers in a model that are not weights and may differ within a group: LoRA scales and dropout.

A group shares one pass through one model; `override_settings` gives each run its own numbers in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from typing_extensions import override

SettingKey = tuple[str, str]  # a module, and the adapter whose scale it is; "" for dropout


class RatedDropout(nn.Dropout):
    """Dropout whose rate is a tensor, so that it can be mapped over runs."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        keep = torch.rand_like(input) >= self.p
        return input * keep / (1.0 - self.p)


def read_settings(model: nn.Module) -> dict[SettingKey, float]:
    """Return the LoRA scales and dropout rates of a model."""
    settings: dict[SettingKey, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            settings |= {(name, adapter): scale for adapter, scale in module.scaling.items()}
        elif isinstance(module, nn.Dropout):
            settings[name, ""] = module.p
    return settings


def find_differences(
    settings: Sequence[Mapping[SettingKey, float]],
) -> dict[SettingKey, list[float]]:
    """Return the settings that are not the same in all models, with a value for each model.

    >>> one = {("a", ""): 0.1, ("b", "default"): 2.0}
    >>> find_differences([one, {**one, ("b", "default"): 4}])
    {('b', 'default'): [2.0, 4]}
    """
    values = {key: [each[key] for each in settings] for key in settings[0]}
    return {key: column for key, column in values.items() if len(set(column)) > 1}


@contextmanager
def override_settings(model: nn.Module, settings: Mapping[SettingKey, Tensor]) -> Iterator[None]:
    """Replace settings of a model in training mode, and restore them at the end."""
    modules = {key: model.get_submodule(key[0]) for key in settings}
    before = {key: (type(module), dict(vars(module))) for key, module in modules.items()}
    try:
        for (name, adapter), value in settings.items():
            module: Any = modules[name, adapter]
            if adapter:
                module.scaling = {**module.scaling, adapter: value}
            else:
                module.__class__ = RatedDropout
                module.p = value
        yield
    finally:
        for key, (kind, state) in before.items():
            modules[key].__class__ = kind
            vars(modules[key]).update(state)
