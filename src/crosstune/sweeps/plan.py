"""The plan of a study: the overrides, names and run id of every run of a sweep.

Hydra expands the sweep. The plan is written to disk (`plan_file.py`) before the first run starts; a
study with a file in `conf/experiment` can be planned without running it.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from crosstune.config.compose import (
    COMPOSE_ERRORS,
    compose_config,
    compose_run,
    explain_compose_error,
)
from crosstune.config.overrides import parse_override
from crosstune.config.schema import ModelOrigin, Run
from crosstune.data.splits import Splits
from crosstune.data.synthetic.stand_in import read_data
from crosstune.errors import ConfigError, CrosstuneError
from crosstune.models.resolve import resolve_defaults
from crosstune.runs.fingerprint import compute_run_id
from crosstune.runs.plan_file import PlannedRun, is_recipe, write_plan
from crosstune.runs.tuned import apply_tuned
from crosstune.sweeps.availability import force_offline
from crosstune.training.schedule import resolve_schedule

log = logging.getLogger(__name__)


class WritePlan(Callback):
    """Hydra callback that writes the plan of a sweep and logs the progress."""

    def __init__(self) -> None:
        self.total = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Add the sweep's jobs to the study's plan, but for those that will be refused."""
        if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
            return  # a search chooses its jobs while it runs
        jobs = expand_sweep(config)
        self.total = len(jobs)
        runs = plan_runs(jobs)
        accepted = [run for run in runs if "run_id" in run]
        if accepted and not any("refused" in run for run in runs):
            write_plan(Path(config.outputs) / config.hydra.runtime.choices.experiment, accepted)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Log which run of the sweep starts."""
        if self.total:
            log.info("run %d of %d", config.hydra.job.num + 1, self.total)
            # Hydra's own file about the sweep names folders of this machine; the plan does not
            Path(config.hydra.sweep.dir, "multirun.yaml").unlink(missing_ok=True)


def expand_sweep(config: DictConfig, overrides: Sequence[str] = ()) -> list[list[str]]:
    """Return the overrides of every job: the study's grid under those of the command line."""
    grid = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    return _split([*grid, *(overrides or config.hydra.overrides.task)])


def expand_overrides(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job of `crosstune train -m` with these overrides.

    Raises:
        ConfigError: an override, a file or a value is wrong.
    """
    try:
        return expand_sweep(compose_config(_split(overrides)[0]), overrides)
    except COMPOSE_ERRORS as error:
        raise explain_compose_error(error) from error


def _split(overrides: Sequence[str]) -> list[list[str]]:
    parsed = [parse_override(text) for text in overrides]
    return BasicSweeper.split_arguments(parsed, None)[0]


def plan_recipe(experiment: str) -> list[PlannedRun]:
    """Return the plan in a study's file, from what this machine has; nothing is downloaded."""
    if not is_recipe(experiment):
        return []
    with force_offline():
        return plan_runs(expand_sweep(compose_config([f"experiment={experiment}"])))


def plan_runs(jobs: Sequence[Sequence[str]]) -> list[PlannedRun]:
    """Return for each job its overrides, names and run id, or the error in it.

    `refused` marks a job that Hydra cannot compose: it refuses the whole sweep then.
    """
    runs: list[PlannedRun] = []
    cache: dict[str, Splits | CrosstuneError] = {}
    for overrides in jobs:
        planned: PlannedRun = {"overrides": list(overrides)}
        try:
            run = resolve_defaults(compose_run(overrides))
            planned |= {
                "data": run.data.name,
                "language": run.data.trained_on,
                "model": run.model.name,
                "method": run.method.name,
                "seed": run.seed,
            }
            if run.trainer.stand_in:
                planned["stand_in"] = True
            if run.model.origin is ModelOrigin.hub:
                planned["weights"] = f"{run.model.hub_id}@{run.model.revision}"
            splits = _read_splits(run, cache)
            run = resolve_schedule(apply_tuned(run, splits)[0], splits)
            planned["run_id"] = compute_run_id(run, splits)
        except CrosstuneError as error:
            planned["error"] = str(error)
            if isinstance(error, ConfigError) and error.is_composition:
                planned["refused"] = True
        runs.append(planned)
    return runs


def _read_splits(run: Run, cache: dict[str, Splits | CrosstuneError]) -> Splits:
    """Read the data of a run, once for all runs of the study that share it."""
    data = run.data
    sources = [data.reader, data.train_languages, data.languages]
    sources += [data.train, data.validation, data.test, run.trainer.stand_in]
    key = json.dumps([*sources, data.name], sort_keys=True)
    if key not in cache:
        try:
            cache[key] = read_data(run)
        except CrosstuneError as error:
            cache[key] = error
    splits = cache[key]
    if isinstance(splits, CrosstuneError):
        raise splits
    return splits
