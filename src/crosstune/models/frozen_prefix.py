"""The frozen layers below the lowest trainable one, which a method may keep in evaluation mode.

They have no dropout then, as in a linear probe, so that their outputs for a text never change.
"""

from typing import Any

from torch import nn

from crosstune.models.architectures import ARCHITECTURES, find_layers, unwrap_adapter


class FrozenPrefix:
    """The part of an adapted model below its lowest trainable layer; the embeddings come first.

    Attributes:
        layers: how many layers it has.
        modules: its modules, and those that contain its layers.
        cached: whether the outputs of its layers were computed once for each text.
    """

    def __init__(self, model: Any):
        self.layers = 0
        self.modules: list[nn.Module] = []
        self.cached = False
        base = unwrap_adapter(model)
        weights = set(base.parameters())
        if any(weight.requires_grad and weight not in weights for weight in model.parameters()):
            return  # a prompt, which enters below all layers
        encoder = base.base_model
        layers = _find_layers(base)
        containers, units = [], set[nn.Module]()
        for module in encoder.modules():  # from the input to the output
            if module in units:
                continue
            parts = list(module.modules())
            if module is encoder or (module not in layers and layers.intersection(parts)):
                containers.append(module)
            elif any(weight.requires_grad for weight in module.parameters()):
                break
            else:
                units.update(parts)
                self.layers += module in layers
        if units:
            self.modules = [*containers, *units]

    def eval(self) -> None:
        """Put the prefix in evaluation mode; the layers above stay in the mode that they have."""
        for module in self.modules:
            module.training = False


def find_frozen_prefix(model: Any) -> FrozenPrefix | None:
    """Return the prefix that a method keeps in evaluation mode; None: it keeps none so."""
    return getattr(model, "frozen_prefix", None)


def describe_frozen_prefix(model: Any) -> dict[str, Any]:
    """Return the fields of a record about the frozen prefix of a model."""
    prefix = find_frozen_prefix(model)
    if prefix is None:
        return {}
    return {"frozen_prefix": {"layers": prefix.layers, "cached": prefix.cached}}


def _find_layers(model: Any) -> set[nn.Module]:
    """Return the layers of a model; none where its type is not known."""
    config = getattr(model.config, "encoder", model.config)
    if config.model_type not in ARCHITECTURES:
        return set()
    return {model.get_submodule(name) for name in find_layers(model)}
