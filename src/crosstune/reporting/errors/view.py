"""The errors of a study for the page: matrices, counts and lists of items, cut to a size.

All values are texts for `report.html.j2`, which escapes them. The CSV files hold everything.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crosstune.printable import count_of
from crosstune.reporting.errors.gather import (
    ErrorArm,
    Errors,
    Section,
    clip,
    describe,
    name_item,
    rank_distances,
)
from crosstune.reporting.errors.judge import (
    ANSWER_OUTCOMES,
    SET_OUTCOMES,
    SPAN_OUTCOMES,
    Outcome,
)
from crosstune.reporting.errors.predictions import Key

MAX_ARMS = 60  # over all data sets, languages and models
MAX_LABELS = 30
MAX_PAIRS = 20
MAX_ITEMS = 50
_TEXT, _LABEL = 160, 40  # characters

_LEGENDS = {
    "labels": "Rows are gold, columns predicted labels; a cell is shaded by its share of the row.",
    "sets": "Counted by label; an item is right if all of its labels are.",
    "words": "Each word of the text is paired with at most one predicted word, of the same ends "
    "(correct) or else of the widest overlap (boundary). What is left is missed or spurious.",
    "tags": "The pairs of gold and predicted tag that are confused most often.",
    "spans": "Each gold span is paired with at most one predicted span: of the same ends (correct, "
    "or another type), else of the widest overlap, first of the same type (boundary), then of "
    "another (boundary and type). What is left is missed, or spurious, listed by predicted type.",
    "answers": "Exact is equal to an accepted answer but for case, punctuation and spaces; overlap "
    "shares a word with one, in Chinese and Japanese a character.",
    "numbers": "Items by absolute error, averaged over the runs.",
}


def show_errors(errors: Errors) -> dict[str, Any]:
    """Return the values for the template; at most 60 arms, `cut` says what was left out."""
    left, sections = MAX_ARMS, []
    for section in errors.sections:
        if left > 0:
            sections.append(_show_section(section, list(section.arms)[:left]))
        left -= len(section.arms)
    total = MAX_ARMS - left
    cut = f"The page shows the first {MAX_ARMS} of {total} parts." if left < 0 else ""
    return {"sections": sections, "notes": errors.notes, "cut": cut}


def _show_section(section: Section, names: Sequence[str]) -> dict[str, Any]:
    train, language = section.train_language, section.language
    languages = language if train == language else f"{train}→{language}"
    items = f"{len(section.golds):,} test items"
    labels: tuple[str, ...] = ()
    legend = f"{items}. {_LEGENDS[section.form]}"
    if section.form == "labels":
        labels = choose_labels((arm.tally for arm in section.arms.values()), MAX_LABELS)
        every = {label for arm in section.arms.values() for pair in arm.tally for label in pair}
        if len(every) > len(labels):
            legend += f" Of {len(every)} labels the {len(labels)} most frequent are shown, the "
            legend += "rest are summed up as others."
    shared = None
    if len(section.arms) > 1 and len(names) == len(section.arms) and section.form != "numbers":
        shared = _list_items(section, section.shared(), "Wrong in every run of every method")
    return {
        "title": f"{section.dataset} {languages}, model {section.model}",
        "legend": legend,
        "arms": [_show_arm(section, name, labels) for name in names],
        "shared": shared,
    }


def _show_arm(section: Section, name: str, labels: Sequence[str]) -> dict[str, Any]:
    arm = section.arms[name]
    runs, judged = len(arm.run_ids), len(section.golds) * len(arm.run_ids)
    counted = count_of(runs, "run")
    shown: dict[str, Any] = {"matrix": None, "headers": (), "rows": []}
    if section.form == "numbers":
        ranked = rank_distances(arm, section.golds)
        mean = sum(distance for distance, _ in ranked) / len(ranked)
        listed = _list_distances(section, arm, ranked)
        return shown | {"title": f"{name}: mean absolute error {mean:.4g} ({counted})"} | listed
    if section.form == "labels":
        shown["matrix"] = _show_matrix(build_confusion(arm.tally, labels))
    else:
        shown["headers"], shown["rows"] = _tabulate(section.form, arm.tally)
    title = f"{name}: {arm.mistakes:,} of {judged:,} items wrong ({counted})"
    lead = f"Wrong in each of the {counted}" if runs > 1 else "Wrong"
    return shown | {"title": title, "listed": _list_items(section, arm.wrong, lead)}


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: counts of gold (rows) and predicted labels (columns).

    If labels are left out, the last row and column sum them up; `left_out` is their number.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    left_out: int


def choose_labels(tallies: Iterable[Mapping[Outcome, int]], most: int = 30) -> tuple[str, ...]:
    """Return the most frequent labels, gold or predicted, in alphabetical order.

    >>> choose_labels([{("b", "b"): 3, ("a", "b"): 1, ("c", "a"): 2}], most=2)
    ('a', 'b')
    """
    frequency: Counter[str] = Counter()
    for tally in tallies:
        for pair, count in tally.items():
            frequency.update(dict.fromkeys(pair, count))
    ordered = sorted(frequency, key=lambda label: (-frequency[label], label))
    return tuple(sorted(ordered[:most]))


def build_confusion(tally: Mapping[Outcome, int], labels: Sequence[str]) -> Confusion:
    """Return the confusion matrix of a tally over `labels`; all other labels are summed up.

    >>> build_confusion({("a", "a"): 2, ("a", "b"): 1, ("c", "b"): 4}, ["a", "b"]).counts
    ((2, 1, 0), (0, 0, 0), (0, 4, 0))
    """
    indices = {label: index for index, label in enumerate(labels)}
    left_out = {label for pair in tally for label in pair} - set(labels)
    size = len(labels) + bool(left_out)
    counts = [[0] * size for _ in range(size)]
    for (gold, predicted), count in tally.items():
        counts[indices.get(gold, size - 1)][indices.get(predicted, size - 1)] += count
    named = (*labels, f"others ({len(left_out)})") if left_out else tuple(labels)
    return Confusion(named, tuple(map(tuple, counts)), len(left_out))


def _show_matrix(confusion: Confusion) -> dict[str, Any]:
    count = len(confusion.labels) - bool(confusion.left_out)
    labels = [*map(name_label, confusion.labels[:count]), *confusion.labels[count:]]
    rows = []
    for label, counts in zip(labels, confusion.counts, strict=True):
        total = sum(counts) or 1
        cells = [
            {"text": f"{count:,}" if count else "", "shade": round(9 * count / total)}
            for count in counts
        ]
        rows.append({"label": label, "cells": cells})
    return {"labels": labels, "rows": rows}


def name_label(label: str) -> str:
    """Return a label in at most 40 characters; different labels never look alike.

    >>> name_label("PER"), name_label("")
    ('PER', '(empty)')
    """
    if len(label) <= _LABEL:
        return label if label.strip() else "(empty)"
    return f"{label[: _LABEL - 10]}…#{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _tabulate(form: str, tally: Counter[Outcome]) -> tuple[Sequence[str], list[list[str]]]:
    """Return headers and rows of the counts of an arm."""
    if form == "tags":
        return _list_tag_pairs(tally)
    if form == "answers":
        return ANSWER_OUTCOMES, [_format_counts(tally["", outcome] for outcome in ANSWER_OUTCOMES)]
    if form == "spans":
        return ("type", "gold spans", *SPAN_OUTCOMES), _list_kinds(tally, SPAN_OUTCOMES)
    outcomes = SET_OUTCOMES if form == "sets" else ("correct", "boundary", "missed", "spurious")
    first = "label" if form == "sets" else "type"
    return (first, "gold", *outcomes), _list_kinds(tally, outcomes)


def _list_kinds(tally: Mapping[Outcome, int], outcomes: Sequence[str]) -> list[list[str]]:
    """Return a row for each label or type: its number of gold items, and their outcomes."""
    kinds = sorted({kind for kind, _ in tally})
    lines = [(name_label(kind), [tally[kind, outcome] for outcome in outcomes]) for kind in kinds]
    total = [sum(column) for column in zip(*(counts for _, counts in lines), strict=True)]
    if len(lines) > MAX_LABELS:
        ordered = sorted(lines, key=lambda line: (-sum(line[1]), line[0]))
        rest = [counts for _, counts in ordered[MAX_LABELS:]]
        summed = (f"others ({len(rest)})", [sum(column) for column in zip(*rest, strict=True)])
        lines = [*sorted(ordered[:MAX_LABELS]), summed]
    lines += [("all", total)] if len(lines) > 1 else []
    return [[label, *_format_counts([sum(counts[:-1]), *counts])] for label, counts in lines]


def _list_tag_pairs(tally: Counter[Outcome]) -> tuple[Sequence[str], list[list[str]]]:
    golds: Counter[str] = Counter()
    for (gold, _), count in tally.items():
        golds[gold] += count
    wrong = [(-count, pair) for pair, count in tally.items() if pair[0] != pair[1]]
    rows = [
        [*map(name_label, pair), f"{-count:,}", f"{-100 * count / golds[pair[0]]:.1f}"]
        for count, pair in sorted(wrong)[:MAX_PAIRS]
    ]
    right = tally.total() + sum(count for count, _ in wrong)
    rest = sum(-count for count, _ in sorted(wrong)[MAX_PAIRS:])
    if rest:
        rows.append([f"{len(wrong) - MAX_PAIRS:,} other pairs", "", f"{rest:,}", ""])
    rows.append(["correct words", "", f"{right:,}", ""])
    return ("gold tag", "predicted tag", "words", "% of the gold tag"), rows


def _format_counts(counts: Iterable[int]) -> list[str]:
    return [f"{count:,}" for count in counts]


def _list_items(section: Section, wrong: Mapping[Key, Sequence[Any]], lead: str) -> dict[str, Any]:
    title = f"{lead}: {len(wrong):,} of {len(section.golds):,} items"
    title += f", the first {MAX_ITEMS} shown." if len(wrong) > MAX_ITEMS else "."
    rows = [
        [clip(name_item(key), _LABEL), *describe(section, key, wrong[key], _TEXT)]
        for key in list(wrong)[:MAX_ITEMS]
    ]
    return {"title": title, "headers": ("id", "gold", "predictions"), "rows": rows}


def _list_distances(
    section: Section, arm: ErrorArm, ranked: Sequence[tuple[float, Key]]
) -> dict[str, Any]:
    rows = [
        [
            clip(name_item(key), _LABEL),
            f"{distance:.4g}",
            *describe(section, key, arm.wrong[key], _TEXT),
        ]
        for distance, key in ranked[:MAX_ITEMS]
    ]
    title = f"The largest of {len(ranked):,} errors:" if len(rows) < len(ranked) else "All errors:"
    headers = ("id", "absolute error", "gold", "predictions")
    return {"listed": {"title": title, "headers": headers, "rows": rows}}
