"""Bottleneck adapters as a peft method: Houlsby's, Pfeiffer's, parallel ones, and those of MAD-X.

Where in each type of model the adapters of `adapters.py` stand. Importing this module registers the
method, so that `get_peft_model` and `PeftModel.from_pretrained` know it. What adapters of languages
are for is in `madx.py`.
"""

import re
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from torch import nn
from transformers import PreTrainedModel

from crosstune.errors import ConfigError
from crosstune.methods.adapters import (
    NO_MERGE,
    AroundNorm,
    BottleneckConfig,
    BottleneckLayer,
    InvertibleAdapter,
    ParallelInput,
)
from crosstune.methods.registry import register
from crosstune.models.architectures import (
    ENCODER_EMBEDDINGS,
    architecture_of,
    find_layers,
    find_norms,
)

__all__ = ["BottleneckConfig", "BottleneckModel", "find_insertion_points"]


class BottleneckModel(BaseTuner):
    """Put a layer of adapters at every place that the style says."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = find_insertion_points(self.model, peft_config)
        if peft_config.norms:
            whole = peft_config.modules_to_save or []
            peft_config.modules_to_save = [*whole, *_norms_outside(self.model, whole)]
        return peft_config

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        *_: Any,
        **names: Any,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        key = names["current_key"]  # the full name
        kind = _kind_of(key, target, peft_config)
        layer = kind(target, adapter_name, peft_config, _reference(target, parent))
        if isinstance(layer, ParallelInput):
            layer.listen(_first_matrix(self.model, key))
        if isinstance(layer, InvertibleAdapter):
            words, output = self.model.get_input_embeddings(), self.model.get_output_embeddings()
            if output is not None and output.weight is words.weight:
                layer.undo_before(output)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # peft's own asks for weights, which dropout lacks
        if isinstance(child, BottleneckLayer):
            child.unhook()
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise ConfigError(NO_MERGE)


def find_insertion_points(model: PreTrainedModel, config: BottleneckConfig) -> list[str]:
    """Return the full names of the modules that get adapters, from the input to the output.

    Raises:
        ConfigError: the layers of the model are not known, or it has no place for an invertible
            adapter.
    """
    architecture = architecture_of(model)
    inside = architecture.feedforward_block
    if config.style == "houlsby":
        inside = f"{architecture.attention_block}|{architecture.feedforward_block}"
    elif config.style == "pfeiffer" and architecture.block_norm:
        inside = architecture.block_norm
    places = [
        f"{layer}.{name}"
        for layer in find_layers(model)
        for name, _ in model.get_submodule(layer).named_modules()
        if re.fullmatch(inside, name)
    ]
    if not config.invertible:
        return places
    embeddings = [name for name, _ in model.named_modules() if name.endswith(ENCODER_EMBEDDINGS)]
    if len(embeddings) != 1:
        raise ConfigError(
            f"method.peft.invertible: not for {model.config.model_type}, but for the kinds of BERT "
            "with no decoder."
        )
    return embeddings + places


def _kind_of(name: str, target: nn.Module, config: BottleneckConfig) -> type[BottleneckLayer]:
    if name.endswith(ENCODER_EMBEDDINGS):
        return InvertibleAdapter
    if config.style == "parallel":
        return ParallelInput
    return AroundNorm if isinstance(target, nn.LayerNorm) else BottleneckLayer


def _reference(target: nn.Module, parent: nn.Module) -> nn.Parameter:
    """Return a parameter with an entry for each number that leaves a module, and on its device.

    It is the last vector (bias, norm), or row of matrices where there is none, in the module; for
    dropout, which has nothing, in what holds it.
    """
    own = list(target.parameters()) or list(parent.parameters())
    return ([parameter for parameter in own if parameter.ndim == 1] or own)[-1]


def _first_matrix(model: PreTrainedModel, end: str) -> nn.Module:
    """Return the first matrix of the feed-forward block that has this end."""
    up = architecture_of(model).up
    layer = next(name for name in find_layers(model) if end.startswith(f"{name}."))
    inside = model.get_submodule(layer).named_modules()
    return next(module for name, module in inside if re.fullmatch(up, name))


def _norms_outside(model: nn.Module, whole: list[str]) -> list[str]:
    """Return the norms that are not trained whole already, as if no adapter were there."""
    names = [name for name in find_norms(model, whole) if ".modules_to_save." not in name]
    return [name.removesuffix(".original_module") for name in names]


register(BottleneckConfig, BottleneckModel)
