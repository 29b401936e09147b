"""Checks of `crosstune check`: characters, reader errors, ids, labels, tags, class balance.

Each function takes texts or rows and yields `Finding`s; the rules are in `rules.py`. No file is
read here.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from crosstune.data.quality.duplicates import Key, Row, RowToStrings, make_exact_key, make_loose_key
from crosstune.data.quality.rules import Finding, make_finding, shorten
from crosstune.data.splits import Split, Splits, iterate_rows
from crosstune.data.tag_schemes import SPAN_TAG, detect_scheme, find_scheme_faults
from crosstune.languages import BIDI_CONTROLS, ZERO_WIDTH
from crosstune.printable import count_of

_UNCOMMON, _COMMON = 5, 20  # rows of train: a label of so few may be a typing error of another
_SHOWN = 100  # labels in the list of how often each occurs
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
_UNDECODED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of a byte


def find_suspicious_characters(text: str, locate: Callable[[int, int], str]) -> Iterator[Finding]:
    """Yield one finding for each line and rule that odd characters break.

    `locate(line, column)`, both from 1, returns the location to report.
    """
    reported: set[tuple[int, str]] = set()
    line, line_start = 1, 0
    for match in _ODD.finditer(text):
        breaks = text.count("\n", line_start, match.start())
        if breaks:
            line += breaks
            line_start = text.rindex("\n", 0, match.start()) + 1
        rule = next(rule for rule, pattern in _CHARACTER_RULES.items() if pattern.match(match[0]))
        if (line, rule) in reported:
            continue
        reported.add((line, rule))
        code, name = ord(match[0]), unicodedata.name(match[0], "")
        context = text[max(line_start, match.start() - 10) : match.end() + 10].partition("\n")[0]
        where = locate(line, match.start() - line_start + 1)
        yield make_finding(rule, where, f"U+{code:04X} {name}".strip(), context)


def inspect_text(file: str, text: str, encoding: str) -> tuple[str, list[Finding]]:
    """Return a file's text with "?" for undecoded bytes, and the faults of bytes and characters.

    The text must have been decoded with `surrogateescape`.
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
    findings += find_suspicious_characters(text, lambda line, column: f"{file}:{line}:{column}")
    return text, findings + _find_mixed_line_ends(file, text)


def find_odd_values(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield odd characters in the values of rows whose file escapes them, or that have no file."""

    def iterate_strings(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from iterate_strings(inner)

    for row in rows:
        where = row["where"]
        for text in iterate_strings({key: value for key, value in row.items() if key != "where"}):
            yield from find_suspicious_characters(text, lambda line, column, where=where: where)


def _find_mixed_line_ends(source: str, text: str) -> list[Finding]:
    """Return a finding at the first line whose end is the rarer of CRLF and LF."""
    total, crlf = text.count("\n"), text.count("\r\n")
    if not 0 < crlf < total:
        return []
    ends, rarer = ("CRLF", "\r\n") if crlf <= total - crlf else ("LF", "(?<!\r)\n")
    first = [match.start() for match in re.finditer(rarer, text)]
    line = text.count("\n", 0, first[0]) + 1
    return [make_finding("C107", f"{source}:{line}", f"{ends} ends {len(first)} of {total} lines")]


def classify_reader_fault(source: str, fault: str) -> Finding:
    """Return a fault that a reader reports ("file:line: message") as a finding.

    >>> classify_reader_fault("a.tsv", "a.tsv:3: 1 columns where the header has 2").rule
    'R103'
    """
    parts = re.fullmatch(rf"({re.escape(source)}(?::\d+)*|.+?:\d+(?::\d+)?): (.*)", fault, re.S)
    where, message = parts.groups() if parts else (source, fault)
    return make_finding(_match_rule(_READER_RULES, message), where, message)


def _match_rule(patterns: dict[str, str], message: str) -> str:
    return next(rule for rule, pattern in patterns.items() if re.search(pattern, message))


def find_row_faults(
    splits: Splits, faults_of: RowToStrings, texts_of: RowToStrings
) -> Iterator[Finding]:
    """Yield the faults that the task finds in single rows, and empty texts."""
    for _, _, row in iterate_rows(splits):
        texts, faults = texts_of(row), faults_of(row)
        for fault in faults:
            rule = _match_rule(_ROW_RULES, fault)
            yield make_finding(rule, row["where"], fault, " ".join(texts))
        for number, text in enumerate(texts, start=1):
            if not text.strip() and not faults:
                yield make_finding("R104", row["where"], f"text {number} of the row is empty")


def find_repeated_ids(splits: Splits) -> Iterator[Finding]:
    """Yield ids that a split repeats, or that also occur in train in the same or another language.

    Ids that merely count the rows are ignored.
    """
    train: dict[str, tuple[str, str]] = {}  # id -> language, where
    for name, languages in splits.items():
        for language, split in languages.items():
            ids = [str(row["id"]) for row in split.rows]
            if _are_counters(ids):
                continue
            first: dict[str, str] = {}
            for row_id, row in zip(ids, split.rows, strict=True):
                where = row["where"]
                if row_id in first:
                    yield make_finding("I101", where, f"the id of {first[row_id]} too", row_id)
                elif name != "train" and row_id in train:
                    train_language, train_where = train[row_id]
                    rule = "I102" if train_language == language else "D403"
                    yield make_finding(rule, where, f"the id of {train_where} too", row_id)
                first.setdefault(row_id, where)
            if name == "train":
                train |= {row_id: (language, where) for row_id, where in first.items()}


def find_tag_faults(splits: Splits) -> Iterator[Finding]:
    """Yield span tags that break the scheme that fits the data set best."""
    rows = [row for _, _, row in iterate_rows(splits) if "tags" in row]
    tags = Counter(tag for row in rows for tag in row["tags"] if tag != "O")
    span_tags = sum(count for tag, count in tags.items() if SPAN_TAG.fullmatch(tag))
    if not tags or span_tags < 0.9 * tags.total():
        return
    scheme = detect_scheme(row["tags"] for row in rows)
    for row in rows:
        for index, fault in find_scheme_faults(row["tags"], scheme):
            message = f"word {index + 1}: {fault}"
            yield make_finding("G101", row["where"], message, row["words"][index])


def find_label_conflicts(
    splits: Splits, texts_of: RowToStrings, labels_of: RowToStrings
) -> Iterator[Finding]:
    """Yield texts with other labels than at their first occurrence in the same language."""
    seen: dict[tuple[str, Key], tuple[list[str], str]] = {}
    for _, language, row in iterate_rows(splits):
        texts, labels = texts_of(row), list(labels_of(row))
        before, first = seen.setdefault((language, make_exact_key(texts)), (labels, row["where"]))
        if before != labels:
            message = f"{shorten(' '.join(labels))} here, {shorten(' '.join(before))} at {first}"
            yield make_finding("L103", row["where"], message, " ".join(texts))


def find_label_faults(splits: Splits, labels_of: RowToStrings, lenient: bool) -> Iterator[Finding]:
    """Yield labels that never occur in train (warnings if `lenient`) and likely typing errors."""
    known = _count_labels(splits.get("train", {}), labels_of)
    first: dict[str, str] = {}
    for name, _, row in iterate_rows(splits):
        for label in dict.fromkeys(labels_of(row)):
            first.setdefault(label, row["where"])
            if known and name != "train" and label not in known:
                message = f"label {label!r} never occurs in train"
                yield make_finding("L101", row["where"], message, label, lenient)
    alike: dict[Key, list[str]] = {}  # labels of one loose key
    common: dict[tuple[str, str], list[str]] = {}  # frequent labels of one mark and digits
    for label in known:
        alike.setdefault(make_loose_key([label]), []).append(label)
        if known[label] >= _COMMON:
            common.setdefault(_split_label(label)[:2], []).append(label)
    for label, where in first.items():
        near = [*alike.get(make_loose_key([label]), ())]
        if known[label] <= _UNCOMMON:  # else no typing error
            letters = set(label.casefold())
            others = common.get(_split_label(label)[:2], ())
            near += [other for other in others if len(letters ^ set(other.casefold())) <= 4]
        likely = [other for other in near if is_typo(label, known[label], other, known[other])]
        if likely:
            best = max(likely, key=lambda other: known[other])
            rows = count_of(known[best], "row")
            message = f"label {label!r}: is {best!r} meant? {rows} of train with it"
            yield make_finding("L102", where, message, label)


def is_typo(label: str, count: int, other: str, other_count: int) -> bool:
    """Return whether a label looks like a typing error for another, given how often each occurs.

    It does if only case, space, width or Unicode form differ, or if it is rare compared to the
    other and one letter (of four or more) or two (of eight or more) differ. Labels with different
    digits are different labels.

    >>> is_typo("positve", 1, "positive", 90), is_typo("Positive", 40, "positive", 90)
    (True, True)
    >>> is_typo("class 1", 1, "class 2", 90), is_typo("I-LOC", 1, "B-LOC", 90)
    (False, False)
    """
    if label == other or count > other_count:
        return False
    if make_loose_key([label]) == make_loose_key([other]):
        return count < other_count or label > other
    if count > _UNCOMMON or other_count < _COMMON * max(count, 1):
        return False
    (*kind, name), (*other_kind, other_name) = _split_label(label), _split_label(other)
    if kind != other_kind:
        return False
    allowed = min(2, min(len(name), len(other_name)) // 4)
    return _measure_distance(name.casefold(), other_name.casefold()) <= allowed


def find_imbalance(
    splits: Splits, labels_of: RowToStrings, sources: dict[str, str]
) -> Iterator[Finding]:
    """Yield how often each label occurs in each split, and the labels that are too rare.

    `sources` maps `split/language` to its file.
    """
    known = _count_labels(splits.get("train", {}), labels_of)
    for name, languages in splits.items():
        for language, split in languages.items():
            where = sources[f"{name}/{language}"]
            counts = _count_labels({language: split}, labels_of)
            if counts:
                shown = counts.most_common(_SHOWN)
                table = ", ".join(f"{label} {count}" for label, count in shown)
                table += f", and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
                yield make_finding("B101", where, f"{name}/{language}: {table}")
            for label in known if name == "test" and counts else ():
                if label not in counts:
                    yield make_finding("B103", where, f"{name}/{language} lacks {label!r}", label)
            for label, count in counts.items() if name == "train" else ():
                if count < RARE:
                    message = f"{count_of(count, 'row')} of train with {label!r}"
                    yield make_finding("B102", where, message, label)


def _count_labels(languages: dict[str, Split], labels_of: RowToStrings) -> Counter[str]:
    """Count the rows that carry each label."""
    rows = (row for split in languages.values() for row in split.rows)
    return Counter(label for row in rows for label in dict.fromkeys(labels_of(row)))


def _split_label(label: str) -> tuple[str, str, str]:
    """Return the mark of a span tag, or an empty text, the digits, and the label without mark."""
    mark, dash, name = label.partition("-")
    mark, name = (mark, name) if dash and len(mark) == 1 else ("", label)
    return mark, re.sub(r"\D", "", name), name


def _measure_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance: the letters to insert, delete or replace."""
    previous = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        current = [row]
        for column, counterpart in enumerate(other, start=1):
            replaced = previous[column - 1] + (letter != counterpart)
            current.append(min(previous[column] + 1, current[-1] + 1, replaced))
        previous = current
    return previous[-1]


def _are_counters(ids: Sequence[str]) -> bool:
    if not all(row_id.isdecimal() for row_id in ids):
        return False
    numbers = list(map(int, ids))
    return all(a < b for a, b in pairwise(numbers))
