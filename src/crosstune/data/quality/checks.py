"""What is wrong with data: characters, reader's faults, ids, labels, tags, balance, duplicates.

Each function takes text or rows and returns findings by the rules in `data/findings.py`; none
reads a file. Called by `examine.py`, which reads and puts them together.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from crosstune.data.quality.duplicates import Key, exact_key, loose_key
from crosstune.data.quality.rules import Finding, make_finding, shorten
from crosstune.data.splits import Split, Splits, iterate_rows
from crosstune.data.tag_schemes import SPAN_TAG, detect_scheme, find_scheme_faults
from crosstune.languages import BIDI_CONTROLS, ZERO_WIDTH

Row = dict[str, Any]
TextsOf = Callable[[Row], list[str]]
RARE = 10  # rows of train below which a label is hardly learned
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ufeff\ud800-\udfff"
    f"{ZERO_WIDTH}{BIDI_CONTROLS}]|\r(?!\n|\\Z)"
)
_CHARACTER_RULES = {
    "C101": re.compile("\x00"),
    "C103": re.compile("\ufffd"),
    "C104": re.compile("\ufeff"),
    "C105": re.compile(f"[{BIDI_CONTROLS}]"),
    "C106": re.compile(f"[{ZERO_WIDTH}]"),
    "C108": re.compile("[\ud800-\udfff]"),
    "C102": re.compile("(?s)."),
}
_READER_RULES = {
    "R101": r"no such file|Is a directory|Permission denied|gzip|Compressed|Error -\d|CRC",
    "R102": r"byte 0x[0-9a-f]{2} is not",
    "C108": r"lone surrogate",
    "I101": r"the id .* already",
    "R103": r"\d+ columns",
    "R106": r"no column |the header |no '\w+'\. The keys",
    "R105": r"malformed",
    "R107": r" holds |not a JSON object|must stand",
    "R104": r"empty",
    "R109": r"",
}
_ROW_RULES = {"T103": r"is not at \d", "R104": r"is empty", "T101": r""}
_UNDECODED = re.compile("[\udc80-\udcff]")


def check_characters(text: str, place_of: Callable[[int, int], str]) -> Iterator[Finding]:
    """Yield a finding for each line and rule that odd characters break.

    `place_of(line, column)`, both from 1, is where they stand.
    """
    told: set[tuple[int, str]] = set()
    line, line_start = 1, 0
    for match in _ODD.finditer(text):
        breaks = text.count("\n", line_start, match.start())
        if breaks:
            line += breaks
            line_start = text.rindex("\n", 0, match.start()) + 1
        rule = next(rule for rule, kind in _CHARACTER_RULES.items() if kind.match(match[0]))
        if (line, rule) in told:
            continue
        told.add((line, rule))
        code, name = ord(match[0]), unicodedata.name(match[0], "")
        near = text[max(line_start, match.start() - 10) : match.end() + 10].partition("\n")[0]
        place = place_of(line, match.start() - line_start + 1)
        yield make_finding(rule, place, f"U+{code:04X} {name}".strip(), near)


def check_text(file: str, text: str, encoding: str) -> tuple[str, list[Finding]]:
    """Return a file's text with "?" for undecoded bytes, and its bytes and characters to blame.

    `text` was decoded with `surrogateescape`, which is how bytes that are no text stand in it.
    """
    name = "UTF-8" if encoding == "utf-8" else encoding
    findings = [
        make_finding(
            "R102", f"{file}:{number}", f"byte 0x{ord(match[0]) - 0xDC00:02x} is not {name}"
        )
        for number, line in enumerate(text.split("\n"), start=1)
        if not line.isascii() and (match := _UNDECODED.search(line))
    ]
    text = _UNDECODED.sub("?", text)
    findings += check_characters(text, lambda line, column: f"{file}:{line}:{column}")
    return text, findings + _check_line_ends(file, text)


def check_values(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield odd characters in the values of rows, where no file shows them as they are."""

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from strings(inner)

    for row in rows:
        where = row["where"]
        for text in strings({key: value for key, value in row.items() if key != "where"}):
            yield from check_characters(text, lambda line, column, where=where: where)


def _check_line_ends(source: str, text: str) -> list[Finding]:
    """Return a finding at the first line whose end is the rarer of CRLF and LF."""
    total, windows = text.count("\n"), text.count("\r\n")
    if not 0 < windows < total:
        return []
    ends, rarer = ("CRLF", "\r\n") if windows <= total - windows else ("LF", "(?<!\r)\n")
    first = [match.start() for match in re.finditer(rarer, text)]
    line = text.count("\n", 0, first[0]) + 1
    return [make_finding("C107", f"{source}:{line}", f"{ends} ends {len(first)} of {total} lines")]


def from_reader(source: str, fault: str) -> Finding:
    """Return what a reader said of a source ("file:line: message") as a finding.

    >>> from_reader("a.tsv", "a.tsv:3: 1 columns where the header has 2").rule
    'R103'
    """
    parts = re.fullmatch(rf"({re.escape(source)}(?::\d+)*|.+?:\d+(?::\d+)?): (.*)", fault, re.S)
    place, message = parts.groups() if parts else (source, fault)
    rule = next(rule for rule, words in _READER_RULES.items() if re.search(words, message))
    return make_finding(rule, place, message)


def check_rows(splits: Splits, faults_of: TextsOf, texts_of: TextsOf) -> Iterator[Finding]:
    """Yield what single rows cannot be used for: the task's own faults and empty texts."""
    for _, _, row in iterate_rows(splits):
        texts, faults = texts_of(row), faults_of(row)
        for fault in faults:
            rule = next(rule for rule, words in _ROW_RULES.items() if re.search(words, fault))
            yield make_finding(rule, row["where"], fault, " ".join(texts))
        for number, text in enumerate(texts, start=1):
            if not text.strip() and not faults:
                yield make_finding("R104", row["where"], f"text {number} of the row is empty")


def check_ids(splits: Splits) -> Iterator[Finding]:
    """Yield ids that a split repeats, or that train has too in the same or another language.

    Ids that merely count the rows say nothing and are passed over.
    """
    seen: dict[str, tuple[str, str]] = {}  # of train
    for name, languages in splits.items():
        for language, split in languages.items():
            ids = [str(row["id"]) for row in split.rows]
            if _are_counters(ids):
                continue
            own: dict[str, str] = {}
            for identity, row in zip(ids, split.rows, strict=True):
                where = row["where"]
                if identity in own:
                    yield make_finding("I101", where, f"the id of {own[identity]} too", identity)
                elif name != "train" and identity in seen:
                    rule = "I102" if seen[identity][0] == language else "D403"
                    yield make_finding(rule, where, f"the id of {seen[identity][1]} too", identity)
                own.setdefault(identity, where)
            if name == "train":
                seen |= {identity: (language, where) for identity, where in own.items()}


def check_tags(splits: Splits) -> Iterator[Finding]:
    """Yield tags of spans that break the scheme that the data set is written in."""
    rows = [row for _, _, row in iterate_rows(splits) if "tags" in row]
    marked = Counter(tag for row in rows for tag in row["tags"] if tag != "O")
    of_spans = sum(count for tag, count in marked.items() if SPAN_TAG.fullmatch(tag))
    if not marked or of_spans < 0.9 * marked.total():
        return
    scheme = detect_scheme(row["tags"] for row in rows)
    for row in rows:
        for place, fault in find_scheme_faults(row["tags"], scheme):
            yield make_finding(
                "G101", row["where"], f"word {place + 1}: {fault}", row["words"][place]
            )


def check_conflicts(splits: Splits, texts_of: TextsOf, labels_of: TextsOf) -> Iterator[Finding]:
    """Yield texts that bear other labels than where they first stand in the same language."""
    seen: dict[tuple[str, Key], tuple[list[str], str]] = {}
    for _, language, row in iterate_rows(splits):
        texts, labels = texts_of(row), list(labels_of(row))
        before, first = seen.setdefault((language, exact_key(texts)), (labels, row["where"]))
        if before != labels:
            message = f"{shorten(' '.join(labels))} here, {shorten(' '.join(before))} at {first}"
            yield make_finding("L103", row["where"], message, " ".join(texts))


def check_labels(splits: Splits, labels_of: TextsOf, mild: bool) -> Iterator[Finding]:
    """Yield labels that train never shows (warnings if `mild`) and those that look like slips."""
    known = _count_labels(splits.get("train", {}), labels_of)
    first: dict[str, str] = {}
    for name, _, row in iterate_rows(splits):
        for label in dict.fromkeys(labels_of(row)):
            first.setdefault(label, row["where"])
            if known and name != "train" and label not in known:
                message = f"label {label!r} never occurs in train"
                yield make_finding("L101", row["where"], message, label, mild)
    for label, where in first.items():
        likely = [other for other in known if is_slip(label, known[label], other, known[other])]
        if likely:
            best = max(likely, key=lambda other: known[other])
            message = f"label {label!r}: is {best!r} meant? {known[best]} rows of train carry it"
            yield make_finding("L102", where, message, label)


def is_slip(label: str, count: int, other: str, other_count: int) -> bool:
    """Say whether a label looks like a slip of the pen for another, given how often each occurs.

    It does if only case, space, width or Unicode form differ, or, where it is rare beside the
    other, one letter (of four or more) or two (of eight or more). Digits that differ are meant.

    >>> is_slip("positve", 1, "positive", 90), is_slip("Positive", 40, "positive", 90)
    (True, True)
    >>> is_slip("class 1", 1, "class 2", 90), is_slip("I-LOC", 1, "B-LOC", 90)
    (False, False)
    """
    if label == other or count > other_count:
        return False
    if loose_key([label]) == loose_key([other]):
        return count < other_count or label > other
    if count > 5 or other_count < 20 * max(count, 1):
        return False
    (mark, name), (other_mark, other_name) = _parts(label), _parts(other)
    if mark != other_mark or re.sub(r"\D", "", name) != re.sub(r"\D", "", other_name):
        return False
    room = min(2, min(len(name), len(other_name)) // 4)
    return _distance(name.casefold(), other_name.casefold()) <= room


def check_balance(splits: Splits, labels_of: TextsOf, sources: dict[str, str]) -> Iterator[Finding]:
    """Yield how often each label occurs in each split, and the labels that are too rare.

    `sources` names the file of each `split/language`.
    """
    known = _count_labels(splits.get("train", {}), labels_of)
    for name, languages in splits.items():
        for language, split in languages.items():
            place = sources[f"{name}/{language}"]
            counts = _count_labels({language: split}, labels_of)
            if counts:
                table = ", ".join(f"{label} {count}" for label, count in counts.most_common())
                yield make_finding("B101", place, f"{name}/{language}: {table}")
            for label in known if name == "test" and counts else ():
                if label not in counts:
                    yield make_finding("B103", place, f"{name}/{language} lacks {label!r}", label)
            for label, count in counts.items() if name == "train" else ():
                if count < RARE:
                    yield make_finding(
                        "B102", place, f"{count} rows of train carry {label!r}", label
                    )


def _count_labels(languages: dict[str, Split], labels_of: TextsOf) -> Counter[str]:
    """Return how many rows carry each label."""
    rows = (row for split in languages.values() for row in split.rows)
    return Counter(label for row in rows for label in dict.fromkeys(labels_of(row)))


def _parts(label: str) -> tuple[str, str]:
    """Return the mark of a span's tag, if it has one, and the label without it."""
    mark, dash, name = label.partition("-")
    return (mark, name) if dash and len(mark) == 1 else ("", label)


def _distance(one: str, other: str) -> int:
    """Return the letters to insert, delete or replace (Levenshtein)."""
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        now = [row]
        for column, counterpart in enumerate(other, start=1):
            replaced = before[column - 1] + (letter != counterpart)
            now.append(min(before[column] + 1, now[-1] + 1, replaced))
        before = now
    return before[-1]


def _are_counters(ids: Sequence[str]) -> bool:
    if not all(identity.isdecimal() for identity in ids):
        return False
    numbers = list(map(int, ids))
    return all(a < b for a, b in pairwise(numbers))
