"""Tuning methods: a model in, the same model adapted out.

peft holds the methods; those that it lacks are registered with it, one file each. Full fine-tuning
is the absence of a peft config.
"""

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, PromptLearningConfig, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from transformers import PreTrainedModel

from crosstune.config.instantiate import instantiate
from crosstune.config.schema import FrozenLayers, Method
from crosstune.errors import ConfigError, one_line
from crosstune.methods.madx import load_language_adapters
from crosstune.methods.prompts import install_prompt_hooks, set_prompt_sizes
from crosstune.methods.tuning_method import TuningMethod, find_tuning_method
from crosstune.models.architectures import choose_targets, find_layers
from crosstune.models.frozen_prefix import FrozenPrefix
from crosstune.models.load import LoadedModel

__all__ = ["TuningMethod", "adapt", "find_tuning_method", "head_only"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")  # defines a TuningMethod or registers with peft


def adapt(
    loaded: LoadedModel, method: Method, peft_type: str, allow: Sequence[str]
) -> PreTrainedModel | PeftModel:
    """Return the model with only the method's own parameters and the task head trainable.

    Raises:
        ConfigError: the method does not fit the model.
    """
    if method.peft is None:
        return loaded.model
    saved = loaded.head + _last_layers(loaded.model, method.layers)
    arguments: dict[str, Any] = {"task_type": peft_type, "modules_to_save": saved}
    node = dict(method.peft)
    if node.get("target_modules") is None and method.targets is not None:
        node.pop("target_modules", None)
        arguments |= choose_targets(loaded.model, method.targets, saved)
    config: Any = instantiate(node, "method.peft", allow, **arguments)
    if not isinstance(config, PeftConfig):
        raise ConfigError(f"method.peft: {node['_target_']} is no peft config.")
    if isinstance(config, PromptLearningConfig):
        set_prompt_sizes(loaded.model, config)
    try:
        adapted: Any = get_peft_model(loaded.model, config)
    except ValueError as error:
        raise ConfigError(f"method={method.name} on this encoder: {one_line(error)}") from error
    adapted = install_prompt_hooks(adapted)
    load_language_adapters(adapted, method.language_adapters or {})
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise ConfigError(
            f"method={method.name}: {loaded.model.config.model_type} has no head of its own to "
            "train, because its output layer shares the embeddings. Take a method that adds "
            "weights (lora), or method=full."
        )
    if method.frozen_layers is FrozenLayers.evaluation:
        adapted.frozen_prefix = FrozenPrefix(adapted)
    return adapted.train()


def _last_layers(model: PreTrainedModel, count: int) -> list[str]:
    if count == 0:
        return []
    layers = find_layers(model)
    if not 0 < count <= len(layers):
        raise ConfigError(f"method.layers={count}: the model has {len(layers)} layers.")
    return layers[-count:]


def head_only(task_type: str | None = None, modules_to_save: list[str] | None = None) -> LoraConfig:
    """Return a peft config that adds no weights and trains the task head alone."""
    return LoraConfig(
        target_modules=DUMMY_TARGET_MODULES, task_type=task_type, modules_to_save=modules_to_save
    )
