"""The HTML page of a study: one self-contained file that asks the network for nothing.

Collects the values for `report.html.j2`; the template escapes every text.
"""

import json
import math
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from crosstune.printable import strip_controls
from crosstune.reporting.aggregate import summarise_classes
from crosstune.reporting.arms import name_plan
from crosstune.reporting.cells import NOT_MEASURED, Table
from crosstune.reporting.comparison import Comparison
from crosstune.reporting.costs import name_cost, render_cost
from crosstune.reporting.errors.gather import Errors
from crosstune.reporting.errors.view import show_errors
from crosstune.reporting.figures.draw_all import Drawings
from crosstune.reporting.figures.heatmap import build_heatmaps
from crosstune.reporting.figures.style import TEXT_COLOUR, Drawing
from crosstune.reporting.html.cell_details import describe_cells
from crosstune.reporting.records import Records, list_runs
from crosstune.runs.record_schema import COSTS

_HERE = Path(__file__).parent
_ERROR_CHARACTERS = 4000
_STATUSES = ("failed", "diverged", "unreadable", "unfinished", "missing", "superseded")


@dataclass(frozen=True)
class Content:
    """The tables and errors of a page; None where a study has no data for one."""

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
    content: Content, scores: pd.DataFrame, records: Records, command: str, drawings: Drawings
) -> str:
    """Return the page: tables with details under each cell, figures, costs, problems and errors."""
    table = content.table
    script = (_HERE / "report.js").read_text("utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_remove_controls,
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        table=table,
        more=content.more,
        details=describe_cells(table, content.comparison, records, content.commands),
        heatmaps=build_heatmaps(table),
        drawings={name: drawing and _embed(drawing) for name, drawing in vars(drawings).items()},
        script=Markup(script),  # noqa: S704 - our own file, and the only script that may run
        script_digest=digest,
        costs=content.costs,
        cost_headers=["method and data set", *map(name_cost, COSTS)],
        cost_rows=_list_costs(table),
        problems=_list_problems(scores, records),
        classes=_list_classes(table, summarise_classes(scores, records.records)),
        errors=show_errors(content.errors),
        command=command,
    )


def _remove_controls(value: Any) -> Any:
    if type(value) is str and not value.isprintable():  # Markup, a subclass, is ours
        return strip_controls(value, breaks=True)
    return value


def _embed(drawing: Drawing) -> dict[str, str]:
    """Return a drawing as part of a page, in the colour of the page's text."""
    svg = drawing.svg[drawing.svg.index("<svg") :].replace(TEXT_COLOUR, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids would clash between drawings
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # they only repeat the labels
    return {"svg": svg, "cut": drawing.cut}


def _list_costs(table: Table) -> list[list[str]]:
    rows = {}
    for cell in sorted(table.cells, key=lambda cell: (cell.row, cell.column)):
        label = f"{table.rows[cell.row][0]} on {cell.dataset} {cell.train_language}"
        rows[label] = [render_cost(cost, cell.costs[cost]) for cost in COSTS]
    return [[label, *costs] for label, costs in rows.items() if set(costs) != {NOT_MEASURED}]


def _list_problems(scores: pd.DataFrame, records: Records) -> list[dict[str, str]]:
    """Return every run that is in no mean: its status, what it is, and its error."""
    refused = {name_plan(plan): plan["error"] for plan in records.missing if "error" in plan}
    errors = {record["run_id"]: record.get("error") for record in records.records} | refused
    errors |= dict.fromkeys(records.unfinished, "Killed or still running: it left no record.")
    errors |= dict(records.unreadable)
    problems = {run_id: ("unfinished", f"run {run_id}") for run_id in records.unfinished}
    problems |= {folder: ("unreadable", f"run {folder}") for folder, _ in records.unreadable}
    problems |= {name: ("missing", f"planned with {name}") for name in refused}
    for run in list_runs(scores):  # which describes some of these in full
        status = "superseded" if run["superseded_by"] else run["status"]
        if status != "finished":
            what = f"{run['arm']} on {run['dataset']} {run['train_language']}, model {run['model']}"
            what += f", seed {run['seed']}, run {run['run_id']}"
            what += f", by run {run['superseded_by']}" if run["superseded_by"] else ""
            problems[run["run_id"]] = (status, what)
    listed = []
    for run_id, (status, what) in problems.items():
        error = errors.get(run_id) or ("It never began." if status == "missing" else "")
        listed.append({"status": status, "what": what, "error": _shorten_error(error)})
    return sorted(listed, key=lambda run: (_STATUSES.index(run["status"]), run["what"]))


def _shorten_error(error: Any) -> str:
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return text if len(text) <= _ERROR_CHARACTERS else f"{text[:_ERROR_CHARACTERS]}…"


def _list_classes(table: Table, summary: pd.DataFrame) -> list[dict[str, Any]]:
    labels = {(cell.model, cell.method, cell.arm): table.rows[cell.row][0] for cell in table.cells}
    groups = defaultdict(list)
    for row in summary.to_dict("records"):
        train, language = row["train_language"], row["language"]
        languages = language if train == language else f"{train}→{language}"
        arm = labels[row["model"], row["method"], row["arm"]]
        support = row["support"]
        cells = [_to_points(row["precision"]), _to_points(row["recall"])]
        cells += [_to_points(row["f1"], row["f1_std"])]
        cells += [NOT_MEASURED if math.isnan(support) else f"{support:,.1f}".removesuffix(".0")]
        groups[f"{arm} on {row['dataset']} {languages}"].append(
            {
                "label": row["label"],
                "average": row["average"],
                "cells": _render_cells(cells, row["n"]),
            }
        )
    return [{"title": title, "rows": rows} for title, rows in groups.items()]


def _render_cells(numbers: Sequence[str], runs: int) -> Markup:
    """Return numbers as table cells; doing so in the template takes ten times as long."""
    return Markup("".join(f"<td>{cell}</td>" for cell in (*numbers, runs)))  # noqa: S704


def _to_points(value: float, std: float = math.nan) -> str:
    if math.isnan(value):
        return NOT_MEASURED
    return f"{100 * value:.1f}" + ("" if math.isnan(std) else f" ± {100 * std:.1f}")
