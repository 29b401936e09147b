"""What `crosstune check` does: every fault of a data set in one pass, training nothing.

Reads the splits that are given, asks `data/checks.py` and `data/duplicates.py` what is wrong with
them, and puts the findings together. The rules are in `data/findings.py`.
"""

import gzip
import hashlib
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crosstune.config.instantiate import instantiate
from crosstune.config.schema import Data, ModelOrigin, Run, UnseenLabels
from crosstune.data.quality import checks
from crosstune.data.quality.duplicates import count_leakage, find_duplicates
from crosstune.data.quality.rules import (
    RULES,
    Finding,
    downgrade_allowed,
    make_finding,
    render_json,
    render_text,
)
from crosstune.data.readers.tables import is_jsonl
from crosstune.data.splits import SPLITS, ReaderArguments, Split, Splits, iterate_sources
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.models.load import load_tokenizer
from crosstune.runs.fingerprint import resolve_model
from crosstune.tasks import TASKS, Task

_PASSES = 20  # readings of a faulty file, each without the lines that the one before refused
_MOST_CUT, _MOST_UNKNOWN = 0.05, 0.01  # shares of items and sub-words beyond which to warn


@dataclass(frozen=True)
class Report:
    """What was examined, and what was found."""

    data: str
    splits: dict[str, int]  # split/language -> rows examined
    missing: list[str]  # splits that were not given
    partial: list[str]  # split/language of which only the sound lines were examined
    leakage: dict[str, int]  # split/language -> rows that train holds too, exactly or loosely
    findings: list[Finding]

    @property
    def faulty(self) -> bool:
        """Whether an error is among the findings."""
        return any(finding.severity == "error" for finding in self.findings)

    def as_text(self, everything: bool) -> str:
        """Return the report for people; `everything` lists every place of a rule."""
        lines = [
            f"{self.data} {name}: {rows} rows{' of its sound lines' * (name in self.partial)}"
            for name, rows in self.splits.items()
        ]
        if self.missing:
            lines.append(f"{self.data}: not given, so not examined: {', '.join(self.missing)}")
        lines += [f"{name}: {n} rows stand in train too" for name, n in self.leakage.items()]
        return "\n".join([*lines, render_text(self.findings, everything)])

    def as_json(self) -> str:
        """Return the report as one JSON object."""
        facts = {name: value for name, value in vars(self).items() if name != "findings"}
        return render_json(facts, self.findings)


def examine(run: Run, tokenize: bool = False) -> Report:
    """Return what is wrong with the run's data; `tokenize` measures the model's tokenizer on it.

    Splits that are null are not examined. The sound lines of a faulty file are.

    Raises:
        ConfigError: an option does not fit, or no split is given.
    """
    data = run.data
    _check_allowed(data.allowed)
    splits: Splits = {}
    sources: dict[str, str] = {}
    partial: list[str] = []
    findings: list[Finding] = []
    for name, language, given in iterate_sources(data, _given(data)):
        source = sources[f"{name}/{language}"] = given["source"]
        split, faults, whole = _read(data, run.allow, given)
        findings += faults
        rows = [{**row, "language": language} for row in split.rows]
        splits.setdefault(name, {})[language] = Split(rows, split.digests)
        if not whole:
            partial.append(f"{name}/{language}")
        elif not rows:
            findings.append(
                make_finding("R108", source, f"no rows in it (data.{name}, {language})")
            )
    task, faults = _make_task(data, splits)
    findings += faults
    leakage: dict[str, int] = {}
    if task is not None:
        findings += _examine_rows(splits, task, data, sources)
        leakage = count_leakage(splits, task.leakage_texts)
        if tokenize:
            findings += _examine_tokens(splits, task, run, sources)
    counts = {
        f"{name}/{language}": len(split.rows)
        for name, languages in splits.items()
        for language, split in languages.items()
    }
    missing = [name for name in SPLITS if name not in splits]
    return Report(
        data.name, counts, missing, partial, leakage, downgrade_allowed(findings, data.allowed)
    )


def _check_allowed(allowed: Sequence[str]) -> None:
    known = {*RULES, *(rule.name for rule in RULES.values())}
    for name in allowed:
        if name not in known:
            raise ConfigError(f"data.allowed={name}: no such rule. {suggest(name, sorted(known))}")


def _given(data: Data) -> list[str]:
    names = [name for name in SPLITS if getattr(data, name) is not None]
    if not names:
        raise ConfigError("No split is given: give data.train, data.validation or data.test.")
    return names


def _read(
    data: Data, allow: Sequence[str], given: ReaderArguments
) -> tuple[Split, list[Finding], bool]:
    """Return the rows of a source, what is wrong with its text, and whether all was read."""
    encoding, source = str(data.reader.get("encoding", "utf-8")), given["source"]
    try:
        split = instantiate(data.reader, "data.reader", allow, **given)
    except DataError as error:
        text, findings = _scan(source, encoding)
        if text is None:
            faults = [checks.classify_reader_fault(source, fault) for fault in error.faults]
            return Split([], {}), faults, False
        split, faults = _read_sound_lines(data, allow, source, text)
        return split, findings + faults, False
    findings = [
        finding
        for file in split.digests
        if Path(file).is_file() and not _is_json(file)
        for finding in _scan(file, encoding)[1]
    ]
    if not any(Path(file).is_file() and not _is_json(file) for file in split.digests):
        # JSON escapes characters; a hub has no file
        findings += checks.find_odd_values(split.rows)
    return split, findings, True


def _scan(file: str, encoding: str) -> tuple[str | None, list[Finding]]:
    """Return a file's text with "?" for bytes that are no text, and what is wrong with it."""
    try:
        raw = Path(file).read_bytes()
        raw = gzip.decompress(raw) if file.endswith(".gz") else raw
        text = raw.decode(encoding, "surrogateescape").removeprefix("\ufeff")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None, []  # the reader tells what the matter is
    return checks.inspect_text(file, text, encoding)


def _read_sound_lines(
    data: Data, allow: Sequence[str], source: str, text: str
) -> tuple[Split, list[Finding]]:
    """Return the rows of a faulty file without its faulty lines, and the reader's faults.

    A line that is left out makes no new fault but in CSV, where a reader stops at the first
    malformed row: only there what later readings find is told too.
    """
    lines = text.split("\n")
    kept = list(range(1, len(lines) + 1))
    findings: list[Finding] = []
    telling = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(source).name.removesuffix(".gz")
        encoding = str(data.reader.get("encoding", "utf-8"))

        def original(told: str) -> str:
            numbered = re.escape(str(path)) + r":(\d+)"
            told = re.sub(numbered, lambda m: f"{source}:{kept[int(m[1]) - 1]}", told)
            return told.replace(str(path), source)

        for _ in range(_PASSES):
            content = "\n".join(lines[number - 1] for number in kept).encode(encoding)
            path.write_bytes(content)
            try:
                split = instantiate(data.reader, "data.reader", allow, source=str(path))
            except DataError as error:
                faults = [checks.classify_reader_fault(source, original(f)) for f in error.faults]
            else:
                rows = [{**row, "where": original(row["where"])} for row in split.rows]
                return Split(rows, {source: hashlib.sha256(content).hexdigest()}), findings
            findings += faults if telling else []
            rules = {fault.rule for fault in faults}
            telling = telling and "R105" in rules and ".csv" in Path(source).suffixes
            bad = {int(m[1]) for f in faults if (m := re.search(r":(\d+)$", f.place))}
            if not bad or ("R106" in rules and not is_jsonl(source)):
                break
            kept = [number for number in kept if number not in bad]
    return Split([], {}), findings


def _is_json(file: str) -> bool:
    return file.removesuffix(".gz").endswith((".json", ".jsonl"))


def _make_task(data: Data, splits: Splits) -> tuple[Task | None, list[Finding]]:
    """Return the task of train, or of all rows where train makes none."""
    train = [row for split in splits.get("train", {}).values() for row in split.rows]
    rows = [row for languages in splits.values() for s in languages.values() for row in s.rows]
    findings: list[Finding] = []
    for part in (train, rows):
        if not part:
            continue
        try:
            return TASKS[data.kind].from_rows(part, **data.task), findings
        except DataError as error:
            place = str(part[0]["where"]).rpartition(":")[0]
            if part is train:
                findings += [make_finding("T102", place, fault) for fault in error.faults]
        except TypeError as error:
            raise ConfigError(f"data.task={data.task}: {error}") from error
    return None, findings


def _examine_rows(
    splits: Splits, task: Task, data: Data, sources: dict[str, str]
) -> Iterator[Finding]:
    texts_of, labels_of = task.row_texts, task.row_labels
    yield from checks.find_row_faults(splits, task.find_row_faults, texts_of)
    yield from checks.find_repeated_ids(splits)
    yield from checks.find_label_faults(splits, labels_of, data.unseen_labels is UnseenLabels.miss)
    yield from checks.find_label_conflicts(splits, texts_of, labels_of)
    yield from checks.find_tag_faults(splits)
    yield from checks.find_imbalance(splits, labels_of, sources)
    yield from find_duplicates(splits, texts_of, task.leakage_texts)


def _examine_tokens(
    splits: Splits, task: Task, run: Run, sources: dict[str, str]
) -> Iterator[Finding]:
    """Yield what the model's tokenizer makes of each split: length, cuts, unknown pieces."""
    if run.model.origin is ModelOrigin.scratch and not splits.get("train"):
        raise ConfigError(
            f"model={run.model.name} trains its tokenizer on train: give data.train, or a model "
            "that has one, model=local model.path=DIR."
        )
    train = list(splits.get("train", {}).values())
    texts = (text for split in train for row in split.rows for text in task.row_texts(row))
    content = hashlib.sha256(repr([split.digests for split in train]).encode()).hexdigest()
    cache = Path(run.outputs) / ".cache"
    tokenizer: Any = load_tokenizer(resolve_model(run.model), texts, content, cache)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for name, languages in splits.items():
        for language, split in languages.items():
            rows = [row for row in split.rows if not task.find_row_faults(row)]
            if not rows:
                continue
            encoded = task.encode(rows, tokenizer, run.data.max_tokens)
            special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
            ids = encoded.ids[~np.isin(encoded.ids, list(special))]
            cut = int(encoded.cut[0]) / len(rows)
            unknown = float((ids == tokenizer.unk_token_id).mean()) if len(ids) else 0.0
            place, who = sources[f"{name}/{language}"], f"{name}/{language} by {run.model.name}"
            message = (
                f"{who}: {len(ids) / len(rows):.1f} sub-words an item, {cut:.1%} of items cut to "
                f"{run.data.max_tokens}, {unknown:.2%} of sub-words unknown"
            )
            yield make_finding("K101", place, message)
            if cut > _MOST_CUT:
                yield make_finding("K102", place, message)
            if unknown > _MOST_UNKNOWN:
                yield make_finding("K103", place, message)
