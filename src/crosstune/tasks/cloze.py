"""Cloze: a masked LM classifies by the word that it predicts in the gap of a pattern.

"{text} En resumen, fue {mask}." with words for each label (PET: Schick & Schütze 2021,
https://aclanthology.org/2021.eacl-main.20; LM-BFF: Gao et al. 2021,
https://aclanthology.org/2021.acl-long.295). No weight is new, so training is optional.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from crosstune.data.windows import EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.classification import Classification
from crosstune.tasks.sequence_classification import (
    OneWindow,
    index_labels,
    read_best,
    sum_cross_entropy,
)
from crosstune.tasks.task import Batch, Predictions, Result, Row, Rows, Task, Tokenizer
from crosstune.tasks.verbalizers import (
    PADDING,
    PromptTemplate,
    Words,
    check_patterns,
    check_words,
    read_segments,
)

GAPS = ("text", "text_pair", "mask")
CONTENT_FREE = 3  # windows that a template has for calibration


@dataclass
class Cloze(OneWindow, Task):
    """The task of one data set; `labels` are those that have words, sorted."""

    labels: list[str]
    patterns: dict[str, str]  # language -> pattern
    verbalizers: Words
    calibrate: bool
    auto_class = "AutoModelForMaskedLM"
    peft_type = "FEATURE_EXTRACTION"

    @classmethod
    def from_rows(
        cls, rows: Rows, patterns: Any, verbalizers: Any, calibrate: bool = False
    ) -> "Cloze":
        """Return the task; every label of the training rows needs words.

        `patterns` has a pattern for each language, with the gaps {text}, {mask} and, for pairs,
        {text_pair}; `verbalizers` a word or several for each language and label. `calibrate`
        divides each label's probability by its probability for content-free texts.
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
    @override
    def metrics(self) -> tuple[str, ...]:
        return Classification(self.labels).metrics

    @override
    def row_labels(self, row: Row) -> list[str]:
        return [row["label"]]

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        language = row["language"]
        if language not in self.patterns:
            return [f"no pattern for its language: give data.task.patterns.{language}"]
        pair = any(gap == "text_pair" for gap, _, _ in read_segments(self.patterns[language]))
        if pair and "text_pair" not in row:
            return [f"data.task.patterns.{language} has {{text_pair}}, but data.text_pair is null"]
        if not pair and "text_pair" in row:
            return [f"data.task.patterns.{language} has no {{text_pair}} for its second text"]
        return []

    @override
    def on_missing_head_weights(self, source: str, missing: Sequence[str]) -> None:
        raise ConfigError(
            f"{source} lacks {len(missing)} weights of a masked LM's head, {missing[0]} among "
            "them, and a cloze reads its answer from that head. Take a checkpoint saved as a "
            "masked LM, or train the head first: data=files_masked_lm, then model=local "
            "model.path=ITS_RUN."
        )

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return one window a row, with as many masks as the longest word has sub-words.

        Texts are cut, never the pattern.
        """
        languages = sorted({row["language"] for row in rows})
        templates = {
            language: PromptTemplate(
                self.patterns[language], self.verbalizers[language], self.labels, tokenizer
            )
            for language in languages
        }
        words = _stack([template.words for template in templates.values()])
        masks = words.shape[-1]
        windows: list[tuple[list[int], int]] = [([], 0)] * len(rows)
        cut = 0
        for language, template in templates.items():
            numbers = [n for n, row in enumerate(rows) if row["language"] == language]
            encoded = template.encode_texts([rows[n] for n in numbers])
            for number, texts in zip(numbers, encoded, strict=True):
                truncated = template.truncate(texts, masks, max_tokens)
                cut += truncated != texts
                windows[number] = template.fill(truncated, masks)
        extra: dict[str, Any] = {
            "mask_columns": [column for _, column in windows],
            "words": words,
            "language": [languages.index(row["language"]) for row in rows],
        }
        if self.calibrate:
            free = [window for t in templates.values() for window in t.fill_content_free(masks)]
            extra["content_free"] = _stack([np.array(ids) for ids, _ in free])
            extra["content_free_mask_columns"] = [column for _, column in free]
        ids = [window for window, _ in windows]
        labels = index_labels(self.labels, [row["label"] for row in rows])
        types = [[0] * len(window) for window in ids]
        return concatenate(ids, types, range(len(rows)), labels, cut, **extra)

    @override
    def collate(
        self, encoded: EncodedDataset, windows: Sequence[int], tokenizer: Tokenizer, seed: Any
    ) -> Batch:
        """Return inputs (B * V, L), labels (B,) and what finds the words' scores in the logits.

        A window has V variants, one for each number of sub-words that a word has, with as many
        masks; `mask_columns` (B,) are those of the first mask. `words` (B, C, K, M) has the
        sub-words of the words of the labels, and `variants` (B, C, K) the variant of each word.
        """
        chosen, extra = list(windows), encoded.extra
        ids = [encoded.ids[encoded.span(window)] for window in chosen]
        language = extra["language"][chosen]
        batch = _vary_masks(ids, extra["mask_columns"][chosen], extra["words"][language], tokenizer)
        batch["labels"] = torch.from_numpy(encoded.labels[chosen])
        if self.calibrate:
            ids = [row[row != PADDING] for row in extra["content_free"]]
            words = extra["words"].repeat(CONTENT_FREE, axis=0)
            free = _vary_masks(ids, extra["content_free_mask_columns"], words, tokenizer)
            if "token_type_ids" not in tokenizer.model_input_names:
                del free["inputs"]["token_type_ids"]
            batch |= {"content_free": free, "language": torch.from_numpy(language)}
        return batch

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return sum_cross_entropy(_score_labels(model, batch), batch["labels"])

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return the best label of each window and its log-probability among the labels.

        Calibrated (Zhao et al. 2021, https://proceedings.mlr.press/v139/zhao21c): each label's
        probability is divided by its mean over the content-free texts, then all by their sum.
        """
        log_p = _score_labels(model, batch).log_softmax(-1)
        if self.calibrate:
            free = _score_labels(model, batch["content_free"]).log_softmax(-1)
            means = free.view(-1, CONTENT_FREE, len(self.labels)).logsumexp(1)  # (languages, C)
            log_p = (log_p - means[batch["language"]]).log_softmax(-1)
        return read_best(log_p)

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        return Classification(self.labels).compute_metrics(predictions, device)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays as one, padded with ABSENT to the longest in each dimension."""
    shape = np.max([array.shape for array in arrays], axis=0)
    stacked = np.full((len(arrays), *shape), PADDING, np.int64)
    for number, array in enumerate(arrays):
        stacked[number][tuple(map(slice, array.shape))] = array
    return stacked


def _vary_masks(
    windows: Sequence[np.ndarray], mask_columns: np.ndarray, words: np.ndarray, tokenizer: Tokenizer
) -> Batch:
    """Return each window, which has most masks, with each number of masks that words need."""
    sizes = (words != PADDING).sum(-1)
    counts = np.unique(sizes[sizes > 0])
    most = words.shape[-1]
    ids: list[Any] = [
        [*window[: column + count], *window[column + most :]]
        for window, column in zip(windows, mask_columns.tolist(), strict=True)
        for count in counts.tolist()
    ]
    pad_id: Any = tokenizer.pad_token_id
    types = [[0] * len(window) for window in ids]
    flat = concatenate(ids, types, range(len(ids)), [0] * len(ids), cut=0)
    return {
        "inputs": flat.pad(range(len(ids)), pad_id),
        "mask_columns": torch.from_numpy(mask_columns),
        "words": torch.from_numpy(words),
        "variants": torch.from_numpy(np.searchsorted(counts, sizes)),
    }


def _score_labels(model: Any, batch: Batch) -> torch.Tensor:
    """Return the labels' scores (B, C).

    A word's score is the mean log-probability of its sub-words, each at its own mask of a window
    with as many masks as it has sub-words; a label's is the mean over its words.
    """
    words, columns = batch["words"], batch["mask_columns"]
    variants = torch.arange(len(batch["inputs"]["input_ids"]), device=columns.device)
    order = torch.arange(words.shape[-1], device=columns.device)
    masks = (variants.view(len(columns), -1, 1), (columns[:, None] + order)[:, None])
    log_p = _compute_logits(model, batch["inputs"], masks).float().log_softmax(-1)  # (B, V, M, all)
    present = words != PADDING
    rows = variants[: len(columns)].view(-1, 1, 1, 1)
    each = log_p[rows, batch["variants"][..., None], order, words.clamp(min=0)]  # (B, C, K, M)
    means = each.masked_fill(~present, 0).sum(-1) / present.sum(-1).clamp(min=1)
    return means.sum(-1) / present.any(-1).sum(-1)


def _compute_logits(
    model: Any, inputs: dict[str, torch.Tensor], indices: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return the logits at (row, column) indices: a vocabulary at all others would fill memory."""

    def select(_: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, (rows, columns) = arguments[0], indices
        prompt_length = hidden.shape[1] - inputs["input_ids"].shape[1]  # of a soft prompt
        return (hidden[rows, columns + prompt_length],)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        return model(**inputs).logits
    finally:
        hook.remove()
