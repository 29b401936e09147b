"""The layers of bottleneck adapters, and what one says of itself: y + s · Up(act(Down(x))).

Up is zero at the start, so a fresh adapter changes nothing. A layer holds the adapters of one
place, by name. Where in a model the places are is not known here, but in `bottleneck.py`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import PeftType
from torch import Tensor, nn
from torch.nn.functional import dropout

from crosstune.errors import ConfigError, suggest

STYLES = ("houlsby", "pfeiffer", "parallel")
ACTIVATIONS = {"relu": nn.functional.relu, "gelu": nn.functional.gelu}


NO_MERGE = (
    "Bottleneck adapters are not linear and cannot be merged into the base model: keep them, or "
    "take them off with unload()."
)


@dataclass
class BottleneckConfig(PeftConfig):
    """Say where adapters are and how big.

    Attributes:
        style: houlsby: behind attention and feed-forward block, before the sums. pfeiffer: one a
            layer, fed with the normalised sum of the feed-forward block, added to that sum; where a
            model has no normalisation there, behind the block. parallel: beside the block.
        size: Numbers in the bottleneck; or
        reduction: how many times more the layer has.
        activation: relu or gelu.
        scale: What an adapter's output is multiplied by.
        dropout: Share of the bottleneck's numbers dropped in training.
        std: Deviation of Down's random weights; None: Kaiming's, as in torch's linear layers.
        norms: Whether to train the normalisation layers as well.
        invertible: Whether the embeddings get an invertible adapter, undone before the output.
        above_language: Whether a frozen language adapter is to work below, as in MAD-X.
        target_modules: Names, or ends of names, in place of those that the style says.
        modules_to_save: Modules trained and saved whole, as the head.
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
            if (said := getattr(self, name)) not in allowed:
                raise ConfigError(f"method.peft.{name}={said}. {suggest(said, allowed)}")
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

    def size_of(self, width: int) -> int:
        """Return the size of the bottleneck in a layer of this width."""
        return self.size or max(1, width // (self.reduction or 1))


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """Put adapters behind a module: y + f(y), for one after another.

    `below` names the adapter that works first, below the active ones: a frozen language adapter.
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
        self.below = ""
        self.merged_adapters = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Give an adapter its matrices; on its own it changes nothing yet."""
        self.configs[adapter_name] = config
        # the model may have moved since the first adapter came
        self.device = next((p.device for p in self.parameters()), self.device)
        self.grow(adapter_name, config)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def grow(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Make the two matrices of an adapter."""
        size = config.size_of(self.width)
        self._add("bottleneck", adapter_name, (self.width, size, self.width))

    def _add(self, kind: str, adapter_name: str, sizes: tuple[int, int, int]) -> None:
        width, size, width_out = sizes
        std = self.configs[adapter_name].std
        down = nn.Linear(width, size, device=self.device)
        up = nn.Linear(size, width_out, device=self.device)
        if std is not None:  # cut at two deviations, as in the code of Houlsby et al.
            nn.init.trunc_normal_(down.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        getattr(self, f"{kind}_down")[adapter_name] = down
        getattr(self, f"{kind}_up")[adapter_name] = up

    def working(self) -> list[str]:
        """Return the adapters at work here, in their order."""
        names = [] if self.disable_adapters else [self.below, *self.active_adapters]
        return [name for name in names if name in getattr(self, self.adapter_layer_names[0])]

    def change(self, name: str, x: Tensor, kind: str = "bottleneck") -> Tensor:
        """Return f(x) of an adapter."""
        config = self.configs[name]
        down, up = getattr(self, f"{kind}_down")[name], getattr(self, f"{kind}_up")[name]
        inner = ACTIVATIONS[config.activation](down(x.to(down.weight.dtype)))
        inner = dropout(inner, config.dropout, self.training)
        return (config.scale * up(inner)).to(x.dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer's output, adapted."""
        y = self.base_layer(x, *args, **kwargs)
        for name in self.working():
            y = y + self.change(name, y)
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: no weight of the base model can hold what is not linear."""
        raise ConfigError(NO_MERGE)

    def unhook(self) -> None:
        """Leave no trace outside this layer."""


class AroundNorm(BottleneckLayer):
    """Put adapters before a normalisation N of a sum s: N(s + f(N(s)))."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised and adapted sum."""
        for name in self.working():
            x = x + self.change(name, self.base_layer(x))
        return self.base_layer(x)


class ParallelInput(BottleneckLayer):
    """Put adapters beside a block: block(x) + f(x), where `listen` says where x comes by."""

    def listen(self, first: nn.Module) -> None:
        """Take x from what the block's first matrix is given."""
        self.seen: list[Tensor] = []
        self.handle = first.register_forward_pre_hook(self.hear)

    def hear(self, first: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Keep x until the block's end."""
        self.seen = [args[0]]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the block's output, adapted."""
        y = self.base_layer(x, *args, **kwargs)
        (before,), self.seen = self.seen, []
        for name in self.working():
            y = y + self.change(name, before)
        return y

    def unhook(self) -> None:
        """Listen no more."""
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

    def grow(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Make the matrices of F and G, which are half as wide as the embeddings."""
        half = self.width // 2
        size, other = config.size_of(half), self.width - half
        self._add("bottleneck_first", adapter_name, (other, size, half))
        self._add("bottleneck_second", adapter_name, (half, size, other))

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings, adapted."""
        y = self.base_layer(x)
        for name in self.working():
            a, b = y.tensor_split([self.width // 2], dim=-1)
            a = a + self.change(name, b, "bottleneck_first")
            y = torch.cat([a, b + self.change(name, a, "bottleneck_second")], dim=-1)
        return y

    def invert(self, y: Tensor) -> Tensor:
        """Return the embeddings that were adapted to these."""
        for name in reversed(self.working()):
            a, b = y.tensor_split([self.width // 2], dim=-1)
            b = b - self.change(name, a, "bottleneck_second")
            y = torch.cat([a - self.change(name, b, "bottleneck_first"), b], dim=-1)
        return y

    def undo_before(self, output: nn.Module) -> None:
        """Undo the adapter in what the output embeddings are given."""
        self.handle = output.register_forward_pre_hook(self.feed)

    def feed(self, output: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return the inverse in place of the argument."""
        return (self.invert(args[0]),)

    def unhook(self) -> None:
        """Leave the output embeddings alone."""
        if hasattr(self, "handle"):
            self.handle.remove()
