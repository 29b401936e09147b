"""Generation: a text from a text, by an encoder-decoder (translation, summary, reply).

Head: transformers' sequence-to-sequence language model. Each item is one window of its source;
what does not fit into `data.max_tokens`, or of the target into `data.task.max_target_tokens`, is
cut and counted. Training is teacher-forced; the test always writes with beam search, validation
does so unless told to go by the loss alone. References are scored whole, cut or not.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.languages import check_language
from crosstune.tasks.metrics.overlap import OVERLAPS, report_overlap
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.task import Task

VALIDATE = ("decode", "loss")
# what a checkpoint says of its special pieces; how it was decoded elsewhere is not taken over
PIECES = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
PIECES += ("forced_bos_token_id", "bad_words_ids")
log = logging.getLogger(__name__)


class Written(NamedTuple):
    """A `Prediction` (its first five fields) with what the measure needs beside."""

    item: int
    id: str
    gold: list[str]  # the references
    prediction: str
    score: float
    language: str  # of the references
    tokens: int  # of the first reference, as the model's sub-words
    correct: int  # of them, those that the model finds when it is told all before
    loss: float  # summed over them, in nats
    cut: bool  # the first reference lost sub-words to max_target_tokens, in these counts alone


@dataclass
class Generation(Task):
    """The task of one data set; it has no labels."""

    target_language: str | None
    max_target_tokens: int
    beams: int
    validate: str
    labels: list[str] = field(default_factory=list)  # the head's outputs are the vocabulary
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    peft_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    columns: ClassVar[tuple[str, ...]] = ("text", "target")

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        target_language: str | None = None,
        max_target_tokens: int = 64,
        beams: int = 4,
        validate: str = "decode",
    ) -> "Generation":
        """Return the task.

        `target_language` is that of the targets, by default the language of each source.
        `validate` is `decode` (write and score the texts) or `loss` (much faster: teacher-forced
        `token_accuracy` alone chooses the checkpoint).
        """
        if target_language is not None:
            check_language(target_language)
        if validate not in VALIDATE:
            raise ConfigError(f"data.task.validate={validate}. Allowed: {', '.join(VALIDATE)}.")
        for name, value, least in (
            ("max_target_tokens", max_target_tokens, 3),  # a piece between two special ones
            ("beams", beams, 1),
        ):
            if type(value) is not int or value < least:
                raise ConfigError(f"data.task.{name}={value}: must be a whole number ≥ {least}.")
        return cls(target_language, max_target_tokens, beams, validate)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        return (*(OVERLAPS if self.validate == "decode" else ()), "token_accuracy")

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return what is wrong with a row: no text to read, or none to write."""
        given = {"text": row.get("text"), "target": row.get("target")}
        return [
            f"the {name} is {value!r}: generation needs a text"
            for name, value in given.items()
            if not isinstance(value, str) or not value.strip()
        ]

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return [row["text"], row["target"]]

    def extend(self, model: PreTrainedModel) -> list[str]:
        """Set how the model decodes, so that it is saved with it; there are no new modules."""
        config: Any = getattr(model.config, "decoder", model.config)
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and self.max_target_tokens > positions:
            raise ConfigError(
                f"data.task.max_target_tokens={self.max_target_tokens}: "
                f"the decoder of {model.config.model_type} has {positions} positions."
            )
        old: Any = model.generation_config
        kept = {name: getattr(old, name, None) for name in PIECES}
        model.generation_config = GenerationConfig(**kept, **self._decoding)
        return []

    @property
    def _decoding(self) -> dict[str, int]:
        return {"num_beams": self.beams, "max_new_tokens": self.max_target_tokens}

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window a row; labels are the targets' sub-words, end to end."""
        options: dict[str, Any] = {
            "truncation": True,
            "return_attention_mask": False,
            "return_token_type_ids": False,
            "verbose": False,
        }
        texts = [row["text"] for row in rows]
        sources: Any = tokenizer(texts, max_length=max_tokens, **options)
        most = self.max_target_tokens
        targets: Any = tokenizer(
            text_target=[row["target"] for row in rows], max_length=most, **options
        )
        cut = [bool(targets[number].overflowing) for number in range(len(rows))]
        if any(cut):
            log.warning("%d of %d targets cut to %d sub-words", sum(cut), len(rows), most)
        ids, target_ids = sources["input_ids"], targets["input_ids"]
        return concatenate(
            ids,
            [[0] * len(window) for window in ids],
            range(len(rows)),
            [piece for window in target_ids for piece in window],
            cut=sum(bool(sources[number].overflowing) for number in range(len(rows))),
            target_starts=np.cumsum([0, *map(len, target_ids)]),
            target_cut=np.asarray(cut, bool),
        )

    def collate(
        self,
        encoded: EncodedDataset,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return inputs (B, L), labels (B, longest target), and the tokenizer that reads off."""
        pad_id: Any = tokenizer.pad_token_id
        starts = encoded.extra["target_starts"]
        targets = [torch.from_numpy(encoded.labels[starts[w] : starts[w + 1]]) for w in windows]
        labels = pad_sequence(targets, batch_first=True, padding_value=IGNORE)
        return {"inputs": encoded.pad(windows, pad_id), "labels": labels, "tokenizer": tokenizer}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy over target sub-words and their number."""
        labels = batch["labels"]
        logits = _answer(model, batch, model.prepare_decoder_input_ids_from_labels(labels=labels))
        total = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
        return total, (labels != IGNORE).sum()

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return, for each window, the text with tokens, correct and loss of its reference.

        Where only the loss is asked for, the text is empty and its score that of the reference.
        """
        labels = batch["labels"]
        start = model.prepare_decoder_input_ids_from_labels(labels=labels)
        gold, right = _tell(_answer(model, batch, start), labels)
        counts = (labels != IGNORE).sum(-1).tolist()
        facts = list(zip(counts, right.tolist(), (-gold).tolist(), strict=True))
        if self.validate == "loss":
            return [(("", *fact), -fact[-1]) for fact in facts]
        ids = model.generate(**_inputs(batch), **self._decoding, do_sample=False)
        said = _up_to_the_end(ids[:, 1:], model.generation_config.eos_token_id)
        scores, _ = _tell(_answer(model, batch, ids[:, :-1]), said)
        texts = batch["tokenizer"].batch_decode(ids, skip_special_tokens=True)
        return [
            ((text.strip(), *fact), score)
            for text, fact, score in zip(texts, facts, scores.tolist(), strict=True)
        ]

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Any]:
        """Return what was written for each row, beside its references."""
        found = ((window, int(encoded.items[window]), said, p) for window, said, p in outputs)
        return [
            Written(
                item=item,
                id=rows[item]["id"],
                gold=rows[item].get("references", [rows[item]["target"]]),
                prediction=text,
                score=score,
                language=self.target_language or rows[item]["language"],
                tokens=tokens,
                correct=correct,
                loss=loss,
                cut=bool(encoded.extra["target_cut"][window]),
            )
            for window, item, (text, tokens, correct, loss), score in found
        ]

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return scores and report over the texts of all ranks, gathered in order."""
        written = _gather(predictions)
        if not written:
            return {"scores": {}, "report": {}}
        tokens = sum(w.tokens for w in written)
        scores = {"token_accuracy": sum(w.correct for w in written) / tokens}
        report = {
            "loss": fsum(w.loss for w in written) / tokens,
            "tokens": tokens,
            "targets_cut": sum(w.cut for w in written),
        }
        if self.validate == "decode":
            texts, references = [w.prediction for w in written], [w.gold for w in written]
            overlap = report_overlap(texts, references, written[0].language)
            scores, report = overlap["scores"] | scores, overlap["report"] | report
        return {"scores": scores, "report": report}

    def tuned(self, report: dict[str, Any]) -> "Generation":
        """Return the task that writes: a test is never by the loss alone."""
        return replace(self, validate="decode")


def _inputs(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return what every encoder takes: most know no segments, and a source is one."""
    return {name: batch["inputs"][name] for name in ("input_ids", "attention_mask")}


def _answer(model: Any, batch: dict[str, Any], start: torch.Tensor) -> torch.Tensor:
    """Return the logits (B, T, V) after each of the decoder's inputs (B, T)."""
    return model(**_inputs(batch), decoder_input_ids=start, use_cache=False).logits


def _tell(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability (B,) of labels, IGNORE left out, and how many come first (B,)."""
    pieces = logits.flatten(0, 1).float()
    losses = cross_entropy(pieces, labels.flatten(), reduction="none").view_as(labels)
    return -losses.double().sum(-1), (logits.argmax(-1) == labels).sum(-1)


def _up_to_the_end(ids: torch.Tensor, end: int | list[int]) -> torch.Tensor:
    """Return ids (B, T) with IGNORE behind the first `end` of each row."""
    ends = torch.isin(ids, torch.as_tensor(end, device=ids.device)).long()
    return ids.masked_fill(ends.cumsum(-1) - ends > 0, IGNORE)


def _gather(predictions: Sequence[Any]) -> list[Written]:
    shares: list[Any] = [list(predictions)]
    if distributed.is_available() and distributed.is_initialized():
        shares = [None] * distributed.get_world_size()
        distributed.all_gather_object(shares, list(predictions))
    return sorted((w for share in shares for w in share), key=lambda w: w.item)
