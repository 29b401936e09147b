"""Outputs of frozen layers in evaluation mode, computed once for each text of a run.

All texts go through the layers before training, in one order, so that a resumed run sees the same
numbers. What is frozen is found in `models/frozen_prefix.py`.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from crosstune.models.architectures import ARCHITECTURES, FIRST_SUBWORD_HEADS, unwrap_adapter
from crosstune.models.frozen_prefix import FrozenPrefix

MAX_BYTES = 2**30  # of cached outputs; a float has 4
log = logging.getLogger(__name__)


class PrefixCache:
    """An encoder whose first layers are skipped for the texts that it has outputs of, until `end`.

    Args:
        encoder: the model below the head.
        stack: its stack of layers.
        frozen: how many of them, from the first, are frozen.
        first_only: whether the first subword's output is all that is read.
    """

    def __init__(self, encoder: nn.Module, stack: Any, frozen: int, first_only: bool):
        self.encoder, self.stack = encoder, stack
        self.frozen, self.first_only = frozen, first_only
        self.outputs: dict[bytes, Tensor] = {}  # of a text: (subwords, hidden size)
        self.batch: Tensor | None = None  # the cached outputs of the batch in the encoder
        self.skipped = range(0)  # layers that pass on what they get
        self.hooks: list[RemovableHandle] = []
        self.forwards: list[Any] = [vars(layer).get("forward") for layer in stack.layer]
        for index, layer in enumerate(stack.layer):
            layer.forward = self._skip_or(index, layer.forward)

    @torch.no_grad()
    def fill(self, batches: Iterable[dict[str, Any]]) -> None:
        """Compute the outputs for all texts of these batches, and use them from now on."""
        self.skipped = range(self.frozen, len(self.stack.layer))
        for batch in batches:
            inputs = batch["inputs"]
            states = self.encoder(**inputs).last_hidden_state
            lengths = inputs["attention_mask"].sum(1).tolist()
            for key, state, length in zip(_text_keys(**inputs), states, lengths, strict=True):
                self.outputs.setdefault(key, state[: 1 if self.first_only else length].clone())
        self.skipped = range(0)
        self.hooks = [
            self.encoder.register_forward_pre_hook(self._look_up, with_kwargs=True),
            self.encoder.register_forward_hook(self._forget_batch, always_call=True),
            # before the hook that removes the padding
            self.stack.register_forward_pre_hook(self._insert, with_kwargs=True, prepend=True),
        ]

    def end(self) -> None:
        """Restore the encoder as it was, and free the outputs."""
        for hook in self.hooks:
            hook.remove()
        for layer, forward in zip(self.stack.layer, self.forwards, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward
        self.outputs.clear()

    def _skip_or(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def skip_or_forward(hidden_states: Tensor, *args: Any, **options: Any) -> Any:
            if index in self.skipped:
                return hidden_states
            return forward(hidden_states, *args, **options)

        return skip_or_forward

    def _look_up(self, encoder: nn.Module, args: Any, options: dict[str, Any]) -> None:
        names = ("input_ids", "attention_mask", "token_type_ids")
        values = {**dict(zip(names, args, strict=False)), **options}
        inputs = {name: values[name] for name in names if values.get(name) is not None}
        if not {"input_ids", "attention_mask"} <= inputs.keys():
            return
        outputs = [self.outputs.get(key) for key in _text_keys(**inputs)]
        known = [output for output in outputs if output is not None]
        if len(known) == len(outputs):
            shape = (*inputs["input_ids"].shape, known[0].shape[-1])
            self.batch = known[0].new_zeros(shape)
            for row, output in zip(self.batch, known, strict=True):
                row[: len(output)] = output
            self.skipped = range(self.frozen)

    def _insert(self, stack: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        if self.batch is None:
            return None
        return (self.batch, *args[1:]), {k: v for k, v in options.items() if k != "hidden_states"}

    def _forget_batch(self, encoder: nn.Module, args: Any, output: Any) -> None:
        self.batch, self.skipped = None, range(0)


def make_prefix_cache(
    model: Any, prefix: FrozenPrefix, windows: int, subwords: int
) -> PrefixCache | None:
    """Return a cache for the frozen prefix of a model; None where there can be none.

    `windows` and `subwords` count what is to be cached.
    """
    base = unwrap_adapter(model)
    architecture = ARCHITECTURES.get(base.config.model_type)
    if not prefix.layers or not architecture or not architecture.layer_stack:
        return None
    stack: Any = base.base_model.get_submodule(architecture.layer_stack)
    all_frozen = prefix.layers == len(stack.layer)
    first_only = all_frozen and type(base).__name__.endswith(FIRST_SUBWORD_HEADS)
    size = 4 * base.config.hidden_size * (windows if first_only else subwords)
    if size > MAX_BYTES:
        log.info("%d MiB of outputs of frozen layers are too many to cache", size >> 20)
        return None
    log.info("outputs of %d frozen layers: computed once for %d windows", prefix.layers, windows)
    return PrefixCache(base.base_model, stack, prefix.layers, first_only)


def _text_keys(
    input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
) -> list[bytes]:
    """Return what identifies each text of a batch: its subwords and segments, without padding."""
    real = attention_mask.cpu().numpy().astype(bool)
    parts = [input_ids] if token_type_ids is None else [input_ids, token_type_ids]
    stacked = np.stack([part.cpu().numpy() for part in parts])
    return [stacked[:, row, mask].tobytes() for row, mask in enumerate(real)]
