"""Extraction: the answer to a question as a span of a text, or none.

Head: transformers' question answering, a start and an end score for every sub-word. Texts longer
than `data.max_tokens` become overlapping windows; where a window lacks the answer, its first
piece (CLS) is both start and end. The reader is `read_squad`; the scores are `metrics/answers.py`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.metrics.answers import FORMS, AnswerReport
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.qa_windows import (
    OUTSIDE,
    holds,
    make_qa_windows,
    read_frame,
    read_texts,
    split,
)
from crosstune.tasks.task import Task

NOWHERE = (0, 0)  # label of a window without the answer: its first piece
log = logging.getLogger(__name__)


class Answer(Prediction):
    """A prediction, and the language whose rules it is scored by."""

    language: str = "en"


@dataclass
class Extraction(Task):
    """The task of one data set.

    `threshold` is the least margin (logits of the best span less those of no answer) with which a
    span is the answer; None answers always.
    """

    labels: list[str]
    stride: int
    max_answer_length: int
    rule: str
    unanswerable: bool
    threshold: float | None = None
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    peft_type: ClassVar[str] = "FEATURE_EXTRACTION"  # peft's own for it drops the segments

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        stride: int = 128,
        max_answer_length: int = 30,
        rule: str = "mlqa",
    ) -> "Extraction":
        """Return the task; whether no answer may be one is what the training rows show.

        Windows start `stride` sub-words apart, or half a window where that is less. Answers have
        at most `max_answer_length` sub-words. `rule` is whose evaluation script the scores follow:
        `squad`, `mlqa` (by language) or `cmrc`.
        """
        for name, value in {"stride": stride, "max_answer_length": max_answer_length}.items():
            if type(value) is not int or value < 1:
                raise ConfigError(f"data.task.{name}={value}: give a whole number above 0.")
        if rule not in FORMS:
            raise ConfigError(f"data.task.rule={rule}. Allowed: {', '.join(FORMS)}.")
        unanswerable = any(not row["answers"] for row in rows)
        return cls(["start", "end"], stride, max_answer_length, rule, unanswerable)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        return ("f1", "em", *(("has_answer_f1", "no_answer_accuracy") if self.unanswerable else ()))

    def undefined_metrics(self, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
        """Return the scores by answerability that such rows cannot give."""
        if all(row["answers"] for row in rows):
            return ("no_answer_accuracy", "has_answer_f1")
        return () if any(row["answers"] for row in rows) else ("has_answer_f1",)

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return [row["question"], row["context"]]

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return what is wrong with a row: empty texts, and answers that stand elsewhere."""
        context = row["context"]
        faults = [
            f"the {name} is empty" for name in ("question", "context") if not row[name].strip()
        ]
        for answer in row["answers"]:
            text, start = answer["text"], answer["start"]
            found = context[max(start, 0) : max(start, 0) + len(text)]
            if not text.strip():
                faults.append(f"the answer at {start} is empty")
            elif len(text) > len(context):
                faults.append(f"the answer {brief(text)} is longer than the context")
            elif start < 0 or found != text:
                there = context.find(text)
                hint = f"; it is at {there}" if there >= 0 else "; it is nowhere in the context"
                where = f"is not at {start}, where {brief(found)} stands"
                faults.append(f"the answer {brief(text)} {where}{hint}")
        return faults

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window or more a row, the places of its answer as its label.

        A question keeps at most half of the room for text. Rows that lose a part of it, or have an
        answer that no window holds whole, count as cut.
        """
        frame = read_frame(tokenizer)
        room = max_tokens - frame.size
        if room < 2:
            raise ConfigError(
                f"data.max_tokens={max_tokens}: {frame.size} of them are special pieces; a "
                f"question and its text need {frame.size + 2} or more."
            )
        texts = read_texts([row["context"] for row in rows], tokenizer)
        asked: Any = tokenizer(
            [row["question"] for row in rows], add_special_tokens=False, verbose=False
        )
        windows: list[tuple[list[int], list[int], np.ndarray]] = []
        items: list[int] = []
        labels: list[tuple[int, int]] = []
        cut = long = 0
        for item, (row, question) in enumerate(zip(rows, asked["input_ids"], strict=True)):
            text, kept = texts[row["context"]], question[: room // 2]
            golds = [text.find(answer) for answer in row["answers"]]
            spans = list(split(len(text.ids), room - len(kept), self.stride))
            for span in spans:
                windows.append(make_qa_windows(frame, kept, text, span))
                items.append(item)
                lead = len(frame.ids[0]) + len(kept) + len(frame.ids[1]) - span[0]
                inside = (gold for gold in golds if gold and holds(span, gold))
                labels.append(next(((lead + i, lead + j) for i, j in inside), NOWHERE))
            whole = all(gold and any(holds(span, gold) for span in spans) for gold in golds)
            cut += len(kept) < len(question) or not whole
            long += any(gold and gold[1] - gold[0] >= self.max_answer_length for gold in golds)
        if long:
            log.warning(
                "%d of %d rows have an answer of more than %d sub-words, which cannot be found: "
                "see data.task.max_answer_length",
                *(long, len(rows), self.max_answer_length),
            )
        ids, types, offsets = zip(*windows, strict=True)
        return concatenate(ids, types, items, labels, cut, offsets=np.concatenate(offsets))

    def collate(
        self,
        encoded: EncodedDataset,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return inputs (B, L), labels (B, 2) and the characters of each sub-word (B, L, 2)."""
        pad_id: Any = tokenizer.pad_token_id
        inputs = encoded.pad(windows, pad_id)
        offsets = torch.tensor(OUTSIDE).repeat(*inputs["input_ids"].shape, 1)
        for row, window in enumerate(windows):
            start, end = encoded.starts[window], encoded.starts[window + 1]
            offsets[row, : end - start] = torch.from_numpy(encoded.extra["offsets"][start:end])
        labels = torch.from_numpy(encoded.labels[list(windows)])
        return {"inputs": inputs, "labels": labels, "offsets": offsets}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed mean of start's and end's cross entropy, and the number of windows."""
        labels = batch["labels"]
        total = sum(
            cross_entropy(logits, labels[:, side], reduction="sum", ignore_index=IGNORE)
            for side, logits in enumerate(read_logits(model, batch))
        )
        return torch.as_tensor(total) / 2, (labels[:, 0] != IGNORE).sum()

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return, for each window, its best span and the score of none, then the span's score.

        Every span of at most `max_answer_length` sub-words is looked at, not only those of the
        best starts and ends. Scores are sums of two logits. A span is its characters; a window
        without any has the score of minus infinity.
        """
        start, end = read_logits(model, batch)
        first, last = batch["offsets"].unbind(-1)  # (B, L) each
        reach = min(self.max_answer_length, start.shape[1])
        # (B, L, reach): each start with the ends on it and behind it
        ends = pad(end, (0, reach - 1), value=-torch.inf).unfold(1, reach, 1)
        lasts = pad(last, (0, reach - 1), value=OUTSIDE[1]).unfold(1, reach, 1)
        spans = (start[:, :, None] + ends).masked_fill(lasts <= first[:, :, None], -torch.inf)
        scores, best = spans.flatten(1).max(-1)
        begin = best[:, None] // reach
        firsts = first.gather(1, begin).flatten()
        finals = last.gather(1, begin + best[:, None] % reach).flatten()
        none = start[:, 0] + end[:, 0]
        said = zip(firsts.tolist(), finals.tolist(), none.tolist(), strict=True)
        return list(zip(said, scores.tolist(), strict=True))

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row: the best span of its windows, as text; "" for none.

        Its score is the margin: the span's score less the lowest score of none.
        """
        found: dict[int, tuple[float, str, float]] = {}
        for window, (first, last, none), score in sorted(outputs, key=lambda output: output[0]):
            item = int(encoded.items[window])
            best, text, lowest = found.get(item, (-inf, "", inf))
            if score > best:
                best, text = score, rows[item]["context"][first:last]
            found[item] = (best, text, min(none, lowest))
        return [
            self._answer(item, rows[item], text, best - lowest if text else 0.0)
            for item, (best, text, lowest) in found.items()
        ]

    def _answer(self, item: int, row: dict[str, Any], text: str, margin: float) -> Answer:
        said = text if self.threshold is None or margin >= self.threshold else ""
        golds = [gold["text"] for gold in row["answers"]]
        answer = Answer(item, row["id"], golds, said, margin)
        answer.language = row.get("language", Answer.language)
        return answer

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return scores and report, exact over all ranks.

        Before a threshold is known, and where train has questions without an answer, the scores
        are those with the best threshold on these very predictions, which the report names.
        """
        report = AnswerReport(self.rule, self.unanswerable and self.threshold is None).to(device)
        report.update(
            [p.prediction for p in predictions],
            [p.gold for p in predictions],
            [p.language if isinstance(p, Answer) else Answer.language for p in predictions],
            [p.score for p in predictions],
        )
        result = report.compute()
        if self.threshold is not None:
            result["report"]["threshold"] = self.threshold
        return result

    def tuned(self, report: dict[str, Any]) -> "Extraction":
        """Return the task with the threshold that was best on validation."""
        return replace(self, threshold=report.get("best_threshold"))


def brief(text: str) -> str:
    """Return a text in quotes, its end left out where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def read_logits(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of starts and of ends, (B, L) each, minus infinity on padding."""
    mask = batch["inputs"]["attention_mask"] == 0
    length = mask.shape[1]
    found = model(**batch["inputs"])
    # the vectors that prompt tuning puts in front have logits too, and no sub-word
    start, end = found.start_logits[:, -length:], found.end_logits[:, -length:]
    return start.float().masked_fill(mask, -torch.inf), end.float().masked_fill(mask, -torch.inf)
