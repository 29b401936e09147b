"""The rules of `crosstune check`, the `Finding` class, and its text and JSON output.

Quoted data is shortened and its control characters are escaped. Imports nothing heavy: `--help`
prints the rules.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from crosstune.printable import count_of

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MAX_SHOWN = 20  # findings of a rule that are printed, unless all are requested
MAX_VALUE = 60  # characters of a value that are quoted


class Rule(NamedTuple):
    """One thing that can be wrong; `data.allowed` tolerates it by its id or its name."""

    name: str  # several rules may share one
    severity: Severity
    sentence: str
    remedy: str


_DROP = "remove one of the two, or move it into the same split"
_KEEP = "remove the row, or keep it once"
_LOOK = "look at both and remove one if they are the same"
_WRITE = "replace or remove it where the file is made"
_ROW = "correct the row"

RULES = {
    "C101": Rule("nul", "error", "a NUL character", "save the file as text in UTF-8"),
    "C102": Rule("control", "warning", "a control character", _WRITE),
    "C103": Rule("replacement", "warning", "U+FFFD: a character was lost", _WRITE),
    "C104": Rule("bom", "warning", "a byte order mark inside the text", "remove it"),
    "C105": Rule("bidi", "warning", "a control character for writing direction", "remove it"),
    "C106": Rule("invisible", "note", "a zero-width character", "remove it"),
    "C107": Rule("line-ends", "note", "mixed CRLF and LF line ends", "save it with one of the two"),
    "C108": Rule("surrogate", "error", "half of a character (a lone surrogate)", _WRITE),
    "R101": Rule("unreadable", "error", "a file that cannot be read", "check its path and format"),
    "R102": Rule(
        "encoding",
        "error",
        "bytes that are invalid in the encoding",
        "save it as UTF-8 or name its encoding, as in data.reader.encoding=gb18030",
    ),
    "R103": Rule("ragged", "error", "a row with too few or too many columns", _ROW),
    "R104": Rule("empty", "error", "an empty text, label, word, tag or line", "fill or remove it"),
    "R105": Rule("syntax", "error", "malformed JSON or CSV", "write it with a JSON or CSV library"),
    "R106": Rule("header", "error", "a column missing or named twice", "correct the column names"),
    "R107": Rule("value", "error", "a value of the wrong type", "write a single text or number"),
    "R108": Rule("no-rows", "error", "a split without rows", "give a file with rows"),
    "R109": Rule("format", "error", "anything else that the reader rejects", _ROW),
    "S101": Rule(
        "script",
        "error",
        "a text that is not in the script of its language; a warning at single rows",
        "name its encoding (data.reader.encoding) or its script, as in data.language=sr-Latn",
    ),
    "S102": Rule(
        "mojibake",
        "error",
        "UTF-8 that was read as Latin-1 or cp1252; a warning at single rows",
        "make the file again from its source, as UTF-8",
    ),
    "S103": Rule(
        "entity",
        "error",
        "an HTML entity; a warning at single rows",
        "unescape it, as with html.unescape",
    ),
    "S104": Rule(
        "spilled",
        "error",
        "text in a column without a name; a warning at single rows",
        "quote the cells that hold the separator, or name the column",
    ),
    "T101": Rule("row", "error", "a row that the task cannot use", _ROW),
    "T102": Rule("task", "error", "rows that do not define a task", "check the label column"),
    "T103": Rule("offset", "error", "an answer that is not at its offset", _ROW),
    "I101": Rule("id", "error", "an id that occurs earlier in its split", "make the ids unique"),
    "I102": Rule("id-across", "warning", "an id that occurs in train", "check if the rows differ"),
    "L101": Rule(
        "unseen",
        "error",
        "a label that never occurs in train; a warning if data.unseen_labels=miss",
        "add such rows to train, or data.unseen_labels=miss scores them as missed",
    ),
    "L102": Rule("typo", "warning", "a rare label that resembles another one", "make them equal"),
    "L103": Rule("conflict", "warning", "a text that has other labels earlier", "decide on one"),
    "G101": Rule("scheme", "warning", "a tag that the tag scheme does not allow here", _ROW),
    "B101": Rule("balance", "note", "the number of rows of each label", ""),
    "B102": Rule("rare", "warning", "a label with under 10 rows in train", "add rows, or merge"),
    "B103": Rule("untested", "warning", "a label of train that test lacks", "add rows to test"),
    "D101": Rule("repeated", "warning", "a text that occurs earlier in its split", _KEEP),
    "D102": Rule("leakage", "error", "a test text that occurs in train", _DROP),
    "D103": Rule("leakage", "error", "a validation text that occurs in train", _DROP),
    "D104": Rule("overlap", "warning", "a test text that occurs in validation", _DROP),
    "D201": Rule("repeated", "note", "D101 except for case, space, width, Unicode form", _KEEP),
    "D202": Rule("leakage", "error", "D102 except for case, space, width, Unicode form", _DROP),
    "D203": Rule("leakage", "error", "D103 except for case, space, width, Unicode form", _DROP),
    "D204": Rule("overlap", "warning", "D104 except for case, space, width, Unicode form", _DROP),
    "D301": Rule("near", "note", "a text close to one of its split", _LOOK),
    "D302": Rule("near-leakage", "warning", "a test text close to one of train", _LOOK),
    "D303": Rule("near-leakage", "warning", "a validation text close to one of train", _LOOK),
    "D304": Rule("near", "note", "a test text close to one of validation", _LOOK),
    "D401": Rule("part", "note", "an item with one text that is in train", "split by that text"),
    "D402": Rule("translation", "note", "a text that also occurs in another language", _LOOK),
    "D403": Rule("translation", "note", "an id that occurs in train in another language", _LOOK),
    "K101": Rule("tokens", "note", "subwords, truncated items, unknown subwords", ""),
    "K102": Rule("cut", "warning", "over 5 % of items truncated", "raise data.max_tokens"),
    "K103": Rule("unknown", "warning", "over 1 % of subwords unknown", "choose another model"),
}


@dataclass(frozen=True)
class Finding:
    """One fault of the data, in texts that are safe to print; create it by `make_finding`."""

    rule: str
    severity: Severity
    place: str  # file:line[:column], or a file or split if no line is to blame
    value: str  # the text at that place, shortened
    message: str


def make_finding(
    rule: str, where: str, message: str, value: str = "", lenient: bool = False
) -> Finding:
    """Return a finding with escaped texts; `lenient` makes an error a warning."""
    severity = RULES[rule].severity
    if lenient and severity == "error":
        severity = "warning"
    return Finding(rule, severity, escape(where), shorten(value), escape(message))


def escape(text: str) -> str:
    r"""Return the text with all unprintable characters as escape sequences.

    >>> escape("a\x1b[31m\u202eb 你好")
    'a\\x1b[31m\\u202eb 你好'
    """
    return "".join(c if c.isprintable() else _escape_character(ord(c)) for c in text)


def shorten(text: str) -> str:
    """Return the beginning of a text, escaped.

    >>> len(shorten("x" * 1000))
    60
    """
    short = text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
    return escape(short)


def downgrade_allowed(findings: Sequence[Finding], allowed: Sequence[str]) -> list[Finding]:
    """Return the findings with those of the allowed rules (by id or name) as notes.

    >>> [f.severity for f in downgrade_allowed([make_finding("D102", "a:1", "")], ["leakage"])]
    ['note']
    """
    return [
        replace(f, severity="note", message=f"{f.message} (allowed)")
        if f.rule in allowed or RULES[f.rule].name in allowed
        else f
        for f in findings
    ]


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Return the distinct findings by severity, rule, file and line."""
    return sorted(dict.fromkeys(findings), key=_make_sort_key)


def render_text(findings: Sequence[Finding], everything: bool) -> str:
    """Return findings as text: by rule, their number and the first of them, or `everything`."""
    lines: list[str] = []
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in sort_findings(findings):
        groups.setdefault((finding.severity, finding.rule), []).append(finding)
    for (severity, rule), group in groups.items():
        name, _, sentence, _ = RULES[rule]
        lines.append(f"{severity} {rule} ({name}), {len(group)}: {sentence}{_render_remedy(rule)}")
        shown = group if everything else group[:MAX_SHOWN]
        lines += [f"  {f.place}: {f.message}{f'  [{f.value}]' if f.value else ''}" for f in shown]
        if len(shown) < len(group):
            lines.append(f"  … and {len(group) - len(shown)} more; all=true shows them")
    counts = Counter(finding.severity for finding in findings)
    lines.append(", ".join(count_of(counts[severity], severity) for severity in SEVERITIES))
    return "\n".join(lines)


def render_json(facts: dict[str, Any], findings: Sequence[Finding]) -> str:
    """Return one JSON object: the facts, every finding, and the number of findings by rule."""
    ordered = sort_findings(findings)
    counts = Counter(finding.rule for finding in ordered)
    listed = [{**asdict(f), "message": f"{f.message}{_render_remedy(f.rule)}"} for f in ordered]
    return json.dumps({**facts, "findings": listed, "counts": dict(counts)})


def render_rules() -> str:
    """Return the table of all rules, one per line."""
    return "\n".join(
        f"  {rule}  {severity:8} {name:13} {sentence}"
        for rule, (name, severity, sentence, _) in RULES.items()
    )


def _render_remedy(rule: str) -> str:
    return f"; to fix: {RULES[rule].remedy}" if RULES[rule].remedy else ""


def _escape_character(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _make_sort_key(finding: Finding) -> tuple[Any, ...]:
    file, *numbers = re.split(r":(?=\d+(?::|$))", finding.place)
    lines = [int(n) for n in numbers if n.isdigit()]
    return (SEVERITIES.index(finding.severity), finding.rule, file, lines, finding.message)
