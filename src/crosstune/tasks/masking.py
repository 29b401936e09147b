"""Which sub-words hang together, which share a window, and which of them are masked: numpy only.

Words (Chinese ones too), spans as in SpanBERT, packing of short lines and pairs of lines. Nothing
here knows a model, a tokenizer or a tensor; `masked_lm.py` calls it.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from crosstune.languages import UNSPACED

MASKINGS = ("subword", "whole_word", "span")
SPAN_WORDS = 10  # the longest span
SPAN_P = 0.2  # of the geometric distribution of span lengths
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")


class Part(NamedTuple):
    """Sub-words [first, last) of a line."""

    line: int
    first: int
    last: int


class Chosen(NamedTuple):
    """The sub-words of a window to be guessed, and which of them share their fate."""

    places: np.ndarray  # (M,) places in the window
    groups: np.ndarray  # (M,) number of the draw that decides what becomes of each


def join_words(text: str) -> tuple[str, list[int]]:
    """Return a segmented line without the spaces, and where its words begin.

    A space stays where it parts two words of a spaced script.

    >>> join_words("我 喜欢 New York 的 茶")
    ('我喜欢New York的茶', [0, 1, 3, 7, 11, 12])
    """
    joined, begins = "", []
    for word in text.split():
        spaced = (
            joined
            and not UNSPACED_CHARACTER.match(joined[-1])
            and not UNSPACED_CHARACTER.match(word[0])
        )
        joined += " " if spaced else ""
        begins.append(len(joined))
        joined += word
    return joined, begins


def number_words(
    text: str,
    offsets: Sequence[tuple[int, int]],
    words: Sequence[int | None],
    begins: Sequence[int] | None = None,
) -> list[int]:
    """Return the number of the word that each sub-word is part of.

    `offsets` and `words` are what the tokenizer says: characters [first, last) of a sub-word, and
    its word. In scripts without spaces every character is a word; where `begins` names the places
    at which words begin, only these count. Sub-words that share a character share the word.

    >>> number_words("té 喝茶", [(0, 1), (1, 2), (3, 4), (4, 5)], [0, 0, 1, 1])
    [0, 0, 1, 2]
    """
    numbers: list[int] = []
    reached, before, last_word = -1, "", None  # of the sub-word before
    for (first, last), said in zip(offsets, words, strict=True):
        inside = text[first:last]
        start = first + len(inside) - len(inside.lstrip())
        inside = inside.strip()
        word = said if begins is None else bisect_right(begins, start)
        fresh = word != last_word
        if begins is None and before:  # a bare word mark goes with what it marks
            parted = UNSPACED_CHARACTER.match(inside[:1]) or UNSPACED_CHARACTER.match(before[-1])
            fresh = fresh or parted is not None
        if inside and start < reached:
            fresh = False  # a further byte of the same character
        numbers.append(numbers[-1] + fresh if numbers else 0)
        reached, before, last_word = max(reached, last), inside, word
    return numbers


def cut_line(line: int, words: Sequence[int], room: int) -> Iterator[Part]:
    """Yield the parts of a line, each at most `room` sub-words; where possible no word is cut.

    >>> [part[1:] for part in cut_line(0, [0, 1, 1, 2, 2, 3], room=4)]
    [(0, 3), (3, 6)]
    """
    first = 0
    while first < len(words):
        last = end = min(first + room, len(words))
        while first < last < len(words) and words[last] == words[last - 1]:
            last -= 1
        last = last if last > first else end
        yield Part(line, first, last)
        first = last


def cut_lines(lines: Sequence[Sequence[int]], room: int) -> list[list[Part]]:
    """Return windows that hold one line, or a part of it, each."""
    return [[part] for number, words in enumerate(lines) for part in cut_line(number, words, room)]


def pack_lines(lines: Sequence[Sequence[int]], room: int, between: int) -> list[list[Part]]:
    """Return windows that hold as many whole lines as fit, in order, `between` pieces apart.

    A line above `room` begins a window and takes as many as it needs; the lines after it join its
    last part. So no line is in two windows that begin with different lines.

    >>> pack_lines([[0], [0, 1], [0] * 7, [0]], room=5, between=1)  # doctest: +ELLIPSIS
    [[Part(line=0, ...), Part(line=1, ...)], [Part(line=2, ...)], [Part(line=2, ...), Part(line=3...
    """
    windows: list[list[Part]] = []
    left = 0
    for number, words in enumerate(lines):
        if not len(words):
            continue
        if len(words) + between <= left:
            windows[-1].append(Part(number, 0, len(words)))
            left -= len(words) + between
            continue
        windows += [[part] for part in cut_line(number, words, room)]
        left = room - (windows[-1][0].last - windows[-1][0].first)
    return windows


def pair_lines(
    sizes: Sequence[int], room: int, rng: np.random.Generator
) -> tuple[list[list[Part]], list[int], int]:
    """Return a window for each line and another, whether that is a random one, and how many cut.

    The other is the next line, or as often (0.5) one drawn from the rest; the last line has no
    next. The longer of the two is cut at its end until both fit. Empty lines take no part.
    """
    windows: list[list[Part]] = []
    random: list[int] = []
    cut = 0
    lines = [line for line, size in enumerate(sizes) if size]
    for place, line in enumerate(lines):
        skipped = min(2, len(lines) - place)  # the line itself and its next one
        rest = len(lines) - skipped
        follows = skipped == 2 and (not rest or rng.random() < 0.5)
        if follows:
            other = place + 1
        else:  # a lone line meets itself
            drawn = int(rng.integers(0, rest)) if rest else place
            other = drawn + skipped if rest and drawn >= place else drawn
        first, second = sizes[line], sizes[lines[other]]
        second = min(second, max(room // 2, room - first))
        first = min(first, room - second)
        cut += (first, second) != (sizes[line], sizes[lines[other]])
        windows.append([Part(line, 0, first), Part(lines[other], 0, second)])
        random.append(int(not follows))
    return windows, random, cut


def choose(masking: str, words: np.ndarray, rate: float, rng: np.random.Generator) -> Chosen:
    """Return which sub-words of a window to guess: about `rate` of them, at least one.

    `words` (L,) is the number of each sub-word's word, negative where nothing may be masked.
    `subword` takes single ones (Devlin et al. 2019, https://aclanthology.org/N19-1423);
    `whole_word` all sub-words of a word, each with its own fate, as in the second release of BERT
    (for Chinese: Cui et al. 2021, https://arxiv.org/abs/1906.08101); `span` runs of whole words
    that share theirs (Joshi et al. 2020, https://arxiv.org/abs/1907.10529). A word that the budget
    has no room for any more is passed over.
    """
    places = np.flatnonzero(words >= 0)
    budget = max(1, round(rate * len(places)))
    if masking == "subword":
        chosen = rng.choice(places, budget, replace=False)
        return Chosen(chosen, np.arange(len(chosen)))
    changes = (np.diff(words[places]) != 0) | (np.diff(places) != 1)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(places)]])
    sizes = np.diff(starts)
    if masking == "whole_word":
        taken = _take_words(sizes, budget, rng)
    else:
        # a span never runs over a separator into another line
        apart = np.concatenate([np.diff(places)[starts[1:-1] - 1] != 1, [True]])
        taken = _take_spans(sizes, apart, budget, rng)
    chosen = places[np.repeat(taken, sizes)]
    if masking == "whole_word":
        return Chosen(chosen, np.arange(len(chosen)))
    return Chosen(chosen, np.concatenate([[0], np.cumsum(np.diff(chosen) != 1)]))


def span_lengths() -> np.ndarray:
    """Return the probability of spans of 1 to 10 words: geometric, cut off, of mean 3.8.

    >>> round(float(span_lengths() @ np.arange(1, 11)), 1)
    3.8
    """
    weights = (1 - SPAN_P) ** np.arange(SPAN_WORDS)
    return weights / weights.sum()


def _take_words(sizes: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    taken = np.zeros(len(sizes), dtype=bool)
    order = rng.permutation(len(sizes))
    for word in order:
        if sizes[word] <= budget:
            taken[word] = True
            budget -= int(sizes[word])
    taken[order[0]] |= not taken.any()
    return taken


def _take_spans(
    sizes: np.ndarray, apart: np.ndarray, budget: int, rng: np.random.Generator
) -> np.ndarray:
    taken = np.zeros(len(sizes), dtype=bool)
    order = rng.permutation(len(sizes))
    lengths = rng.choice(SPAN_WORDS, len(sizes), p=span_lengths()) + 1
    for start, length in zip(order, lengths, strict=True):
        if taken[start] or not budget:
            continue
        for word in range(start, min(start + length, len(sizes))):
            if not taken[word]:
                if sizes[word] > budget:
                    break
                taken[word] = True
                budget -= int(sizes[word])
            if apart[word]:
                break
    taken[order[0]] |= not taken.any()
    return taken
