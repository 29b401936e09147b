"""Numbers of a model that are no weights, and in which runs that are trained together may differ.

They are LoRA's scale and the rates of dropout. Called by `company.py`, which reads them, and by
`step.py`, which gives each run its own in a pass that all share.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

Place = tuple[str, str]  # a module, and the adapter in it that has the scale; "" for dropout


class RatedDropout(nn.Dropout):
    """Dropout whose rate is a tensor, so that it may differ between runs."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a random share set to 0 and the rest scaled up."""
        kept = torch.rand_like(input) >= self.p
        return input * kept / (1.0 - self.p)


def read_settings(model: nn.Module) -> dict[Place, float]:
    """Return the numbers of a model by place."""
    found: dict[Place, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            found |= {(name, adapter): scale for adapter, scale in module.scaling.items()}
        elif isinstance(module, nn.Dropout):
            found[name, ""] = module.p
    return found


def differing(each: list[dict[Place, float]]) -> dict[Place, list[float]]:
    """Return the numbers that are not the same in all models, one a model.

    >>> differing([{("a", ""): 0.1, ("b", "default"): 2.0}, {("a", ""): 0.1, ("b", "default"): 4}])
    {('b', 'default'): [2.0, 4]}
    """
    values = {place: [own[place] for own in each] for place in each[0]}
    return {place: own for place, own in values.items() if len(set(own)) > 1}


@contextmanager
def using(model: nn.Module, settings: Mapping[Place, Tensor]) -> Iterator[None]:
    """Let a model have these numbers for a while, in training."""
    modules = {place: model.get_submodule(place[0]) for place in settings}
    before = {place: (type(module), dict(vars(module))) for place, module in modules.items()}
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
        for place, (kind, state) in before.items():
            modules[place].__class__ = kind
            vars(modules[place]).update(state)
