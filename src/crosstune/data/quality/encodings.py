"""Checks of `crosstune check` for text that was decoded or exported wrongly.

Each rule is a warning at single rows, and an error where nearly all rows of a split break it.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial

from crosstune.data.quality.duplicates import Row, RowToStrings
from crosstune.data.quality.rules import Finding, make_finding
from crosstune.data.splits import Splits
from crosstune.languages import LETTERS, script_of

NEARLY_ALL = 0.9  # of the rows of a split
MIN_LETTERS = 10  # of a text whose script is judged
_UNNAMED = re.compile(r"Unnamed: [1-9][0-9]*")
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}[0-9]{0,2}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")
# a lead byte of UTF-8 and the bytes after it, each as the character that Latin-1 or cp1252 has
_AFTER = bytes(range(0x80, 0xC0))
_CONTINUATION = re.escape("".join({_AFTER.decode("latin-1"), _AFTER.decode("cp1252", "ignore")}))
_MISREAD = re.compile(
    f"[\u00c2-\u00df][{_CONTINUATION}]|[\u00e0-\u00ef][{_CONTINUATION}]{{2}}"
    f"|[\u00f0-\u00f4][{_CONTINUATION}]{{3}}"
)


def find_text_faults(splits: Splits, texts_of: RowToStrings) -> Iterator[Finding]:
    """Yield texts in another script than their language's, misread UTF-8, and HTML entities."""
    for languages in splits.values():
        for language, split in languages.items():
            texts = [(row, " ".join(texts_of(row))) for row in split.rows]
            letters = LETTERS.get(script_of(language), set())

            foreign = partial(describe_foreign_script, wanted=letters)
            misread = partial(describe_mojibake, wanted=letters)
            yield from _find("S101", texts, foreign if letters else lambda text: None, bool)
            yield from _find("S102", texts, misread, lambda text: not text.isascii())
            yield from _find("S103", texts, describe_entity, bool)


def _find(
    rule: str,
    texts: list[tuple[Row, str]],
    describe: Callable[[str], str | None],
    concerns: Callable[[str], bool],
) -> Iterator[Finding]:
    """Yield a finding for each text with a fault; errors if nearly all that it concerns have it."""
    faults = [(row["where"], fault, text) for row, text in texts if (fault := describe(text))]
    concerned = sum(concerns(text) for _, text in texts)
    few = len(faults) < max(NEARLY_ALL * concerned, min(10, len(texts) / 2))
    for where, fault, text in faults:
        yield make_finding(rule, where, fault, text, lenient=few)


def describe_foreign_script(text: str, wanted: set[str]) -> str | None:
    """Return the scripts of a text, if none of its letters is in those that are wanted.

    >>> describe_foreign_script("~{VPND~} ~{NDUB~} hello", {"CJK"})
    'CJK is expected, its letters are LATIN'
    """
    names = [_name_script(c) for c in text if c.isalpha()]
    if len(names) < MIN_LETTERS or not wanted.isdisjoint(names):
        return None
    received = ", ".join(sorted(set(names)))
    return f"{' or '.join(sorted(wanted))} is expected, its letters are {received}"


@lru_cache(maxsize=65536)
def _name_script(letter: str) -> str:
    words = unicodedata.name(letter, "UNKNOWN").split()
    wide = words[0] in ("FULLWIDTH", "HALFWIDTH") and len(words) > 1
    return words[1] if wide else words[0]


def describe_mojibake(text: str, wanted: set[str]) -> str | None:
    """Return the first character of a text that is UTF-8 read as Latin-1 or cp1252.

    What it stands for must be a letter of the wanted scripts or a mark, so that capitals before a
    quote ("É»") are none.

    >>> describe_mojibake("maÃ±ana", {"LATIN"}), describe_mojibake("CAFÉ»", {"LATIN"})
    ("'Ã±' stands for 'ñ'", None)
    """
    for match in _MISREAD.finditer(text):
        codes = (c.encode("latin-1" if ord(c) < 0x100 else "cp1252") for c in match[0])
        try:
            character = b"".join(codes).decode()
        except UnicodeDecodeError:
            continue
        latin = "LATIN" in wanted or not wanted
        letter = character < "\u0180" if latin else _name_script(character) in wanted
        if letter or "\u2010" <= character <= "\u20bf":
            return f"{match[0]!r} stands for {character!r}"
    return None


def describe_entity(text: str) -> str | None:
    """Return the first HTML entity of a text.

    >>> describe_entity("R&D; caf&eacute; &amp; t&eacute;")
    "'&eacute;' stands for 'é'"
    """
    entities = (m[0] for m in _ENTITY.finditer(text) if html.unescape(m[0]) != m[0])
    first = next(entities, None)
    return f"{first!r} stands for {html.unescape(first)!r}" if first else None


def find_spilled(source: str, records: Iterable[tuple[int, object]]) -> Iterator[Finding]:
    """Yield rows of a table with text in a column without a name, behind those with one."""
    rows = [(line, record) for line, record in records if isinstance(record, dict)]
    spilled = [
        (line, column, value)
        for line, record in rows
        for column, value in record.items()
        if _UNNAMED.fullmatch(column) and str(value).strip()
    ]
    few = len({line for line, _, _ in spilled}) < NEARLY_ALL * len(rows)
    for line, column, value in spilled:
        number = int(column.split()[1]) + 1
        message = f"column {number} has no name, but holds text"
        yield make_finding("S104", f"{source}:{line}", message, str(value), lenient=few)
