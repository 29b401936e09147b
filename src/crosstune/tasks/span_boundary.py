"""The span-boundary objective: masked spans predicted from the two sub-words outside their ends.

Joshi et al. 2020, section 3.2 (https://arxiv.org/abs/1907.10529). Its head is saved with the model
and needed by nothing afterwards. Also the model's own predictions at masked positions alone.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import nn
from torch.nn.functional import cross_entropy, gelu, linear
from transformers import PreTrainedModel

from crosstune.data.windows import IGNORE

NAME = "span_boundary"  # of the head in the model, and of its weights in the checkpoint
# The authors' code (github.com/facebookresearch/SpanBERT, pretraining/README.md): 15 targets a
# span, position embeddings of size 200. Only masked LM predicts what is further inside a span.
MAX_TARGETS = 15
POSITION_SIZE = 200
# model types whose masked LM head is applied to each position independently
POSITION_WISE_HEADS = (
    "albert",
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "roberta",
    "xlm-roberta",
)


class MaskedOutputs(NamedTuple):
    """A model's outputs at the M masked positions of a batch."""

    logits: torch.Tensor  # (M, V)
    hidden: torch.Tensor | None  # (B, L, H) outputs of an encoder in POSITION_WISE_HEADS


class BoundaryTargets(NamedTuple):
    """The N masked sub-words whose span has a sub-word on both sides."""

    window: torch.Tensor  # (N,) row of the batch
    left: torch.Tensor  # (N,) column of the last sub-word before the span
    right: torch.Tensor  # (N,) column of the first sub-word after it
    position: torch.Tensor  # (N,) position in the span, from 0
    column: torch.Tensor  # (N,) column of the sub-word itself


class SpanBoundary(nn.Module):
    """y = LN(GeLU(W2 LN(GeLU(W1 [x_left; x_right; p])))), then the input embeddings as output."""

    def __init__(self, hidden: int, embedding: int, vocabulary: int, std: float):
        super().__init__()
        self.position = nn.Embedding(MAX_TARGETS, POSITION_SIZE)
        self.first = nn.Linear(2 * hidden + POSITION_SIZE, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, embedding)
        self.second_norm = nn.LayerNorm(embedding)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        for layer in (self.position, self.first, self.second):
            nn.init.normal_(layer.weight, std=std)
        for layer in (self.first, self.second):
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        left: torch.Tensor,
        right: torch.Tensor,
        position: torch.Tensor,
        embeddings: torch.Tensor,
    ) -> torch.Tensor:
        """Return logits (N, V) from encoder outputs (N, H) and embeddings (V, E)."""
        inputs = torch.cat([left, right, self.position(position).to(left.dtype)], dim=-1)
        inner = self.first_norm(gelu(self.first(inputs)))
        inner = self.second_norm(gelu(self.second(inner)))
        return linear(inner, embeddings, self.bias)


def add_boundary(model: PreTrainedModel) -> None:
    """Add the head to a model, with the weights in the model's folder, if any, or new ones."""
    embeddings: Any = model.get_input_embeddings()
    vocabulary, size = embeddings.weight.shape
    std = getattr(model.config, "initializer_range", 0.02)
    head = SpanBoundary(model.config.hidden_size, size, vocabulary, std)
    if model.name_or_path and (saved := _load_weights(Path(model.name_or_path))):
        new = head.bias.detach()[len(saved["bias"]) :]  # of sub-words added to the vocabulary
        head.load_state_dict({**saved, "bias": torch.cat([saved["bias"].float(), new])})
    setattr(model, NAME, head)


def find_targets(masked: torch.Tensor, real: torch.Tensor) -> BoundaryTargets:
    """Return the sub-words to predict, from what is masked (B, L) and what is no padding (B, L).

    A span is a run of masked sub-words. One without a sub-word on either side has no targets.

    >>> masked = torch.tensor([[False, True, True, False, True]])
    >>> targets = find_targets(masked, torch.ones_like(masked))
    >>> [part.tolist() for part in targets]
    [[0, 0], [0, 0], [3, 3], [0, 1], [1, 2]]
    """
    length = masked.shape[1]
    columns = torch.arange(length, device=masked.device).expand_as(masked)
    visible = ~masked & real
    left = torch.where(visible, columns, -1).cummax(1).values
    right = torch.where(visible, columns, length).flip(1).cummin(1).values.flip(1)
    position = columns - left - 1
    chosen = masked & (left >= 0) & (right < length) & (position < MAX_TARGETS)
    window, column = chosen.nonzero(as_tuple=True)
    return BoundaryTargets(window, left[chosen], right[chosen], position[chosen], column)


def predict_masked(
    model: Any, inputs: dict[str, torch.Tensor], masked: torch.Tensor
) -> MaskedOutputs:
    """Run a model, adapted or not, and return its outputs where `masked` (B, L) is true.

    A head in POSITION_WISE_HEADS computes the logits of masked positions only; any other is run
    whole. The virtual tokens of prompt tuning are left out.
    """
    base = _base_model(model)
    length = masked.shape[1]
    hidden: list[torch.Tensor] = []

    def select(encoder: nn.Module, arguments: Any, output: Any) -> Any:
        hidden.append(output.last_hidden_state[:, -length:])
        output.last_hidden_state = hidden[0][masked][None]
        return output

    if getattr(getattr(base, "config", None), "model_type", None) not in POSITION_WISE_HEADS:
        return MaskedOutputs(model(**inputs).logits[:, -length:][masked], None)
    hook = base.base_model.register_forward_hook(select)
    try:
        logits = model(**inputs).logits[0]
    finally:
        hook.remove()
    return MaskedOutputs(logits, hidden[0])


def boundary_loss(
    model: Any, outputs: MaskedOutputs, labels: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Return the summed cross entropy of the targets; `labels` and `real` are (B, L)."""
    if outputs.hidden is None:
        known = ", ".join(POSITION_WISE_HEADS)
        raise ValueError(f"the encoder's outputs are known for {known} only")
    base = _base_model(model)
    targets = find_targets(labels != IGNORE, real.bool())
    embeddings = base.get_input_embeddings().weight
    logits = getattr(base, NAME)(
        outputs.hidden[targets.window, targets.left],
        outputs.hidden[targets.window, targets.right],
        targets.position,
        embeddings.view_as(embeddings),  # FlopCounterMode fails on a leaf passed into a module
    )
    gold = labels[targets.window, targets.column]
    return cross_entropy(logits.float(), gold, reduction="sum")


def _base_model(model: Any) -> Any:
    """Return the transformers model that peft wraps, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the head's weights from a checkpoint's folder; none if it has no such head."""
    weights: dict[str, torch.Tensor] = {}
    prefix = f"{NAME}."
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            weights |= {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    return weights
