"""Sub-words, words and windows: the alignment that tagging and masked LM share.

Nothing here knows labels or tensors; the task kinds call it while they encode.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

MARKS = ("▁", "Ġ")  # of SentencePiece, and of byte-level BPE


class SubwordWindow(NamedTuple):
    """Words [first, last) are read; those in [core_first, core_last) are tagged here."""

    first: int
    core_first: int
    core_last: int
    last: int


def special_pieces(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and after a text."""
    batch = tokenizer("a", return_special_tokens_mask=True)
    mask: list[int] = list(batch["special_tokens_mask"])
    ids: list[int] = list(batch["input_ids"])
    first, last = mask.index(0), len(mask) - mask[::-1].index(0)
    return ids[:first], ids[last:]


def bare_marks(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of sub-words that say that a word starts, and nothing of the word.

    That is one or none: "Ġ" is a letter of its own beside "▁", and "▁" stands in no byte-level
    vocabulary.
    """
    vocabulary = tokenizer.get_vocab()
    return frozenset([vocabulary[mark] for mark in MARKS if mark in vocabulary][:1])


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
    bare = bare_marks(tokenizer)
    for number, row in enumerate(rows):
        words: list[list[int]] = [[] for _ in row["words"]]
        for piece, word in zip(batch["input_ids"][number], batch.word_ids(number), strict=True):
            words[word].append(piece)
        # a word that normalisation leaves nothing of (a control character) keeps its place and tag
        yield [[unknown] if bare.issuperset(pieces) else pieces for pieces in words]


def carrier_word(pieces: Sequence[int], bare: frozenset[int]) -> int:
    """Return which sub-word of a word carries its tag: the first that is more than a word mark.

    A SentencePiece tokenizer often parts the mark from the word, before Chinese characters above
    all: the mark is the same piece before any word.

    >>> carrier_word([7, 30, 31], frozenset([7])), carrier([30, 31], frozenset([7]))
    (1, 0)
    """
    return next((place for place, piece in enumerate(pieces) if piece not in bare), 0)


def windows(sizes: Sequence[int], room: int) -> Iterator[SubwordWindow]:
    """Yield windows of at most `room` sub-words over words of the given sizes.

    Each word is in exactly one window's core, with up to a quarter of the room as context on
    either side. No size may be above half the room.

    >>> list(windows([1] * 6, room=8))
    [Window(first=0, core_first=0, core_last=6, last=6)]
    >>> list(windows([1] * 6, room=4))[1]
    Window(first=2, core_first=3, core_last=6, last=6)
    """
    count = len(sizes)
    if sum(sizes) <= room:
        yield SubwordWindow(0, 0, count, count)
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
        yield SubwordWindow(first, start, end, last)
        start = end
