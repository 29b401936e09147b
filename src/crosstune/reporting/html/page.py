"""The HTML page of a study: one self-contained file, without the network, with one script of ours.

Gathers what `report.html.j2` shows; the template escapes every text. `report.py` writes the page.
"""

import json
import math
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from crosstune.reporting.aggregate import summarise_classes
from crosstune.reporting.arms import name_plan
from crosstune.reporting.cells import ABSENT, Table
from crosstune.reporting.comparison import Comparison
from crosstune.reporting.costs import name_cost, render_cost
from crosstune.reporting.errors.gather import Errors
from crosstune.reporting.errors.view import show_errors
from crosstune.reporting.escape import strip_controls
from crosstune.reporting.figures.drawing import INK, Drawing, Drawings
from crosstune.reporting.figures.heatmap import build_heat
from crosstune.reporting.html.cell_details import explain_cells
from crosstune.reporting.records import COSTS, Records, list_runs

_HERE = Path(__file__).parent
_ERROR_CHARACTERS = 4000
_ORDER = ("failed", "diverged", "unreadable", "unfinished", "missing", "superseded")


@dataclass(frozen=True)
class Content:
    """What was computed for a page; None stands for what a study does not have."""

    table: Table
    comparison: Comparison
    differences: Table | None
    published: Table | None
    costs: Table
    commands: Mapping[str, Sequence[str]]
    transfer: Table | None
    stages: tuple[Table, ...]
    errors: Errors

    @property
    def more(self) -> list[tuple[str, Table]]:
        """Return the tables after the study's own, with their headings."""
        named = [
            (f"Differences to {self.comparison.baseline}", self.differences),
            ("Beside the published numbers", self.published),
            ("Transfer", self.transfer),
            *(("Training in turn", stage) for stage in self.stages),
        ]
        return [(title, table) for title, table in named if table]


def render_page(
    content: Content, scores: pd.DataFrame, records: Records, command: str, drawn: Future[Drawings]
) -> str:
    """Return the page: tables with what is under each cell, figures, costs, mistakes, the rest.

    The figures are waited for when all else is set.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # while figures are drawn

    table = content.table
    script = (_HERE / "report.js").read_text("utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_controls,
    )
    shown = {
        "table": table,
        "more": content.more,
        "details": explain_cells(table, content.comparison, records, content.commands),
        "heat": build_heat(table),
        "script": Markup(script),  # noqa: S704 - a file of ours, and the only one that may run
        "script_digest": digest,
        "costs": content.costs,
        "cost_headers": ["method and data set", *map(name_cost, COSTS)],
        "cost_rows": _costs(table),
        "problems": _problems(scores, records),
        "classes": _classes(table, summarise_classes(scores, records.records)),
        "errors": show_errors(content.errors),
        "command": command,
    }

    def take_drawings() -> dict[str, dict[str, str] | None]:
        return {name: some and _show(some) for name, some in vars(drawn.result()).items()}

    template = environment.get_template("report.html.j2")
    return template.render(**shown, take_drawings=take_drawings)


def _without_controls(value: Any) -> Any:
    if type(value) is str and not value.isprintable():  # markup is a subclass
        return strip_controls(value, breaks=True)
    return value


def _show(drawing: Drawing) -> dict[str, str]:
    """Return a drawing as part of a page, in the colour of its text, and what it leaves out."""
    svg = drawing.svg[drawing.svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # two drawings on a page would share them
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # they repeat the labels
    return {"svg": svg, "cut": drawing.cut}


def _costs(table: Table) -> list[list[str]]:
    rows = {}
    for cell in sorted(table.cells, key=lambda cell: (cell.row, cell.column)):
        label = f"{table.rows[cell.row][0]} on {cell.dataset} {cell.train_language}"
        rows[label] = [render_cost(cost, cell.costs[cost]) for cost in COSTS]
    return [[label, *costs] for label, costs in rows.items() if set(costs) != {ABSENT}]


def _problems(scores: pd.DataFrame, records: Records) -> list[dict[str, str]]:
    """Return every run that is in no mean, with what it left to say."""
    errors = {record["run_id"]: record.get("error") for record in records.records}
    errors |= {name_plan(plan): plan.get("error") for plan in records.missing}
    errors |= dict.fromkeys(records.unfinished, "Killed or still running: it left no record.")
    errors |= dict(records.unreadable)
    problems = {run_id: ("unfinished", f"run {run_id}") for run_id in records.unfinished}
    problems |= {folder: ("unreadable", f"run {folder}") for folder, _ in records.unreadable}
    problems |= {
        name_plan(plan): ("missing", f"planned with {name_plan(plan)}")
        for plan in records.missing
        if "error" in plan
    }
    for run in list_runs(scores):
        status = "superseded" if run["superseded_by"] else run["status"]
        if status != "finished":
            what = f"{run['arm']} on {run['dataset']} {run['train_language']}, model {run['model']}"
            what += f", seed {run['seed']}, run {run['run_id']}"
            what += f", by run {run['superseded_by']}" if run["superseded_by"] else ""
            problems[run["run_id"]] = (status, what)
    listed = []
    for run_id, (status, what) in problems.items():
        error = errors.get(run_id) or ("It never began." if status == "missing" else "")
        text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
        if len(text) > _ERROR_CHARACTERS:
            text = f"{text[:_ERROR_CHARACTERS]}…"
        listed.append({"status": status, "what": what, "error": text})
    return sorted(listed, key=lambda problem: (_ORDER.index(problem["status"]), problem["what"]))


def _classes(table: Table, summary: pd.DataFrame) -> list[dict[str, Any]]:
    labels = {(cell.model, cell.method, cell.arm): table.rows[cell.row][0] for cell in table.cells}
    groups = defaultdict(list)
    for row in summary.to_dict("records"):
        train, language = row["train_language"], row["language"]
        languages = language if train == language else f"{train}→{language}"
        arm = labels[row["model"], row["method"], row["arm"]]
        support = row["support"]
        cells = [_points(row["precision"]), _points(row["recall"])]
        cells += [_points(row["f1"], row["f1_std"])]
        cells += [ABSENT if math.isnan(support) else f"{support:,.1f}".removesuffix(".0")]
        groups[f"{arm} on {row['dataset']} {languages}"].append(
            {"label": row["label"], "average": row["average"], "cells": _mark_up(cells, row["n"])}
        )
    return [{"title": title, "rows": rows} for title, rows in groups.items()]


def _mark_up(numbers: Sequence[str], runs: int) -> Markup:
    """Return numbers of our own making as cells: a template would take ten times as long."""
    return Markup("".join(f"<td>{cell}</td>" for cell in (*numbers, runs)))  # noqa: S704


def _points(value: float, std: float = math.nan) -> str:
    if math.isnan(value):
        return ABSENT
    return f"{100 * value:.1f}" + ("" if math.isnan(std) else f" ± {100 * std:.1f}")
