"""What a model says at masked places: its own guesses, and those from a span's boundary.

The second are the span-boundary objective (Joshi et al. 2020, section 3.2,
https://arxiv.org/abs/1907.10529): a masked span guessed from the two pieces outside its ends, by
a head that is saved with the model and needed by nothing afterwards. Called by `masked_lm.py`.
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
# span, positions of 200 numbers. What lies further inside a span is guessed by masked LM alone.
TARGETS = 15
POSITION_SIZE = 200


# their masked LM heads look at each place by itself, so they may be shown some places only
BY_PLACE = ("albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")


class Seen(NamedTuple):
    """What a model says at the M masked places of a batch."""

    logits: torch.Tensor  # (M, V)
    hidden: torch.Tensor | None  # (B, L, H) outputs of the encoder, if its kind is of BY_PLACE
    outputs: Any  # all that the model returned


class BoundaryTargets(NamedTuple):
    """The N masked pieces that two pieces outside their span can be asked for."""

    window: torch.Tensor  # (N,) row of the batch
    left: torch.Tensor  # (N,) column of the last piece before the span
    right: torch.Tensor  # (N,) column of the first piece after it
    place: torch.Tensor  # (N,) place in the span, from 0
    column: torch.Tensor  # (N,) column of the piece itself


class SpanBoundary(nn.Module):
    """y = LN(GeLU(W2 LN(GeLU(W1 [x_left; x_right; p])))), then the input embeddings as output."""

    def __init__(self, hidden: int, embedding: int, vocabulary: int, std: float):
        super().__init__()
        self.position = nn.Embedding(TARGETS, POSITION_SIZE)
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
        place: torch.Tensor,
        embeddings: torch.Tensor,
    ) -> torch.Tensor:
        """Return logits (N, V) from encoder outputs (N, H) and embeddings (V, E)."""
        seen = torch.cat([left, right, self.position(place).to(left.dtype)], dim=-1)
        inner = self.first_norm(gelu(self.first(seen)))
        inner = self.second_norm(gelu(self.second(inner)))
        return linear(inner, embeddings, self.bias)


def add_boundary(model: PreTrainedModel) -> None:
    """Put the head on a model: as the model's folder has it, else new weights."""
    embeddings: Any = model.get_input_embeddings()
    vocabulary, size = embeddings.weight.shape
    std = getattr(model.config, "initializer_range", 0.02)
    head = SpanBoundary(model.config.hidden_size, size, vocabulary, std)
    if model.name_or_path and (saved := _saved_weights(Path(model.name_or_path))):
        fresh = head.bias.detach()[len(saved["bias"]) :]  # of pieces that joined the vocabulary
        head.load_state_dict({**saved, "bias": torch.cat([saved["bias"].float(), fresh])})
    setattr(model, NAME, head)


def find_targets(masked: torch.Tensor, real: torch.Tensor) -> BoundaryTargets:
    """Return the pieces to be guessed, from what is masked (B, L) and what is no padding (B, L).

    A span is a run of masked pieces. One without a piece on either side has no targets.

    >>> masked = torch.tensor([[False, True, True, False, True]])
    >>> targets = find_targets(masked, torch.ones_like(masked))
    >>> [part.tolist() for part in targets]
    [[0, 0], [0, 0], [3, 3], [0, 1], [1, 2]]
    """
    length = masked.shape[1]
    columns = torch.arange(length, device=masked.device).expand_as(masked)
    seen = ~masked & real
    left = torch.where(seen, columns, -1).cummax(1).values
    right = torch.where(seen, columns, length).flip(1).cummin(1).values.flip(1)
    place = columns - left - 1
    asked = masked & (left >= 0) & (right < length) & (place < TARGETS)
    window, column = asked.nonzero(as_tuple=True)
    return BoundaryTargets(window, left[asked], right[asked], place[asked], column)


def encode_with_targets(model: Any, inputs: dict[str, torch.Tensor], masked: torch.Tensor) -> Seen:
    """Run a model, adapted or not, and return what it says where `masked` (B, L) is true.

    The head of a kind in BY_PLACE sees the masked places only, which spares the vocabulary at all
    others; any other kind is run whole. Pieces that prompt tuning puts in front are left out.
    """
    inner = _inner(model)
    length = masked.shape[1]
    kept: list[torch.Tensor] = []

    def narrow(encoder: nn.Module, arguments: Any, output: Any) -> Any:
        kept.append(output.last_hidden_state[:, -length:])
        output.last_hidden_state = kept[0][masked][None]
        return output

    if getattr(getattr(inner, "config", None), "model_type", None) not in BY_PLACE:
        outputs = model(**inputs)
        return Seen(_logits(outputs)[:, -length:][masked], None, outputs)
    hook = inner.base_model.register_forward_hook(narrow)
    try:
        outputs = model(**inputs)
    finally:
        hook.remove()
    return Seen(_logits(outputs)[0], kept[0], outputs)


def boundary_loss(model: Any, seen: Seen, labels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the summed cross entropy of the targets; `labels` and `real` are (B, L)."""
    if seen.hidden is None:
        raise ValueError(f"the encoder's outputs are known for {', '.join(BY_PLACE)} only")
    inner = _inner(model)
    targets = find_targets(labels != IGNORE, real.bool())
    logits = getattr(inner, NAME)(
        seen.hidden[targets.window, targets.left],
        seen.hidden[targets.window, targets.right],
        targets.place,
        inner.get_input_embeddings().weight,
    )
    gold = labels[targets.window, targets.column]
    return cross_entropy(logits.float(), gold, reduction="sum")


def _inner(model: Any) -> Any:
    """Return the transformers model inside what peft made of it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _logits(outputs: Any) -> torch.Tensor:
    return outputs.prediction_logits if "prediction_logits" in vars(outputs) else outputs.logits


def _saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the head's weights from a checkpoint's folder; none where it has no such head."""
    found: dict[str, torch.Tensor] = {}
    prefix = f"{NAME}."
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            found |= {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    return found
