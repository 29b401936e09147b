"""A study's plan: which runs it holds, and which of them are finished, failed or missing.

A sweep writes its jobs to `outputs/<experiment>/plan.jsonl` before the first one starts; a study
with a file in `conf/experiment` has a plan without that. Hydra expands and launches the sweep.
"""

import fcntl
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

from crosstune.config import COMPOSE_ERRORS, compose_run, compose_whole, explain, find_conf
from crosstune.data.splits import Splits, read_splits
from crosstune.errors import ConfigError, CrosstuneError, suggest
from crosstune.identity import identify, settle
from crosstune.record import read_record
from crosstune.tuning import take_tuned
from crosstune.whole import whole_file

log = logging.getLogger(__name__)
PLAN = "plan.jsonl"


class WritePlan(Callback):
    """Hydra callback: writes down what a sweep is going to do, and tells how far it is."""

    def __init__(self) -> None:
        self.total = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Add the sweep's jobs to the study's plan."""
        if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
            return  # a search decides as it goes
        jobs = expand(config)
        self.total = len(jobs)
        write_plan(Path(config.outputs) / config.hydra.runtime.choices.experiment, plan(jobs))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell which run of the sweep starts."""
        if self.total:
            log.info("run %d of %d", config.hydra.job.num + 1, self.total)
            # Hydra's own note of the sweep names folders of this machine; the plan does not
            Path(config.hydra.sweep.dir, "multirun.yaml").unlink(missing_ok=True)


def expand(config: DictConfig) -> list[list[str]]:
    """Return the overrides of every job of a sweep: the study's grid under the command line."""
    given: Any = OmegaConf.to_container(config.hydra.overrides.task)
    return _expand(config, [str(override) for override in given])


def expand_words(words: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job that `crosstune train -m` with these words would run.

    Raises:
        ConfigError: an override, a file or a value is wrong.
    """
    try:
        return _expand(compose_whole(_split(words)[0]), words)
    except COMPOSE_ERRORS as error:
        raise explain(error) from error


def _expand(config: DictConfig, words: Sequence[str]) -> list[list[str]]:
    grid = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    return _split([*grid, *words])


def _split(words: Sequence[str]) -> list[list[str]]:
    overrides = OverridesParser.create().parse_overrides(list(words))
    return BasicSweeper.split_arguments(overrides, None)[0]


def plan(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return one line a job: its overrides, its names and its run id, or what is wrong with it."""
    lines: list[dict[str, Any]] = []
    seen: dict[str, Splits] = {}
    for overrides in jobs:
        line: dict[str, Any] = {"overrides": list(overrides)}
        try:
            run = settle(compose_run(overrides))
            line |= {
                "data": run.data.name,
                "language": run.data.trained_on,
                "model": run.model.name,
                "method": run.method.name,
                "seed": run.seed,
            }
            data = run.data
            sources = [data.reader, data.train_languages, data.languages]
            sources += [data.train, data.validation, data.test]
            key = json.dumps(sources, sort_keys=True)
            seen[key] = seen.get(key) or read_splits(data, run.allow)
            line["run_id"] = identify(take_tuned(run, seen[key])[0], seen[key])
        except CrosstuneError as error:
            line["error"] = str(error)
        lines.append(line)
    return lines


def write_plan(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Add lines to the study's plan, each job once, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".plan.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two halves of a study may start side by side
        known = {json.dumps(line["overrides"]): line for line in read_plan(folder)}
        known |= {json.dumps(line["overrides"]): line for line in lines}
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in known.values())
        with whole_file(folder / PLAN) as partial:
            partial.write_text(text, "utf-8")


def read_plan(folder: Path) -> list[dict[str, Any]]:
    """Read the study's plan; none was written: no lines."""
    path = folder / PLAN
    return (
        [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        if path.is_file()
        else []
    )


def find_missing(outputs: Path, experiment: str) -> list[dict[str, Any]]:
    """Return the planned runs that left neither a finished nor a failed record."""
    return [line for line, status in survey(outputs, experiment) if status == "missing"]


def survey(outputs: Path, experiment: str) -> list[tuple[dict[str, Any], str]]:
    """Return every run of the study with its status; runs outside the plan are in it too.

    Raises:
        ConfigError: there is no such study, neither run nor in conf/experiment.
    """
    folder = outputs / experiment
    lines = read_plan(folder)
    if not lines and (find_conf() / "experiment" / f"{experiment}.yaml").is_file():
        lines = plan(expand(compose_whole([f"experiment={experiment}"])))
    found = {path.parent.name: read_record(path) for path in sorted(folder.glob("*/record.json"))}
    if not lines and not found:
        studies = {path.parent.name for path in outputs.glob("*/plan.jsonl")}
        studies |= {path.stem for path in (find_conf() / "experiment").glob("*.yaml")}
        raise ConfigError(
            f"experiment={experiment}: no such study. {suggest(experiment, sorted(studies))}"
        )
    result: list[tuple[dict[str, Any], str]] = []
    counted: set[str] = set()
    for line in lines:
        run_id = line.get("run_id", "")
        if run_id in counted:
            continue  # two commands may ask for the same run
        counted |= {run_id} - {""}
        record = found.pop(run_id, None)
        result.append((line, record["status"] if record else "missing"))
    result += [
        ({**record, "language": record.get("train_language")}, record["status"])
        for record in found.values()
    ]
    return result


def render_survey(experiment: str, lines: Sequence[tuple[dict[str, Any], str]]) -> str:
    """Return the study's state in words: the counts, then every run that is not finished."""
    counts = Counter(status for _, status in lines)
    parts = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
    text = [f"{experiment}: {len(lines)} runs, {parts}"]
    for line, status in lines:
        if status != "finished":
            names = [
                str(line.get(key, "?")) for key in ("data", "language", "model", "method", "seed")
            ]
            why = f": {line['error']}" if line.get("error") else ""
            text.append(f"  {status}  {' · '.join(names)}  {line.get('run_id', '')}{why}")
    return "\n".join(text)
