"""BitFit as a peft method: train the biases of the encoder and, whole, the head.

Ben Zaken et al. 2022, https://aclanthology.org/2022.acl-short.1. Importing this module registers
the method, so that `get_peft_model` and `PeftModel.from_pretrained` know it. The base biases stay
frozen; each adapter holds what it adds to them, so a fresh adapter is the base model, and several
adapters can share one base.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import (
    BaseTuner,
    BaseTunerLayer,
    check_adapters_to_merge,
    check_target_module_exists,
)
from peft.utils import AuxiliaryTrainingWrapper, PeftType
from torch import Tensor, nn

from crosstune.errors import ConfigError, RunError
from crosstune.methods.registry import register
from crosstune.models.architectures import HEAD_NAMES

CHOOSE = "Name the layers to train in target_modules."


@dataclass
class BitFitConfig(PeftConfig):
    """Say which biases BitFit trains.

    Attributes:
        target_modules: Names, ends of names, or one pattern of the linear and normalisation layers
            whose bias is trained; None for every bias outside the modules that are saved whole.
        modules_to_save: Modules trained and saved whole, as the head; for a known task type peft
            adds its usual heads.
    """

    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["BITFIT"]


class BitFitLayer(nn.Module, BaseTunerLayer):
    """Add the active adapters' bias changes to the output of a linear or normalisation layer."""

    adapter_layer_names = ("bitfit_delta",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BitFitConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bitfit_delta = nn.ParameterDict()
        self.base_bias: Tensor | None = None  # the bias before the first merge
        self.merged_adapters = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BitFitConfig) -> None:
        """Give an adapter its change of the bias, zero at the start."""
        self.bitfit_delta[adapter_name] = nn.Parameter(torch.zeros_like(self.bias))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer's output plus the changes of the active adapters."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        output = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return output
        for name in self.active_adapters:
            if name in self.bitfit_delta:
                output = output + self.bitfit_delta[name].to(output.dtype)
        return output

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the changes of the named, else the active, adapters to the base bias.

        In place, so a bias that two modules share stays shared.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.bitfit_delta:
                continue
            delta = self.bitfit_delta[name]
            if safe_merge and not torch.isfinite(self.bias + delta).all():
                raise RunError(f"Adapter {name} is not merged: a bias would not be finite.")
            if self.base_bias is None:
                self.base_bias = self.bias.detach().clone()
            self.bias.add_(delta)
            self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the base bias to the last bit."""
        if self.base_bias is not None:
            self.bias.copy_(self.base_bias)
        self.base_bias = None
        self.merged_adapters = []


class BitFitModel(BaseTuner):
    """Put a `BitFitLayer` around every layer whose bias is trained."""

    prefix = "bitfit_"
    tuner_layer_cls = BitFitLayer

    def _check_new_adapter_config(self, config: Any) -> None:
        super()._check_new_adapter_config(config)
        for other in self.peft_config.values():
            if set(_trained_whole(other)) != set(_trained_whole(config)):
                raise ConfigError(
                    "BitFit adapters that share a base model must have the same modules_to_save, "
                    f"not {_trained_whole(other)} and {_trained_whole(config)}."
                )

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = find_biases(self.model, _trained_whole(peft_config))
        return peft_config

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> Any:
        # peft saves every module whose name ends so, "pre_classifier" too for "classifier", but
        # spares from adaptation only those of exactly that name
        if _lies_within(key, _trained_whole(peft_config)):
            return False
        return check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        *_: Any,
        **__: Any,
    ) -> None:
        if isinstance(target, BitFitLayer):
            target.update_layer(adapter_name, peft_config)
        elif _has_plain_bias(target):
            layer = BitFitLayer(target, adapter_name, peft_config)
            self._replace_module(parent, target_name, layer, target)
        else:
            raise ConfigError(
                f"BitFit cannot train {target_name}, a {type(target).__name__}: target_modules may "
                "name linear and layer-normalisation modules that have a bias."
            )

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # peft's own also copies weight and bias, which a saved head of several layers lacks
        setattr(parent, child_name, new_module)


def find_biases(model: nn.Module, whole: tuple[str, ...] = ()) -> list[str]:
    """Return the names of the modules with a bias, but for those that are trained whole.

    A parameter under two names, such as the output bias of masked language models, counts once;
    `whole` holds ends of names.

    Raises:
        ConfigError: there is no bias, one that several layers share, or one of another kind of
            layer, so that training "every bias" would leave some out.
    """
    owners: dict[int, str] = {}
    for name, module in _walk(model):
        if _has_plain_bias(module) and owners.setdefault(id(module.bias), name) != name:
            raise ConfigError(f"{name} and {owners[id(module.bias)]} share one bias. {CHOOSE}")
    others = [
        f"{name}.{own}"
        for name, module in _walk(model)
        for own, parameter in module.named_parameters(recurse=False)
        if own.endswith("bias") and id(parameter) not in owners and not _lies_within(name, whole)
    ]
    names = [name for name in owners.values() if not _lies_within(name, whole)]
    if others or not names:
        found = f"also {', '.join(others[:3])}" if others else "none outside its head"
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigError(
            "BitFit trains the biases of linear and layer-normalisation modules; "
            f"{type(model).__name__} has {found}{more}. {CHOOSE}"
        )
    return names


def _walk(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield modules with their names as if no adapter were there, but none that is saved whole."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, BaseTunerLayer):
            yield path, child.get_base_layer()
        elif not isinstance(child, AuxiliaryTrainingWrapper):
            yield path, child
            yield from _walk(child, f"{path}.")


def _has_plain_bias(module: nn.Module) -> bool:
    """Whether the module's output is a sum whose last term is its bias."""
    return isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None


def _trained_whole(config: Any) -> tuple[str, ...]:
    """Return the ends of the names of the modules that peft trains and saves whole."""
    return (*(config.modules_to_save or ()), *HEAD_NAMES.get(config.task_type, ()))


def _lies_within(name: str, ends: tuple[str, ...]) -> bool:
    """Whether a module, or one that it is part of, has a name that ends in one of these.

    >>> _lies_within("bert.pooler.dense", ("pooler",)), _lies_within("bert.pooler", ("dense",))
    (True, False)
    """
    parts = name.split(".")
    return bool(ends) and any(
        ".".join(parts[:size]).endswith(ends) for size in range(1, len(parts) + 1)
    )


register(BitFitConfig, BitFitModel)
