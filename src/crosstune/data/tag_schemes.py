"""Span tags in IOB1, IOB2, BIOES, BMES and BILOU: reading spans, detecting and converting schemes.

Pure functions on sequences of tags. `read_spans` is lenient; `find_scheme_faults` is strict.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from crosstune.errors import DataError

WORD_TAG = re.compile("[BIESM]")  # position of a character in a segmented word
SPAN_TAG = re.compile("O|[BIESMLU](-.+)?", re.DOTALL)
# what was meant as the tag of a span: a mark and a type in either order, whatever stands between
SPAN_LIKE = re.compile(r"[BIESMLU][-_.:/|].+|.+[-_.:/|][BIESMLU]", re.DOTALL | re.IGNORECASE)
MARKS = {"iob2": "BI", "iob1": "BI", "bioes": "BIES", "bmes": "BMES", "bilou": "BILU"}
ALLOWED_TAGS = "O, or B, I, E, S, M, L or U with or without -TYPE"
RULES = {
    "iob1": "B stands only where a span follows one of its own type",
    "iob2": "every span starts with B",
    "bioes": "a span is S alone, or B, any number of I, and E, all of one type",
    "bmes": "a span is S alone, or B, any number of M, and E, all of one type",
    "bilou": "a span is U alone, or B, any number of I, and L, all of one type",
}

Span = tuple[str, int, int]  # type, start, end (exclusive)


def split_tag(tag: str) -> tuple[str, str]:
    """Return a tag's mark and type; the type is empty where there is none.

    >>> split_tag("B-PER"), split_tag("O")
    (('B', 'PER'), ('O', ''))
    """
    mark, _, span_type = tag.partition("-")
    return mark, span_type


def may_follow(before: str | None, after: str | None, scheme: str) -> bool:
    """Return whether a tag may follow another; None is the start or end of a sentence.

    >>> may_follow("O", "I-PER", "iob2"), may_follow("O", "I-PER", "iob1")
    (False, True)
    >>> may_follow("B-PER", None, "bioes")
    False
    """
    last_mark, last_type = split_tag(before or "O")
    mark, span_type = split_tag(after or "O")
    if mark != "O" and mark not in MARKS[scheme]:
        return False
    continues = last_mark in ("B", "I", "M") and last_type == span_type
    if scheme in ("iob1", "iob2"):
        return continues or mark != ("B" if scheme == "iob1" else "I")
    if mark in ("I", "M", "E", "L"):
        return continues
    return last_mark not in ("B", "I", "M")


def find_scheme_faults(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Return the index of each word whose tag breaks a scheme, and what is wrong with it.

    `scheme` is one of `MARKS`. A span that the end of the sentence cuts off is
    reported at the last word.

    >>> find_scheme_faults(["O", "I-PER"], "iob2")
    [(1, 'I-PER after O: in IOB2 every span starts with B')]
    >>> find_scheme_faults(["O", "I-PER"], "iob1")
    []
    """
    faults: list[tuple[int, str]] = []
    name = scheme.upper()
    for index, (before, after) in enumerate(pairwise([None, *tags, None])):
        if may_follow(before, after, scheme):
            continue
        here, there = after or "the end of the sentence", before or "the start of the sentence"
        if split_tag(after or "O")[0] not in ("O", *MARKS[scheme]):
            faults.append((index, f"{here} is no tag of {name}"))
        else:
            message = f"{here} after {there}: in {name} {RULES[scheme]}"
            faults.append((min(index, len(tags) - 1), message))
    return faults


def detect_scheme(sequences: Iterable[Sequence[str]]) -> str:
    """Return the scheme with the fewest violations; a tie goes to the first of `MARKS`.

    >>> detect_scheme([["B-PER", "I-PER", "O", "B-LOC"]]), detect_scheme([["I-PER", "B-PER"]])
    ('iob2', 'iob1')
    >>> detect_scheme([["B", "M", "E", "S"]]), detect_scheme([["B-PER", "E-PER", "O"]])
    ('bmes', 'bioes')
    """
    pairs = Counter(pair for tags in sequences for pair in pairwise([None, *tags, None]))

    def count_violations(scheme: str) -> int:
        return sum(n for (b, a), n in pairs.items() if not may_follow(b, a, scheme))

    return min(MARKS, key=count_violations)


def convert_scheme(tags: Sequence[str], scheme: str) -> list[str]:
    """Return the tags that mark the same spans in another scheme.

    The tags may be in any of the schemes; an ill-formed sequence is read as by `read_spans` and
    comes out well-formed.

    >>> convert_scheme(["B-PER", "I-PER", "B-PER", "O"], "bioes")
    ['B-PER', 'E-PER', 'S-PER', 'O']
    >>> convert_scheme(["B-PER", "E-PER", "S-PER", "O"], "iob1")
    ['I-PER', 'I-PER', 'B-PER', 'O']
    """
    converted = ["O"] * len(tags)
    previous: tuple[str, int] | None = None
    for span_type, start, end in sorted(read_spans(tags), key=lambda span: span[1]):
        suffix = "" if span_type == "_" else f"-{span_type}"
        marks = _mark_span(end - start, scheme, adjacent=previous == (span_type, start))
        converted[start:end] = [mark + suffix for mark in marks]
        previous = (span_type, end)
    return converted


def _mark_span(length: int, scheme: str, adjacent: bool) -> str:
    if scheme in ("iob1", "iob2"):
        return ("B" if adjacent or scheme == "iob2" else "I") + "I" * (length - 1)
    inner = "M" if scheme == "bmes" else "I"
    single, last = ("U", "L") if scheme == "bilou" else ("S", "E")
    return single if length == 1 else "B" + inner * (length - 2) + last


def read_spans(tags: Sequence[str]) -> set[Span]:
    """Return the spans that a sequence of tags marks, as (type, start, end), end exclusive.

    Reads every scheme of `MARKS` leniently, as conlleval does: an ill-formed sequence still marks
    spans, and a change of type, a B, S or U, or anything after an E, S, L or U starts a new one.
    Tags without a type (word segmentation) mark spans of type "_".

    Raises:
        DataError: a tag is none of `ALLOWED_TAGS`.

    >>> sorted(read_spans(["B-PER", "I-PER", "O", "I-LOC", "I-PER"]))
    [('LOC', 3, 4), ('PER', 0, 2), ('PER', 4, 5)]
    >>> sorted(read_spans(["B", "M", "E", "S"]))
    [('_', 0, 3), ('_', 3, 4)]
    """
    spans = set()
    start, current, closed = 0, None, False
    for index, tag in enumerate([*tags, "O"]):
        span_type, opens, closes = _read_tag(tag)
        if current is not None and (opens or closed or span_type != current):
            spans.add((current, start, index))
            current = None
        if current is None:
            start, current = index, span_type
        closed = closes
    return spans


@lru_cache(maxsize=4096)
def _read_tag(tag: str) -> tuple[str | None, bool, bool]:
    """Return a tag's type (None for O), whether it always starts a span, whether it ends one."""
    if tag == "O":
        return None, False, False
    mark, span_type = split_tag(tag)
    if not SPAN_TAG.fullmatch(tag):
        raise DataError([f"{tag!r} is not a tag of a span. Allowed: {ALLOWED_TAGS}."])
    return span_type or "_", mark in ("B", "S", "U"), mark in ("E", "S", "L", "U")
