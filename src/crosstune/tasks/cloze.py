"""Cloze: a masked LM classifies by the word that it puts into the gap of a pattern.

"{text} En resumen, fue {mask}." with words for each label (PET: Schick & Schütze 2021,
https://aclanthology.org/2021.eacl-main.20; LM-BFF: Gao et al. 2021,
https://aclanthology.org/2021.acl-long.295). No weight is new, so it works without any training
(`trainer.max_epochs=0`) and from few examples. Patterns and words are given for each language;
a split is read with those of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE, UNSEEN, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.classification import Classification
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.sequence_classification import row_texts
from crosstune.tasks.task import Task
from crosstune.tasks.verbalizers import (
    ABSENT,
    PromptTemplate,
    Words,
    check_patterns,
    check_words,
    read_segments,
)

GAPS = ("text", "text_pair", "mask")
FREE = 3  # windows free of content that a frame gives


@dataclass
class Cloze(Task):
    """The task of one data set; `labels` are those that have words, sorted."""

    labels: list[str]
    patterns: dict[str, str]  # language -> pattern
    verbalizers: Words
    calibrate: bool
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    peft_type: ClassVar[str] = "FEATURE_EXTRACTION"
    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair", "label")

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        patterns: Any,
        verbalizers: Any,
        calibrate: bool = False,
    ) -> "Cloze":
        """Return the task; every label of the training rows needs words.

        `patterns` has a pattern for each language, with the gaps {text}, {mask} and, for pairs,
        {text_pair}; `verbalizers` a word or several for each language and label. `calibrate`
        divides each label's probability by that which it has where the text says nothing.
        """
        checked = check_patterns(patterns, "data.task.patterns", ("text", "mask"), GAPS)
        words = check_words(verbalizers, "data.task.verbalizers", list(checked))
        labels = sorted(next(iter(words.values())))
        if without := sorted({row["label"] for row in rows} - set(labels)):
            raise ConfigError(
                f"data.task.verbalizers has no words for labels of train: {', '.join(without)}. "
                f"It has words for: {', '.join(labels)}."
            )
        return cls(labels, checked, words, calibrate)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives: those of classification."""
        return Classification(self.labels).metrics

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the labels that a row carries."""
        return [row["label"]]

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return what keeps a row from its language's pattern."""
        language = row["language"]
        if language not in self.patterns:
            return [f"no pattern for its language: give data.task.patterns.{language}"]
        pair = any(gap == "text_pair" for gap, _, _ in read_segments(self.patterns[language]))
        if pair and "text_pair" not in row:
            return [f"data.task.patterns.{language} has {{text_pair}}, but data.text_pair is null"]
        if not pair and "text_pair" in row:
            return [f"data.task.patterns.{language} has no {{text_pair}} for its second text"]
        return []

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return row_texts(row)

    def on_missing_head_weights(self, place: str, lost: Sequence[str]) -> None:
        """Refuse a checkpoint without a whole masked LM: random weights would fill the gap.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{place} lacks {len(lost)} weights of a masked LM's head, {lost[0]} among them, and a "
            "cloze reads its answer from that head. Take a checkpoint saved as a masked LM, or "
            "train the head first: data=files_masked_lm, then model=local model.path=ITS_RUN."
        )

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window a row, with as many masks as the longest word has sub-words.

        Texts are cut, never the pattern.
        """
        languages = sorted({row["language"] for row in rows})
        frames = {
            language: PromptTemplate(
                self.patterns[language], self.verbalizers[language], self.labels, tokenizer
            )
            for language in languages
        }
        pieces = _stack([frame.pieces for frame in frames.values()])
        masks = pieces.shape[-1]
        index = {label: number for number, label in enumerate(self.labels)}
        filled: list[tuple[list[int], int]] = [([], 0)] * len(rows)
        cut = 0
        for language, frame in frames.items():
            numbers = [n for n, row in enumerate(rows) if row["language"] == language]
            for number, texts in zip(numbers, frame.read([rows[n] for n in numbers]), strict=True):
                kept = frame.cut(texts, masks, max_tokens)
                cut += kept != texts
                filled[number] = frame.fill(kept, masks)
        extra: dict[str, Any] = {
            "places": [place for _, place in filled],
            "pieces": pieces,
            "language": [languages.index(row["language"]) for row in rows],
        }
        if self.calibrate:
            free = [window for frame in frames.values() for window in frame.free(masks)]
            extra["free"] = _stack([np.array(ids) for ids, _ in free])
            extra["free_places"] = [place for _, place in free]
        ids = [window for window, _ in filled]
        labels = [index.get(row["label"], UNSEEN) for row in rows]
        types = [[0] * len(window) for window in ids]
        return concatenate(ids, types, range(len(rows)), labels, cut, **extra)

    def collate(
        self,
        encoded: EncodedDataset,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return inputs (B * V, L), labels (B,) and what finds the words' scores in the logits.

        A window has V variants, one for each number of sub-words that a word has, with as many
        masks; `places` (B,) are those of the first mask. `pieces` (B, C, K, M) are the sub-words
        of the words of the labels, and `variants` (B, C, K) tells where a word is looked for.
        """
        chosen, extra = list(windows), encoded.extra
        ids = [encoded.ids[encoded.starts[w] : encoded.starts[w + 1]] for w in chosen]
        language = extra["language"][chosen]
        batch = _questions(ids, extra["places"][chosen], extra["pieces"][language], tokenizer)
        batch["labels"] = torch.from_numpy(encoded.labels[chosen])
        if self.calibrate:
            ids = [row[row != ABSENT] for row in extra["free"]]
            pieces = extra["pieces"].repeat(len(ids) // len(extra["pieces"]), axis=0)
            batch["free"] = _questions(ids, extra["free_places"], pieces, tokenizer)
            batch["language"] = torch.from_numpy(language)
            if "token_type_ids" not in tokenizer.model_input_names:
                del batch["free"]["inputs"]["token_type_ids"]
        return batch

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy over the labels' scores and the number of items."""
        scores, labels = _scores(model, batch), batch["labels"]
        total = cross_entropy(scores, labels, reduction="sum", ignore_index=IGNORE)
        return total, (labels != IGNORE).sum()

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return the best label of each window and its log-probability among the labels.

        Calibrated (Zhao et al. 2021, https://proceedings.mlr.press/v139/zhao21c): each label's
        probability is divided by its mean over the texts free of content, then all by their sum.
        """
        log_p = _scores(model, batch).log_softmax(-1)
        if self.calibrate:
            free = _scores(model, batch["free"]).log_softmax(-1)
            means = free.view(-1, FREE, len(self.labels)).logsumexp(1)  # by language, (…, C)
            log_p = (log_p - means[batch["language"]]).log_softmax(-1)
        scores, best = log_p.max(-1)
        return list(zip(best.tolist(), scores.tolist(), strict=True))

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row, as label texts."""
        return Classification(self.labels).decode(rows, encoded, outputs)

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return the scores and the report of classification, exact over all ranks."""
        return Classification(self.labels).measure(predictions, device)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays as one, filled up with ABSENT to the longest in each direction."""
    shape = np.max([array.shape for array in arrays], axis=0)
    stacked = np.full((len(arrays), *shape), ABSENT, np.int64)
    for number, array in enumerate(arrays):
        stacked[number][tuple(map(slice, array.shape))] = array
    return stacked


def _questions(
    windows: Sequence[np.ndarray],
    places: np.ndarray,
    pieces: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """Return each window with each number of masks; it holds the most of them."""
    sizes = (pieces != ABSENT).sum(-1)
    counts = np.unique(sizes[sizes > 0])
    most = pieces.shape[-1]
    ids: list[Any] = [
        [*window[: place + count], *window[place + most :]]
        for window, place in zip(windows, places.tolist(), strict=True)
        for count in counts.tolist()
    ]
    pad_id: Any = tokenizer.pad_token_id
    flat = concatenate(
        ids, [[0] * len(each) for each in ids], range(len(ids)), [0] * len(ids), cut=0
    )
    return {
        "inputs": flat.pad(range(len(ids)), pad_id),
        "places": torch.from_numpy(places),
        "pieces": torch.from_numpy(pieces),
        "variants": torch.from_numpy(np.searchsorted(counts, sizes)),
    }


def _scores(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the labels' scores (B, C).

    A word's score is the mean log-probability of its sub-words, each at its own mask of a window
    with as many masks as it has sub-words; a label's is the mean over its words.
    """
    pieces, places = batch["pieces"], batch["places"]
    count = torch.arange(len(batch["inputs"]["input_ids"]), device=places.device)
    order = torch.arange(pieces.shape[-1], device=places.device)
    at_masks = (count.view(len(places), -1, 1), (places[:, None] + order)[:, None])
    log_p = _logits_at(model, batch["inputs"], at_masks).float().log_softmax(-1)  # (B, V, M, all)
    present = pieces != ABSENT
    rows = count[: len(places)].view(-1, 1, 1, 1)
    each = log_p[rows, batch["variants"][..., None], order, pieces.clamp(min=0)]  # (B, C, K, M)
    words = each.masked_fill(~present, 0).sum(-1) / present.sum(-1).clamp(min=1)
    return words.sum(-1) / present.any(-1).sum(-1)


def _logits_at(
    model: Any, inputs: dict[str, torch.Tensor], at: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return the logits at some (row, place) alone: a vocabulary everywhere would fill memory."""

    def keep(_: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, (rows, places) = arguments[0], at
        in_front = hidden.shape[1] - inputs["input_ids"].shape[1]  # of a method's soft prompt
        return (hidden[rows, places + in_front],)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        return model(**inputs).logits
    finally:
        hook.remove()
