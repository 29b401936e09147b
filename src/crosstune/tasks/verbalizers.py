"""Prompt templates with placeholders such as `{text}` and `{mask}`, and verbalizers.

A verbalizer holds the words that stand for each label. Input text is inserted as token ids, so a
literal "{mask}" or "[MASK]" in it has no special meaning.
"""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from crosstune.errors import ConfigError
from crosstune.languages import check_language
from crosstune.tasks.subwords import find_special_tokens

ANCHORS = ("。", ".", "a", "好")  # no tokenizer joins all of them with what follows
PADDING = -1  # no sub-word: a label has fewer words, or a word fewer sub-words
Words = dict[str, dict[str, list[str]]]  # language -> label -> words


def check_patterns(
    patterns: Any, option: str, needed: Sequence[str], allowed: Sequence[str]
) -> dict[str, str]:
    """Return language -> pattern, each with every needed gap once and no gap that is not allowed.

    Raises:
        ConfigError: the option is no table of patterns, or one of them has other gaps.
    """
    gaps = ", ".join(f"{{{gap}}}" for gap in allowed)
    for language, pattern in _check_by_language(patterns, option, str, "a pattern").items():
        received = f"{option}.{language}={pattern!r}"
        try:
            parsed = list(Formatter().parse(pattern))
        except ValueError as error:
            raise ConfigError(f"{received}: {error}. Allowed gaps: {gaps}.") from error
        present = [gap for _, gap, _, _ in parsed if gap is not None]
        unknown = [gap for gap in present if gap not in allowed]
        if unknown or any(form or conversion for _, _, form, conversion in parsed):
            fault = f"{{{unknown[0]}}} is no gap" if unknown else "a gap is a bare name"
            raise ConfigError(f"{received}: {fault}. Allowed: {gaps}.")
        for gap in allowed:
            least = 1 if gap in needed else 0
            if not least <= present.count(gap) <= 1:
                times = "exactly once" if least else "at most once"
                raise ConfigError(f"{received}: {{{gap}}} must stand in it {times}.")
    return dict(patterns)


def check_words(words: Any, option: str, languages: Sequence[str]) -> Words:
    """Return language -> label -> words, with the same labels in the same languages.

    Raises:
        ConfigError: the option is no such table, or a word stands for two labels.
    """
    checked = {
        language: _check_labels(labels, f"{option}.{language}")
        for language, labels in _check_by_language(words, option, dict, "{label: words}").items()
    }
    if set(checked) != set(languages):
        raise ConfigError(
            f"{option} has the languages {', '.join(sorted(checked))}. It must have those with a "
            f"pattern: {', '.join(sorted(languages))}."
        )
    first, *rest = checked
    for language in rest:
        if set(checked[language]) != set(checked[first]):
            raise ConfigError(
                f"{option}.{language} has the labels {', '.join(sorted(checked[language]))}, but "
                f"{option}.{first} has {', '.join(sorted(checked[first]))}."
            )
    return checked


def _check_by_language(table: Any, option: str, kind: type, what: str) -> dict[str, Any]:
    if not isinstance(table, dict) or not table:
        raise ConfigError(f"{option}={table!r}: give {what} for each language, {{es: …, zh: …}}.")
    for language, value in table.items():
        check_language(str(language))  # an unquoted `no` in YAML is false, not Norwegian
        if not isinstance(value, kind):
            raise ConfigError(f"{option}.{language}={value!r}: this must be {what}.")
    return table


def _check_labels(labels: dict[Any, Any], option: str) -> dict[str, list[str]]:
    checked: dict[str, list[str]] = {}
    label_of: dict[str, str] = {}
    for key, value in labels.items():
        words = value if isinstance(value, list) else [value]
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise ConfigError(f"{option}: the label {key!r} is no text; put it in quotes.")
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ConfigError(f"{option}.{key}={value!r}: give one word, or a list of words.")
        checked[str(key)] = [word.strip() for word in words]
        for word in checked[str(key)]:
            if word in label_of:
                labels_both = f"{label_of[word]} and {key}"
                raise ConfigError(f"{option}: {word!r} stands twice, for {labels_both}.")
            label_of[word] = str(key)
    if len(checked) < 2:
        raise ConfigError(f"{option}: {len(checked)} label; a choice needs two or more.")
    return checked


class Segment(NamedTuple):
    """A literal part of a pattern, or a gap."""

    gap: str  # its name; "" for a literal part
    text: str  # the literal text; of a gap, the space before it
    before: str | None  # literal text right before; "" if that is not known; None: nothing


def read_segments(pattern: str) -> list[Segment]:
    """Return a pattern's parts in order; a space before a gap belongs to the gap.

    >>> for segment in read_segments("{text} Fue {mask}."):
    ...     print(tuple(segment))
    ('text', '', None)
    ('', ' Fue', '')
    ('mask', ' ', ' Fue')
    ('', '.', '')
    """
    segments: list[Segment] = []
    for literal, gap, _, _ in Formatter().parse(pattern):
        text = literal if gap is None else literal.rstrip()
        if text:
            segments.append(Segment("", text, "" if segments else None))
        if gap is not None:
            space = " " if text != literal and segments else ""
            segments.append(Segment(gap, space, text if segments else None))
    return segments


def encode_continuations(
    before: str | None, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Return the sub-words of texts as they follow `before`, or come first (`before` is None).

    Word marks are those of the context: after "Fue", " bueno" is "Ġbueno" or "▁bueno"; after
    "这很", "好" has no mark, and WordPiece reads "bueno" after "super" as "##bueno". No sub-word
    is shared with `before`: where the tokenizer would join them, an anchor replaces it.
    """
    encoded: dict[int, list[int]] = {number: [] for number, text in enumerate(texts) if not text}
    for anchor in [""] if before is None else [*([before] if before else []), *ANCHORS, ""]:
        rest = [number for number in range(len(texts)) if number not in encoded]
        if not rest:
            break
        batch: Any = tokenizer(
            [anchor + texts[number] for number in rest],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        for number, ids, offsets in zip(
            rest, batch["input_ids"], batch["offset_mapping"], strict=True
        ):
            if not any(start < len(anchor) < end for start, end in offsets):
                starts = [start for start, _ in offsets]
                pairs = zip(ids, starts, strict=True)
                encoded[number] = [subword for subword, start in pairs if start >= len(anchor)]
    return [encoded[number] for number in range(len(texts))]


class PromptTemplate:
    """One language's pattern and words as sub-words; `fill` puts texts into it.

    `words` (labels, words, sub-words) has the labels in their order, ABSENT where there is none.
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
            [] if s.gap else encode_continuations(s.before, [s.text], tokenizer)[0]
            for s in self.segments
        ]
        self.special_tokens = find_special_tokens(tokenizer)
        self.words = self._encode_words(words, labels)

    def _encode_words(
        self, words: Mapping[str, Sequence[str]], labels: Sequence[str]
    ) -> np.ndarray:
        (gap,) = (s for s in self.segments if s.gap == "mask")
        first: dict[tuple[int, ...], tuple[str, str]] = {}  # sub-words -> label and word
        encoded: dict[tuple[int, int], list[int]] = {}
        for row, label in enumerate(labels):
            filled = [gap.text + word for word in words[label]]
            for column, ids in enumerate(encode_continuations(gap.before, filled, self.tokenizer)):
                word = words[label][column]
                same_label, same_word = first.setdefault(tuple(ids), (label, word))
                if not ids or self.tokenizer.unk_token_id in ids:
                    fault = "does not know it"
                elif same_label != label:
                    fault = f"reads it as {same_word!r} (for {same_label})"
                else:
                    encoded[row, column] = ids
                    continue
                raise ConfigError(
                    f"data.task.verbalizers: {word!r} (for {label}): the model's tokenizer "
                    f"{fault}. Choose another word."
                )
        most = max(len(words[label]) for label in labels)
        table = np.full((len(labels), most, max(map(len, encoded.values()))), PADDING, np.int64)
        for cell, ids in encoded.items():
            table[cell][: len(ids)] = ids
        return table

    def encode_texts(self, rows: Sequence[Mapping[str, Any]]) -> list[list[list[int]]]:
        """Return, for each row, the sub-words of its texts in the order of the gaps."""
        columns = [
            encode_continuations(
                gap.before, [gap.text + row[gap.gap] for row in rows], self.tokenizer
            )
            for gap in self.gaps
        ]
        return [list(texts) for texts in zip(*columns, strict=True)]

    def fill(self, texts: Sequence[list[int]], masks: int) -> tuple[list[int], int]:
        """Return a window with texts and masks in their gaps, and the column of its first mask."""
        before, after = self.special_tokens
        ids, mask_column, rest = list(before), 0, iter(texts)
        for segment, literal in zip(self.segments, self.literals, strict=True):
            if segment.gap == "mask":
                mask_column = len(ids)
                ids += [self.mask] * masks
            else:
                ids += next(rest) if segment.gap else literal
        return ids + after, mask_column

    def truncate(self, texts: Sequence[list[int]], masks: int, max_tokens: int) -> list[list[int]]:
        """Return as much of the texts as fits into a window beside the pattern and its masks.

        Raises:
            ConfigError: the pattern alone fills the window.
        """
        size = len(self.fill([[] for _ in self.gaps], masks)[0])
        if max_tokens - size < len(self.gaps):
            raise ConfigError(
                f"data.max_tokens={max_tokens}: a pattern of data.task.patterns takes {size} "
                "sub-words without its text."
            )
        sizes = truncate_sizes([len(text) for text in texts], max_tokens - size)
        return [text[:size] for text, size in zip(texts, sizes, strict=True)]

    def fill_content_free(self, masks: int) -> list[tuple[list[int], int]]:
        """Return windows with the content-free texts of Zhao et al. 2021: "N/A", a mask, none."""
        (not_available,) = self.encode_texts([dict.fromkeys(("text", "text_pair"), "N/A")])
        contents = [not_available, *([text] * len(self.gaps) for text in ([self.mask], []))]
        return [self.fill(texts, masks) for texts in contents]


def truncate_sizes(sizes: Sequence[int], room: int) -> list[int]:
    """Return how much of each of one or two texts fits; the longer is cut first.

    >>> [truncate_sizes(*case) for case in (([9, 3], 8), ([9, 9], 7), ([9], 4), ([1, 2], 4))]
    [[5, 3], [4, 3], [4], [1, 2]]
    """
    if len(sizes) == 1:
        return [min(sizes[0], room)]
    first, second = sizes
    second = min(second, max(room // 2, room - first))
    return [min(first, room - second), second]
