"""Bottleneck adapters as a peft method: y + s · Up(act(Down(x))) at points of each layer.

Houlsby's, Pfeiffer's, parallel and MAD-X's adapters differ in where they stand. Up is zero at the
start, so a fresh adapter changes nothing. Importing this module registers the method with peft.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType
from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import PreTrainedModel
from typing_extensions import override

from crosstune.errors import ConfigError, suggest
from crosstune.methods.tuning_method import register
from crosstune.models.architectures import (
    ENCODER_EMBEDDINGS,
    architecture_of,
    find_layers,
    find_norms,
)

STYLES = ("houlsby", "pfeiffer", "parallel")
ACTIVATIONS = {"relu": nn.functional.relu, "gelu": nn.functional.gelu}
NO_MERGE = (
    "Bottleneck adapters are not linear and cannot be merged into the base model: keep them, or "
    "take them off with unload()."
)


@dataclass
class BottleneckConfig(PeftConfig):
    """Where adapters stand and how large they are.

    Attributes:
        style: houlsby: after the attention and the feed-forward block, before the residual sums.
            pfeiffer: one a layer, its input the normalised sum of the feed-forward block, its
            output added to that sum; after the block in models without a norm there. parallel:
            beside the feed-forward block.
        size: Width of the bottleneck; or
        reduction: how many times narrower than the layer it is.
        activation: relu or gelu.
        scale: Factor of an adapter's output.
        dropout: Dropout rate inside the bottleneck.
        std: Standard deviation of Down's random weights; None: Kaiming's, as in torch's linear
            layers.
        norms: Whether to train the normalisation layers as well.
        invertible: Whether the embeddings get an invertible adapter, undone before the output.
        above_language: Whether a frozen language adapter works below, as in MAD-X.
        target_modules: Names, or ends of names, in place of those that the style chooses.
        modules_to_save: Modules trained and saved whole, such as the head.
    """

    style: str = "pfeiffer"
    size: int | None = None
    reduction: int | None = None
    activation: str = "relu"
    scale: float = 1.0
    dropout: float = 0.0
    std: float | None = None
    norms: bool = False
    invertible: bool = False
    above_language: bool = False
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["BOTTLENECK"]
        for name, allowed in (("style", STYLES), ("activation", tuple(ACTIVATIONS))):
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"method.peft.{name}={value}. {suggest(value, allowed)}")
        if (self.size is None) == (self.reduction is None):
            raise ConfigError(
                "method.peft: give one of size and reduction, and null for the other."
            )
        for name, least in (("size", 1), ("reduction", 1), ("dropout", 0), ("std", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"method.peft.{name}={value}: must be at least {least}.")
        if self.norms and self.style == "pfeiffer":
            raise ConfigError(
                "method.peft.norms: pfeiffer's adapters need those norms as they are."
            )
        if self.dropout >= 1:
            raise ConfigError(f"method.peft.dropout={self.dropout}: must be below 1.")

    def bottleneck_size(self, width: int) -> int:
        """Return the width of the bottleneck in a layer of this width."""
        return self.size or max(1, width // (self.reduction or 1))


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """Adapters after a module: y + f(y), one adapter after another.

    `language_adapter` names the frozen adapter that works before the active ones.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: BottleneckConfig,
        reference: Tensor,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.width = reference.shape[0]
        self.device = reference.device
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ModuleDict())
        self.configs: dict[str, BottleneckConfig] = {}
        self.language_adapter = ""
        self.merged_adapters = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter; a fresh one changes nothing."""
        self.configs[adapter_name] = config
        # the model may have moved since the first adapter was added
        self.device = next((p.device for p in self.parameters()), self.device)
        self.add_matrices(adapter_name, config)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def add_matrices(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add the two matrices of an adapter."""
        size = config.bottleneck_size(self.width)
        self._add_pair("bottleneck", adapter_name, (self.width, size, self.width))

    def _add_pair(self, pair: str, adapter_name: str, sizes: tuple[int, int, int]) -> None:
        width, size, width_out = sizes
        std = self.configs[adapter_name].std
        down = nn.Linear(width, size, device=self.device)
        up = nn.Linear(size, width_out, device=self.device)
        if std is not None:  # cut at two deviations, as in the code of Houlsby et al.
            nn.init.trunc_normal_(down.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        getattr(self, f"{pair}_down")[adapter_name] = down
        getattr(self, f"{pair}_up")[adapter_name] = up

    def enabled_adapters(self) -> list[str]:
        """Return the adapters that this layer applies, in order."""
        names = [] if self.disable_adapters else [self.language_adapter, *self.active_adapters]
        return [name for name in names if name in getattr(self, self.adapter_layer_names[0])]

    def apply_adapter(self, name: str, x: Tensor, pair: str = "bottleneck") -> Tensor:
        """Return f(x) of an adapter."""
        config = self.configs[name]
        down, up = getattr(self, f"{pair}_down")[name], getattr(self, f"{pair}_up")[name]
        inner = ACTIVATIONS[config.activation](down(x.to(down.weight.dtype)))
        inner = dropout(inner, config.dropout, self.training)
        return (config.scale * up(inner)).to(x.dtype)

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = self.base_layer(x, *args, **kwargs)
        for name in self.enabled_adapters():
            y = y + self.apply_adapter(name, y)
        return y

    @override
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ConfigError(NO_MERGE)

    def remove_hooks(self) -> None:
        """Remove the hooks that this layer has on other modules."""


class AroundNorm(BottleneckLayer):
    """Adapters before a normalisation N of a sum s: N(s + f(N(s)))."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        for name in self.enabled_adapters():
            x = x + self.apply_adapter(name, self.base_layer(x))
        return self.base_layer(x)


class ParallelInput(BottleneckLayer):
    """Adapters beside a block: block(x) + f(x)."""

    def capture_input(self, first: nn.Module) -> None:
        """Capture x, the input of the block, where the block's first matrix reads it."""
        self.captured: list[Tensor] = []
        self.handle = first.register_forward_pre_hook(self._capture)

    def _capture(self, first: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.captured = [args[0]]

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = self.base_layer(x, *args, **kwargs)
        (block_input,), self.captured = self.captured, []
        for name in self.enabled_adapters():
            y = y + self.apply_adapter(name, block_input)
        return y

    @override
    def remove_hooks(self) -> None:
        self.handle.remove()


class InvertibleAdapter(BottleneckLayer):
    """Invertible adapter of embeddings x = [a; b]: a' = a + F(b), b' = b + G(a').

    NICE (Dinh et al. 2015, https://arxiv.org/abs/1410.8516), as in section 3.1.3 of MAD-X.
    """

    adapter_layer_names = (
        "bottleneck_first_down",
        "bottleneck_first_up",
        "bottleneck_second_down",
        "bottleneck_second_up",
    )

    @override
    def add_matrices(self, adapter_name: str, config: BottleneckConfig) -> None:
        half = self.width // 2
        size, other_half = config.bottleneck_size(half), self.width - half
        self._add_pair("bottleneck_first", adapter_name, (other_half, size, half))
        self._add_pair("bottleneck_second", adapter_name, (half, size, other_half))

    @override
    def forward(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        for name in self.enabled_adapters():
            a, b = y.tensor_split([self.width // 2], dim=-1)
            a = a + self.apply_adapter(name, b, "bottleneck_first")
            y = torch.cat([a, b + self.apply_adapter(name, a, "bottleneck_second")], dim=-1)
        return y

    def invert(self, y: Tensor) -> Tensor:
        """Return the embeddings whose adapted form is y."""
        for name in reversed(self.enabled_adapters()):
            a, b = y.tensor_split([self.width // 2], dim=-1)
            b = b - self.apply_adapter(name, a, "bottleneck_second")
            y = torch.cat([a - self.apply_adapter(name, b, "bottleneck_first"), b], dim=-1)
        return y

    def invert_before(self, output: nn.Module) -> None:
        """Invert the adapter in the input of the output embeddings."""
        self.handle = output.register_forward_pre_hook(self._invert_input)

    def _invert_input(self, output: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (self.invert(args[0]),)

    @override
    def remove_hooks(self) -> None:
        if hasattr(self, "handle"):
            self.handle.remove()


class BottleneckModel(BaseTuner):
    """Wraps every module that the style chooses in a layer of adapters."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = find_insertion_points(self.model, peft_config)
        if peft_config.norms:
            saved = peft_config.modules_to_save or []
            peft_config.modules_to_save = [*saved, *_find_norms_outside(self.model, saved)]
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
        layer_class = _choose_layer_class(key, target, peft_config)
        layer = layer_class(target, adapter_name, peft_config, _find_reference(target, parent))
        if isinstance(layer, ParallelInput):
            layer.capture_input(_find_first_matrix(self.model, key))
        if isinstance(layer, InvertibleAdapter):
            words, output = self.model.get_input_embeddings(), self.model.get_output_embeddings()
            if output is not None and output.weight is words.weight:
                layer.invert_before(output)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # peft's own method needs weights, which dropout lacks
        if isinstance(child, BottleneckLayer):
            child.remove_hooks()
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise ConfigError(NO_MERGE)


def find_insertion_points(model: PreTrainedModel, config: BottleneckConfig) -> list[str]:
    """Return the full names of the modules that get adapters, from the input to the output.

    Raises:
        ConfigError: the layers of the model are not known, or it has no module for an invertible
            adapter.
    """
    architecture = architecture_of(model)
    pattern = architecture.feedforward_block
    if config.style == "houlsby":
        pattern = f"{architecture.attention_block}|{architecture.feedforward_block}"
    elif config.style == "pfeiffer" and architecture.block_norm:
        pattern = architecture.block_norm
    names = [
        f"{layer}.{name}"
        for layer in find_layers(model)
        for name, _ in model.get_submodule(layer).named_modules()
        if re.fullmatch(pattern, name)
    ]
    if not config.invertible:
        return names
    embeddings = [name for name, _ in model.named_modules() if name.endswith(ENCODER_EMBEDDINGS)]
    if len(embeddings) != 1:
        raise ConfigError(
            f"method.peft.invertible: not for {model.config.model_type}, but for the kinds of BERT "
            "with no decoder."
        )
    return embeddings + names


def _choose_layer_class(
    name: str, target: nn.Module, config: BottleneckConfig
) -> type[BottleneckLayer]:
    if name.endswith(ENCODER_EMBEDDINGS):
        return InvertibleAdapter
    if config.style == "parallel":
        return ParallelInput
    return AroundNorm if isinstance(target, nn.LayerNorm) else BottleneckLayer


def _find_reference(target: nn.Module, parent: nn.Module) -> nn.Parameter:
    """Return a parameter whose first size and device are those of a module's output.

    It is the last vector (bias, norm) in the module, or the last matrix where there is none; for
    dropout, which has no parameters, it is taken from the parent.
    """
    parameters = list(target.parameters()) or list(parent.parameters())
    return ([parameter for parameter in parameters if parameter.ndim == 1] or parameters)[-1]


def _find_first_matrix(model: PreTrainedModel, end: str) -> nn.Module:
    """Return the first matrix of the feed-forward block that ends in this module."""
    up = architecture_of(model).up
    layer = next(name for name in find_layers(model) if end.startswith(f"{name}."))
    modules = model.get_submodule(layer).named_modules()
    return next(module for name, module in modules if re.fullmatch(up, name))


def _find_norms_outside(model: nn.Module, saved: list[str]) -> list[str]:
    """Return the norms outside the modules saved whole, named as in a model without adapters."""
    names = [name for name in find_norms(model, saved) if ".modules_to_save." not in name]
    return [name.removesuffix(".original_module") for name in names]


register(BottleneckConfig, BottleneckModel)
