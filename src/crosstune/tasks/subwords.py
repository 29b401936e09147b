"""The alignment of words with sub-words, and windows of whole words over long sentences."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

WORD_MARKS = ("▁", "Ġ")  # of SentencePiece, and of byte-level BPE


class WordWindow(NamedTuple):
    """The model reads the words [first, last) and tags those in [core_first, core_last)."""

    first: int
    core_first: int
    core_last: int
    last: int


def find_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and after a text."""
    batch = tokenizer("a", return_special_tokens_mask=True)
    mask: list[int] = list(batch["special_tokens_mask"])
    ids: list[int] = list(batch["input_ids"])
    first, last = mask.index(0), len(mask) - mask[::-1].index(0)
    return ids[:first], ids[last:]


def find_bare_marks(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of sub-words that mark the start of a word and contain nothing of it.

    That is one or none: "Ġ" is a plain letter beside "▁", and no byte-level vocabulary has "▁".
    """
    vocabulary = tokenizer.get_vocab()
    return frozenset([vocabulary[mark] for mark in WORD_MARKS if mark in vocabulary][:1])


def split_words(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[list[list[int]]]:
    """Yield, for each row, the sub-word ids of each of its words; none is empty."""
    if not rows:
        return
    batch: Any = tokenizer(
        [row["words"] for row in rows],
        is_split_into_words=True,
        add_special_tokens=False,
        verbose=False,
    )
    unknown: Any = (
        tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
    )
    bare = find_bare_marks(tokenizer)
    for number, row in enumerate(rows):
        words: list[list[int]] = [[] for _ in row["words"]]
        for subword, word in zip(batch["input_ids"][number], batch.word_ids(number), strict=True):
            words[word].append(subword)
        # a word that normalisation empties (a control character) keeps its position and tag
        yield [[unknown] if bare.issuperset(subwords) else subwords for subwords in words]


def find_tagged_subword(subwords: Sequence[int], bare: frozenset[int]) -> int:
    """Return which sub-word of a word has its tag: the first that is more than a word mark.

    A SentencePiece tokenizer often splits the mark from the word, above all before Chinese
    characters: the mark is the same sub-word before any word.

    >>> find_tagged_subword([7, 30, 31], frozenset([7])), find_tagged_subword([30], frozenset([7]))
    (1, 0)
    """
    return next((index for index, subword in enumerate(subwords) if subword not in bare), 0)


def make_word_windows(sizes: Sequence[int], room: int) -> Iterator[WordWindow]:
    """Yield windows of at most `room` sub-words over words of the given sizes.

    Each word is in the core of exactly one window, with up to a quarter of the room as context on
    either side. No size may exceed half the room.

    >>> list(make_word_windows([1] * 6, room=8))
    [WordWindow(first=0, core_first=0, core_last=6, last=6)]
    >>> list(make_word_windows([1] * 6, room=4))[1]
    WordWindow(first=2, core_first=3, core_last=6, last=6)
    """
    count = len(sizes)
    if sum(sizes) <= room:
        yield WordWindow(0, 0, count, count)
        return
    start = 0
    while start < count:
        first, used = start, 0
        while first > 0 and used + sizes[first - 1] <= room // 4:
            first -= 1
            used += sizes[first]
        reserve = room // 4 if sum(sizes[start:]) + used > room else 0
        end = start
        while end < count and used + sizes[end] <= room - reserve:
            used += sizes[end]
            end += 1
        last = end
        while last < count and used + sizes[last] <= room:
            used += sizes[last]
            last += 1
        yield WordWindow(first, start, end, last)
        start = end
