"""Words of plain text, and the choice of sub-words to mask: single ones, whole words or spans."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crosstune.languages import UNSPACED

MASKINGS = ("subword", "whole_word", "span")
MAX_SPAN_WORDS = 10
SPAN_P = 0.2  # of the geometric distribution of span lengths
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")


class Masked(NamedTuple):
    """The M sub-words of a window to be predicted."""

    positions: np.ndarray  # (M,) in the window
    groups: np.ndarray  # (M,) sub-words of a group become mask, random or unchanged together


def join_words(text: str) -> tuple[str, list[int]]:
    """Return a segmented line without the spaces, and where its words start.

    A space stays between two words of a spaced script.

    >>> join_words("我 喜欢 New York 的 茶")
    ('我喜欢New York的茶', [0, 1, 3, 7, 11, 12])
    """
    joined, starts = "", []
    for word in text.split():
        spaced = (
            joined
            and not UNSPACED_CHARACTER.match(joined[-1])
            and not UNSPACED_CHARACTER.match(word[0])
        )
        joined += " " if spaced else ""
        starts.append(len(joined))
        joined += word
    return joined, starts


def number_words(
    text: str,
    offsets: Sequence[tuple[int, int]],
    words: Sequence[int | None],
    starts: Sequence[int] | None = None,
) -> list[int]:
    """Return the number of the word that each sub-word belongs to.

    `offsets` and `words` are the tokenizer's: characters [first, last) of a sub-word, and its word.
    In scripts without spaces every character is a word; where `starts` has the offsets at which
    words start, only these count. Sub-words that share a character share the word.

    >>> number_words("té 喝茶", [(0, 1), (1, 2), (3, 4), (4, 5)], [0, 0, 1, 1])
    [0, 0, 1, 2]
    """
    numbers: list[int] = []
    end, previous, last_word = -1, "", None  # of the previous sub-word
    for (first, last), tokenizer_word in zip(offsets, words, strict=True):
        characters = text[first:last]
        start = first + len(characters) - len(characters.lstrip())
        characters = characters.strip()
        word = tokenizer_word if starts is None else bisect_right(starts, start)
        is_new = word != last_word
        if starts is None and previous:  # a bare word mark belongs to the next sub-word
            neighbours = (characters[:1], previous[-1])
            is_new = is_new or any(UNSPACED_CHARACTER.match(one) for one in neighbours)
        if characters and start < end:
            is_new = False  # another byte of the same character
        numbers.append(numbers[-1] + is_new if numbers else 0)
        end, previous, last_word = max(end, last), characters, word
    return numbers


def choose_masked(masking: str, words: np.ndarray, rate: float, rng: np.random.Generator) -> Masked:
    """Return which sub-words of a window to predict: about `rate` of them, at least one.

    `words` (L,) is the number of each sub-word's word, negative where nothing may be masked.
    `subword` takes single ones (Devlin et al. 2019, https://aclanthology.org/N19-1423);
    `whole_word` all sub-words of a word, each a group, as in the second release of BERT (for
    Chinese: Cui et al. 2021, https://arxiv.org/abs/1906.08101); `span` runs of whole words that are
    one group (Joshi et al. 2020, https://arxiv.org/abs/1907.10529). A word that exceeds the rest of
    the budget is passed over.
    """
    maskable = np.flatnonzero(words >= 0)
    budget = max(1, round(rate * len(maskable)))
    if masking == "subword":
        positions = rng.choice(maskable, budget, replace=False)
        return Masked(positions, np.arange(len(positions)))
    changes = (np.diff(words[maskable]) != 0) | (np.diff(maskable) != 1)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(maskable)]])
    sizes = np.diff(starts)
    if masking == "whole_word":
        chosen = _choose_words(sizes, budget, rng)
    else:
        # a span never crosses a separator into another line
        ends_line = np.concatenate([np.diff(maskable)[starts[1:-1] - 1] != 1, [True]])
        chosen = _choose_spans(sizes, ends_line, budget, rng)
    positions = maskable[np.repeat(chosen, sizes)]
    if masking == "whole_word":
        return Masked(positions, np.arange(len(positions)))
    return Masked(positions, np.concatenate([[0], np.cumsum(np.diff(positions) != 1)]))


def span_length_probabilities() -> np.ndarray:
    """Return the probabilities of spans of 1 to 10 words: geometric, truncated, of mean 3.8.

    >>> round(float(span_length_probabilities() @ np.arange(1, 11)), 1)
    3.8
    """
    weights = (1 - SPAN_P) ** np.arange(MAX_SPAN_WORDS)
    return weights / weights.sum()


def _choose_words(sizes: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    chosen = np.zeros(len(sizes), dtype=bool)
    order = rng.permutation(len(sizes))
    for word in order:
        if sizes[word] <= budget:
            chosen[word] = True
            budget -= int(sizes[word])
    chosen[order[0]] |= not chosen.any()
    return chosen


def _choose_spans(
    sizes: np.ndarray, ends_line: np.ndarray, budget: int, rng: np.random.Generator
) -> np.ndarray:
    chosen = np.zeros(len(sizes), dtype=bool)
    order = rng.permutation(len(sizes))
    lengths = rng.choice(MAX_SPAN_WORDS, len(sizes), p=span_length_probabilities()) + 1
    for start, length in zip(order, lengths, strict=True):
        if chosen[start] or not budget:
            continue
        for word in range(start, min(start + length, len(sizes))):
            if not chosen[word]:
                if sizes[word] > budget:
                    break
                chosen[word] = True
                budget -= int(sizes[word])
            if ends_line[word]:
                break
    chosen[order[0]] |= not chosen.any()
    return chosen
