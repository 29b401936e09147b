"""Passages: texts as sub-words that know their characters, and overlapping windows over them.

A window holds a question and a part of a text, with what the tokenizer puts around the two. No
labels, tensors or scores here; `tasks/extraction.py` calls it while it encodes.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

OUTSIDE = (2**31 - 1, 0)  # offsets of what is not text to answer from: no span starts or ends there


class Text(NamedTuple):
    """Sub-words of a text and, for each, the characters it stands for, without outer spaces."""

    ids: list[int]
    offsets: np.ndarray  # (n, 2) first character, and the one after the last

    def find(self, answer: dict[str, Any]) -> tuple[int, int] | None:
        """Return the first and the last sub-word that has a part of an answer; None: none has."""
        text: str = answer["text"]
        start = answer["start"] + len(text) - len(text.lstrip())
        end = answer["start"] + len(text.rstrip())
        inside = np.flatnonzero((self.offsets[:, 0] < end) & (self.offsets[:, 1] > start))
        return (int(inside[0]), int(inside[-1])) if len(inside) else None


class QuestionFrame(NamedTuple):
    """What the tokenizer puts before, between and after two texts, and every part's segment."""

    ids: list[list[int]]  # of the three places
    types: list[list[int]]  # of the same
    segments: tuple[int, int]  # of the two texts

    @property
    def size(self) -> int:
        """How many pieces of a window belong to neither text."""
        return sum(map(len, self.ids))


def read_frame(tokenizer: PreTrainedTokenizerBase) -> QuestionFrame:
    """Return what the tokenizer puts around two texts."""
    batch: Any = tokenizer("a", "a", return_token_type_ids=True)
    ids, types, texts = batch["input_ids"], batch["token_type_ids"], batch.sequence_ids(0)
    first, second = texts.index(0), texts.index(1)
    end, after = first + texts.count(0), second + texts.count(1)
    places = (slice(first), slice(end, second), slice(after, None))
    segments = (types[first], types[second])
    return QuestionFrame(
        [ids[place] for place in places], [types[place] for place in places], segments
    )


def read_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, Text]:
    """Return each different text as sub-words: many questions are asked of one paragraph."""
    different = list(dict.fromkeys(texts))
    batch: Any = tokenizer(
        different, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return {
        text: Text(ids, np.asarray([trim(text, *o) for o in offsets], np.int32).reshape(-1, 2))
        for text, ids, offsets in zip(
            different, batch["input_ids"], batch["offset_mapping"], strict=True
        )
    }


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the characters of a sub-word without the spaces that some tokenizers give it.

    Accents that follow their letter and that the tokenizer drops belong to it. A sub-word of
    spaces alone starts behind them and ends before them, so no span is made of it.

    >>> trim("el niño", 2, 7), trim("el niño", 2, 3)
    ((3, 7), (3, 2))
    """
    piece = text[start:end]
    first, last = end - len(piece.lstrip()), start + len(piece.rstrip())
    while first < last < len(text) and unicodedata.combining(text[last]):
        last += 1
    return first, last


def split(length: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield the first sub-word of each window of a text, and the one after its last.

    >>> list(split(10, 6, 4)), list(split(10, 6, 2)), list(split(0, 6, 2))
    ([(0, 6), (3, 9), (6, 10)], [(0, 6), (2, 8), (4, 10)], [(0, 0)])
    """
    step = max(1, min(stride, room // 2))
    for first in range(0, max(length - room, 0) + step, step):
        yield first, min(first + room, length)


def holds(span: tuple[int, int], gold: tuple[int, int]) -> bool:
    """Say whether a window has every sub-word of an answer."""
    return span[0] <= gold[0] and gold[1] < span[1]


def make_qa_windows(
    frame: QuestionFrame, question: list[int], text: Text, span: tuple[int, int]
) -> tuple[list[int], list[int], np.ndarray]:
    """Return ids, segments and offsets of a window."""
    before, between, after = frame.ids
    inside = text.ids[slice(*span)]
    ids = [*before, *question, *between, *inside, *after]
    one, two = frame.segments
    marks = [[one] * len(question), [two] * len(inside), []]
    types = [t for own, of_text in zip(frame.types, marks, strict=True) for t in own + of_text]
    offsets = np.tile(np.asarray(OUTSIDE, np.int32), (len(ids), 1))
    lead = len(before) + len(question) + len(between)
    offsets[lead : lead + len(inside)] = text.offsets[slice(*span)]
    return ids, types, offsets
