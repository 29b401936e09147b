"""Lines of text as sub-words, and the windows that are laid out of parts of them.

Masked LM reads its corpus through this; which parts share a window, and which sub-words are
masked, is `masking.py`'s.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE
from crosstune.tasks.masking import Part, join_words, number_words


class Line(NamedTuple):
    """A row as sub-words."""

    ids: list[int]
    words: Sequence[int]  # number of the word of each; each is its own where words do not matter


class Window(NamedTuple):
    """What the encoder reads at once; a list each, with an entry for every sub-word."""

    ids: list[int]
    types: list[int]
    labels: list[int]
    words: list[int]
    rows: list[int]


def read_lines(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, spaced: bool, by_word: bool
) -> list[Line]:
    """Return rows as sub-words; with `spaced` the spaces of a text say where its words are."""
    joined = [join_words(row["text"]) if spaced else (row["text"], None) for row in rows]
    batch: Any = tokenizer(
        [text for text, _ in joined],
        add_special_tokens=False,
        return_offsets_mapping=by_word,
        verbose=False,
    )
    if not by_word:
        return [Line(ids, range(len(ids))) for ids in batch["input_ids"]]
    return [
        Line(ids, number_words(text, offsets, batch.word_ids(number), begins))
        for number, ((text, begins), ids, offsets) in enumerate(
            zip(joined, batch["input_ids"], batch["offset_mapping"], strict=True)
        )
    ]


def make_lm_windows(
    parts: Sequence[Part], lines: Sequence[Line], around: tuple[list[int], list[int]], paired: bool
) -> Window:
    """Return parts of lines as a window, `around` it and behind each part the special pieces."""
    before, after = around
    ids, types, owners = list(before), [0] * len(before), [-1] * len(before)
    labels, words = [IGNORE] * len(before), [-1] * len(before)
    for number, (line, first, last) in enumerate(parts):
        inside, size = lines[line].ids[first:last], last - first
        ids += [*inside, *after]
        labels += [*inside, *[IGNORE] * len(after)]
        words += [*lines[line].words[first:last], *[-1] * len(after)]
        owners += [line] * size + [-1] * len(after)
        types += [number if paired else 0] * (size + len(after))
    return Window(ids, types, labels, words, owners)
