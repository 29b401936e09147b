"""Extractive question answering: the answer to a question as a span of a text, or none.

Head: a start and an end logit for every sub-word. Long texts become overlapping windows; where a
window lacks the answer, its first sub-word (CLS) is both start and end.
"""

import logging
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad
from typing_extensions import override

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.metrics.answers import NORMALIZERS, AnswerReport, score_answer
from crosstune.tasks.prediction import Prediction
from crosstune.tasks.task import Batch, Outputs, Predictions, Result, Row, Rows, Task, Tokenizer

NO_ANSWER = (0, 0)  # label of a window without the answer: its first sub-word
OUTSIDE = (2**31 - 1, 0)  # offsets of what is not text to answer from: no span starts or ends there
DEFAULT_LANGUAGE = "en"  # for scoring an answer without one
log = logging.getLogger(__name__)


@dataclass
class Extraction(Task):
    """The task of one data set.

    `threshold` is the least margin (logits of the best span less those of no answer) with which a
    span is the answer; None never gives "no answer".
    """

    labels: list[str]
    stride: int
    max_answer_length: int
    rule: str
    unanswerable: bool
    threshold: float | None = None
    auto_class = "AutoModelForQuestionAnswering"
    peft_type = "FEATURE_EXTRACTION"  # peft's own for question answering drops the segments

    @classmethod
    def from_rows(
        cls, rows: Rows, stride: int = 128, max_answer_length: int = 30, rule: str = "mlqa"
    ) -> "Extraction":
        """Return the task; train decides whether questions can be unanswerable.

        Windows start `stride` sub-words apart, or half a window if that is less. Answers have at
        most `max_answer_length` sub-words. `rule` is whose evaluation script the scores follow:
        `squad`, `mlqa` (by language) or `cmrc`.
        """
        for name, value in {"stride": stride, "max_answer_length": max_answer_length}.items():
            if type(value) is not int or value < 1:
                raise ConfigError(f"data.task.{name}={value}: give a whole number above 0.")
        if rule not in NORMALIZERS:
            raise ConfigError(f"data.task.rule={rule}. Allowed: {', '.join(NORMALIZERS)}.")
        unanswerable = any(not row["answers"] for row in rows)
        return cls(["start", "end"], stride, max_answer_length, rule, unanswerable)

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        return ("f1", "em", *(("has_answer_f1", "no_answer_accuracy") if self.unanswerable else ()))

    @override
    def undefined_metrics(self, rows: Rows) -> tuple[str, ...]:
        if all(row["answers"] for row in rows):
            return ("no_answer_accuracy", "has_answer_f1")
        return () if any(row["answers"] for row in rows) else ("has_answer_f1",)

    @override
    def row_texts(self, row: Row) -> list[str]:
        return [row["question"], row["context"]]

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        context = row["context"]
        faults = [
            f"the {name} is empty" for name in ("question", "context") if not row[name].strip()
        ]
        for answer in row["answers"]:
            text, start = answer["text"], answer["start"]
            at_start = context[max(start, 0) : max(start, 0) + len(text)]
            if not text.strip():
                faults.append(f"the answer at {start} is empty")
            elif len(text) > len(context):
                faults.append(f"the answer {_shorten(text)} is longer than the context")
            elif start < 0 or at_start != text:
                where = f"is not at {start}, where {_shorten(at_start)} stands"
                faults.append(f"the answer {_shorten(text)} {where}; {_locate(text, context)}")
        return faults

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return one window or more a row, with start and end of its answer as its label.

        A question has at most half of the room for text. Rows that lose a part of it, or have an
        answer that no window contains whole, count as cut.
        """
        template = read_pair_template(tokenizer)
        room = max_tokens - template.size
        if room < 2:
            raise ConfigError(
                f"data.max_tokens={max_tokens}: {template.size} of them are special tokens; a "
                f"question and its text need {template.size + 2} or more."
            )
        passages = encode_passages([row["context"] for row in rows], tokenizer)
        questions: Any = tokenizer(
            [row["question"] for row in rows], add_special_tokens=False, verbose=False
        )
        windows: list[tuple[list[int], list[int], np.ndarray]] = []
        items: list[int] = []
        labels: list[tuple[int, int]] = []
        cut = long = 0
        for item, (row, ids) in enumerate(zip(rows, questions["input_ids"], strict=True)):
            passage, question = passages[row["context"]], ids[: room // 2]
            golds = [passage.find(answer) for answer in row["answers"]]
            spans = list(slide_windows(len(passage.ids), room - len(question), self.stride))
            for span in spans:
                windows.append(template.fill(question, passage, span))
                items.append(item)
                shift = template.count_before(question) - span[0]
                inside = (gold for gold in golds if gold and contains(span, gold))
                labels.append(next(((shift + i, shift + j) for i, j in inside), NO_ANSWER))
            complete = all(gold and any(contains(span, gold) for span in spans) for gold in golds)
            cut += len(question) < len(ids) or not complete
            long += any(gold and gold[1] - gold[0] >= self.max_answer_length for gold in golds)
        if long:
            log.warning(
                "%d of %d rows have an answer of more than %d sub-words, which cannot be found: "
                "see data.task.max_answer_length",
                *(long, len(rows), self.max_answer_length),
            )
        ids, types, offsets = zip(*windows, strict=True)
        return concatenate(ids, types, items, labels, cut, offsets=np.concatenate(offsets))

    @override
    def collate(
        self, encoded: EncodedDataset, windows: Sequence[int], tokenizer: Tokenizer, seed: Any
    ) -> Batch:
        """Return inputs (B, L), labels (B, 2) and the characters of each sub-word (B, L, 2)."""
        batch = super().collate(encoded, windows, tokenizer, seed)
        offsets = torch.tensor(OUTSIDE).repeat(*batch["inputs"]["input_ids"].shape, 1)
        for row, window in enumerate(windows):
            span = encoded.span(window)
            window_offsets = torch.from_numpy(encoded.extra["offsets"][span])
            offsets[row, : len(window_offsets)] = window_offsets
        return {**batch, "offsets": offsets}

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed mean of start's and end's cross entropy, and the number of windows."""
        labels = batch["labels"]
        total = sum(
            cross_entropy(logits, labels[:, side], reduction="sum", ignore_index=IGNORE)
            for side, logits in enumerate(_compute_logits(model, batch))
        )
        return torch.as_tensor(total) / 2, (labels[:, 0] != IGNORE).sum()

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return, for each window, its best span with the score of no answer, and its score.

        Every span of at most `max_answer_length` sub-words is scored, not only those of the best
        starts and ends. Scores are sums of two logits. A span is [first, last) in characters; a
        window without any has the score of minus infinity.
        """
        start, end = _compute_logits(model, batch)
        first, last = batch["offsets"].unbind(-1)  # (B, L) each
        reach = min(self.max_answer_length, start.shape[1])
        # (B, L, reach): each start with the ends at it and after it
        ends = pad(end, (0, reach - 1), value=-torch.inf).unfold(1, reach, 1)
        lasts = pad(last, (0, reach - 1), value=OUTSIDE[1]).unfold(1, reach, 1)
        spans = (start[:, :, None] + ends).masked_fill(lasts <= first[:, :, None], -torch.inf)
        scores, best = spans.flatten(1).max(-1)
        index = best[:, None] // reach
        firsts = first.gather(1, index).flatten()
        lasts_of_best = last.gather(1, index + best[:, None] % reach).flatten()
        none = start[:, 0] + end[:, 0]
        outputs = zip(firsts.tolist(), lasts_of_best.tolist(), none.tolist(), strict=True)
        return list(zip(outputs, scores.tolist(), strict=True))

    @override
    def decode(self, rows: Rows, encoded: EncodedDataset, outputs: Outputs) -> list[Prediction]:
        """Return one prediction a row: the best span of its windows, as text; "" for none.

        Its score is the margin: the span's score less the lowest score of no answer.
        """
        best: dict[int, tuple[float, str, float]] = {}
        for window, (first, last, none), score in sorted(outputs, key=lambda output: output[0]):
            item = int(encoded.items[window])
            best_score, text, lowest = best.get(item, (-inf, "", inf))
            if score > best_score:
                best_score, text = score, rows[item]["context"][first:last]
            best[item] = (best_score, text, min(none, lowest))
        predictions: list[Prediction] = []
        for item, (score, text, lowest) in best.items():
            row, margin = rows[item], score - lowest if text else 0.0
            answer = text if self.threshold is None or margin >= self.threshold else ""
            golds = [gold["text"] for gold in row["answers"]]
            language = row.get("language", DEFAULT_LANGUAGE)
            predictions.append(Prediction(item, row["id"], golds, answer, margin, language))
        return predictions

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        """Return scores and report, exact over all ranks.

        Before a threshold is known, and if train has questions without an answer, the scores are
        those with the best threshold on these very predictions, which the report has.
        """
        tune = self.unanswerable and self.threshold is None
        report = AnswerReport(self.rule, unanswerable=self.unanswerable, tune=tune).to(device)
        report.update(
            [p.prediction for p in predictions],
            [p.gold for p in predictions],
            [p.extra or DEFAULT_LANGUAGE for p in predictions],
            [p.score for p in predictions],
        )
        result = report.compute()
        if self.threshold is not None:
            result["report"]["threshold"] = self.threshold
        return result

    @override
    def item_scores(self, prediction: Prediction) -> dict[str, float]:
        exact, f1 = score_answer(
            prediction.prediction,
            prediction.gold,
            self.rule,
            prediction.extra or DEFAULT_LANGUAGE,
            unanswerable=self.unanswerable,
        )
        return {"f1": f1, "em": exact}

    @override
    def prepare_for_test(self, report: dict[str, Any]) -> "Extraction":
        """Return the task with the threshold that was best on validation."""
        return replace(self, threshold=report.get("best_threshold"))


class Passage(NamedTuple):
    """Sub-words of a text and the characters of each, without outer spaces."""

    ids: list[int]
    offsets: np.ndarray  # (n, 2) [first, last)

    def find(self, answer: dict[str, Any]) -> tuple[int, int] | None:
        """Return the first and the last sub-word that overlap an answer; None if none does."""
        text: str = answer["text"]
        start = answer["start"] + len(text) - len(text.lstrip())
        end = answer["start"] + len(text.rstrip())
        inside = np.flatnonzero((self.offsets[:, 0] < end) & (self.offsets[:, 1] > start))
        return (int(inside[0]), int(inside[-1])) if len(inside) else None


class PairTemplate(NamedTuple):
    """The special tokens before, between and after two texts, and the segment of each part."""

    ids: list[list[int]]  # before, between and after
    types: list[list[int]]  # of the same
    segments: tuple[int, int]  # of the two texts

    @property
    def size(self) -> int:
        """The number of special tokens."""
        return sum(map(len, self.ids))

    def count_before(self, question: list[int]) -> int:
        """Return how many sub-words of a window precede its passage."""
        return len(self.ids[0]) + len(question) + len(self.ids[1])

    def fill(
        self, question: list[int], passage: Passage, span: tuple[int, int]
    ) -> tuple[list[int], list[int], np.ndarray]:
        """Return ids, segments and offsets of the window with a span of the passage."""
        before, between, after = self.ids
        inside = passage.ids[slice(*span)]
        ids = [*before, *question, *between, *inside, *after]
        first, second = self.segments
        texts = [[first] * len(question), [second] * len(inside), []]
        types = [t for special, text in zip(self.types, texts, strict=True) for t in special + text]
        offsets = np.tile(np.asarray(OUTSIDE, np.int32), (len(ids), 1))
        start = self.count_before(question)
        offsets[start : start + len(inside)] = passage.offsets[slice(*span)]
        return ids, types, offsets


def read_pair_template(tokenizer: Tokenizer) -> PairTemplate:
    """Return what the tokenizer puts around two texts."""
    batch: Any = tokenizer("a", "a", return_token_type_ids=True)
    ids, types, texts = batch["input_ids"], batch["token_type_ids"], batch.sequence_ids(0)
    first, second = texts.index(0), texts.index(1)
    end, after = first + texts.count(0), second + texts.count(1)
    parts = (slice(first), slice(end, second), slice(after, None))
    segments = (types[first], types[second])
    return PairTemplate([ids[part] for part in parts], [types[part] for part in parts], segments)


def encode_passages(texts: Sequence[str], tokenizer: Tokenizer) -> dict[str, Passage]:
    """Return each different text as sub-words: one text has many questions."""
    different = list(dict.fromkeys(texts))
    batch: Any = tokenizer(
        different, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return {
        text: Passage(
            ids, np.asarray([trim_offsets(text, *o) for o in offsets], np.int32).reshape(-1, 2)
        )
        for text, ids, offsets in zip(
            different, batch["input_ids"], batch["offset_mapping"], strict=True
        )
    }


def trim_offsets(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the characters of a sub-word without the spaces that some tokenizers include.

    Accents that follow their letter and that the tokenizer drops belong to it. A sub-word of
    spaces alone starts after them and ends before them, so no span has it.

    >>> trim_offsets("el niño", 2, 7), trim_offsets("el niño", 2, 3)
    ((3, 7), (3, 2))
    """
    subword = text[start:end]
    first, last = end - len(subword.lstrip()), start + len(subword.rstrip())
    while first < last < len(text) and unicodedata.combining(text[last]):
        last += 1
    return first, last


def slide_windows(length: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield [first, last) of each window over a text of `length` sub-words.

    >>> [list(slide_windows(*case)) for case in ((10, 6, 4), (10, 6, 2), (0, 6, 2))]
    [[(0, 6), (3, 9), (6, 10)], [(0, 6), (2, 8), (4, 10)], [(0, 0)]]
    """
    step = max(1, min(stride, room // 2))
    for first in range(0, max(length - room, 0) + step, step):
        yield first, min(first + room, length)


def contains(span: tuple[int, int], gold: tuple[int, int]) -> bool:
    """Return whether a window has every sub-word of an answer."""
    return span[0] <= gold[0] and gold[1] < span[1]


def _locate(answer: str, context: str) -> str:
    """Return where an answer is in a context, also if their Unicode forms differ."""
    if answer in context:
        return f"it is at {context.find(answer)}"
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        if unicodedata.normalize(form, answer) in context:
            remedy = f"unicodedata.normalize({form!r}, answer) makes them equal"
            return f"the context writes it in {form}, another form of Unicode: {remedy}"
    return "it is nowhere in the context"


def _shorten(text: str) -> str:
    """Return a text in quotes, truncated if it is long."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _compute_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of starts and of ends, (B, L) each, minus infinity on padding."""
    mask = batch["inputs"]["attention_mask"] == 0
    length = mask.shape[1]
    outputs = model(**batch["inputs"])
    # the virtual tokens of prompt tuning have logits too
    start, end = outputs.start_logits[:, -length:], outputs.end_logits[:, -length:]
    return start.float().masked_fill(mask, -torch.inf), end.float().masked_fill(mask, -torch.inf)
