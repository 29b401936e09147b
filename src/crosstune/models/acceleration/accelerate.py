"""crosstune's own speed-ups of training, behind one switch: `trainer.accelerate`.

They change run time and last digits, never the method that is measured.
"""

from collections.abc import Iterable
from typing import Any

import torch

from crosstune.config.schema import Trainer
from crosstune.models.acceleration.compile import Compiled
from crosstune.models.acceleration.dropout import use_fast_dropout
from crosstune.models.acceleration.onednn_linear import use_onednn_linear
from crosstune.models.acceleration.prefix_cache import PrefixCache, make_prefix_cache
from crosstune.models.acceleration.unpad import UnpaddedLayers, unpad
from crosstune.models.frozen_prefix import find_frozen_prefix


class Acceleration:
    """The speed-ups of one model, each of them on from its `start` until `end`.

    `trainer.compile` is the user's own choice and works without them, too; on the CPU it replaces
    all others.
    """

    def __init__(self, model: Any, options: Trainer):
        self.model = model
        self.is_on, self.compiles = options.accelerate, options.compile
        self.unpadded: UnpaddedLayers | None = None
        self.compiled: Compiled | None = None
        self.cache: PrefixCache | None = None

    def start_unpadding(self, device: torch.device) -> None:
        """Train without padding if the model can; call it before the data loaders are made."""
        if self.is_on and not self.compiles and device.type == "cpu":
            self.unpadded = unpad(self.model)

    @property
    def keeps_batches_whole(self) -> bool:
        """Whether a batch is not to be cut into parts of like length."""
        return self.unpadded is not None or not self.is_on

    def start_layers(self) -> None:
        """Replace modules by faster ones; call it when training begins."""
        if self.compiles:
            self.compiled = Compiled(self.model)
        elif self.is_on:
            use_fast_dropout(self.model)
            if self.unpadded:
                use_onednn_linear(self.unpadded.layers)

    def start_cache(self, sizes: tuple[int, int], batches: Iterable[dict[str, Any]]) -> None:
        """Compute the outputs of frozen layers once; `sizes` are the windows and subwords."""
        prefix = find_frozen_prefix(self.model)
        if not self.is_on or prefix is None:
            return
        self.cache = make_prefix_cache(self.model, prefix, *sizes)
        prefix.cached = self.cache is not None
        if self.cache:
            self.cache.fill(batches)

    def end(self) -> None:
        """Restore the model's layers as they were before."""
        for speed_up in (self.cache, self.compiled, self.unpadded):
            if speed_up:
                speed_up.end()
        self.cache = self.compiled = self.unpadded = None
