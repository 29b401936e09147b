"""Tagging: one tag a word (named entities, parts of speech, slots, segmentation as tags).

A word's first sub-word has its tag. Long sentences become overlapping windows, in which each word
is tagged exactly once, with context on both sides; a word longer than half a window is cut.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedModel
from typing_extensions import override

from crosstune.data.tag_schemes import (
    ALLOWED_TAGS,
    MARKS,
    SPAN_LIKE,
    SPAN_TAG,
    WORD_TAG,
    convert_scheme,
    detect_scheme,
    may_follow,
    read_spans,
)
from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.crf import (
    CrfTagger,
    Transitions,
    best_path,
    forbid,
    log_partition,
    make_chain,
    path_score,
)
from crosstune.tasks.metrics.classes import MACRO_F1_ALL, MEANS, add_unseen, report_classes
from crosstune.tasks.metrics.spans import SpanReport, WordReport
from crosstune.tasks.prediction import Prediction
from crosstune.tasks.sequence_classification import index_labels, sum_cross_entropy
from crosstune.tasks.subwords import (
    find_bare_marks,
    find_special_tokens,
    find_tagged_subword,
    make_word_windows,
    split_words,
)
from crosstune.tasks.task import (
    Batch,
    Outputs,
    Predictions,
    Result,
    Row,
    Rows,
    Task,
    Tokenizer,
    run_metric,
)

SCHEMES = ("spans", "tags", "words")


@dataclass
class Tagging(Task):
    """The task of one data set; `labels` are the tags of train, sorted."""

    labels: list[str]
    scheme: str
    encoding: str = "iob2"  # how the corpus writes spans, if its tags mark any
    train_as: str | None = None  # how the model writes them; None: as the corpus does
    crf: bool = False
    vocabulary: list[str] = field(default_factory=list)  # words of train; of segmentation only
    auto_class = "AutoModelForTokenClassification"
    peft_type = "TOKEN_CLS"

    @classmethod
    def from_rows(
        cls,
        rows: Rows,
        scheme: str | None = None,
        encoding: str | None = None,
        train_as: str | None = None,
        crf: bool = False,
    ) -> "Tagging":
        """Return the task with the tags of the training rows.

        `scheme` is what is scored: `spans` (entity F1), `tags` (accuracy and F1 by tag) or `words`
        (F1 of segmented words and recall of new ones); by default `spans` if every tag is O, or
        B, I, E, S, M, L or U with or without `-TYPE`, or if most tags look so; else `tags`.
        `encoding` is how the corpus writes spans: iob1, iob2, bioes, bmes or bilou; by default the
        one that train breaks least. `train_as` is how the model writes them; scores are of the
        corpus' own tags. With `crf` a conditional random field scores pairs of tags, and no pair
        that breaks the scheme is predicted.
        """
        tags = sorted({tag for row in rows for tag in row["tags"]})
        spanning = all(SPAN_TAG.fullmatch(tag) for tag in tags)
        # one odd tag among those of spans is a fault of its line, and no part of speech
        scheme = scheme or ("spans" if spanning or _mark_spans(rows) else "tags")
        _check_option("scheme", scheme, SCHEMES)
        for name, value in (("encoding", encoding), ("train_as", train_as)):
            if value is not None:
                _check_option(name, value, tuple(MARKS))
                if scheme == "tags":
                    raise ConfigError(f"data.task.{name}={value}: these tags mark no spans.")
        if scheme == "tags" or not spanning:  # `find_row_faults` reports tags that do not fit
            return cls(tags, scheme, crf=crf)
        task = cls([], scheme, encoding or detect_scheme(r["tags"] for r in rows), train_as, crf)
        task.labels = sorted({tag for row in rows for tag in task.row_labels(row)})
        if scheme == "words":
            task.vocabulary = sorted(
                {word for row in rows for word in _words_from_tags(row, row["tags"])}
            )
        return task

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        if self.scheme == "words":  # and recall in and out of the vocabulary, where defined
            return ("f1", "precision", "recall")
        if self.scheme == "spans":
            means = ("macro_f1", "weighted_f1", MACRO_F1_ALL)
            return ("f1", "precision", "recall", *means, "accuracy")
        return ("accuracy", *MEANS, MACRO_F1_ALL)

    @override
    def row_labels(self, row: Row) -> list[str]:
        """Return the tags of a row, as the model writes them."""
        return convert_scheme(row["tags"], self.train_as) if self.train_as else row["tags"]

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        if self.scheme == "tags":
            return []
        if self.scheme == "spans":
            form, allowed = SPAN_TAG, ALLOWED_TAGS
        else:
            form, allowed = WORD_TAG, "B, I, M, E, S"
        wrong = [tag for tag in dict.fromkeys(row["tags"]) if not form.fullmatch(tag)]
        return [f"{tag!r} is no tag of {self.scheme}: {allowed}" for tag in wrong]

    @override
    def add_modules(self, model: PreTrainedModel) -> list[str]:
        if not self.crf:
            return []
        model.add_module("crf", Transitions(len(self.labels)))
        return ["crf"]

    @override
    def row_texts(self, row: Row) -> list[str]:
        return [" ".join(row["words"])]

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return one window or more a row, with labels on sub-words."""
        before, after = find_special_tokens(tokenizer)
        room = max_tokens - len(before) - len(after)
        ids: list[list[int]] = []
        labels: list[int] = []
        items: list[int] = []
        bare, cut = find_bare_marks(tokenizer), 0
        for item, (row, words) in enumerate(zip(rows, split_words(rows, tokenizer), strict=True)):
            fits = sum(map(len, words)) <= room
            subwords = words if fits else [word[: room // 2] for word in words]
            cut += subwords != words
            gold = index_labels(self.labels, self.row_labels(row))
            for window in make_word_windows([len(word) for word in subwords], room):
                inside = range(window.first, window.last)
                ids.append([*before, *(i for word in inside for i in subwords[word]), *after])
                items.append(item)
                labels += [IGNORE] * len(before)
                for word in inside:
                    word_labels = [IGNORE] * len(subwords[word])
                    if window.core_first <= word < window.core_last:
                        word_labels[find_tagged_subword(subwords[word], bare)] = gold[word]
                    labels += word_labels
                labels += [IGNORE] * len(after)
        return concatenate(ids, [[0] * len(window) for window in ids], items, labels, cut)

    @override
    def collate(
        self, encoded: EncodedDataset, windows: Sequence[int], tokenizer: Tokenizer, seed: Any
    ) -> Batch:
        """Return inputs and labels (B, L), and which ends of its row a window contains (B, 2)."""
        pad_id: Any = tokenizer.pad_token_id
        items, chosen = encoded.items, list(windows)
        first = [w == 0 or items[w - 1] != items[w] for w in chosen]
        last = [w == len(items) - 1 or items[w + 1] != items[w] for w in chosen]
        return {
            "inputs": encoded.pad(windows, pad_id),
            "labels": encoded.pad_labels(windows),
            "edges": torch.tensor([first, last]).T,
        }

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of logits (B, L, C) and the number of tagged words.

        The loss is cross entropy by word, or the negative log-likelihood of a window's tags.
        """
        logits, labels = model(**batch["inputs"]).logits.float(), batch["labels"]
        if self.crf:
            chain, gold = make_chain(logits, labels, batch["edges"], model.crf(logits))
            total = (log_partition(chain) - path_score(chain, gold)).sum()
            return total, (labels != IGNORE).sum()
        return sum_cross_entropy(logits.flatten(0, 1), labels.flatten())

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return, for each window, the best tags of its words and their log-probability."""
        logits, labels = model(**batch["inputs"]).logits.float(), batch["labels"]
        tagged = labels != IGNORE
        if self.crf:
            chain, _ = make_chain(logits, labels, batch["edges"], model.crf(logits))
            paths = best_path(self._forbid_breaches(chain, batch["edges"]))
            sums = (path_score(chain, paths) - log_partition(chain)).tolist()
            tags = paths[chain.mask]
        else:
            scores, best = logits.log_softmax(-1).max(-1)
            sums = (scores * tagged).sum(-1).tolist()
            tags = best[tagged]
        counts = tagged.sum(-1).tolist()
        return list(zip(map(torch.Tensor.tolist, tags.split(counts)), sums, strict=True))

    def _forbid_breaches(self, chain: CrfTagger, edges: torch.Tensor) -> CrfTagger:
        """Return the chain without the transitions that break the scheme of the tags."""
        if self.scheme == "tags":
            return chain
        tables = _find_breaches(tuple(self.labels), self.train_as or self.encoding)
        starts, pairs, ends = (torch.tensor(table, device=edges.device) for table in tables)
        return forbid(chain, starts, pairs, ends, edges)

    @override
    def decode(self, rows: Rows, encoded: EncodedDataset, outputs: Outputs) -> list[Prediction]:
        """Return one prediction a row: the tags of its windows in order, or the words they mark."""
        by_item: dict[int, tuple[list[str], float]] = {}
        for window, best, score in sorted(outputs, key=lambda output: output[0]):
            item = int(encoded.items[window])
            tags, total = by_item.get(item, ([], 0.0))
            by_item[item] = (tags + [self.labels[b] for b in best], total + score)
        predictions: list[Prediction] = []
        for item, (tags, score) in by_item.items():
            row = rows[item]
            gold = row["tags"]
            predicted = convert_scheme(tags, self.encoding) if self.train_as else tags
            if self.scheme == "words":
                gold, predicted = _words_from_tags(row, gold), _words_from_tags(row, predicted)
            predictions.append(Prediction(item, row["id"], gold, predicted, score))
        return predictions

    @override
    def predict_majority(self, train: Rows, predictions: Predictions) -> list[Prediction]:
        if self.scheme == "words":  # predictions are words, which have no majority
            return []
        counts = Counter(tag for row in train for tag in row["tags"])
        tag = "O" if "O" in counts else counts.most_common(1)[0][0]
        return [item._replace(prediction=[tag] * len(item.gold)) for item in predictions]

    @override
    def list_answers(self, prediction: Prediction) -> list[str]:
        return list(prediction.prediction)

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        if self.scheme == "words":
            return run_metric(WordReport(self.vocabulary), predictions, device)
        if self.scheme == "spans":
            gold_types = _list_types(tag for p in predictions for tag in p.gold)
            types = add_unseen(_list_types(self.labels), gold_types)
            return run_metric(SpanReport(types), predictions, device)
        predicted = [tag for p in predictions for tag in p.prediction]
        gold = [tag for p in predictions for tag in p.gold]
        return report_classes(self.labels, predicted, gold, device)


def _check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"data.task.{name}={value}. Allowed: {', '.join(allowed)}, null.")


def _mark_spans(rows: Rows) -> bool:
    """Return whether most tags, O left out, look like tags of spans, such as B-PER or B_PER."""
    tags = Counter(tag for row in rows for tag in row["tags"] if tag != "O")
    like = sum(count for tag, count in tags.items() if SPAN_LIKE.fullmatch(tag))
    return 2 * like > tags.total()


def _list_types(tags: Iterable[str]) -> list[str]:
    """Return the types of the spans that tags mark, sorted; "_" is that of bare marks."""
    return sorted({tag[2:] or "_" for tag in tags if tag != "O"})


def _words_from_tags(row: Row, tags: Sequence[str]) -> list[str]:
    """Return the words that tags make of the characters of a row."""
    spans = sorted((start, end) for _, start, end in read_spans(tags))
    return ["".join(row["words"][start:end]) for start, end in spans]


@lru_cache(maxsize=8)
def _find_breaches(labels: tuple[str, ...], scheme: str) -> tuple[Any, Any, Any]:
    """Return whether each label breaks a scheme at the start, after another label, at the end."""
    return (
        [not may_follow(None, label, scheme) for label in labels],
        [[not may_follow(before, after, scheme) for after in labels] for before in labels],
        [not may_follow(label, None, scheme) for label in labels],
    )
