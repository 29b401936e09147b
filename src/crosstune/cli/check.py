"""`crosstune check`: reports every fault of a data set in one pass, without training.

Reads the splits and collects what the checks of `data/quality` find. Files with faulty lines are
examined without these.
"""

import hashlib
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crosstune.config.schema import Data, ModelOrigin, Run, UnseenLabels
from crosstune.data.quality import checks
from crosstune.data.quality.duplicates import count_leakage, find_duplicates
from crosstune.data.quality.encodings import find_spilled, find_text_faults
from crosstune.data.quality.rules import (
    RULES,
    Finding,
    downgrade_allowed,
    make_finding,
    render_json,
    render_text,
)
from crosstune.data.readers.tables import TableLayout, is_jsonl, read_table_records
from crosstune.data.splits import (
    SPLITS,
    ReaderArguments,
    Split,
    Splits,
    iterate_sources,
    read_source,
)
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.files import read_unpacked
from crosstune.models.load import load_tokenizer
from crosstune.models.packaged_encoders import find_packaged
from crosstune.models.resolve import resolve_model
from crosstune.models.trim_vocabulary import trim_checkpoint
from crosstune.printable import count_of
from crosstune.tasks import TASKS, Task

_MAX_PASSES = 20  # readings of a faulty file, each without the lines that the last one refused
_MAX_TRUNCATED, _MAX_UNKNOWN = 0.05, 0.01  # shares of items and subwords above which to warn


@dataclass(frozen=True)
class CheckReport:
    """What was examined, with the findings."""

    data: str
    splits: dict[str, int]  # split/language -> rows examined
    missing: list[str]  # splits that were not given
    partial: list[str]  # split/language of which only the valid lines were examined
    leakage: dict[str, int]  # split/language -> rows that are also in train, exactly or nearly
    findings: list[Finding]

    @property
    def faulty(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)

    def as_text(self, everything: bool) -> str:
        """Return the report as text; `everything` lists every occurrence of a rule."""
        lines = [
            f"{self.data} {name}: {count_of(rows, 'row')}"
            f"{' of its valid lines' * (name in self.partial)}"
            for name, rows in self.splits.items()
        ]
        if self.missing:
            lines.append(f"{self.data}: not given, so not examined: {', '.join(self.missing)}")
        lines += [f"{name}: {count_of(n, 'row')} also in train" for name, n in self.leakage.items()]
        return "\n".join([*lines, render_text(self.findings, everything)])

    def as_json(self) -> str:
        """Return the report as one JSON object."""
        facts = {name: value for name, value in vars(self).items() if name != "findings"}
        return render_json(facts, self.findings)


def examine(run: Run, tokenize: bool = False) -> CheckReport:
    """Return what is wrong with the run's data; `tokenize` measures the model's tokenizer on it.

    Splits that are null are not examined; of a faulty file the valid lines are.

    Raises:
        ConfigError: an option does not fit, or no split is given.
    """
    data = run.data
    _check_allowed_rules(data.allowed)
    splits: Splits = {}
    sources: dict[str, str] = {}
    partial: list[str] = []
    findings: list[Finding] = []
    for name, language, arguments in iterate_sources(data, _list_splits(data)):
        source = sources[f"{name}/{language}"] = arguments["source"]
        split, faults, complete = _read_split(run, language, arguments)
        findings += faults
        rows = [{**row, "language": language} for row in split.rows]
        splits.setdefault(name, {})[language] = Split(rows, split.digests)
        if not complete:
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
    return CheckReport(
        data.name, counts, missing, partial, leakage, downgrade_allowed(findings, data.allowed)
    )


def _check_allowed_rules(allowed: Sequence[str]) -> None:
    known = {*RULES, *(rule.name for rule in RULES.values())}
    for name in allowed:
        if name not in known:
            raise ConfigError(f"data.allowed={name}: no such rule. {suggest(name, sorted(known))}")


def _list_splits(data: Data) -> list[str]:
    names = [name for name in SPLITS if getattr(data, name) is not None]
    if not names:
        raise ConfigError("No split is given: give data.train, data.validation or data.test.")
    return names


def _read_split(
    run: Run, language: str, arguments: ReaderArguments
) -> tuple[Split, list[Finding], bool]:
    """Return the rows of a source, what is wrong with its text, and whether all of it was read."""
    encoding, source = str(run.data.reader.get("encoding", "utf-8")), arguments["source"]
    try:
        split = read_source(run.data, language, arguments, run.allow)
    except DataError as error:
        text, findings = _read_text(source, encoding)
        if text is None:
            faults = [checks.classify_reader_fault(source, fault) for fault in error.faults]
            return Split([], {}), faults, False
        split, faults = _read_valid_lines(run, language, source, text)
        return split, findings + faults, False
    files = [file for file in split.digests if Path(file).is_file() and not _is_json(file)]
    if not files:  # JSON escapes characters, and data from a hub has no file
        return split, list(checks.find_odd_values(split.rows)), True
    odd = [finding for file in files for finding in _read_text(file, encoding)[1]]
    return split, [*_find_spilled(run.data, source), *odd], True


def _find_spilled(data: Data, source: str) -> Iterator[Finding]:
    """Yield the rows of a TSV or CSV table with text in columns without a name."""
    if Path(source.removesuffix(".gz")).suffix in (".tsv", ".csv") and "text" in data.reader:
        options: Any = {k: data.reader[k] for k in TableLayout.__annotations__ if k in data.reader}
        yield from find_spilled(source, read_table_records(source, **options)[0])


def _read_text(file: str, encoding: str) -> tuple[str | None, list[Finding]]:
    """Return a file's text, with "?" for invalid bytes, and what is wrong with it."""
    try:
        text = read_unpacked(Path(file)).decode(encoding, "surrogateescape").removeprefix("\ufeff")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None, []  # the reader reports the reason
    return checks.inspect_text(file, text, encoding)


def _read_valid_lines(
    run: Run, language: str, source: str, text: str
) -> tuple[Split, list[Finding]]:
    """Return the rows of a faulty file without its faulty lines, and the reader's faults.

    Leaving a line out creates no new fault. Only in CSV, where a reader stops at the first
    malformed row, do later passes report faults of their own.
    """
    lines = text.split("\n")
    numbers = list(range(1, len(lines) + 1))  # of the lines that are still read
    findings: list[Finding] = []
    is_reported = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(source).name.removesuffix(".gz")
        encoding = str(run.data.reader.get("encoding", "utf-8"))

        def restore_location(message: str) -> str:
            location = re.escape(str(path)) + r":(\d+)"
            message = re.sub(location, lambda m: f"{source}:{numbers[int(m[1]) - 1]}", message)
            return message.replace(str(path), source)

        for _ in range(_MAX_PASSES):
            content = "\n".join(lines[number - 1] for number in numbers).encode(encoding)
            path.write_bytes(content)
            try:
                split = read_source(run.data, language, {"source": str(path)}, run.allow)
            except DataError as error:
                faults = [
                    checks.classify_reader_fault(source, restore_location(f)) for f in error.faults
                ]
            else:
                rows = [{**row, "where": restore_location(row["where"])} for row in split.rows]
                return Split(rows, {source: hashlib.sha256(content).hexdigest()}), findings
            findings += faults if is_reported else []
            rules = {fault.rule for fault in faults}
            is_reported = is_reported and "R105" in rules and ".csv" in Path(source).suffixes
            bad = {int(m[1]) for f in faults if (m := re.search(r":(\d+)$", f.place))}
            if not bad or ("R106" in rules and not is_jsonl(source)):
                break
            numbers = [number for number in numbers if number not in bad]
    return Split([], {}), findings


def _is_json(file: str) -> bool:
    return file.removesuffix(".gz").endswith((".json", ".jsonl"))


def _make_task(data: Data, splits: Splits) -> tuple[Task | None, list[Finding]]:
    """Return the task made from train, or from all rows where train fails."""
    train = [row for split in splits.get("train", {}).values() for row in split.rows]
    rows = [row for languages in splits.values() for s in languages.values() for row in s.rows]
    findings: list[Finding] = []
    for part in (train, rows):
        if not part:
            continue
        try:
            return TASKS[data.kind].from_rows(part, **data.task), findings
        except DataError as error:
            source = str(part[0]["where"]).rpartition(":")[0]
            if part is train:
                findings += [make_finding("T102", source, fault) for fault in error.faults]
        except TypeError as error:
            raise ConfigError(f"data.task={data.task}: {error}") from error
    return None, findings


def _examine_rows(
    splits: Splits, task: Task, data: Data, sources: dict[str, str]
) -> Iterator[Finding]:
    texts_of, labels_of = task.row_texts, task.row_labels
    yield from checks.find_row_faults(splits, task.find_row_faults, texts_of)
    yield from find_text_faults(splits, texts_of)
    yield from checks.find_repeated_ids(splits)
    yield from checks.find_label_faults(splits, labels_of, data.unseen_labels is UnseenLabels.miss)
    yield from checks.find_label_conflicts(splits, texts_of, labels_of)
    yield from checks.find_tag_faults(splits)
    yield from checks.find_imbalance(splits, labels_of, sources)
    yield from find_duplicates(splits, texts_of, task.leakage_texts)


def _examine_tokens(
    splits: Splits, task: Task, run: Run, sources: dict[str, str]
) -> Iterator[Finding]:
    """Yield how the model's tokenizer encodes each split: length, truncation, unknown subwords."""
    if run.model.origin is ModelOrigin.scratch and not splits.get("train"):
        raise ConfigError(
            f"model={run.model.name} trains its tokenizer on train: give data.train, or a model "
            "that has one, model=local model.path=DIR."
        )
    train = list(splits.get("train", {}).values())
    texts = [text for split in train for row in split.rows for text in task.row_texts(row)]
    content = hashlib.sha256(repr([split.digests for split in train]).encode()).hexdigest()
    cache = Path(run.outputs) / ".cache"
    model = resolve_model(find_packaged(run.model, cache))
    source = trim_checkpoint(model, texts, content, cache)
    tokenizer: Any = load_tokenizer(source, texts, content, cache)
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
            truncated = int(encoded.cut[0]) / len(rows)
            unknown = float((ids == tokenizer.unk_token_id).mean()) if len(ids) else 0.0
            source = sources[f"{name}/{language}"]
            message = (
                f"{name}/{language} by {run.model.name}: {len(ids) / len(rows):.1f} subwords per "
                f"item, {truncated:.1%} of items cut to {run.data.max_tokens}, {unknown:.2%} of "
                "subwords unknown"
            )
            yield make_finding("K101", source, message)
            if truncated > _MAX_TRUNCATED:
                yield make_finding("K102", source, message)
            if unknown > _MAX_UNKNOWN:
                yield make_finding("K103", source, message)
