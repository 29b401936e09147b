"""Spans of tags: how a sequence of B-, I-, E-, S- and M-tags is read.

Free of torch, so that reports read tags as scores do; what is counted over spans lives in
`metrics/spans.py` and `analysis/outcomes.py`.
"""

from collections.abc import Sequence
from functools import lru_cache

from crosstune.errors import DataError

Span = tuple[str, int, int]  # type, start, end (exclusive)


def spans(tags: Sequence[str]) -> set[Span]:
    """Return the spans that a sequence of tags marks, as (type, start, end), end exclusive.

    Reads IOB1, IOB2, IOBES and BMES leniently, as conlleval does: an ill-formed sequence still
    marks spans, and a change of type, a B or an S, or anything after an E or an S opens a new one.
    Tags without a type (word segmentation) mark spans of type "_".

    Raises:
        DataError: a tag is neither O nor one of B, I, E, S, M, alone or with "-type".

    >>> sorted(spans(["B-PER", "I-PER", "O", "I-LOC", "I-PER"]))
    [('LOC', 3, 4), ('PER', 0, 2), ('PER', 4, 5)]
    >>> sorted(spans(["B", "M", "E", "S"]))
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
