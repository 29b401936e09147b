"""The state of a study: the status of every run, and the text that `crosstune status` prints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf.errors import OmegaConfBaseException

from crosstune.config.compose import read_config
from crosstune.errors import ConfigError, DataError
from crosstune.printable import count_of
from crosstune.runs.fingerprint import find_stale_reasons
from crosstune.runs.locks import is_locked
from crosstune.runs.plan_file import PlannedRun, read_plan, unknown_study
from crosstune.runs.record import read_record
from crosstune.runs.record_schema import uses_stand_in, validate_record
from crosstune.sweeps.availability import explain_data_fault, find_missing_weights
from crosstune.sweeps.plan import plan_recipe


class RunStatus(NamedTuple):
    """A run and its status: missing, running, unfinished, stale, or the status in its record."""

    run: dict[str, Any]  # of the plan; the record of a run that is not planned
    status: str


def read_status(outputs: Path, experiment: str) -> list[RunStatus]:
    """Return the status of every planned run, then of the runs outside the plan.

    Stale is a finished run whose packages, data or code have changed since, and a record of a run
    that the plan has under another id.

    Raises:
        ConfigError: the study has neither runs nor a plan.
    """
    folder = outputs / experiment
    planned = read_plan(folder)
    if all(run.get("stand_in") for run in planned):  # a rehearsal does not plan the study itself
        planned += plan_recipe(experiment)
    paths = sorted(folder.glob("*/record.json"))
    records = {path.parent.name: _read_record(path) for path in paths}
    unfinished = _find_unfinished(folder, {run.get("run_id") for run in planned})
    if not planned and not records and not unfinished:
        raise unknown_study(outputs, experiment)
    statuses: list[RunStatus] = []
    seen: set[str] = set()
    for run in planned:
        run_id = run.get("run_id", "")
        if run_id not in seen:  # different overrides may name the same run
            statuses.append(_find_status(run, folder, records.pop(run_id, None)))
        seen |= {run_id} - {""}
    planned_names = {_names(run) for run in planned if "run_id" in run}
    for record in records.values():
        run = _add_warnings({**record, "language": record.get("train_language")}, record)
        if _names(run) in planned_names:
            run |= {"status": "stale", "error": "the plan has this run under another id"}
        statuses.append(RunStatus(run, run["status"]))
    return statuses + unfinished


def _read_record(path: Path) -> dict[str, Any]:
    """Return a record; what is unreadable or malformed has that status, and the reason."""
    try:
        return validate_record(read_record(path))
    except DataError as error:
        return {"run_id": path.parent.name, "status": "unreadable", "error": str(error)}


def _find_unfinished(folder: Path, planned: set[str | None]) -> list[RunStatus]:
    """Return the runs outside the plan that are at work or were killed, so have no record."""
    statuses: list[RunStatus] = []
    for path in sorted(folder.glob("*/config.yaml")):
        run_id = path.parent.name
        if run_id in planned or (path.parent / "record.json").exists():
            continue
        try:
            run = read_config(path)
        except (ConfigError, OmegaConfBaseException):
            continue  # killed while it was written
        names = {"data": run.data.name, "language": run.data.trained_on, "seed": run.seed}
        names |= {"model": run.model.name, "method": run.method.name, "run_id": run_id}
        is_running = is_locked(path.parent)
        if not is_running:
            names["error"] = "it was killed; the same command goes on from its last checkpoint"
        statuses.append(RunStatus(names, "running" if is_running else "unfinished"))
    return statuses


def _find_status(run: PlannedRun, folder: Path, record: dict[str, Any] | None) -> RunStatus:
    """Return the status of a planned run; the `error` of a stale one says what has changed."""
    if run.get("run_id") and is_locked(folder / run["run_id"]):
        return RunStatus(run, "running")
    if record is None:
        return RunStatus(run, "missing")
    if record["status"] == "unreadable":
        return RunStatus({**run, "error": record["error"]}, "unreadable")
    if record["status"] == "finished" and (changes := find_stale_reasons(record)):
        return RunStatus({**run, "error": "; ".join(changes)}, "stale")
    return RunStatus(_add_warnings(run, record), record["status"])


def _add_warnings(run: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run with the first sentence of its record on why its scores mean nothing."""
    warnings = record.get("warnings")
    first = str(warnings[0]) if isinstance(warnings, list) and warnings else ""
    return {**run, "warning": first} if first else run


def _names(run: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(run.get(key, "?")) for key in ("data", "language", "model", "method", "seed"))


def _is_rehearsal(run: dict[str, Any]) -> bool:
    """Return whether a planned run or a record is one on generated stand-in data."""
    return bool(run.get("stand_in")) or ("config" in run and uses_stand_in(run))


def render_status(experiment: str, statuses: Sequence[RunStatus]) -> str:
    """Return the state of a study as text.

    The number of runs of each status; a grid of finished/planned runs; the unfinished runs, all
    seeds of an arm in one line; the data and weights that missing runs need and this machine lacks.
    """
    counts = Counter(
        "rehearsed" if status == "finished" and _is_rehearsal(run) else status
        for run, status in statuses
    )
    summary = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
    lines = [f"{experiment}: {count_of(len(statuses), 'run')}, {summary}", *_render_grid(statuses)]
    arms: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run, status in statuses:
        if status != "finished":
            *arm, seed = _names(run)
            # a run whose configuration is invalid has no names
            explained = status in ("stale", "unfinished", "unreadable") or {*arm, seed} == {"?"}
            reason = run.get("error") or "" if explained else ""
            arms.setdefault((status, *arm, reason), []).append(run)
    for (status, *arm, reason), runs in arms.items():
        seeds = ",".join(dict.fromkeys(str(run.get("seed", "?")) for run in runs))
        run_id = runs[0].get("run_id", "") if len(runs) == 1 else ""
        suffix = f": {reason}" if reason else ""
        lines.append(f"  {status}  {' · '.join([*arm, seeds])}  {run_id}{suffix}")
    return "\n".join([*lines, *_render_warnings(statuses), *_render_unavailable(statuses)])


def _render_warnings(statuses: Sequence[RunStatus]) -> list[str]:
    """Return the finished runs that learned nothing, each with the reason."""
    runs = [run for run, status in statuses if status == "finished" and "warning" in run]
    lines = [f"  {' · '.join(_names(run))}  {run['warning']}" for run in runs]
    return [f"Learned nothing ({len(runs)} of the finished runs):", *lines] if lines else []


def _render_grid(statuses: Sequence[RunStatus]) -> list[str]:
    """Return finished/planned by model and method, and by data and language; one cell: nothing."""
    cells: dict[tuple[str, str], Counter[bool]] = {}
    for run, status in statuses:
        if "data" in run and status != "stale" and not _is_rehearsal(run):
            data, language, model, method, _ = _names(run)
            cell = cells.setdefault((f"{model} · {method}", f"{data} {language}"), Counter())
            cell[status == "finished"] += 1
    if len(cells) < 2:
        return []
    rows, columns = (dict.fromkeys(names) for names in zip(*cells, strict=True))
    grid = [["finished/planned", *columns]]
    for row in rows:
        counts = [cells.get((row, column), Counter()) for column in columns]
        grid.append([row, *(f"{c[True]}/{c.total()}" if c else "–" for c in counts)])
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in grid]


def _render_unavailable(statuses: Sequence[RunStatus]) -> list[str]:
    """Return the data and weights that missing runs need and this machine lacks, each once."""
    missing = [run for run, status in statuses if status == "missing"]
    faults = {run["data"]: run["error"] for run in missing if {"data", "error"} <= run.keys()}
    lines = [f"  data {name}: {explain_data_fault(name, fault)}" for name, fault in faults.items()]
    weights = {run["weights"]: run["model"] for run in missing if "weights" in run}
    hints = ((name, find_missing_weights(source, name)) for source, name in weights.items())
    lines += [f"  model {name}: {hint}" for name, hint in hints if hint]
    return ["Not at hand:", *lines] if lines else []
