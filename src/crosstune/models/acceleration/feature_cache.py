"""What a frozen encoder says of each text, computed once: training its head asks again and again.

That is so where nothing but the head is trained and the encoder has no dropout. Texts go through it
in one order, however far a run is, so that a resumed one sees the same numbers. Called by
`learner.py`.
"""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling

from crosstune.models.acceleration.unpad import LAYERS

# heads by whether they look at the first sub-word alone, as those of the types in LAYERS do
HEADS = {
    "ForSequenceClassification": True,
    "ForTokenClassification": False,
    "ForQuestionAnswering": False,
}
ROOM = 2**30  # bytes; a float is 4
log = logging.getLogger(__name__)


class Features:
    """An encoder that is asked once about every text it is shown, until `end`."""

    def __init__(self, encoder: Any, first: bool):
        self.encoder = encoder
        self.first = first  # the head sees the first sub-word of a text alone
        self.compute = encoder.forward
        self.known: dict[bytes, Tensor] = {}  # sub-words x size

    @torch.no_grad()
    def learn(self, batches: Iterable[dict[str, Any]]) -> None:
        """Keep what the encoder says of all texts of these batches, and answer with it."""
        for batch in batches:
            inputs = batch["inputs"]
            states = self.compute(**inputs).last_hidden_state
            lengths = inputs["attention_mask"].sum(1).tolist()
            for key, said, length in zip(_keys(**inputs), states, lengths, strict=True):
                self.known.setdefault(key, said[: 1 if self.first else length].clone())
        self.encoder.forward = self.recall

    def recall(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
        """Return what is known of a batch, or compute it where a text is new."""
        types = options.get("token_type_ids")
        found = [self.known.get(key) for key in _keys(input_ids, attention_mask, types)]
        known = [said for said in found if said is not None]
        if len(known) < len(found):
            return self.compute(input_ids=input_ids, attention_mask=attention_mask, **options)
        states = pad_sequence(known, batch_first=True)
        pooler = getattr(self.encoder, "pooler", None)
        pooled = None if pooler is None else pooler(states)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)

    def end(self) -> None:
        """Leave the encoder as it was, and forget."""
        vars(self.encoder).pop("forward", None)
        self.known.clear()


def find_features(model: Any, windows: int, tokens: int) -> Features | None:
    """Return what will remember for a model; None: its encoder says something new at each step.

    `windows` and `tokens` count what there is to remember.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    first = next((HEADS[end] for end in HEADS if type(whole).__name__.endswith(end)), None)
    if first is None or whole.config.model_type not in LAYERS or not _is_frozen(model, whole):
        return None
    encoder = whole.base_model
    if any(isinstance(part, nn.Dropout) and part.p > 0 for part in encoder.modules()):
        log.info("the encoder is frozen, but drops out: what it says is computed at every step")
        return None
    size = 4 * whole.config.hidden_size * (windows if first else tokens)
    if size > ROOM:
        log.info("%d MiB of features are too many to keep: computed at every step", size >> 20)
        return None
    log.info("nothing in the encoder is trained or dropped: computed once for %d windows", windows)
    return Features(encoder, first)


def _is_frozen(model: Any, whole: Any) -> bool:
    """Return whether a model trains weights, and none of them is below its head and pooler."""
    inside = {id(weight) for weight in whole.base_model.parameters()}
    pooler = getattr(whole.base_model, "pooler", None)
    inside -= {id(weight) for weight in pooler.parameters()} if pooler is not None else set()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    known = {id(weight) for weight in whole.parameters()}  # a prompt stands outside
    return bool(trained) and all(id(w) in known and id(w) not in inside for w in trained)


def _keys(
    input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
) -> list[bytes]:
    """Return what tells the texts of a batch apart: their sub-words and segments, no padding."""
    held = attention_mask.cpu().numpy().astype(bool)
    parts = [input_ids] if token_type_ids is None else [input_ids, token_type_ids]
    stacked = np.stack([part.cpu().numpy() for part in parts])
    return [stacked[:, row, mask].tobytes() for row, mask in enumerate(held)]
