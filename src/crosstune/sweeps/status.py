"""A study's plan: which runs it holds, and which of them are finished, failed or missing.

A sweep writes its jobs down (`plans.py`) before the first one starts; a study with a file in
`conf/experiment` has a plan without that. Hydra expands and launches the sweep.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from crosstune.config.compose import (
    COMPOSE_ERRORS,
    compose_config,
    compose_run,
    explain_compose_error,
)
from crosstune.config.schema import ModelOrigin, Run
from crosstune.data.splits import Splits
from crosstune.data.synthetic.stand_in import read_data
from crosstune.errors import CrosstuneError
from crosstune.runs.fingerprint import compute_run_id, find_stale_reasons, resolve_defaults
from crosstune.runs.locks import is_locked
from crosstune.runs.record import read_record
from crosstune.runs.tuned import apply_tuned
from crosstune.sweeps.availability import describe_data, find_missing_weights, force_offline
from crosstune.sweeps.plan_file import is_recipe, read_plan, unknown_study, write_plan

log = logging.getLogger(__name__)


class WritePlan(Callback):
    """Hydra callback: writes down what a sweep is going to do, and tells how far it is."""

    def __init__(self) -> None:
        self.total = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Add the sweep's jobs to the study's plan."""
        if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
            return  # a search decides as it goes
        jobs = expand_sweep(config)
        self.total = len(jobs)
        write_plan(Path(config.outputs) / config.hydra.runtime.choices.experiment, plan_runs(jobs))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell which run of the sweep starts."""
        if self.total:
            log.info("run %d of %d", config.hydra.job.num + 1, self.total)
            # Hydra's own note of the sweep names folders of this machine; the plan does not
            Path(config.hydra.sweep.dir, "multirun.yaml").unlink(missing_ok=True)


def expand_sweep(config: DictConfig) -> list[list[str]]:
    """Return the overrides of every job of a sweep: the study's grid under the command line."""
    given: Any = OmegaConf.to_container(config.hydra.overrides.task)
    return _expand(config, [str(override) for override in given])


def expand_overrides(words: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job that `crosstune train -m` with these words would run.

    Raises:
        ConfigError: an override, a file or a value is wrong.
    """
    try:
        return _expand(compose_config(_split(words)[0]), words)
    except COMPOSE_ERRORS as error:
        raise explain_compose_error(error) from error


def _expand(config: DictConfig, words: Sequence[str]) -> list[list[str]]:
    grid = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    return _split([*grid, *words])


def _split(words: Sequence[str]) -> list[list[str]]:
    overrides = OverridesParser.create().parse_overrides(list(words))
    return BasicSweeper.split_arguments(overrides, None)[0]


def plan_runs(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return one line a job: its overrides, its names and its run id, or what is wrong with it."""
    lines: list[dict[str, Any]] = []
    seen: dict[str, Splits | CrosstuneError] = {}
    for overrides in jobs:
        line: dict[str, Any] = {"overrides": list(overrides)}
        try:
            run = resolve_defaults(compose_run(overrides))
            line |= {
                "data": run.data.name,
                "language": run.data.trained_on,
                "model": run.model.name,
                "method": run.method.name,
                "seed": run.seed,
            }
            if run.trainer.stand_in:
                line["stand_in"] = True
            if run.model.origin is ModelOrigin.hub:
                line["weights"] = f"{run.model.hub_id}@{run.model.revision}"
            splits = _read_once(run, seen)
            line["run_id"] = compute_run_id(apply_tuned(run, splits)[0], splits)
        except CrosstuneError as error:
            line["error"] = str(error)
        lines.append(line)
    return lines


def _read_once(run: Run, seen: dict[str, Splits | CrosstuneError]) -> Splits:
    """Return the splits of a run, of which others of the study may have read the same."""
    data = run.data
    sources = [data.reader, data.train_languages, data.languages]
    sources += [data.train, data.validation, data.test, run.trainer.stand_in]
    key = json.dumps([*sources, data.name], sort_keys=True)
    if key not in seen:
        try:
            seen[key] = read_data(run)
        except CrosstuneError as error:
            seen[key] = error
    found = seen[key]
    if isinstance(found, CrosstuneError):
        raise found
    return found


def study_status(outputs: Path, experiment: str) -> list[tuple[dict[str, Any], str]]:
    """Return every run of the study with its status; runs outside the plan are in it too.

    A record is stale where the plan has its run under another id: settings, data or code changed.

    Raises:
        ConfigError: there is no such study, neither run nor in conf/experiment.
    """
    lines = read_plan(outputs / experiment)
    if all(line.get("stand_in") for line in lines):  # a rehearsal is not the study
        lines += plan_of_recipe(experiment)
    return _hold(lines, outputs, experiment)


def _hold(
    lines: Sequence[dict[str, Any]], outputs: Path, experiment: str
) -> list[tuple[dict[str, Any], str]]:
    """Return the planned runs with the status of their records, then what was not planned."""
    folder = outputs / experiment
    found = {path.parent.name: read_record(path) for path in sorted(folder.glob("*/record.json"))}
    if not lines and not found:
        raise unknown_study(outputs, experiment)
    result: list[tuple[dict[str, Any], str]] = []
    counted: set[str] = set()
    for line in lines:
        run_id = line.get("run_id", "")
        if run_id in counted:
            continue  # two commands may ask for the same run
        counted |= {run_id} - {""}
        result.append(_state(line, folder / run_id if run_id else None, found.pop(run_id, None)))
    planned = {_names(line) for line in lines if "run_id" in line}
    for record in found.values():
        line = {**record, "language": record.get("train_language")}
        result.append((line, "stale" if _names(line) in planned else record["status"]))
    return result


def _state(
    line: dict[str, Any], folder: Path | None, record: dict[str, Any] | None
) -> tuple[dict[str, Any], str]:
    """Return a planned run and how it stands; of a stale one the line says what has changed."""
    if folder and is_locked(folder):
        return line, "running"
    if record is None:
        return line, "missing"
    if record["status"] == "finished" and (changes := find_stale_reasons(record)):
        return {**line, "error": "; ".join(changes)}, "stale"
    return line, record["status"]


def plan_of_recipe(experiment: str) -> list[dict[str, Any]]:
    """Return the plan that a study's file holds, of what this machine has; nothing is fetched."""
    if not is_recipe(experiment):
        return []
    with force_offline():
        return plan_runs(expand_sweep(compose_config([f"experiment={experiment}"])))


def _names(line: dict[str, Any]) -> tuple[str, ...]:
    """Return what a run is called by, in the order of a line of the survey."""
    return tuple(str(line.get(key, "?")) for key in ("data", "language", "model", "method", "seed"))


def render_status(experiment: str, lines: Sequence[tuple[dict[str, Any], str]]) -> str:
    """Return the study's state in words.

    The counts; how many runs of each row and column of a table are finished; what is not finished,
    the seeds of an arm in one line; and what this machine lacks for it.
    """
    counts = Counter(_status(line, status) for line, status in lines)
    parts = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
    text = [f"{experiment}: {len(lines)} runs, {parts}", *_render_cells(lines)]
    arms: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line, status in lines:
        if status != "finished":
            names = _names(line)
            why = line.get("error", "")
            key = (status, *names[:-1], why if names == ("?",) * len(names) else "")
            arms.setdefault(key, []).append(line)
    for (status, *names, why), found in arms.items():
        seeds = ",".join(dict.fromkeys(str(line.get("seed", "?")) for line in found))
        run_id = found[0].get("run_id", "") if len(found) == 1 else ""
        told = f": {why}" if why else ""
        text.append(f"  {status}  {' · '.join([*names, seeds])}  {run_id}{told}")
    return "\n".join([*text, *_render_lacking(lines)])


def _status(line: dict[str, Any], status: str) -> str:
    """Return the status to count: what is finished on stand-in data is none of the study's."""
    stands_in = line.get("stand_in") or _stood_in(line)
    return "rehearsed" if stands_in and status == "finished" else status


def _stood_in(record: dict[str, Any]) -> bool:
    return bool(record.get("config", {}).get("trainer", {}).get("stand_in"))


def _render_cells(lines: Sequence[tuple[dict[str, Any], str]]) -> list[str]:
    """Return finished/planned by model and method, and by data and language; one cell: nothing."""
    cells: dict[tuple[str, str], Counter[bool]] = {}
    for line, status in lines:
        if "data" in line and status != "stale" and not (line.get("stand_in") or _stood_in(line)):
            data, language, model, method, _ = _names(line)
            place = f"{model} · {method}", f"{data} {language}"
            cells.setdefault(place, Counter())[status == "finished"] += 1
    if len(cells) < 2:
        return []
    rows, columns = (dict.fromkeys(names) for names in zip(*cells, strict=True))
    grid = [["finished/planned", *columns]]
    for row in rows:
        counts = [cells.get((row, column), Counter()) for column in columns]
        grid.append([row, *(f"{c[True]}/{c.total()}" if c else "–" for c in counts)])
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in grid]


def _render_lacking(lines: Sequence[tuple[dict[str, Any], str]]) -> list[str]:
    """Return what the missing runs need and this machine lacks, each once, with what to do."""
    missing = [line for line, status in lines if status == "missing"]
    faults = {line["data"]: line["error"] for line in missing if {"data", "error"} <= line.keys()}
    told = [f"  data {name}: {describe_data(name, error)}" for name, error in faults.items()]
    weights = {line["weights"]: line["model"] for line in missing if "weights" in line}
    lacking = ((name, find_missing_weights(where, name)) for where, name in weights.items())
    told += [f"  model {name}: {fault}" for name, fault in lacking if fault]
    return ["Not at hand:", *told] if told else []
