"""Patterns with gaps and words for labels: checked as options, and turned into sub-words.

Strings and ids alone live here: no tensor, no model, no task. A text never passes through a
pattern as a string, so a "{mask}" or "[MASK]" in it stays text. Called by `cloze` and `entailment`.
"""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from crosstune.errors import ConfigError
from crosstune.languages import check_language
from crosstune.tasks.subwords import special_pieces

ANCHORS = ("。", ".", "a", "好")  # no tokenizer joins all of them with what follows
ABSENT = -1  # no sub-word here: a label has fewer words, or a word fewer sub-words
Words = dict[str, dict[str, list[str]]]  # language -> label -> words


class Segment(NamedTuple):
    """A literal part of a pattern, or a gap."""

    gap: str  # what fills it; "" for a literal part
    text: str  # the literal text; of a gap, the space that stands before its filling
    before: str | None  # literal text right before; "" where it is not known; None: nothing


def read_segments(pattern: str) -> list[Segment]:
    """Return a pattern's parts in order; a space before a gap goes with the gap's filling.

    >>> for segment in read_segments("{text} Fue {mask}."):
    ...     print(tuple(segment))
    ('text', '', None)
    ('', ' Fue', '')
    ('mask', ' ', ' Fue')
    ('', '.', '')
    """
    segments: list[Segment] = []
    for literal, gap, _, _ in Formatter().parse(pattern):
        kept = literal if gap is None else literal.rstrip()
        if kept:
            segments.append(Segment("", kept, "" if segments else None))
        if gap is not None:
            space = " " if kept != literal and segments else ""
            segments.append(Segment(gap, space, kept if segments else None))
    return segments


def check_patterns(
    patterns: Any, where: str, needed: Sequence[str], allowed: Sequence[str]
) -> dict[str, str]:
    """Return language -> pattern, each with every needed gap once and no gap that is not allowed.

    Raises:
        ConfigError: the option is no table of patterns, or one of them has other gaps.
    """
    gaps = ", ".join(f"{{{gap}}}" for gap in allowed)
    for language, pattern in _by_language(patterns, where, str, "a pattern").items():
        place = f"{where}.{language}={pattern!r}"
        try:
            parsed = list(Formatter().parse(pattern))
        except ValueError as error:
            raise ConfigError(f"{place}: {error}. Allowed gaps: {gaps}.") from error
        found = [gap for _, gap, _, _ in parsed if gap is not None]
        odd = [gap for gap in found if gap not in allowed]
        if odd or any(form or conversion for _, _, form, conversion in parsed):
            name = f"{{{odd[0]}}} is no gap" if odd else "a gap is a bare name"
            raise ConfigError(f"{place}: {name}. Allowed: {gaps}.")
        for gap in allowed:
            least = 1 if gap in needed else 0
            if not least <= found.count(gap) <= 1:
                times = "exactly once" if least else "at most once"
                raise ConfigError(f"{place}: {{{gap}}} must stand in it {times}.")
    return dict(patterns)


def check_words(words: Any, where: str, languages: Sequence[str]) -> Words:
    """Return language -> label -> words, with the same labels in the same languages.

    Raises:
        ConfigError: the option is no such table, or a word stands for two labels.
    """
    checked = {
        language: _words_of_labels(labels, f"{where}.{language}")
        for language, labels in _by_language(words, where, dict, "{label: words}").items()
    }
    if set(checked) != set(languages):
        raise ConfigError(
            f"{where} has the languages {', '.join(sorted(checked))}. It must have those with a "
            f"pattern: {', '.join(sorted(languages))}."
        )
    first, *others = checked
    for language in others:
        if set(checked[language]) != set(checked[first]):
            raise ConfigError(
                f"{where}.{language} has the labels {', '.join(sorted(checked[language]))}, but "
                f"{where}.{first} has {', '.join(sorted(checked[first]))}."
            )
    return checked


def _by_language(table: Any, where: str, kind: type, what: str) -> dict[str, Any]:
    if not isinstance(table, dict) or not table:
        raise ConfigError(f"{where}={table!r}: give {what} for each language, {{es: …, zh: …}}.")
    for language, value in table.items():
        check_language(str(language))  # an unquoted `no` in YAML is false, not Norwegian
        if not isinstance(value, kind):
            raise ConfigError(f"{where}.{language}={value!r}: this must be {what}.")
    return table


def _words_of_labels(labels: dict[Any, Any], where: str) -> dict[str, list[str]]:
    checked: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    for key, value in labels.items():
        words = value if isinstance(value, list) else [value]
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise ConfigError(f"{where}: the label {key!r} is no text; put it in quotes.")
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ConfigError(f"{where}.{key}={value!r}: give one word, or a list of words.")
        checked[str(key)] = [word.strip() for word in words]
        for word in checked[str(key)]:
            if word in owners:
                raise ConfigError(f"{where}: {word!r} stands twice, for {owners[word]} and {key}.")
            owners[word] = str(key)
    if len(checked) < 2:
        raise ConfigError(f"{where}: {len(checked)} label; a choice needs two or more.")
    return checked


def encode_behind(
    before: str | None, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Return the sub-words of texts that stand behind others, or first (`before` is None).

    Word marks are those of the place: behind "Fue", " bueno" is "Ġbueno" or "▁bueno"; behind
    "这很", "好" has no mark, and WordPiece reads "bueno" behind "super" as "##bueno". No sub-word
    is shared with what stands before: where the tokenizer would join them, another text takes its
    place.
    """
    found: dict[int, list[int]] = {number: [] for number, text in enumerate(texts) if not text}
    for anchor in [""] if before is None else [*([before] if before else []), *ANCHORS, ""]:
        rest = [number for number in range(len(texts)) if number not in found]
        if not rest:
            break
        batch: Any = tokenizer(
            [anchor + texts[number] for number in rest],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        for number, ids, spans in zip(
            rest, batch["input_ids"], batch["offset_mapping"], strict=True
        ):
            if not any(start < len(anchor) < end for start, end in spans):
                found[number] = [
                    piece
                    for piece, (start, _) in zip(ids, spans, strict=True)
                    if start >= len(anchor)
                ]
    return [found[number] for number in range(len(texts))]


class PromptTemplate:
    """One language's pattern and words as sub-words; `fill` puts texts into it.

    `pieces` (labels, words, sub-words) are those of the words, in the order of the labels.
    """

    def __init__(
        self,
        pattern: str,
        words: Mapping[str, Sequence[str]],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
    ):
        mask: Any = tokenizer.mask_token_id
        if mask is None:
            raise ConfigError("data.kind=cloze: the model's tokenizer has no mask.")
        self.tokenizer, self.mask = tokenizer, int(mask)
        self.segments = read_segments(pattern)
        self.gaps = [s for s in self.segments if s.gap not in ("", "mask")]
        self.literals = [
            [] if s.gap else encode_behind(s.before, [s.text], tokenizer)[0] for s in self.segments
        ]
        self.around = special_pieces(tokenizer)
        self.pieces = self._table(words, labels)

    def _table(self, words: Mapping[str, Sequence[str]], labels: Sequence[str]) -> np.ndarray:
        (gap,) = (s for s in self.segments if s.gap == "mask")
        owners: dict[tuple[int, ...], tuple[str, str]] = {}
        found: dict[tuple[int, int], list[int]] = {}
        for row, label in enumerate(labels):
            behind = [gap.text + word for word in words[label]]
            for column, pieces in enumerate(encode_behind(gap.before, behind, self.tokenizer)):
                word = words[label][column]
                owner, twin = owners.setdefault(tuple(pieces), (label, word))
                if not pieces or self.tokenizer.unk_token_id in pieces:
                    fault = "does not know it"
                elif owner != label:
                    fault = f"reads it as {twin!r} (for {owner})"
                else:
                    found[row, column] = pieces
                    continue
                raise ConfigError(
                    f"data.task.verbalizers: {word!r} (for {label}): the model's tokenizer "
                    f"{fault}. Choose another word."
                )
        most = max(len(words[label]) for label in labels)
        table = np.full((len(labels), most, max(map(len, found.values()))), ABSENT, np.int64)
        for place, pieces in found.items():
            table[place][: len(pieces)] = pieces
        return table

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[list[list[int]]]:
        """Return, for each row, the sub-words of its texts in the order of the gaps."""
        columns = [
            encode_behind(gap.before, [gap.text + row[gap.gap] for row in rows], self.tokenizer)
            for gap in self.gaps
        ]
        return [list(texts) for texts in zip(*columns, strict=True)]

    def fill(self, texts: Sequence[list[int]], masks: int) -> tuple[list[int], int]:
        """Return a window with texts and masks in their gaps, and the place of its first mask."""
        ids, after = list(self.around[0]), self.around[1]
        place, rest = 0, iter(texts)
        for segment, literal in zip(self.segments, self.literals, strict=True):
            if segment.gap == "mask":
                place = len(ids)
                ids += [self.mask] * masks
            else:
                ids += next(rest) if segment.gap else literal
        return ids + after, place

    def cut(self, texts: Sequence[list[int]], masks: int, max_tokens: int) -> list[list[int]]:
        """Return as much of the texts as a window holds beside the pattern and its masks.

        Raises:
            ConfigError: the pattern alone fills the window.
        """
        size = len(self.fill([[] for _ in self.gaps], masks)[0])
        if max_tokens - size < len(self.gaps):
            raise ConfigError(
                f"data.max_tokens={max_tokens}: a pattern of data.task.patterns takes {size} "
                "sub-words without its text."
            )
        kept = share_room([len(text) for text in texts], max_tokens - size)
        return [text[:size] for text, size in zip(texts, kept, strict=True)]

    def free(self, masks: int) -> list[tuple[list[int], int]]:
        """Return windows whose texts say nothing, as Zhao et al. 2021 choose them."""
        (named,) = self.read([dict.fromkeys(("text", "text_pair"), "N/A")])
        contents = [named, *([text] * len(self.gaps) for text in ([self.mask], []))]
        return [self.fill(texts, masks) for texts in contents]


def share_room(sizes: Sequence[int], room: int) -> list[int]:
    """Return how much of each of one or two texts fits; the longer is cut first.

    >>> share_room([9, 3], 8), share_room([9, 9], 7), share_room([9], 4), share_room([1, 2], 4)
    ([5, 3], [4, 3], [4], [1, 2])
    """
    if len(sizes) == 1:
        return [min(sizes[0], room)]
    first, second = sizes
    second = min(second, max(room // 2, room - first))
    return [min(first, room - second), second]
