"""Tagging: one tag a word (named entities, parts of speech, slots, segmentation as tags).

Head: transformers' token classification, with a conditional random field over it if asked. A
word's first sub-word carries its tag (a bare word mark of SentencePiece is passed over). Sentences
longer than `data.max_tokens` become overlapping windows in which each word is tagged exactly once,
with context on both sides; no word is dropped. A single word of more than half a window keeps its
first sub-words; such sentences are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.tag_schemes import (
    MARKS,
    SPAN_TAG,
    WORD_TAG,
    convert_scheme,
    detect_scheme,
    may_follow,
    read_spans,
)
from crosstune.data.windows import IGNORE, UNSEEN, EncodedDataset, concatenate
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
from crosstune.tasks.metrics.classes import ClassReport
from crosstune.tasks.metrics.spans import SpanReport
from crosstune.tasks.metrics.words import WordReport
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.subwords import bare_marks, carrier_word, special_pieces, split_words, windows
from crosstune.tasks.task import Task

SCHEMES = ("spans", "tags", "words")


@dataclass
class Tagging(Task):
    """The task of one data set; `labels` are the tags of train, sorted."""

    labels: list[str]
    scheme: str
    encoding: str = "iob2"  # how the corpus writes spans, if its tags mark any
    train_as: str | None = None  # how the model writes them; None as the corpus does
    crf: bool = False
    vocabulary: list[str] = field(default_factory=list)  # words of train; of segmentation only
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    peft_type: ClassVar[str] = "TOKEN_CLS"

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        scheme: str | None = None,
        encoding: str | None = None,
        train_as: str | None = None,
        crf: bool = False,
    ) -> "Tagging":
        """Return the task with the tags of the training rows.

        `scheme` is what is scored: `spans` (entity F1), `tags` (accuracy and F1 by tag) or `words`
        (F1 of segmented words and recall of new ones); by default `spans` when every tag is O, or
        B, I, E, S or M with or without `-TYPE`, else `tags`. `encoding` names how the corpus
        writes spans: iob1, iob2, bioes or bmes; by default what train breaks least. `train_as`
        names how the model shall write them; scores are of the corpus' own tags. With `crf` a
        conditional random field scores pairs of tags, and no pair is predicted that breaks the
        scheme.
        """
        tags = sorted({tag for row in rows for tag in row["tags"]})
        spanning = all(SPAN_TAG.fullmatch(tag) for tag in tags)
        scheme = scheme or ("spans" if spanning else "tags")
        _check_option("scheme", scheme, SCHEMES)
        for name, value in (("encoding", encoding), ("train_as", train_as)):
            if value is not None:
                _check_option(name, value, tuple(MARKS))
                if scheme == "tags":
                    raise ConfigError(f"data.task.{name}={value}: these tags mark no spans.")
        if scheme == "tags" or not spanning:  # tags that do not fit are told by `faults_of`
            return cls(tags, scheme, crf=crf)
        task = cls([], scheme, encoding or detect_scheme(r["tags"] for r in rows), train_as, crf)
        task.labels = sorted({tag for row in rows for tag in task.labels_of(row)})
        if scheme == "words":
            task.vocabulary = sorted({w for row in rows for w in _words(row, row["tags"])})
        return task

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` always gives; recall of words may be split further."""
        if self.scheme == "words":
            return ("f1", "precision", "recall")
        if self.scheme == "spans":
            return ("f1", "precision", "recall", "macro_f1", "weighted_f1", "accuracy")
        averages = ("macro_f1", "micro_f1", "weighted_f1", "macro_precision", "macro_recall")
        return ("f1", "accuracy", *averages)

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the tags that a row carries, as the model shall write them."""
        return convert_scheme(row["tags"], self.train_as) if self.train_as else row["tags"]

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return which tags cannot be scored as the scheme says."""
        if self.scheme == "tags":
            return []
        form = SPAN_TAG if self.scheme == "spans" else WORD_TAG
        shape = (
            "O, or B, I, E, S or M with or without -TYPE" if form is SPAN_TAG else "B, I, M, E, S"
        )
        wrong = [tag for tag in dict.fromkeys(row["tags"]) if not form.fullmatch(tag)]
        return [f"{tag!r} is no tag of {self.scheme}: {shape}" for tag in wrong]

    def extend(self, model: PreTrainedModel) -> list[str]:
        """Add the scores of transitions if a conditional random field is asked for."""
        if not self.crf:
            return []
        model.add_module("crf", Transitions(len(self.labels)))
        return ["crf"]

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return [" ".join(row["words"])]

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window or more a row, labels on sub-words."""
        before, after = special_pieces(tokenizer)
        room = max_tokens - len(before) - len(after)
        index = {label: number for number, label in enumerate(self.labels)}
        ids: list[list[int]] = []
        labels: list[int] = []
        items: list[int] = []
        bare, cut = bare_marks(tokenizer), 0
        for item, (row, words) in enumerate(zip(rows, split_words(rows, tokenizer), strict=True)):
            fits = sum(map(len, words)) <= room
            kept = words if fits else [pieces[: room // 2] for pieces in words]
            cut += kept != words
            carriers = [carrier_word(pieces, bare) for pieces in kept]
            gold = [index.get(tag, UNSEEN) for tag in self.labels_of(row)]
            for window in windows([len(pieces) for pieces in kept], room):
                inside = [piece for w in range(window.first, window.last) for piece in kept[w]]
                ids.append([*before, *inside, *after])
                items.append(item)
                labels += [IGNORE] * len(before)
                for word in range(window.first, window.last):
                    marks = [IGNORE] * len(kept[word])
                    if window.core_first <= word < window.core_last:
                        marks[carriers[word]] = gold[word]
                    labels += marks
                labels += [IGNORE] * len(after)
        return concatenate(ids, [[0] * len(window) for window in ids], items, labels, cut)

    def collate(
        self,
        encoded: EncodedDataset,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return inputs (B, L), labels (B, L) and whether a window holds either end of its row."""
        pad_id: Any = tokenizer.pad_token_id
        items, chosen = encoded.items, list(windows)
        first = [w == 0 or items[w - 1] != items[w] for w in chosen]
        last = [w == len(items) - 1 or items[w + 1] != items[w] for w in chosen]
        return {
            "inputs": encoded.pad(windows, pad_id),
            "labels": encoded.pad_labels(windows),
            "edges": torch.tensor([first, last]).T,  # (B, 2)
        }

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of logits (B, L, C) and the number of tagged words.

        The loss is cross entropy by word, or the negative log-likelihood of a window's tags.
        """
        logits, labels = model(**batch["inputs"]).logits.float(), batch["labels"]
        count = (labels != IGNORE).sum()
        if self.crf:
            chain, gold = make_chain(logits, labels, batch["edges"], model.crf(logits))
            return (log_partition(chain) - path_score(chain, gold)).sum(), count
        return cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORE
        ), count

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return, for each window, the best tags of its words and their log-probability."""
        logits, labels = model(**batch["inputs"]).logits.float(), batch["labels"]
        carries = labels != IGNORE
        if self.crf:
            chain, _ = make_chain(logits, labels, batch["edges"], model.crf(logits))
            paths = best_path(self._possible(chain, batch["edges"]))
            sums = (path_score(chain, paths) - log_partition(chain)).tolist()
            found = paths[chain.mask]
        else:
            scores, best = logits.log_softmax(-1).max(-1)
            sums = (scores * carries).sum(-1).tolist()
            found = best[carries]
        counts = carries.sum(-1).tolist()
        return list(zip(map(torch.Tensor.tolist, found.split(counts)), sums, strict=True))

    def _possible(self, chain: CrfTagger, edges: torch.Tensor) -> CrfTagger:
        """Return the chain without what the scheme of the tags rules out."""
        if self.scheme == "tags":
            return chain
        tables = _breaches(tuple(self.labels), self.train_as or self.encoding)
        starts, pairs, ends = (torch.tensor(table, device=edges.device) for table in tables)
        return forbid(chain, starts, pairs, ends, edges)

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row: the tags of its windows in order, or the words they part."""
        found: dict[int, tuple[list[str], float]] = {}
        for window, best, score in sorted(outputs, key=lambda output: output[0]):
            item = int(encoded.items[window])
            tags, total = found.get(item, ([], 0.0))
            found[item] = (tags + [self.labels[b] for b in best], total + score)
        predictions: list[Prediction] = []
        for item, (tags, score) in found.items():
            row = rows[item]
            gold, guess = (
                row["tags"],
                convert_scheme(tags, self.encoding) if self.train_as else tags,
            )
            if self.scheme == "words":
                gold, guess = _words(row, gold), _words(row, guess)
            predictions.append(Prediction(item, row["id"], gold, guess, score))
        return predictions

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return scores and the report by entity type or by tag, exact over all ranks."""
        if self.scheme == "words":
            words = WordReport(self.vocabulary).to(device)
            words.update([p.prediction for p in predictions], [p.gold for p in predictions])
            return words.compute()
        if self.scheme == "spans":
            types = sorted({tag[2:] or "_" for tag in self.labels if tag != "O"})
            spans = SpanReport(types).to(device)
            spans.update([p.prediction for p in predictions], [p.gold for p in predictions])
            return spans.compute()
        report = ClassReport(self.labels).to(device)
        index = {label: number for number, label in enumerate(self.labels)}
        best = [index[tag] for p in predictions for tag in p.prediction]
        gold = [index.get(tag, UNSEEN) for p in predictions for tag in p.gold]
        as_tensor = partial(torch.tensor, dtype=torch.long, device=device)
        report.update(as_tensor(best), as_tensor(gold))
        result = report.compute()
        result["scores"]["f1"] = result["scores"]["micro_f1"]
        result["report"]["mcc"] = result["scores"].pop("mcc")  # it may be negative: no fraction
        return result


def _check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"data.task.{name}={value}. Allowed: {', '.join(allowed)}, null.")


def _words(row: dict[str, Any], tags: Sequence[str]) -> list[str]:
    """Return the words that tags part the characters of a row into."""
    places = sorted((start, end) for _, start, end in read_spans(tags))
    return ["".join(row["words"][start:end]) for start, end in places]


@lru_cache(maxsize=8)
def _breaches(labels: tuple[str, ...], scheme: str) -> tuple[Any, Any, Any]:
    """Return whether each label breaks a scheme at the start, after another label, at the end."""
    return (
        [not may_follow(None, label, scheme) for label in labels],
        [[not may_follow(before, after, scheme) for after in labels] for before in labels],
        [not may_follow(label, None, scheme) for label in labels],
    )
