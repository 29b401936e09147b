"""Generation: a text from a text, by an encoder-decoder (translation, summarisation, dialogue).

Training is teacher-forced; the test uses beam search, and validation does unless `validate=loss`.
Sources and targets are cut to their limits and counted; references are scored whole.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel
from typing_extensions import override

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.languages import check_language
from crosstune.tasks.metrics.overlap import OVERLAPS, report_overlap
from crosstune.tasks.prediction import Prediction
from crosstune.tasks.task import Batch, Outputs, Predictions, Result, Row, Rows, Task, Tokenizer

VALIDATE = ("decode", "loss")
# what a checkpoint says of its special tokens; its other decoding settings are not used
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
SPECIAL_TOKENS += ("forced_bos_token_id", "bad_words_ids")
log = logging.getLogger(__name__)


class ReferenceStats(NamedTuple):
    """`Prediction.extra`: what the model makes of an item's first reference, teacher-forced."""

    language: str  # of the references
    tokens: int  # of the first reference, as the model's sub-words
    correct: int  # of them, those that the model predicts after all before them
    loss: float  # summed over them, in nats
    cut: bool  # whether `max_target_tokens` cut the reference, in these counts only


@dataclass
class Generation(Task):
    """The task of one data set; it has no labels."""

    target_language: str | None
    max_target_tokens: int
    beams: int
    validate: str
    labels: list[str] = field(default_factory=list)  # the head's outputs are the vocabulary
    auto_class = "AutoModelForSeq2SeqLM"
    peft_type = "SEQ_2_SEQ_LM"
    columns = ("text", "target")

    @classmethod
    def from_rows(
        cls,
        rows: Rows,
        target_language: str | None = None,
        max_target_tokens: int = 64,
        beams: int = 4,
        validate: str = "decode",
    ) -> "Generation":
        """Return the task.

        `target_language` is that of the targets, by default the language of each source.
        `validate` is `decode` (generate and score texts) or `loss` (much faster: teacher-forced
        `token_accuracy` alone chooses the checkpoint).
        """
        if target_language is not None:
            check_language(target_language)
        if validate not in VALIDATE:
            raise ConfigError(f"data.task.validate={validate}. Allowed: {', '.join(VALIDATE)}.")
        for name, value, least in (
            ("max_target_tokens", max_target_tokens, 3),  # a sub-word between two special tokens
            ("beams", beams, 1),
        ):
            if type(value) is not int or value < least:
                raise ConfigError(f"data.task.{name}={value}: must be a whole number ≥ {least}.")
        return cls(target_language, max_target_tokens, beams, validate)

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        return (*(OVERLAPS if self.validate == "decode" else ()), "token_accuracy")

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        values = {"text": row.get("text"), "target": row.get("target")}
        return [
            f"the {name} is {value!r}: generation needs a text"
            for name, value in values.items()
            if not isinstance(value, str) or not value.strip()
        ]

    @override
    def row_texts(self, row: Row) -> list[str]:
        return [row["text"], row["target"]]

    @override
    def add_modules(self, model: PreTrainedModel) -> list[str]:
        """Set the decoding options, which are saved with the model; there are no new modules."""
        config: Any = getattr(model.config, "decoder", model.config)
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and self.max_target_tokens > positions:
            raise ConfigError(
                f"data.task.max_target_tokens={self.max_target_tokens}: "
                f"the decoder of {model.config.model_type} has {positions} positions."
            )
        old: Any = model.generation_config
        special_tokens = {name: getattr(old, name, None) for name in SPECIAL_TOKENS}
        model.generation_config = GenerationConfig(**special_tokens, **self._decoding_options)
        return []

    @property
    def _decoding_options(self) -> dict[str, int]:
        return {"num_beams": self.beams, "max_new_tokens": self.max_target_tokens}

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return one window a row; labels are the targets' sub-words, concatenated."""
        options: dict[str, Any] = {
            "truncation": True,
            "return_attention_mask": False,
            "return_token_type_ids": False,
            "verbose": False,
        }
        texts, targets = [row["text"] for row in rows], [row["target"] for row in rows]
        sources: Any = tokenizer(texts, max_length=max_tokens, **options)
        limit = self.max_target_tokens
        encoded: Any = tokenizer(text_target=targets, max_length=limit, **options)
        cut = [bool(encoded[number].overflowing) for number in range(len(rows))]
        if any(cut):
            log.warning("%d of %d targets cut to %d sub-words", sum(cut), len(rows), limit)
        ids, target_ids = sources["input_ids"], encoded["input_ids"]
        return concatenate(
            ids,
            [[0] * len(window) for window in ids],
            range(len(rows)),
            [subword for target in target_ids for subword in target],
            cut=sum(bool(sources[number].overflowing) for number in range(len(rows))),
            target_starts=np.cumsum([0, *map(len, target_ids)]),
            target_cut=np.asarray(cut, bool),
        )

    @override
    def collate(
        self, encoded: EncodedDataset, windows: Sequence[int], tokenizer: Tokenizer, seed: Any
    ) -> Batch:
        """Return inputs (B, L), labels (B, longest target), and the tokenizer for decoding."""
        pad_id: Any = tokenizer.pad_token_id
        starts = encoded.extra["target_starts"]
        targets = [torch.from_numpy(encoded.labels[starts[w] : starts[w + 1]]) for w in windows]
        labels = pad_sequence(targets, batch_first=True, padding_value=IGNORE)
        return {"inputs": encoded.pad(windows, pad_id), "labels": labels, "tokenizer": tokenizer}

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy over target sub-words and their number."""
        labels = batch["labels"]
        start = model.prepare_decoder_input_ids_from_labels(labels=labels)
        logits = _compute_logits(model, batch, start)
        total = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
        return total, (labels != IGNORE).sum()

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return, for each window, the text with tokens, correct and loss of its reference.

        With `validate=loss` the text is empty, and its score that of the reference.
        """
        labels = batch["labels"]
        start = model.prepare_decoder_input_ids_from_labels(labels=labels)
        gold, correct = _score_labels(_compute_logits(model, batch, start), labels)
        tokens = (labels != IGNORE).sum(-1).tolist()
        stats = list(zip(tokens, correct.tolist(), (-gold).tolist(), strict=True))
        if self.validate == "loss":
            return [(("", *stat), -stat[-1]) for stat in stats]
        ids = model.generate(**_encoder_inputs(batch), **self._decoding_options, do_sample=False)
        generated = _ignore_after_end(ids[:, 1:], model.generation_config.eos_token_id)
        scores, _ = _score_labels(_compute_logits(model, batch, ids[:, :-1]), generated)
        texts = batch["tokenizer"].batch_decode(ids, skip_special_tokens=True)
        return [
            ((text.strip(), *stat), score)
            for text, stat, score in zip(texts, stats, scores.tolist(), strict=True)
        ]

    @override
    def decode(self, rows: Rows, encoded: EncodedDataset, outputs: Outputs) -> list[Prediction]:
        """Return the text generated for each row, next to its references."""
        predictions: list[Prediction] = []
        for window, (text, tokens, correct, loss), score in outputs:
            item = int(encoded.items[window])
            row, cut = rows[item], bool(encoded.extra["target_cut"][window])
            references = row.get("references", [row["target"]])
            language = self.target_language or row["language"]
            extra = ReferenceStats(language, tokens, correct, loss, cut)
            predictions.append(Prediction(item, row["id"], references, text, score, extra))
        return predictions

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        """Return scores and report over the texts of all ranks, gathered in order."""
        gathered = _gather(predictions)
        if not gathered:
            return {"scores": {}, "report": {}}
        stats: list[ReferenceStats] = [p.extra for p in gathered]
        tokens = sum(s.tokens for s in stats)
        scores = {"token_accuracy": sum(s.correct for s in stats) / tokens}
        report = {
            "loss": fsum(s.loss for s in stats) / tokens,
            "tokens": tokens,
            "targets_cut": sum(s.cut for s in stats),
        }
        if self.validate == "decode":
            texts, references = [p.prediction for p in gathered], [p.gold for p in gathered]
            overlap = report_overlap(texts, references, stats[0].language)
            scores, report = overlap["scores"] | scores, overlap["report"] | report
        return {"scores": scores, "report": report}

    @override
    def prepare_for_test(self, report: dict[str, Any]) -> "Generation":
        """Return the task that generates: a test never uses the loss alone."""
        return replace(self, validate="decode")


def _encoder_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """Return what every encoder accepts: most have no segments, and a source is one."""
    return {name: batch["inputs"][name] for name in ("input_ids", "attention_mask")}


def _compute_logits(model: Any, batch: Batch, decoder_ids: torch.Tensor) -> torch.Tensor:
    """Return the logits (B, T, V) after each of the decoder's inputs (B, T)."""
    inputs = _encoder_inputs(batch)
    return model(**inputs, decoder_input_ids=decoder_ids, use_cache=False).logits


def _score_labels(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability (B,) of labels, without IGNORE, and how many are best (B,)."""
    flat = logits.flatten(0, 1).float()
    losses = cross_entropy(flat, labels.flatten(), reduction="none").view_as(labels)
    return -losses.double().sum(-1), (logits.argmax(-1) == labels).sum(-1)


def _ignore_after_end(ids: torch.Tensor, end: int | list[int]) -> torch.Tensor:
    """Return ids (B, T) with IGNORE after the first `end` of each row."""
    ends = torch.isin(ids, torch.as_tensor(end, device=ids.device)).long()
    return ids.masked_fill(ends.cumsum(-1) - ends > 0, IGNORE)


def _gather(predictions: Predictions) -> list[Prediction]:
    """Return the predictions of all ranks, in the order of the rows."""
    by_rank: list[Any] = [list(predictions)]
    if distributed.is_available() and distributed.is_initialized():
        by_rank = [None] * distributed.get_world_size()
        distributed.all_gather_object(by_rank, list(predictions))
    return sorted((p for share in by_rank for p in share), key=lambda p: p.item)
