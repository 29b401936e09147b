"""BRAT stand-off: a text file and a file of entities and relations over its characters.

Reads T (entities), R (relations) and * (equivalences) lines; attributes, normalisations and notes
say nothing of relations or spans and are passed over, events are refused. One line of the text is
one sentence. Gives rows of relations or of tags. https://brat.nlplab.org/standoff.html
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, NamedTuple

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError
from crosstune.languages import HAN

FORMS = ("relation", "tagging")
ENTITY = re.compile(
    r"(T[^\t]*)\t([^\t ]+) ([0-9]{1,9} [0-9]{1,9}(?:;[0-9]{1,9} [0-9]{1,9})*)\t(.*)"
)
RELATION = re.compile(r"R[^\t]*\t([^\t ]+) [^\t :]+:([^\t ]+) [^\t :]+:([^\t ]+)\s*")
EQUIVALENCE = re.compile(r"\*\t([^\t ]+)((?: [^\t ]+){2,})\s*")
WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+|[^\w\s]")

log = logging.getLogger(__name__)


class Entity(NamedTuple):
    """An entity over the characters [start, end) of its file; `gaps`: in parts, text between."""

    type: str
    start: int
    end: int
    gaps: bool


class Link(NamedTuple):
    """A relation between two entities, by their names, and its line in the annotations."""

    label: str
    head: str
    tail: str
    line: int


class Document:
    """One text with its annotations; `faults` tells what is wrong with them."""

    def __init__(self, stem: str, encoding: str):
        self.text_file, self.file = f"{stem}.txt", f"{stem}.ann"
        self.text, text_digest = read_file(self.text_file, encoding)
        annotations, digest = read_file(self.file, encoding)
        self.digests = {self.text_file: text_digest, self.file: digest}
        self.starts = [0, *(m.end() for m in re.finditer("\n", self.text))]  # of each line
        self.entities: dict[str, Entity] = {}
        self.links: list[Link] = []
        self.faults: list[str] = []
        for number, line in lines_of(annotations):
            if fault := self._read_line(number, line):
                self.faults.append(f"{self.file}:{number}: {fault}")
        for link in self.links:
            for name in (link.head, link.tail):
                if name not in self.entities:
                    self.faults.append(f"{self.file}:{link.line}: no entity {name!r}")

    def _read_line(self, number: int, line: str) -> str | None:
        if line[:1] == "T":
            return self._read_entity(line)
        if found := RELATION.fullmatch(line):
            label, head, tail = found.groups()
            self.links.append(Link(label, head, tail, number))
        elif found := EQUIVALENCE.fullmatch(line):  # it holds both ways
            pairs = permutations(found.group(2).split(), 2)
            self.links += [Link(found.group(1), head, tail, number) for head, tail in pairs]
        elif line[:1] == "E":
            return "an event; only entities, relations and equivalences are read"
        elif line.strip() and line[0] not in "AMN#":
            return f"{line[:40]!r} is no annotation of BRAT, or a malformed one"
        return None

    def _read_entity(self, line: str) -> str | None:
        found = ENTITY.fullmatch(line)
        if not found:
            return f"{line[:40]!r} is not an entity: name, tab, type and offsets, tab, text"
        name, kind, offsets, form = found.groups()
        parts = [tuple(map(int, part.split())) for part in offsets.split(";")]
        if any(not a < b <= len(self.text) for a, b in parts) or parts != sorted(parts):
            return f"{name} has offsets {offsets} in a text of {len(self.text)} characters"
        covered = " ".join(self.text[a:b] for a, b in parts)
        if covered.replace("\n", " ") != form:
            return f"{name} says {form!r} where the text has {covered!r}"
        if name in self.entities:
            return f"{name} is the name of an earlier entity"
        gaps = any(self.text[a[1] : b[0]].strip() for a, b in pairwise(parts))
        self.entities[name] = Entity(kind, parts[0][0], parts[-1][1], gaps)
        return None

    def line_of(self, place: int) -> int:
        """Return the line, from 0, of a character."""
        return bisect_right(self.starts, place) - 1

    def lines(self, first: int, last: int) -> tuple[str, int]:
        """Return the text of some lines and where it starts."""
        end = [*self.starts, len(self.text) + 1][last + 1] - 1
        return self.text[self.starts[first] : end].removesuffix("\r"), self.starts[first]


def read_brat(
    source: str, *, as_: str = "relation", negative: str | None = None, encoding: str = "utf-8"
) -> Split:
    """Read BRAT annotations: a folder of .txt and .ann files, or the path of one pair, no suffix.

    `as_="relation"` gives a row for each annotated pair, with the line of text that holds it (or
    the lines, if it spans some); an equivalence gives one for each order of its members.
    `negative` is the label of rows for all other ordered pairs of entities within one line. An
    entity in parts is read as all from its first character to its last, and such are counted.

    `as_="tagging"` gives a row of words and BIO tags for each line; a word is a run of letters and
    digits, one Chinese character, or one other sign, and belongs to an entity that it touches. Of
    entities that overlap the longest is kept; the others, and such as cross lines, are counted.

    Raises:
        DataError: a file is missing, an offset does not fit the text, a name is unknown or given
            twice, or a line is malformed.
        ConfigError: an option has no such value.
    """
    if as_ not in FORMS:
        raise ConfigError(f"data.reader.as_={as_}. Allowed: {', '.join(FORMS)}.")
    if negative is not None and as_ != "relation":
        raise ConfigError(f"data.reader.negative={negative}: tags have no pairs; leave it out.")
    documents = [Document(stem, encoding) for stem in _stems(source)]
    if faults := [fault for document in documents for fault in document.faults]:
        raise DataError(faults)
    found = [
        row
        for document in documents
        for row in (
            _relation_rows(document, negative) if as_ == "relation" else _tag_rows(document)
        )
    ]
    rows = [{"id": str(number), **row} for number, row in enumerate(found)]
    return Split(rows, {file: d for document in documents for file, d in document.digests.items()})


def _stems(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    files = [file for suffix in ("txt", "ann") for file in folder.glob(f"*.{suffix}")]
    return sorted({file.with_suffix("").as_posix() for file in files})


def _relation_rows(document: Document, negative: str | None) -> Iterator[dict[str, Any]]:
    _tell_gaps(document)
    entities = document.entities
    linked = {(link.head, link.tail) for link in document.links}
    for link in document.links:
        pair = entities[link.head], entities[link.tail]
        where = f"{document.file}:{link.line}"
        yield {**_pair_in_text(document, *pair), "label": link.label, "where": where}
    if negative is None:
        return
    lines: dict[int, list[str]] = {}
    for name, entity in entities.items():
        first, last = document.line_of(entity.start), document.line_of(entity.end - 1)
        if first == last:
            lines.setdefault(first, []).append(name)
    for line, names in sorted(lines.items()):
        for pair in permutations(names, 2):
            if pair not in linked:
                row = _pair_in_text(document, entities[pair[0]], entities[pair[1]])
                yield {**row, "label": negative, "where": f"{document.text_file}:{line + 1}"}


def _pair_in_text(document: Document, head: Entity, tail: Entity) -> dict[str, Any]:
    first = document.line_of(min(head.start, tail.start))
    text, start = document.lines(first, document.line_of(max(head.end, tail.end) - 1))
    spans = [[entity.start - start, entity.end - start] for entity in (head, tail)]
    return {"text": text, "head": spans[0], "tail": spans[1]}


def _tag_rows(document: Document) -> Iterator[dict[str, Any]]:
    _tell_gaps(document)
    by_length = sorted(document.entities.values(), key=lambda e: (e.start - e.end, e.start))
    lines: dict[int, list[Entity]] = {}
    for entity in by_length:
        lines.setdefault(document.line_of(entity.start), []).append(entity)
    dropped = 0
    for line in range(len(document.starts)):
        text, start = document.lines(line, line)
        words = [(found.start() + start, found.end() + start) for found in WORD.finditer(text)]
        if not words:
            continue
        tags = ["O"] * len(words)
        for entity in lines.pop(line, []):
            inside = [n for n, (a, b) in enumerate(words) if a < entity.end and b > entity.start]
            crosses = entity.end > start + len(text)
            if crosses or not inside or any(tags[n] != "O" for n in inside):
                dropped += 1
                continue
            for number in inside:
                tags[number] = f"{'B' if number == inside[0] else 'I'}-{entity.type}"
        forms = [document.text[a:b] for a, b in words]
        yield {"words": forms, "tags": tags, "where": f"{document.text_file}:{line + 1}"}
    dropped += sum(map(len, lines.values()))
    if dropped:
        total = len(document.entities)
        sentence = "%s: %d of %d entities dropped: they overlap a longer one or cross lines"
        log.warning(sentence, document.file, dropped, total)


def _tell_gaps(document: Document) -> None:
    if gaps := sum(entity.gaps for entity in document.entities.values()):
        sentence = "%s: %d of %d entities are in parts, read with what stands between"
        log.warning(sentence, document.file, gaps, len(document.entities))
