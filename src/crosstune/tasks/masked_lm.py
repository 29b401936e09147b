"""Masked language modelling: trains or continues an encoder on plain text.

Sub-words, whole words or spans are masked as in BERT (Devlin et al. 2019,
https://aclanthology.org/N19-1423): 15 % are chosen, of which 80 % become the mask, 10 % a random
piece and 10 % stay. Training draws anew each epoch, from (seed, epoch, window); validation and
test masks never change, so that all runs answer the same questions. Long lines become several
windows, none is cut (but in pairs of lines). The vocabulary is scored at masked places alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.lm_windows import make_lm_windows, read_lines
from crosstune.tasks.masking import MASKINGS, choose, cut_lines, join_words, pack_lines, pair_lines
from crosstune.tasks.metrics.tokens import TokenLoss
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.span_boundary import (
    BY_PLACE,
    NAME,
    add_boundary,
    boundary_loss,
    encode_with_targets,
)
from crosstune.tasks.subwords import special_pieces
from crosstune.tasks.task import Task

WORDS = ("tokenizer", "spaces")
log = logging.getLogger(__name__)


class TokenPredictions(Prediction):
    """A prediction, and which of the row's pairs of lines were told apart from random ones."""

    pairs: Sequence[tuple[bool, float]] = ()  # whether rightly, and the answer's log-probability


@dataclass
class MaskedLM(Task):
    """The task of one corpus; it has no labels.

    `mask_rate` is the share of sub-words to be guessed. `masking` chooses single sub-words, whole
    words or spans of words; `words` says where words are from: the tokenizer (every character in
    Chinese and Japanese), or the spaces of a segmented text, which are no text themselves.
    `span_boundary` adds the span-boundary objective, `next_sentence` next-sentence prediction;
    `packed` puts several lines into a window, as FULL-SENTENCES of RoBERTa (Liu et al. 2019,
    https://arxiv.org/abs/1907.11692).
    """

    mask_rate: float = 0.15
    masking: str = "subword"
    words: str = "tokenizer"
    span_boundary: bool = False
    next_sentence: bool = False
    packed: bool = False
    labels: list[str] = field(init=False, default_factory=list)  # the outputs are the vocabulary
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    peft_type: ClassVar[str] = "FEATURE_EXTRACTION"

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate < 1:
            raise ConfigError(f"data.task.mask_rate={self.mask_rate}: must lie between 0 and 1.")
        for name, allowed in (("masking", MASKINGS), ("words", WORDS)):
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"data.task.{name}={value}. Allowed: {', '.join(allowed)}.")
        for name in ("span_boundary", "next_sentence", "packed"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"data.task.{name}={value!r}: must be true or false.")
        if self.span_boundary and self.masking != "span":
            raise ConfigError(
                f"data.task.span_boundary=true needs data.task.masking=span, not {self.masking}."
            )
        if self.next_sentence and self.packed:
            raise ConfigError("data.task: next_sentence takes pairs of lines, so packed is no use.")

    @classmethod
    def from_rows(
        cls, rows: Sequence[dict[str, Any]], mask_rate: float = 0.15, **options: Any
    ) -> "MaskedLM":
        """Return the task; the options are the fields of the class."""
        return cls(mask_rate, **options)

    @property
    def head_class(self) -> str:
        """Return the transformers class of the head: of one that guesses pairs, too, if need be."""
        return "AutoModelForPreTraining" if self.next_sentence else self.auto_class

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        return ("accuracy", *(["next_sentence_accuracy"] if self.next_sentence else []))

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw text of a row, for training a tokenizer."""
        return [join_words(row["text"])[0] if self.words == "spaces" else row["text"]]

    def on_missing_head_weights(self, place: str, lost: Sequence[str]) -> None:
        """Say that the head begins at random: pretraining goes on, but not from where it ended."""
        told = "%s lacks %d weights of the head, %s among them: they begin at random"
        log.warning(told, place, len(lost), lost[0])

    def extend(self, model: PreTrainedModel) -> list[str]:
        """Add the head of the span-boundary objective where it is asked for."""
        kind = model.config.model_type
        if self.next_sentence and not hasattr(getattr(model, "cls", None), "seq_relationship"):
            raise ConfigError(f"data.task.next_sentence: {kind} has no head for it, bert has.")
        if not self.span_boundary:
            return []
        if kind not in BY_PLACE:
            raise ConfigError(
                f"data.task.span_boundary: not for {kind}. Allowed: {', '.join(BY_PLACE)}."
            )
        add_boundary(model)
        return [NAME]

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return windows; labels are the sub-words, IGNORE on special pieces.

        A packed window belongs to its first row, a pair to the row whose text comes first.
        """
        around = before, after = special_pieces(tokenizer)
        room = max_tokens - len(before) - len(after) * (2 if self.next_sentence else 1)
        if room < 2:
            raise ConfigError(f"data.max_tokens={max_tokens}: leaves no room for text.")
        lines = read_lines(rows, tokenizer, self.words == "spaces", self.masking != "subword")
        sizes = [len(line.ids) for line in lines]
        extra: dict[str, Any] = {}
        cut = 0
        if self.next_sentence:
            rng = np.random.default_rng([0, len(rows)])  # the same pairs in every epoch and run
            parted, extra["random"], cut = pair_lines(sizes, room, rng)
        elif self.packed:
            parted = pack_lines([line.words for line in lines], room, len(after))
        else:
            parted = cut_lines([line.words for line in lines], room)
        built = [make_lm_windows(parts, lines, around, self.next_sentence) for parts in parted]
        ids, types, labels, words, owners = zip(*built, strict=True) if built else ((),) * 5
        if self.masking != "subword":
            extra["words"] = np.fromiter((w for window in words for w in window), np.int32)
        if self.packed:
            extra["rows"] = np.fromiter((row for window in owners for row in window), np.int64)
        flat = [label for window in labels for label in window]
        return concatenate(ids, types, [parts[0].line for parts in parted], flat, cut, **extra)

    @property
    def is_additive(self) -> bool:
        """Next-sentence prediction is weighed by the sub-words of the whole batch."""
        return not self.next_sentence

    def collate(
        self,
        encoded: EncodedDataset,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return masked inputs and labels, each (B, L), and `random` (B,): is line two so?"""
        pad_id: Any = tokenizer.pad_token_id
        mask_id: Any = tokenizer.mask_token_id
        inputs = encoded.pad(windows, pad_id)
        gold = encoded.pad_labels(windows)
        labels = torch.full_like(gold, IGNORE)
        for row, window in enumerate(windows):
            rng = np.random.default_rng([*draw, window])
            words = np.where(gold[row].numpy() != IGNORE, 0, -1)
            if self.masking != "subword":
                words = encoded.extra["words"][encoded.span(window)]
            chosen = choose(self.masking, words, self.mask_rate, rng)
            places = torch.from_numpy(chosen.places)
            labels[row, places] = gold[row, places]
            dice = rng.random(chosen.groups.max() + 1)[chosen.groups]
            inputs["input_ids"][row, places[torch.from_numpy(dice < 0.8)]] = mask_id
            random = places[torch.from_numpy(dice >= 0.9)]
            pieces = rng.integers(0, len(tokenizer), len(random))
            inputs["input_ids"][row, random] = torch.from_numpy(pieces)
        batch = {"inputs": inputs, "labels": labels}
        if self.next_sentence:
            batch["random"] = torch.from_numpy(encoded.extra["random"][list(windows)])
        return batch

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy over masked sub-words and their number.

        The span-boundary loss is added to it, and next-sentence prediction's mean times the number.
        """
        labels = batch["labels"]
        masked = labels != IGNORE
        seen = encode_with_targets(model, batch["inputs"], masked)
        count = masked.sum()
        total = cross_entropy(seen.logits.float(), labels[masked], reduction="sum")
        if self.span_boundary:
            total = total + boundary_loss(model, seen, labels, batch["inputs"]["attention_mask"])
        if self.next_sentence:
            counted = masked.any(1)  # not in a stand-in batch
            logits = seen.outputs.seq_relationship_logits[counted].float()
            pairs = cross_entropy(logits, batch["random"][counted], reduction="sum")
            total = total + pairs * count / counted.sum().clamp(min=1)
        return total, count

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return, for each window, what was guessed where, and the sum of log-probabilities.

        A guess is (place, gold, best piece, the gold's log-probability); a list of them comes with
        what was said of the pair: nothing, or (whether rightly, the answer's log-probability).
        """
        labels = batch["labels"]
        masked = labels != IGNORE
        seen = encode_with_targets(model, batch["inputs"], masked)
        log_p = seen.logits.float().log_softmax(-1)
        gold = labels[masked]
        scores = log_p.gather(1, gold[:, None])[:, 0]
        columns = (masked.nonzero()[:, 1], gold, log_p.argmax(-1), scores)
        said = iter(zip(*(column.tolist() for column in columns), strict=True))
        windows = [[next(said) for _ in range(count)] for count in masked.sum(-1).tolist()]
        pairs = [[] for _ in windows]
        if self.next_sentence:
            pairs = _read_pairs(seen.outputs.seq_relationship_logits, batch["random"])
        return [
            ((window, pair), sum(score for *_, score in window))
            for window, pair in zip(windows, pairs, strict=True)
        ]

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row: the ids of its masked sub-words and the guesses."""
        found: dict[int, list[tuple[int, int, float]]] = {}
        pairs: dict[int, list[tuple[bool, float]]] = {}
        for window, (said, pair), _ in sorted(outputs, key=lambda output: output[0]):
            owners = np.full(encoded.lengths[window], encoded.items[window])
            if self.packed:
                owners = encoded.extra["rows"][encoded.span(window)]
            for row in dict.fromkeys(owners[owners >= 0].tolist()):
                found.setdefault(row, [])  # no piece of a short line may be masked
            for place, *guess in said:
                found[int(owners[place])].append(tuple(guess))
            pairs.setdefault(int(encoded.items[window]), []).extend(pair)
        return [
            _as_prediction(row, rows[row]["id"], found[row], pairs.get(row, [])) for row in found
        ]

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return masked-token accuracy, with loss and perplexity in the report.

        With next-sentence prediction also the share of pairs that were told apart, and its loss.
        """
        # an item's score is a sum over its pieces; only sums count, so each bears an equal part
        guesses = [
            (gold == best, p.score / len(p.gold))
            for p in predictions
            for gold, best in zip(p.gold, p.prediction, strict=True)
        ]
        result = _measure(guesses, device)
        if self.next_sentence:
            pairs = [
                pair for p in predictions if isinstance(p, TokenPredictions) for pair in p.pairs
            ]
            told = _measure(pairs, device)
            for part in ("scores", "report"):
                found = {key: told[part][key] for key in ("accuracy", "loss") if key in told[part]}
                result[part] |= {f"next_sentence_{key}": value for key, value in found.items()}
        return result


def _measure(guesses: Sequence[tuple[bool, float]], device: torch.device) -> dict[str, Any]:
    """Return accuracy and loss of guesses: whether each is right, the gold's log-probability."""
    meter = TokenLoss().to(device)
    meter.update(
        -torch.tensor([score for _, score in guesses], dtype=torch.float64, device=device),
        torch.tensor([right for right, _ in guesses], dtype=torch.bool, device=device),
    )
    return meter.compute()


def _read_pairs(logits: torch.Tensor, random: torch.Tensor) -> list[list[tuple[bool, float]]]:
    """Return for each window, in a list, whether logits (B, 2) answer rightly, and how surely."""
    log_p = logits.float().log_softmax(-1)
    right = (log_p.argmax(-1) == random).tolist()
    scores = log_p.gather(1, random[:, None])[:, 0].tolist()
    return [[pair] for pair in zip(right, scores, strict=True)]


def _as_prediction(
    row: int,
    name: str,
    said: Sequence[tuple[int, int, float]],
    pairs: Sequence[tuple[bool, float]],
) -> TokenPredictions:
    golds, best = [gold for gold, _, _ in said], [best for _, best, _ in said]
    prediction = TokenPredictions(row, name, golds, best, sum(score for _, _, score in said))
    prediction.pairs = pairs
    return prediction
