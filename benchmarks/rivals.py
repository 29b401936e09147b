"""What the two rival scripts share: rows, labels, encoding, the model, the score.

Written as a user would who has transformers and no crosstune: texts cut to the longest input, a
word's first sub-word carries its tag. Two things are crosstune's: how tags are read as spans, so
that equal predictions have equal scores, and the order of the training rows, so that scores differ
by what a contender does and not by the draw. Called by `trainer_run.py` and `loop_run.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from crosstune.data.tag_schemes import read_spans

IGNORE = -100


def load_items(spec: dict[str, Any]) -> tuple[list[str], Any, dict[str, list[dict[str, Any]]]]:
    """Load the labels, the tokenizer and the encoded rows of every split that a spec names."""
    kind = spec["kind"]
    rows = {split: read_rows(kind, path) for split, path in spec["files"].items()}
    rows["train"] = in_order(rows["train"], spec)
    labels = labels_of(kind, rows["train"])
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(spec["base"])
    items = {
        split: encode(kind, found, labels, tokenizer, spec["max_tokens"])
        for split, found in rows.items()
    }
    return labels, tokenizer, items


def read_rows(kind: str, path: str) -> list[dict[str, Any]]:
    """Read a file that `cases.py` wrote."""
    text = Path(path).read_text("utf-8")
    if kind == "classification":
        pairs = (line.split("\t", 1) for line in text.split("\n")[1:] if line)
        return [{"text": text, "label": label} for label, text in pairs]
    sentences = [
        [line.split("\t") for line in block.split("\n") if line] for block in text.split("\n\n")
    ]
    return [{"words": [w for w, _ in s], "tags": [t for _, t in s]} for s in sentences if s]


def in_order(rows: list[dict[str, Any]], spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return training rows as crosstune's `TrainingOrder` takes them in the first epoch."""
    return [
        rows[number] for number in np.random.default_rng([spec["seed"], 0]).permutation(len(rows))
    ]


def texts_of(kind: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the texts of rows."""
    return [row["text"] if kind == "classification" else " ".join(row["words"]) for row in rows]


def labels_of(kind: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the labels of training rows, sorted."""
    if kind == "classification":
        return sorted({row["label"] for row in rows})
    return sorted({tag for row in rows for tag in row["tags"]})


def encode(
    kind: str, rows: Sequence[dict[str, Any]], labels: list[str], tokenizer: Any, max_tokens: int
) -> list[dict[str, Any]]:
    """Return rows as input_ids, attention_mask and labels, without padding."""
    index = {label: number for number, label in enumerate(labels)}
    options = {"truncation": True, "max_length": max_tokens}
    if kind == "classification":
        found = tokenizer([row["text"] for row in rows], **options)
        gold: list[Any] = [index.get(row["label"], IGNORE) for row in rows]
    else:
        found = tokenizer([row["words"] for row in rows], is_split_into_words=True, **options)
        gold = []
        for number, row in enumerate(rows):
            words = found.word_ids(number)
            marks = [index.get(row["tags"][w], IGNORE) if w is not None else IGNORE for w in words]
            first = [w is not None and w not in words[:p] for p, w in enumerate(words)]
            gold.append([m if f else IGNORE for m, f in zip(marks, first, strict=True)])
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(found["input_ids"], found["attention_mask"], gold, strict=True)
    ]


def load_model(spec: dict[str, Any], labels: list[str]) -> Any:
    """Load the base with a new head, and freeze or adapt it as the method says."""
    transformers.set_seed(spec["seed"])
    head = "SequenceClassification" if spec["kind"] == "classification" else "TokenClassification"
    auto: Any = getattr(transformers, f"AutoModelFor{head}")
    model = auto.from_pretrained(spec["base"], num_labels=len(labels))
    method = spec.get("method", "full")
    if method == "lora":
        import peft

        kind = "SEQ_CLS" if spec["kind"] == "classification" else "TOKEN_CLS"
        return peft.get_peft_model(
            model, peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, task_type=kind)
        )
    if method != "full":
        for name, parameter in model.named_parameters():
            bias = method == "bitfit" and name.endswith(".bias")
            parameter.requires_grad = bias or name.startswith("classifier.")
    return model


def score_spans(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> float:
    """Return the F1 of spans.

    >>> score_spans([["B-A", "I-A"], ["O"]], [["B-A", "I-A"], ["B-A"]])
    0.6666666666666666
    """
    pairs = [(read_spans(one), read_spans(other)) for one, other in zip(gold, said, strict=True)]
    right = sum(len(one & other) for one, other in pairs)
    found = sum(len(one) + len(other) for one, other in pairs)
    return 2 * right / found if found else 0.0


def score_indices(spec: dict[str, Any], labels: list[str], best: Any, items: Any) -> float:
    """Return the score of predicted indices (B,) or (B, L) beside encoded gold labels."""
    if spec["kind"] == "classification":
        pairs = list(zip(items, best, strict=True))
        return sum(int(item["labels"]) == int(b) for item, b in pairs) / len(pairs)
    gold, said = [], []
    for item, row in zip(items, best, strict=True):
        marked = [(g, b) for g, b in zip(item["labels"], row, strict=False) if g != IGNORE]
        gold.append([labels[g] for g, _ in marked])
        said.append([labels[b] for _, b in marked])
    return score_spans(gold, said)
