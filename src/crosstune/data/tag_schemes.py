"""Schemes of span tags: IOB1, IOB2, BIOES and BMES; which one a corpus is in, and what breaks it.

Pure functions on sequences of tags. How spans are read off tags, also off ill-formed ones, is in
`tagspans.py`. Called by `tagging.py` and by the checks on data.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from crosstune.errors import DataError

MARKS = {"iob2": "BI", "iob1": "BI", "bioes": "BIES", "bmes": "BMES"}
RULES = {
    "iob1": "B stands only where a span follows one of its own type",
    "iob2": "every span starts with B",
    "bioes": "a span is S alone, or B, any number of I, and E, all of one type",
    "bmes": "a span is S alone, or B, any number of M, and E, all of one type",
}


Span = tuple[str, int, int]  # type, start, end (exclusive)


def may_follow(before: str | None, after: str | None, scheme: str) -> bool:
    """Say whether a tag may follow another; None stands for the start or end of a sentence.

    >>> may_follow("O", "I-PER", "iob2"), follows("O", "I-PER", "iob1")
    (False, True)
    >>> may_follow("B-PER", None, "bioes")
    False
    """
    last, last_kind = _parts(before)
    mark, kind = _parts(after)
    if mark != "O" and mark not in MARKS[scheme]:
        return False
    inside = last in ("B", "I", "M") and last_kind == kind
    if scheme in ("iob1", "iob2"):
        return inside or mark != ("B" if scheme == "iob1" else "I")
    if mark in ("I", "M", "E"):
        return inside
    return last not in ("B", "I", "M")


def find_scheme_faults(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Return the index of each word whose tag breaks a scheme, and what is wrong with it.

    `scheme` is one of iob1, iob2, bioes and bmes. A span that the end of the sentence cuts off is
    told at the last word.

    >>> find_scheme_faults(["O", "I-PER"], "iob2")
    [(1, 'I-PER after O: in IOB2 every span starts with B')]
    >>> find_scheme_faults(["O", "I-PER"], "iob1")
    []
    """
    faults: list[tuple[int, str]] = []
    for index, (before, after) in enumerate(pairwise([None, *tags, None])):
        if may_follow(before, after, scheme):
            continue
        name = scheme.upper()
        here, there = after or "the end of the sentence", before or "the start of the sentence"
        if _parts(after)[0] not in ("O", *MARKS[scheme]):
            faults.append((index, f"{here} is no tag of {name}"))
        else:
            place = min(index, len(tags) - 1)
            faults.append((place, f"{here} after {there}: in {name} {RULES[scheme]}"))
    return faults


def detect_scheme(sequences: Iterable[Sequence[str]]) -> str:
    """Return the scheme that the sequences break least; IOB2 before others where that is equal.

    >>> detect_scheme([["B-PER", "I-PER", "O", "B-LOC"]]), detect_scheme([["I-PER", "B-PER"]])
    ('iob2', 'iob1')
    >>> detect_scheme([["B", "M", "E", "S"]]), detect_scheme([["B-PER", "E-PER", "O"]])
    ('bmes', 'bioes')
    """
    pairs = Counter(pair for tags in sequences for pair in pairwise([None, *tags, None]))

    def breaks(scheme: str) -> int:
        return sum(n for (b, a), n in pairs.items() if not may_follow(b, a, scheme))

    return min(MARKS, key=breaks)


def convert_scheme(tags: Sequence[str], scheme: str) -> list[str]:
    """Return the tags that mark the same spans in another scheme.

    The given tags may be in any of the schemes; an ill-formed sequence is read as
    `read_spans` reads it and comes out well-formed.

    >>> convert_scheme(["B-PER", "I-PER", "B-PER", "O"], "bioes")
    ['B-PER', 'E-PER', 'S-PER', 'O']
    >>> convert_scheme(["B-PER", "E-PER", "S-PER", "O"], "iob1")
    ['I-PER', 'I-PER', 'B-PER', 'O']
    """
    written = ["O"] * len(tags)
    last: tuple[str, int] | None = None
    for kind, start, end in sorted(read_spans(tags), key=lambda span: span[1]):
        suffix = "" if kind == "_" else f"-{kind}"
        marks = _marks(end - start, scheme, touches=last == (kind, start))
        written[start:end] = [mark + suffix for mark in marks]
        last = (kind, end)
    return written


def _marks(length: int, scheme: str, touches: bool) -> str:
    if scheme == "iob1":
        return ("B" if touches else "I") + "I" * (length - 1)
    if scheme == "iob2":
        return "B" + "I" * (length - 1)
    inner = MARKS[scheme].replace("B", "").replace("E", "").replace("S", "")
    return "S" if length == 1 else "B" + inner * (length - 2) + "E"


def _parts(tag: str | None) -> tuple[str, str]:
    mark, _, kind = (tag or "O").partition("-")
    return mark, kind


def read_spans(tags: Sequence[str]) -> set[Span]:
    """Return the spans that a sequence of tags marks, as (type, start, end), end exclusive.

    Reads IOB1, IOB2, IOBES and BMES leniently, as conlleval does: an ill-formed sequence still
    marks spans, and a change of type, a B or an S, or anything after an E or an S opens a new one.
    Tags without a type (word segmentation) mark spans of type "_".

    Raises:
        DataError: a tag is neither O nor one of B, I, E, S, M, alone or with "-type".

    >>> sorted(read_spans(["B-PER", "I-PER", "O", "I-LOC", "I-PER"]))
    [('LOC', 3, 4), ('PER', 0, 2), ('PER', 4, 5)]
    >>> sorted(read_spans(["B", "M", "E", "S"]))
    [('_', 0, 3), ('_', 3, 4)]
    """
    found = set()
    start, current, closed = 0, None, False
    for position, tag in enumerate(tags):
        kind, opens, closes = _read_tag(tag)
        if current is not None and (opens or closed or kind != current):
            found.add((current, start, position))
            current = None
        if current is None:
            start, current = position, kind
        closed = closes
    if current is not None:
        found.add((current, start, len(tags)))
    return found


@lru_cache(maxsize=4096)
def _read_tag(tag: str) -> tuple[str | None, bool, bool]:
    """Return a tag's type (None for O), whether it always opens a span, whether it closes one."""
    if tag == "O":
        return None, False, False
    mark, _, kind = tag.partition("-")
    if mark not in ("B", "I", "E", "S", "M"):
        allowed = 'O, and B, I, E, S or M, alone or followed by a hyphen and a type, as in "B-PER"'
        raise DataError([f"{tag!r} is not a tag of a span. Allowed: {allowed}."])
    return kind or "_", mark in ("B", "S"), mark in ("E", "S")
