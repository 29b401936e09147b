"""Transfer between languages: scores in languages that a run was not trained in, and the gap."""

import re
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from crosstune.reporting.cells import NOT_MEASURED, Cell, SeedScores, Table, render_scores
from crosstune.reporting.render import render_csv

_MEASURES = {
    "train_languages": "train languages",
    "other_languages": "other languages",
    "transfer_gap": "transfer gap",
    "average": "average",
}
_ROW = ("dataset", "metric", "model", "method", "arm", "train_language")
_NUMBERS = ("mean", "std", "n", "planned", "seeds")


def list_languages(train_language: str) -> list[str]:
    """Return the languages that a run was trained on, together (+) or in turn (>).

    >>> list_languages("es+zh")
    ['es', 'zh']
    """
    return re.split("[+>]", train_language)


def measure_transfer(scores: Mapping[str, float], train_language: str) -> dict[str, float]:
    """Return measures of transfer from a run's scores by language; undefined ones are absent.

    `transfer_gap` is the score in the train language minus the mean over the other languages (Hu
    et al. 2020, https://arxiv.org/abs/2003.11080). Several train languages ("es+zh" together,
    "es>zh" in turn) count as their mean.

    >>> measure_transfer({"en": 0.75, "es": 0.5, "zh": 0.25}, "en")["transfer_gap"]
    0.375
    """
    languages = list_languages(train_language)
    trained = [score for language, score in scores.items() if language in languages]
    untrained = [score for language, score in scores.items() if language not in languages]
    parts = {
        "train_languages": trained,
        "other_languages": untrained,
        "average": [*trained, *untrained],
    }
    measures = {name: fmean(values) for name, values in parts.items() if values}
    if trained and untrained:
        measures["transfer_gap"] = measures["train_languages"] - measures["other_languages"]
    return measures


def build_transfer(table: Table) -> Table | None:
    """Return the transfer table of a study, or None if no run was tested in another language.

    A row is an arm trained on a data set in one language (or several). Data sets that no run was
    tested on in another language are left out. `numbers` has a line for each score (`measure`
    "score") and each measure of `measure_transfer` (with an empty `language`).
    """
    rows = _group_cells(table)
    if not rows:
        return None
    tested = sorted({key[:2] for key in rows})
    languages = sorted({language for cells in rows.values() for language in cells})
    lines, numbers = [], []
    for (dataset, metric, row, train), cells in rows.items():
        measures = _measure_seeds(cells, train)
        names = [f"{dataset} {metric}"] * (len(tested) > 1) + [table.rows[row][0], train]
        texts = [
            cells[language].text if language in cells else NOT_MEASURED for language in languages
        ]
        lines.append((" · ".join(names), *texts, *map(render_scores, measures.values())))
        arm = {key: getattr(next(iter(cells.values())), key) for key in _ROW}
        numbers += [
            arm | _list_numbers("score", language, cell) for language, cell in cells.items()
        ]
        numbers += [arm | _list_numbers(name, "", scores) for name, scores in measures.items()]
    what = ", ".join(f"{metric} on {dataset}" for dataset, metric in tested)
    return Table(
        experiment=table.experiment,
        caption=f"{table.experiment}: transfer between languages, {what}, "
        "mean ± standard deviation over seeds (number of seeds), in percentage points.",
        headers=(
            " · ".join(["data set"] * (len(tested) > 1) + [table.headers[0], "trained on"]),
            *languages,
            *_MEASURES.values(),
        ),
        rows=tuple(lines),
        notes=(
            "Transfer gap: score in the train language minus the mean over the other languages "
            "(Hu et al. 2020, XTREME); 0 is perfect transfer. Several train languages "
            "(+ together, > in turn) count as their mean.",
            "Means over languages and the gap are of the seeds that were tested in every language "
            "of the row, each language with the same weight.",
        ),
        numbers=tuple(numbers),
        flags=table.flags,
    )


def _group_cells(table: Table) -> dict[tuple[str, str, int, str], dict[str, Cell]]:
    """Return cells by language, for each (data set, metric, row of the table, train language)."""
    rows: dict[tuple[str, str, int, str], dict[str, Cell]] = defaultdict(dict)
    transferred = set()
    for cell in table.cells:
        if cell.split == "test":
            key = (cell.dataset, cell.metric, cell.row, cell.train_language)
            rows[key][cell.language] = cell
            if cell.n and cell.language not in list_languages(cell.train_language):
                transferred.add(key[:2])
    return {key: rows[key] for key in sorted(rows) if key[:2] in transferred}


def _measure_seeds(cells: Mapping[str, Cell], train_language: str) -> dict[str, SeedScores]:
    """Return each measure over the seeds that have every language of the row."""
    scores: dict[int, dict[str, float]] = defaultdict(dict)
    for language, cell in cells.items():
        for seed, score in zip(cell.seeds, cell.scores, strict=True):
            scores[seed][language] = score
    tested = {language for language, cell in cells.items() if cell.n}
    by_seed = {
        seed: measure_transfer(scores[seed], train_language)
        for seed in sorted(scores)
        if scores[seed].keys() == tested
    }
    planned = max(cell.planned for cell in cells.values())
    measures = {}
    for name in _MEASURES:
        values = {seed: one[name] for seed, one in by_seed.items() if name in one}
        measures[name] = SeedScores(
            seeds=tuple(values), scores=tuple(values.values()), planned=planned
        )
    return measures


def _list_numbers(measure: str, language: str, scores: SeedScores) -> dict[str, Any]:
    numbers = {name: getattr(scores, name) for name in _NUMBERS}
    return {"measure": measure, "language": language} | numbers


def render_transfer(transfer: Table) -> str:
    """Return the numbers of a transfer table as CSV."""
    return render_csv((*_ROW, "measure", "language", *_NUMBERS), transfer.numbers)
