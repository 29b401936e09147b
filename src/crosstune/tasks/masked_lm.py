"""Masked language modelling: trains an encoder on plain text, from scratch or further.

As BERT (Devlin et al. 2019, https://aclanthology.org/N19-1423). Training draws new masks in each
epoch, from (seed, epoch, window); those of validation and test never change. Long lines become
several windows.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from typing_extensions import override

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.masking import MASKINGS, choose_masked, join_words, number_words
from crosstune.tasks.metrics.tokens import TokenLoss
from crosstune.tasks.prediction import Prediction
from crosstune.tasks.span_boundary import (
    NAME,
    POSITION_WISE_HEADS,
    add_boundary,
    boundary_loss,
    predict_masked,
)
from crosstune.tasks.subwords import find_special_tokens
from crosstune.tasks.task import Batch, Outputs, Predictions, Result, Row, Rows, Task, Tokenizer

WORDS = ("tokenizer", "spaces")
log = logging.getLogger(__name__)


@dataclass
class MaskedLM(Task):
    """The task of one corpus; it has no labels.

    `mask_rate` is the share of sub-words to predict. `masking` chooses single sub-words, whole
    words or spans of words; `words` says where words come from: the tokenizer (every character in
    Chinese and Japanese), or the spaces of a segmented text, which are not part of it.
    `span_boundary` adds the span-boundary objective; `packed` puts several lines into a window, as
    FULL-SENTENCES of RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692).
    """

    mask_rate: float = 0.15
    masking: str = "subword"
    words: str = "tokenizer"
    span_boundary: bool = False
    packed: bool = False
    labels: list[str] = field(init=False, default_factory=list)  # the outputs are the vocabulary
    auto_class = "AutoModelForMaskedLM"
    peft_type = "FEATURE_EXTRACTION"

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate < 1:
            raise ConfigError(f"data.task.mask_rate={self.mask_rate}: must lie between 0 and 1.")
        for name, allowed in (("masking", MASKINGS), ("words", WORDS)):
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(f"data.task.{name}={value}. Allowed: {', '.join(allowed)}.")
        for name in ("span_boundary", "packed"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"data.task.{name}={value!r}: must be true or false.")
        if self.span_boundary and self.masking != "span":
            raise ConfigError(
                f"data.task.span_boundary=true needs data.task.masking=span, not {self.masking}."
            )

    @classmethod
    def from_rows(cls, rows: Rows, mask_rate: float = 0.15, **options: Any) -> "MaskedLM":
        """Return the task; the options are the fields of the class."""
        return cls(mask_rate, **options)

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy",)

    @override
    def row_texts(self, row: Row) -> list[str]:
        return [join_words(row["text"])[0] if self.words == "spaces" else row["text"]]

    @override
    def on_missing_head_weights(self, source: str, missing: Sequence[str]) -> None:
        message = "%s lacks %d weights of the head, %s among them: they start at random"
        log.warning(message, source, len(missing), missing[0])

    @override
    def add_modules(self, model: PreTrainedModel) -> list[str]:
        if not self.span_boundary:
            return []
        if (model_type := model.config.model_type) not in POSITION_WISE_HEADS:
            allowed = ", ".join(POSITION_WISE_HEADS)
            raise ConfigError(f"data.task.span_boundary: not for {model_type}. Allowed: {allowed}.")
        add_boundary(model)
        return [NAME]

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return windows; labels are the sub-words, IGNORE on special tokens.

        A packed window belongs to its first row.
        """
        before, after = find_special_tokens(tokenizer)
        room = max_tokens - len(before) - len(after)
        if room < 2:
            raise ConfigError(f"data.max_tokens={max_tokens}: leaves no room for text.")
        by_word = self.masking != "subword"
        lines = encode_lines(rows, tokenizer, self.words == "spaces", by_word)
        words = [line.words for line in lines]
        packed = pack_lines(words, room, len(after)) if self.packed else cut_lines(words, room)
        windows = [join_parts(parts, lines, before, after) for parts in packed]
        extra: dict[str, Any] = {}
        if by_word:
            flat_words = chain.from_iterable(window.words for window in windows)
            extra["words"] = np.fromiter(flat_words, np.int32)
        if self.packed:
            flat_rows = chain.from_iterable(window.rows for window in windows)
            extra["rows"] = np.fromiter(flat_rows, np.int64)
        ids = [window.ids for window in windows]
        types = [[0] * len(window) for window in ids]
        labels = list(chain.from_iterable(window.labels for window in windows))
        return concatenate(ids, types, [parts[0].line for parts in packed], labels, 0, **extra)

    @override
    def collate(
        self, encoded: EncodedDataset, windows: Sequence[int], tokenizer: Tokenizer, seed: Any
    ) -> Batch:
        """Return masked inputs and labels, each (B, L).

        Of the chosen sub-words 80 % become the mask, 10 % a random sub-word and 10 % stay.
        """
        pad_id: Any = tokenizer.pad_token_id
        mask_id: Any = tokenizer.mask_token_id
        inputs = encoded.pad(windows, pad_id)
        gold = encoded.pad_labels(windows)
        labels = torch.full_like(gold, IGNORE)
        for row, window in enumerate(windows):
            rng = np.random.default_rng([*seed, window])
            words = np.where(gold[row].numpy() != IGNORE, 0, -1)
            if self.masking != "subword":
                words = encoded.extra["words"][encoded.span(window)]
            masked = choose_masked(self.masking, words, self.mask_rate, rng)
            positions = torch.from_numpy(masked.positions)
            labels[row, positions] = gold[row, positions]
            drawn = rng.random(masked.groups.max() + 1)[masked.groups]
            inputs["input_ids"][row, positions[torch.from_numpy(drawn < 0.8)]] = mask_id
            random = positions[torch.from_numpy(drawn >= 0.9)]
            subwords = rng.integers(0, len(tokenizer), len(random))
            inputs["input_ids"][row, random] = torch.from_numpy(subwords)
        return {"inputs": inputs, "labels": labels}

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy over masked sub-words and their number.

        The span-boundary loss is added to the sum.
        """
        labels = batch["labels"]
        masked = labels != IGNORE
        outputs = predict_masked(model, batch["inputs"], masked)
        total = cross_entropy(outputs.logits.float(), labels[masked], reduction="sum")
        if self.span_boundary:
            total = total + boundary_loss(model, outputs, labels, batch["inputs"]["attention_mask"])
        return total, masked.sum()

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return, for each window, its masked sub-words and the sum of their log-probabilities.

        Each is (column, gold, best sub-word, log-probability of the gold).
        """
        labels = batch["labels"]
        masked = labels != IGNORE
        log_p = predict_masked(model, batch["inputs"], masked).logits.float().log_softmax(-1)
        gold = labels[masked]
        scores = log_p.gather(1, gold[:, None])[:, 0]
        columns = (masked.nonzero()[:, 1], gold, log_p.argmax(-1), scores)
        guesses = iter(zip(*(column.tolist() for column in columns), strict=True))
        windows = [[next(guesses) for _ in range(count)] for count in masked.sum(-1).tolist()]
        return [(window, sum(score for *_, score in window)) for window in windows]

    @override
    def decode(self, rows: Rows, encoded: EncodedDataset, outputs: Outputs) -> list[Prediction]:
        """Return one prediction a row: the ids of its masked sub-words and the best guesses."""
        guesses: dict[int, list[tuple[int, int, float]]] = {}
        for window, masked, _ in sorted(outputs, key=lambda output: output[0]):
            row_of = np.full(encoded.lengths[window], encoded.items[window])
            if self.packed:
                row_of = encoded.extra["rows"][encoded.span(window)]
            for row in dict.fromkeys(row_of[row_of >= 0].tolist()):
                guesses.setdefault(row, [])  # a short line may have no masked sub-word
            for column, *guess in masked:
                guesses[int(row_of[column])].append(tuple(guess))
        return [
            Prediction(
                row,
                rows[row]["id"],
                [gold for gold, _, _ in masked],
                [best for _, best, _ in masked],
                sum(score for _, _, score in masked),
            )
            for row, masked in guesses.items()
        ]

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        """Return masked-token accuracy, with loss and perplexity in the report."""
        # an item's score is a sum over its sub-words; only sums count, so each has an equal share
        guesses = [
            (gold == best, p.score / len(p.gold))
            for p in predictions
            for gold, best in zip(p.gold, p.prediction, strict=True)
        ]
        metric = TokenLoss().to(device)
        metric.update(
            -torch.tensor([score for _, score in guesses], dtype=torch.float64, device=device),
            torch.tensor([correct for correct, _ in guesses], dtype=torch.bool, device=device),
        )
        return metric.compute()


class Line(NamedTuple):
    """A row as sub-words."""

    ids: list[int]
    words: Sequence[int]  # the word of each sub-word; if words do not matter, each is its own


class LinePart(NamedTuple):
    """Sub-words [first, last) of a line."""

    line: int
    first: int
    last: int


class JoinedParts(NamedTuple):
    """A window of parts of lines: lists with an entry for every sub-word."""

    ids: list[int]
    labels: list[int]  # IGNORE on special tokens
    words: list[int]  # -1 on special tokens
    rows: list[int]  # -1 on special tokens


def encode_lines(rows: Rows, tokenizer: Tokenizer, spaced: bool, by_word: bool) -> list[Line]:
    """Return rows as sub-words; with `spaced` the spaces of a text separate its words."""
    joined = [join_words(row["text"]) if spaced else (row["text"], None) for row in rows]
    batch: Any = tokenizer(
        [text for text, _ in joined],
        add_special_tokens=False,
        return_offsets_mapping=by_word,
        verbose=False,
    )
    if not by_word:
        return [Line(ids, range(len(ids))) for ids in batch["input_ids"]]
    return [
        Line(ids, number_words(text, offsets, batch.word_ids(number), starts))
        for number, ((text, starts), ids, offsets) in enumerate(
            zip(joined, batch["input_ids"], batch["offset_mapping"], strict=True)
        )
    ]


def cut_line(line: int, words: Sequence[int], room: int) -> Iterator[LinePart]:
    """Yield the parts of a line, each at most `room` sub-words; where possible no word is cut.

    >>> [part[1:] for part in cut_line(0, [0, 1, 1, 2, 2, 3], room=4)]
    [(0, 3), (3, 6)]
    """
    first = 0
    while first < len(words):
        last = end = min(first + room, len(words))
        while first < last < len(words) and words[last] == words[last - 1]:
            last -= 1
        last = last if last > first else end
        yield LinePart(line, first, last)
        first = last


def cut_lines(lines: Sequence[Sequence[int]], room: int) -> list[list[LinePart]]:
    """Return windows of one line, or a part of it, each; a line is its sub-words' words."""
    return [[part] for number, words in enumerate(lines) for part in cut_line(number, words, room)]


def pack_lines(lines: Sequence[Sequence[int]], room: int, between: int) -> list[list[LinePart]]:
    """Return windows of as many whole lines as fit, in order, `between` special tokens apart.

    A line longer than `room` starts a window and takes as many as it needs; the lines after it join
    its last part. So no line is in two windows that start with different lines.

    >>> windows = pack_lines([[0], [0, 1], [0] * 7, [0]], room=5, between=1)
    >>> [[tuple(part) for part in window] for window in windows]
    [[(0, 0, 1), (1, 0, 2)], [(2, 0, 5)], [(2, 5, 7), (3, 0, 1)]]
    """
    windows: list[list[LinePart]] = []
    left = 0
    for number, words in enumerate(lines):
        if not len(words):
            continue
        if len(words) + between <= left:
            windows[-1].append(LinePart(number, 0, len(words)))
            left -= len(words) + between
            continue
        windows += [[part] for part in cut_line(number, words, room)]
        left = room - (windows[-1][0].last - windows[-1][0].first)
    return windows


def join_parts(
    parts: Sequence[LinePart], lines: Sequence[Line], before: list[int], after: list[int]
) -> JoinedParts:
    """Return parts of lines as a window, with the special tokens `after` behind each part."""
    absent = [-1] * len(before)
    window = JoinedParts(list(before), [IGNORE] * len(before), absent, absent.copy())
    for line, first, last in parts:
        inside = lines[line].ids[first:last]
        window.ids.extend([*inside, *after])
        window.labels.extend([*inside, *[IGNORE] * len(after)])
        window.words.extend([*lines[line].words[first:last], *[-1] * len(after)])
        window.rows.extend([line] * len(inside) + [-1] * len(after))
    return window
