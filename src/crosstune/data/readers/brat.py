"""BRAT stand-off: a text file, and a file of entities and relations over its characters.

Reads T (entities), R (relations) and * (equivalences) lines; skips attributes, normalisations and
notes, refuses events. One line of the text is one sentence. https://brat.nlplab.org/standoff.html
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, NamedTuple

from crosstune.data.readers.files import iterate_lines, make_split, read_file
from crosstune.data.splits import Split
from crosstune.errors import ConfigError
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
    """An entity over the characters [start, end) of its file; `gaps`: it has text between parts."""

    type: str
    start: int
    end: int
    gaps: bool


class Link(NamedTuple):
    """A relation between two entities, given by name, and its line in the annotations."""

    label: str
    head: str
    tail: str
    line: int


class Document:
    """One text with its annotations, and the faults in them."""

    def __init__(self, stem: str, encoding: str):
        self.text_file, self.file = f"{stem}.txt", f"{stem}.ann"
        self.text, text_digest = read_file(self.text_file, encoding)
        annotations, digest = read_file(self.file, encoding)
        self.digests = {self.text_file: text_digest, self.file: digest}
        self.starts = [0, *(m.end() for m in re.finditer("\n", self.text))]  # of each line
        self.entities: dict[str, Entity] = {}
        self.links: list[Link] = []
        self.faults: list[str] = []
        for number, line in iterate_lines(annotations):
            if fault := self._parse_line(number, line):
                self.faults.append(f"{self.file}:{number}: {fault}")
        for link in self.links:
            for name in (link.head, link.tail):
                if name not in self.entities:
                    self.faults.append(f"{self.file}:{link.line}: no entity {name!r}")

    def _parse_line(self, number: int, line: str) -> str | None:
        """Add the annotation of a line; return what is wrong with it."""
        if line[:1] == "T":
            return self._parse_entity(line)
        if match := RELATION.fullmatch(line):
            label, head, tail = match.groups()
            self.links.append(Link(label, head, tail, number))
        elif match := EQUIVALENCE.fullmatch(line):  # it holds both ways
            pairs = permutations(match.group(2).split(), 2)
            self.links += [Link(match.group(1), head, tail, number) for head, tail in pairs]
        elif line[:1] == "E":
            return "an event; only entities, relations and equivalences are read"
        elif line.strip() and line[0] not in "AMN#":
            return f"{line[:40]!r} is no annotation of BRAT, or a malformed one"
        return None

    def _parse_entity(self, line: str) -> str | None:
        match = ENTITY.fullmatch(line)
        if not match:
            return f"{line[:40]!r} is not an entity: name, tab, type and offsets, tab, text"
        name, entity_type, offsets, form = match.groups()
        parts = [tuple(map(int, part.split())) for part in offsets.split(";")]
        if any(not a < b <= len(self.text) for a, b in parts) or parts != sorted(parts):
            return f"{name} has offsets {offsets} in a text of {len(self.text)} characters"
        covered = " ".join(self.text[a:b] for a, b in parts)
        if covered.replace("\n", " ") != form:
            return f"{name} says {form!r} where the text has {covered!r}"
        if name in self.entities:
            return f"{name} is the name of an earlier entity"
        gaps = any(self.text[a[1] : b[0]].strip() for a, b in pairwise(parts))
        self.entities[name] = Entity(entity_type, parts[0][0], parts[-1][1], gaps)
        return None

    def find_line(self, offset: int) -> int:
        """Return the line, from 0, of a character."""
        return bisect_right(self.starts, offset) - 1

    def slice_lines(self, first: int, last: int) -> tuple[str, int]:
        """Return the text of the lines `first` to `last` and its offset."""
        end = [*self.starts, len(self.text) + 1][last + 1] - 1
        return self.text[self.starts[first] : end].removesuffix("\r"), self.starts[first]

    def warn_of_gaps(self) -> None:
        """Log how many entities are in parts."""
        if gaps := sum(entity.gaps for entity in self.entities.values()):
            message = "%s: %d of %d entities are in parts, read with the text between"
            log.warning(message, self.file, gaps, len(self.entities))


def read_brat(
    source: str, *, as_: str = "relation", negative: str | None = None, encoding: str = "utf-8"
) -> Split:
    """Read BRAT annotations: a folder of .txt and .ann files, or the path of one pair, no suffix.

    `as_="relation"` gives a row for each annotated pair, with the line of text that holds it (or
    the lines, if it spans several); an equivalence gives one for each order of its members.
    `negative` is the label of rows for all other ordered pairs of entities within one line. An
    entity in parts is read from its first character to its last; a warning counts such entities.

    `as_="tagging"` gives a row of words and BIO tags for each line; a word is a run of letters and
    digits, one Chinese character, or one other sign, and belongs to an entity that it touches. Of
    overlapping entities the longest is used; a warning counts the entities that are dropped for
    that, or because they cross lines.

    Raises:
        DataError: a file is missing, an offset does not fit the text, a name is unknown or given
            twice, or a line is malformed.
        ConfigError: an option has no such value.
    """
    if as_ not in FORMS:
        raise ConfigError(f"data.reader.as_={as_}. Allowed: {', '.join(FORMS)}.")
    if negative is not None and as_ != "relation":
        raise ConfigError(f"data.reader.negative={negative}: tags have no pairs; leave it out.")
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    digests: dict[str, str] = {}
    for stem in _list_stems(source):
        document = Document(stem, encoding)
        faults += document.faults
        digests |= document.digests
        if not faults:
            document.warn_of_gaps()
            relation = as_ == "relation"
            columns = _make_relations(document, negative) if relation else _make_tags(document)
            rows += [{"id": str(number), **row} for number, row in enumerate(columns, len(rows))]
    return make_split(rows, faults, digests)


def _list_stems(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    files = [file for suffix in ("txt", "ann") for file in folder.glob(f"*.{suffix}")]
    return sorted({file.with_suffix("").as_posix() for file in files})


def _make_relations(document: Document, negative: str | None) -> Iterator[dict[str, Any]]:
    entities = document.entities
    linked = {(link.head, link.tail) for link in document.links}
    for link in document.links:
        pair = entities[link.head], entities[link.tail]
        where = f"{document.file}:{link.line}"
        yield {**_locate_pair(document, *pair), "label": link.label, "where": where}
    if negative is None:
        return
    lines: dict[int, list[str]] = {}
    for name, entity in entities.items():
        first, last = document.find_line(entity.start), document.find_line(entity.end - 1)
        if first == last:
            lines.setdefault(first, []).append(name)
    for line, names in sorted(lines.items()):
        for pair in permutations(names, 2):
            if pair not in linked:
                row = _locate_pair(document, entities[pair[0]], entities[pair[1]])
                yield {**row, "label": negative, "where": f"{document.text_file}:{line + 1}"}


def _locate_pair(document: Document, head: Entity, tail: Entity) -> dict[str, Any]:
    first = document.find_line(min(head.start, tail.start))
    text, start = document.slice_lines(first, document.find_line(max(head.end, tail.end) - 1))
    spans = [[entity.start - start, entity.end - start] for entity in (head, tail)]
    return {"text": text, "head": spans[0], "tail": spans[1]}


def _make_tags(document: Document) -> Iterator[dict[str, Any]]:
    by_length = sorted(document.entities.values(), key=lambda e: (e.start - e.end, e.start))
    lines: dict[int, list[Entity]] = {}
    for entity in by_length:
        lines.setdefault(document.find_line(entity.start), []).append(entity)
    dropped = 0
    for line in range(len(document.starts)):
        text, start = document.slice_lines(line, line)
        words = [(m.start() + start, m.end() + start) for m in WORD.finditer(text)]
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
        message = "%s: %d of %d entities dropped: they overlap a longer one or cross lines"
        log.warning(message, document.file, dropped, total)
