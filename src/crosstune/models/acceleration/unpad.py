"""A training batch goes through an encoder's layers without its padding, on a CPU.

Every layer but attention looks at one sub-word at a time: between embeddings and head the windows
of a batch lie behind each other, in groups of like length that are padded to their own longest
alone, and attention looks at one group at a time. Loss and gradients are those of the padded batch.
Called by `learner.py`.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from crosstune.data.length_groups import split_by_length
from crosstune.models.acceleration.dropout import apply_dropout
from crosstune.models.architectures import ARCHITECTURES

GROUP_COST = 16  # what one more group costs, in sub-words
FINENESS = 4  # leading binary digits of a batch's number of sub-words; the others are 0
ROUND = 128  # in bf16 kernels cost more to make: sub-words come in multiples of this
_NAME, _SDPA = "crosstune_groups", "sdpa"  # of attentions, where transformers looks them up


class LengthGroups(NamedTuple):
    """The windows of a batch in groups of like length; stands where the attention mask was."""

    batch: tuple[int, int]  # windows, and sub-words of the longest
    shapes: list[tuple[int, int]]  # windows and sub-words of each group
    places: Tensor  # where each sub-word of the groups stands in the batch laid flat
    shut: list[Tensor | None]  # 1 x windows x 1 x sub-words: -inf at padding; None: there is none
    spare: int  # zeros that stand behind the groups


class UnpaddedLayers:
    """A model whose layers see no padding while it is trained, until `end`."""

    def __init__(self, model: nn.Module, layers: nn.Module):
        self.layers = layers  # all that sees batches of few sizes
        # a layer that peft copied has a configuration of its own
        found = [module.config for module in model.modules() if hasattr(module, "config")]
        self.configs: list[Any] = list({id(config): config for config in found}.values())
        for config in self.configs:
            config._attn_implementation = _NAME
        self.hooks: list[RemovableHandle] = [
            layers.register_forward_pre_hook(_enter, with_kwargs=True),
            layers.register_forward_hook(_leave, with_kwargs=True),
        ]

    def end(self) -> None:
        """Leave the model as it was."""
        for config in self.configs:
            config._attn_implementation = _SDPA
        for hook in self.hooks:
            hook.remove()


def unpad(model: Any) -> UnpaddedLayers | None:
    """Let a model's layers see no padding while it is trained; None: it is not made for that.

    Its type must have a `layer_stack`, its attention must be sdpa, and it must not be a language
    model, whose head takes longer than all the padding.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    architecture = ARCHITECTURES.get(base.config.model_type)
    if architecture is None or architecture.layer_stack is None:
        return None
    if base.config._attn_implementation != _SDPA or base.get_output_embeddings() is not None:
        return None
    return UnpaddedLayers(base, base.base_model.get_submodule(architecture.layer_stack))


def group_by_length(attention_mask: Tensor, multiple: int = 1) -> LengthGroups | None:
    """Return a batch's windows in groups; None where padding is not what ends a window.

    With what is spare the sub-words are a multiple of `multiple`, and of a power of two that is a
    16th to an 8th of them: 4 in 100 more, but in few sizes. A CPU makes a kernel for each, and the
    memory that one has left fits the next of its size: a run's peak was a sixth lower.
    """
    held = attention_mask.numpy().astype(bool)
    lengths = held.sum(1)
    windows, longest = held.shape
    if not lengths.all() or (held != (np.arange(longest) < lengths[:, None])).any():
        return None
    places, shapes, shut = [], [], []
    for part in split_by_length(lengths, GROUP_COST):
        columns = np.arange(lengths[part].max())
        places.append((part[:, None] * longest + columns).ravel())
        shapes.append((len(part), len(columns)))
        outside = np.where(columns < lengths[part][:, None], np.float32(0), np.float32("-inf"))
        shut.append(torch.from_numpy(outside)[None, :, None] if outside.any() else None)
    every = torch.from_numpy(np.concatenate(places))
    multiple = max(multiple, 1 << max(0, len(every).bit_length() - FINENESS))
    return LengthGroups((windows, longest), shapes, every, shut, -len(every) % multiple)


def _mask(attention_mask: Tensor | None = None, **rest: Any) -> Any:
    """Make the groups of a training batch, and what sdpa takes of any other."""
    alike = rest["q_length"] == rest["kv_length"]  # no prefix stands before the keys
    if torch.is_grad_enabled() and attention_mask is not None and alike:
        groups = group_by_length(attention_mask, ROUND if torch.is_autocast_enabled("cpu") else 1)
        if groups is not None:
            return groups
    return sdpa_mask(attention_mask=attention_mask, **rest)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attend within each group: 1 x heads x sub-words x size in, the same turned round out."""
    if not isinstance(mask, LengthGroups):
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    sizes = [windows * length for windows, length in mask.shapes]
    with torch.autocast("cpu", enabled=False):  # shapes of too many kinds to compile
        exact = torch.promote_types(query.dtype, torch.float32)
        whole = (query.to(exact) * options["scaling"], key.to(exact), value.to(exact))
        parts = zip(*(states[0].split([*sizes, mask.spare], 1) for states in whole), strict=True)
        seen = []
        for states, shape, shut in zip(parts, mask.shapes, mask.shut, strict=False):
            mine, others, said = (part.unflatten(1, shape) for part in states)
            scores = mine @ others.transpose(-1, -2)
            weights = (scores if shut is None else scores + shut).softmax(-1)
            seen.append((apply_dropout(weights, options["dropout"]) @ said).flatten(1, 2))
        seen.append(seen[0].new_zeros(query.shape[1], mask.spare, query.shape[3]))
        return torch.cat(seen, 1).transpose(0, 1)[None].to(query.dtype), None


def _enter(layers: nn.Module, args: Any, options: dict[str, Any]) -> Any:
    """Lay the sub-words of a batch behind each other."""
    groups = options["attention_mask"]
    if not isinstance(groups, LengthGroups):
        return None
    if args:
        options = {**options, "hidden_states": args[0]}
    flat = options["hidden_states"].flatten(0, 1).index_select(0, groups.places)
    flat = nn.functional.pad(flat, (0, 0, 0, groups.spare))
    return args[1:], {**options, "hidden_states": flat[None]}


def _leave(layers: nn.Module, args: Any, options: dict[str, Any], output: Any) -> Any:
    """Put the sub-words back to their places; what is left is 0."""
    groups = options["attention_mask"]
    if isinstance(groups, LengthGroups):
        flat = output.last_hidden_state[0, : len(groups.places)]
        windows, longest = groups.batch
        whole = flat.new_zeros(windows * longest, flat.shape[-1])
        whole = whole.index_copy(0, groups.places, flat)
        output.last_hidden_state = whole.unflatten(0, groups.batch)
    return output


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _mask)
