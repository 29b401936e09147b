"""Remove the padding of training batches inside an encoder's layers, on a CPU.

All modules but attention work on single subwords: between embeddings and head the windows of a
batch are concatenated, and attention runs on groups of windows of like length, each padded to its
longest. Loss and gradients are those of the padded batch.
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
from crosstune.models.architectures import ARCHITECTURES, unwrap_adapter

GROUP_COST = 16  # cost of one more group, in subwords
SIZE_BITS = 4  # leading bits of a batch's number of subwords that may differ from 0
BF16_MULTIPLE = 128  # kernels are costlier to create in bf16: subwords come in multiples of this
_NAME, _SDPA = "crosstune_groups", "sdpa"  # attention implementations registered with transformers


class LengthGroups(NamedTuple):
    """The windows of a batch in groups of like length; takes the place of the attention mask."""

    batch: tuple[int, int]  # windows, and subwords of the longest
    shapes: list[tuple[int, int]]  # windows and subwords of each group
    indices: Tensor  # of each subword of the groups in the flattened batch
    masks: list[Tensor | None]  # (1, windows, 1, subwords): -inf at padding; None: no padding
    filling: int  # zeros behind the groups


class UnpaddedLayers:
    """Removes the padding in the layers of a model in training, until `end`."""

    def __init__(self, model: nn.Module, layers: nn.Module):
        self.layers = layers
        # layers that peft copies have configurations of their own
        configs = [module.config for module in model.modules() if hasattr(module, "config")]
        self.configs: list[Any] = list({id(config): config for config in configs}.values())
        for config in self.configs:
            config._attn_implementation = _NAME
        self.hooks: list[RemovableHandle] = [
            layers.register_forward_pre_hook(_remove_padding, with_kwargs=True),
            layers.register_forward_hook(_restore_padding, with_kwargs=True),
        ]

    def end(self) -> None:
        """Restore attention and remove the hooks."""
        for config in self.configs:
            config._attn_implementation = _SDPA
        for hook in self.hooks:
            hook.remove()


def unpad(model: Any) -> UnpaddedLayers | None:
    """Remove the padding in a model's layers in training; return None where that is not possible.

    Its type must have a `layer_stack`, its attention must be sdpa, and it must not be a language
    model, whose head takes longer than all the padding.
    """
    base = unwrap_adapter(model)
    architecture = ARCHITECTURES.get(base.config.model_type)
    if architecture is None or architecture.layer_stack is None:
        return None
    if base.config._attn_implementation != _SDPA or base.get_output_embeddings() is not None:
        return None
    return UnpaddedLayers(base, base.base_model.get_submodule(architecture.layer_stack))


def group_by_length(attention_mask: Tensor, multiple: int = 1) -> LengthGroups | None:
    """Return the windows of a batch in groups; None if it is padded elsewhere than at the end.

    With the filling, the number of subwords is a multiple of `multiple`, and of a power of two that
    is a 16th to an 8th of it: 4 % more subwords, but few sizes. A CPU creates a kernel for each
    size, and freed memory fits the next batch of its size: a run's peak was a sixth lower.
    """
    real = attention_mask.numpy().astype(bool)
    lengths = real.sum(1)
    windows, longest = real.shape
    if not lengths.all() or (real != (np.arange(longest) < lengths[:, None])).any():
        return None
    indices, shapes, masks = [], [], []
    for part in split_by_length(lengths, GROUP_COST):
        columns = np.arange(lengths[part].max())
        indices.append((part[:, None] * longest + columns).ravel())
        shapes.append((len(part), len(columns)))
        padding = np.where(columns < lengths[part][:, None], np.float32(0), np.float32("-inf"))
        masks.append(torch.from_numpy(padding)[None, :, None] if padding.any() else None)
    flat = torch.from_numpy(np.concatenate(indices))
    multiple = max(multiple, 1 << max(0, len(flat).bit_length() - SIZE_BITS))
    return LengthGroups((windows, longest), shapes, flat, masks, -len(flat) % multiple)


def _mask(attention_mask: Tensor | None = None, **rest: Any) -> Any:
    """Return the groups of a training batch, and sdpa's mask of any other."""
    has_no_prefix = rest["q_length"] == rest["kv_length"]
    if torch.is_grad_enabled() and attention_mask is not None and has_no_prefix:
        multiple = BF16_MULTIPLE if torch.is_autocast_enabled("cpu") else 1
        groups = group_by_length(attention_mask, multiple)
        if groups is not None:
            return groups
    return sdpa_mask(attention_mask=attention_mask, **rest)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attend within each group: (1, heads, subwords, size) in, (1, subwords, heads, size) out."""
    if not isinstance(mask, LengthGroups):
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    sizes = [windows * length for windows, length in mask.shapes]
    with torch.autocast("cpu", enabled=False):  # too many shapes to create kernels for
        exact = torch.promote_types(query.dtype, torch.float32)
        flat = (query.to(exact) * options["scaling"], key.to(exact), value.to(exact))
        groups = zip(*(states[0].split([*sizes, mask.filling], 1) for states in flat), strict=True)
        outputs = []
        for group, shape, padding in zip(groups, mask.shapes, mask.masks, strict=False):
            queries, keys, values = (states.unflatten(1, shape) for states in group)
            scores = queries @ keys.transpose(-1, -2)
            weights = (scores if padding is None else scores + padding).softmax(-1)
            outputs.append((apply_dropout(weights, options["dropout"]) @ values).flatten(1, 2))
        outputs.append(outputs[0].new_zeros(query.shape[1], mask.filling, query.shape[3]))
        return torch.cat(outputs, 1).transpose(0, 1)[None].to(query.dtype), None


def _remove_padding(layers: nn.Module, args: Any, options: dict[str, Any]) -> Any:
    """Concatenate the subwords of a batch."""
    groups = options["attention_mask"]
    if not isinstance(groups, LengthGroups):
        return None
    if args:
        options = {**options, "hidden_states": args[0]}
    flat = options["hidden_states"].flatten(0, 1).index_select(0, groups.indices)
    flat = nn.functional.pad(flat, (0, 0, 0, groups.filling))
    return args[1:], {**options, "hidden_states": flat[None]}


def _restore_padding(layers: nn.Module, args: Any, options: dict[str, Any], output: Any) -> Any:
    """Put the subwords back at their indices, with zeros as padding."""
    groups = options["attention_mask"]
    if isinstance(groups, LengthGroups):
        flat = output.last_hidden_state[0, : len(groups.indices)]
        windows, longest = groups.batch
        padded = flat.new_zeros(windows * longest, flat.shape[-1])
        padded = padded.index_copy(0, groups.indices, flat)
        output.last_hidden_state = padded.unflatten(0, groups.batch)
    return output


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _mask)
