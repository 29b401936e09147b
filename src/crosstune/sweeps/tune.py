"""Searches the learning rate of each arm of a study, with the same number of trials for all.

Trials are runs of the study `<experiment>.tuning`; finished ones are skipped. The best value on
validation is saved for `tuned=true`; test data is not read.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crosstune.config.compose import compose_run
from crosstune.config.schema import Run
from crosstune.data.synthetic.stand_in import read_data
from crosstune.errors import ConfigError, CrosstuneError
from crosstune.models.resolve import resolve_defaults
from crosstune.runs.tuned import (
    Choice,
    arm_key,
    choose_best,
    make_trials,
    override_values,
    tuned_file,
    write_choices,
)
from crosstune.training.results import read_headline
from crosstune.training.train import train

log = logging.getLogger(__name__)


def tune(jobs: Sequence[Sequence[str]], trials: int) -> tuple[Path, list[Choice]]:
    """Search for every arm among a study's jobs; return the file of choices and the choices.

    The jobs of an arm differ in the seed only; its trials have the seed of its first job.

    Raises:
        ConfigError: an option is wrong, or no trial of an arm finished.
    """
    if trials < 1:
        raise ConfigError(f"trials={trials}: must be at least 1.")
    first_jobs: dict[tuple[str, ...], Sequence[str]] = {}
    for job in jobs:
        first_jobs.setdefault(tuple(word for word in job if not word.startswith("seed=")), job)
    arms = [resolve_defaults(compose_run(job)) for job in first_jobs.values()]
    choices = []
    for number, run in enumerate(arms, 1):
        log.info("arm %d of %d: %s, %s", number, len(arms), run.method.name, run.data.trained_on)
        choices.append(_search(run, trials))
        write_choices(tuned_file(run), choices)
    return tuned_file(arms[0]), choices


def _search(run: Run, trials: int) -> Choice:
    without_test = replace(
        run,
        experiment=f"{run.experiment}.tuning",
        tuned=False,
        data=replace(run.data, test=None),
    )
    arm = arm_key(run, read_data(without_test))
    results: list[dict[str, Any]] = []
    for values in make_trials(run, trials):
        trial: dict[str, Any] = {"values": values}
        try:
            folder = train(override_values(without_test, values))
            trial |= {"run_id": folder.name, "validation": read_headline(folder)}
        except ConfigError:
            raise
        except CrosstuneError as error:
            log.warning("this trial counts, without a score: %s", error)
        results.append(trial)
    return choose_best(arm, run.seed, results)
