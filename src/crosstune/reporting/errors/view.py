"""The errors of a study as the page shows them: matrices, counts and lists of items, bounded.

Turns what `errors.py` gathered into texts for `report.html.j2`, which escapes them all; `page.py`
calls it. Whatever is cut here stands whole in the CSV files.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crosstune.reporting.errors.gather import (
    Confusion,
    ErrorArm,
    Errors,
    Section,
    build_confusion,
    choose_labels,
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
    """Return what the template needs; at most 60 arms are shown, `cut` says what was left out."""
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
    counted = f"{runs} run" if runs == 1 else f"{runs} runs"
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


def _show_matrix(confusion: Confusion) -> dict[str, Any]:
    kept = len(confusion.labels) - bool(confusion.left_out)
    labels = [*map(name_label, confusion.labels[:kept]), *confusion.labels[kept:]]
    rows = []
    for label, counts in zip(labels, confusion.counts, strict=True):
        whole = sum(counts) or 1
        cells = [
            {"text": f"{count:,}" if count else "", "shade": round(9 * count / whole)}
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
        return _tag_rows(tally)
    if form == "answers":
        return ANSWER_OUTCOMES, [_counts(tally["", found] for found in ANSWER_OUTCOMES)]
    if form == "spans":
        return ("type", "gold spans", *SPAN_OUTCOMES), _kind_rows(tally, SPAN_OUTCOMES)
    outcomes = SET_OUTCOMES if form == "sets" else ("correct", "boundary", "missed", "spurious")
    first = "label" if form == "sets" else "type"
    return (first, "gold", *outcomes), _kind_rows(tally, outcomes)


def _kind_rows(tally: Mapping[Outcome, int], outcomes: Sequence[str]) -> list[list[str]]:
    """Return a row for each label or type: its gold ones, and what became of them."""
    kinds = sorted({kind for kind, _ in tally})
    lines = [(name_label(kind), [tally[kind, found] for found in outcomes]) for kind in kinds]
    total = [sum(column) for column in zip(*(counts for _, counts in lines), strict=True)]
    if len(lines) > MAX_LABELS:
        ordered = sorted(lines, key=lambda line: (-sum(line[1]), line[0]))
        rest = [counts for _, counts in ordered[MAX_LABELS:]]
        others = (f"others ({len(rest)})", [sum(column) for column in zip(*rest, strict=True)])
        lines = [*sorted(ordered[:MAX_LABELS]), others]
    lines += [("all", total)] if len(lines) > 1 else []
    return [[label, *_counts([sum(counts[:-1]), *counts])] for label, counts in lines]


def _tag_rows(tally: Counter[Outcome]) -> tuple[Sequence[str], list[list[str]]]:
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


def _counts(counts: Iterable[int]) -> list[str]:
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
