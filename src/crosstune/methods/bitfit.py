"""BitFit as a peft method: trains the biases of the encoder, and the head whole.

Ben Zaken et al. 2022, https://aclanthology.org/2022.acl-short.1. Importing this module registers
the method with peft. The base biases stay frozen and each adapter holds a difference to them, so a
fresh adapter equals the base model, and several adapters can share one base.
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
from typing_extensions import override

from crosstune.errors import ConfigError, RunError
from crosstune.methods.tuning_method import register
from crosstune.models.architectures import HEAD_NAMES

NAME_LAYERS = "Name the layers to train in target_modules."


@dataclass
class BitFitConfig(PeftConfig):
    """Which biases BitFit trains.

    Attributes:
        target_modules: Names, ends of names, or one pattern of the linear and normalisation layers
            whose bias is trained; None for every bias outside the modules that are saved whole.
        modules_to_save: Modules trained and saved whole, such as the head; for a known task type
            peft adds its usual heads.
    """

    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["BITFIT"]


class BitFitLayer(nn.Module, BaseTunerLayer):
    """A linear or normalisation layer plus the bias differences of the active adapters."""

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
        """Add an adapter: a difference to the bias, zero at the start."""
        self.bitfit_delta[adapter_name] = nn.Parameter(torch.zeros_like(self.bias))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
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
        """Add the differences of the named, else the active, adapters to the base bias.

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
    """Wraps every layer whose bias is trained in a `BitFitLayer`."""

    prefix = "bitfit_"
    tuner_layer_cls = BitFitLayer

    def _check_new_adapter_config(self, config: Any) -> None:
        super()._check_new_adapter_config(config)
        for other in self.peft_config.values():
            if set(_saved_whole(other)) != set(_saved_whole(config)):
                raise ConfigError(
                    "BitFit adapters that share a base model must have the same modules_to_save, "
                    f"not {_saved_whole(other)} and {_saved_whole(config)}."
                )

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = find_biases(self.model, _saved_whole(peft_config))
        return peft_config

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> Any:
        # for "classifier" peft saves every module whose name ends so, also "pre_classifier", but
        # excludes from adaptation only those of exactly that name
        if _is_within(key, _saved_whole(peft_config)):
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
        # peft's own method also copies weight and bias, which a saved head of several layers lacks
        setattr(parent, child_name, new_module)


def find_biases(model: nn.Module, saved: tuple[str, ...] = ()) -> list[str]:
    """Return the names of the modules with a bias, except those that are saved whole.

    A parameter under two names, such as the output bias of masked language models, counts once;
    `saved` holds ends of names.

    Raises:
        ConfigError: there is no bias, one that several layers share, or one of another kind of
            layer, so that training "every bias" would leave some out.
    """
    owners: dict[int, str] = {}
    for name, module in _walk_modules(model):
        if _has_plain_bias(module) and owners.setdefault(id(module.bias), name) != name:
            raise ConfigError(f"{name} and {owners[id(module.bias)]} share one bias. {NAME_LAYERS}")
    unsupported = [
        f"{name}.{bias}"
        for name, module in _walk_modules(model)
        for bias, parameter in module.named_parameters(recurse=False)
        if bias.endswith("bias") and id(parameter) not in owners and not _is_within(name, saved)
    ]
    names = [name for name in owners.values() if not _is_within(name, saved)]
    if unsupported or not names:
        biases = f"also {', '.join(unsupported[:3])}" if unsupported else "none outside its head"
        more = f" and {len(unsupported) - 3} more" if len(unsupported) > 3 else ""
        raise ConfigError(
            "BitFit trains the biases of linear and layer-normalisation modules; "
            f"{type(model).__name__} has {biases}{more}. {NAME_LAYERS}"
        )
    return names


def _walk_modules(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield modules, except those saved whole, named as in a model without adapters."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, BaseTunerLayer):
            yield path, child.get_base_layer()
        elif not isinstance(child, AuxiliaryTrainingWrapper):
            yield path, child
            yield from _walk_modules(child, f"{path}.")


def _has_plain_bias(module: nn.Module) -> bool:
    """Return whether the module's output is a sum whose last term is its bias."""
    return isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None


def _saved_whole(config: Any) -> tuple[str, ...]:
    """Return the ends of the names of the modules that peft trains and saves whole."""
    return (*(config.modules_to_save or ()), *HEAD_NAMES.get(config.task_type, ()))


def _is_within(name: str, ends: tuple[str, ...]) -> bool:
    """Return whether the name of a module, or of one around it, ends in one of these.

    >>> _is_within("bert.pooler.dense", ("pooler",)), _is_within("bert.pooler", ("dense",))
    (True, False)
    """
    parts = name.split(".")
    return bool(ends) and any(
        ".".join(parts[:size]).endswith(ends) for size in range(1, len(parts) + 1)
    )


register(BitFitConfig, BitFitModel)
