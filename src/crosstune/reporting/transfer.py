"""Transfer between languages: scores where a run was not trained, and the gap to where it was.

They become a `Table` of plain text, which `tables.py` renders and `report.py` writes; the numbers
are those of `stats.py`, seed by seed.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from crosstune.reporting.aggregate import mean_std
from crosstune.reporting.csv import render_lines
from crosstune.reporting.tables import ABSENT, Table, cell_text

_MEASURES = {
    "train_languages": "train languages",
    "other_languages": "other languages",
    "transfer_gap": "transfer gap",
    "average": "average",
}
_ROW = ("dataset", "metric", "model", "method", "arm", "train_language")
_NUMBERS = ("mean", "std", "n", "planned", "seeds")
_Cell = dict[str, Any]


def list_languages(train_language: str) -> list[str]:
    """Return the languages that a run was trained on, together (+) or in turn (>).

    >>> list_languages("es+zh")
    ['es', 'zh']
    """
    return re.split("[+>]", train_language)


def measure_transfer(scores: Mapping[str, float], train_language: str) -> dict[str, float]:
    """Return what a run's scores by language say about transfer; what is undefined is absent.

    `transfer_gap` is the score in the train language minus the mean over the other languages (Hu
    et al. 2020, https://arxiv.org/abs/2003.11080). Several train languages ("es+zh" together,
    "es>zh" in turn) count as their mean.

    >>> measure_transfer({"en": 0.75, "es": 0.5, "zh": 0.25}, "en")["transfer_gap"]
    0.375
    """
    trained = list_languages(train_language)
    own = [score for language, score in scores.items() if language in trained]
    others = [score for language, score in scores.items() if language not in trained]
    found = {"train_languages": own, "other_languages": others, "average": [*own, *others]}
    measures = {name: fmean(values) for name, values in found.items() if values}
    if own and others:
        measures["transfer_gap"] = measures["train_languages"] - measures["other_languages"]
    return measures


def build_transfer(table: Table) -> Table | None:
    """Return the transfer table of a study, or None if nothing was tested beyond its training.

    A row is an arm trained on a data set in one language (or several). Data sets that no run was
    tested on in a further language are left out. `cells` has a row for each score (`measure`
    "score") and each measure of `measure_transfer` (no `language`).
    """
    rows = _rows(table)
    if not rows:
        return None
    crossed = sorted({key[:2] for key in rows})
    languages = sorted({language for cells in rows.values() for language in cells})
    lines, numbers = [], []
    for (dataset, metric, row, train), cells in rows.items():
        derived = _derive(cells, train)
        named = [f"{dataset} {metric}"] * (len(crossed) > 1) + [table.rows[row][0], train]
        shown = [cells[language]["text"] if language in cells else ABSENT for language in languages]
        lines.append((" · ".join(named), *shown, *(cell_text(derived[name]) for name in _MEASURES)))
        numbers += [cell | {"measure": "score"} for cell in cells.values()]
        some = {key: next(iter(cells.values()))[key] for key in _ROW}
        numbers += [
            some | {"measure": name, "language": ""} | cell for name, cell in derived.items()
        ]
    what = ", ".join(f"{metric} on {dataset}" for dataset, metric in crossed)
    start = " · ".join(["data set"] * (len(crossed) > 1) + [table.headers[0], "trained on"])
    return Table(
        experiment=table.experiment,
        caption=f"{table.experiment}: transfer between languages, {what}, "
        "mean ± standard deviation over seeds (number of seeds), in percentage points.",
        headers=(start, *languages, *_MEASURES.values()),
        rows=tuple(lines),
        notes=(
            "Transfer gap: score in the train language minus the mean over the other languages "
            "(Hu et al. 2020, XTREME); 0 is perfect transfer. Several train languages "
            "(+ together, > in turn) count as their mean.",
            "Means over languages and the gap are of the seeds that were tested in every language "
            "of the row, each language with the same weight.",
        ),
        cells=numbers,
        flags=table.flags,
    )


def _rows(table: Table) -> dict[tuple[Any, ...], dict[str, _Cell]]:
    """Return cells by language, for each (data set, metric, row of the table, train language)."""
    rows: dict[tuple[Any, ...], dict[str, _Cell]] = defaultdict(dict)
    crossed = set()
    for cell in table.cells:
        if cell["split"] == "test":
            key = (cell["dataset"], cell["metric"], cell["row"], cell["train_language"])
            rows[key][cell["language"]] = cell
            if cell["n"] and cell["language"] not in list_languages(cell["train_language"]):
                crossed.add(key[:2])
    return {key: rows[key] for key in sorted(rows) if key[:2] in crossed}


def _derive(cells: Mapping[str, _Cell], train_language: str) -> dict[str, _Cell]:
    """Return each measure over the seeds that have every language of the row."""
    scores: dict[int, dict[str, float]] = defaultdict(dict)
    for language, cell in cells.items():
        for seed, score in zip(cell["seeds"], cell["scores"], strict=True):
            scores[seed][language] = score
    tested = {language for language, cell in cells.items() if cell["n"]}
    runs = {
        seed: measure_transfer(scores[seed], train_language)
        for seed in sorted(scores)
        if scores[seed].keys() == tested
    }
    planned = max(cell["planned"] for cell in cells.values())
    derived = {}
    for name in _MEASURES:
        values = {seed: measures[name] for seed, measures in runs.items() if name in measures}
        derived[name] = {**moments(list(values.values())), "planned": planned}
        derived[name]["seeds"] = tuple(values)
    return derived


def moments(values: Sequence[float]) -> dict[str, Any]:
    """Return n, the mean and the sample standard deviation; NaN where too few values give none."""
    mean, std = mean_std(values)
    return {"mean": mean, "std": std, "n": len(values)}


def render_transfer(transfer: Table) -> str:
    """Return the numbers of a transfer table as CSV, one line per row x language or measure."""
    names = (*_ROW, "measure", "language", *_NUMBERS)
    rows = transfer.cells
    return render_lines(names, ([row[name] for name in names] for row in rows))
