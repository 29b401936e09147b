"""`crosstune train`: one run, or a sweep of runs, composed by Hydra."""

import os
import sys
from contextlib import nullcontext

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from crosstune.cli.arguments import split_flags
from crosstune.config.compose import (
    COMPOSE_ERRORS,
    explain_compose_error,
    register_schema,
    to_run,
)
from crosstune.config.overrides import prepare_overrides
from crosstune.config.paths import find_conf
from crosstune.errors import CrosstuneError
from crosstune.logs import log_to_terminal
from crosstune.printable import clean_message
from crosstune.startup import defer_garbage_collection


def train(arguments: list[str]) -> int:
    """Train one run, or a sweep of runs, and print the folder of each."""
    _set_up_process()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    is_sweep = not {"-m", "--multirun"}.isdisjoint(arguments)
    runner = JobRunner(is_sweep)
    flags, overrides = split_flags(arguments)
    sys.argv = ["crosstune train", *flags, *prepare_overrides(overrides)]
    run_hydra = hydra.main(config_path=str(find_conf()), config_name="train", version_base="1.3")
    try:
        run_hydra(runner.run)()
    except COMPOSE_ERRORS as error:
        raise explain_compose_error(error) from error
    if runner.errors and not is_sweep:
        raise runner.errors[0]
    failed = [error.exit_code for error in runner.errors if error.exit_code]
    if failed:  # exit code 0: another process trains the run
        print(f"crosstune train: {len(failed)} of {runner.count} runs failed.", file=sys.stderr)
    return min(failed, default=0)


class JobRunner:
    """Runs Hydra's jobs, in this process or in one that a launcher started."""

    def __init__(self, is_sweep: bool):
        self.is_sweep = is_sweep
        self.count = 0
        self.errors: list[CrosstuneError] = []

    def run(self, config: DictConfig) -> float | None:
        """Train a run, print its folder and return its headline score, or None if it failed."""
        _set_up_process()
        self.count += 1
        try:
            run = to_run(config, HydraConfig.get().overrides.task)
            with defer_garbage_collection() if self.count == 1 else nullcontext():
                # imports torch, which neither a refused configuration nor `--cfg job` needs
                from crosstune.training.results import read_headline
                from crosstune.training.train import train as train_run
            folder = train_run(run)
            headline = read_headline(folder)
        except CrosstuneError as error:
            self._handle(error, HydraConfig.get())
            return None
        print(folder, flush=True)
        return headline

    def _handle(self, error: CrosstuneError, chosen: HydraConf) -> None:
        """Keep an error until the sweep ends; raise it where another plugin has to handle it."""
        launcher, sweeper = str(chosen.launcher._target_), str(chosen.sweeper._target_)
        is_basic = launcher.endswith("BasicLauncher") and sweeper.endswith("BasicSweeper")
        if self.is_sweep and not is_basic:
            picklable = CrosstuneError(str(error))  # subclasses may take other arguments
            picklable.exit_code = error.exit_code
            raise picklable from error
        self.errors.append(error)
        if self.is_sweep:
            print(f"crosstune train: {clean_message(error)}", file=sys.stderr)


def _set_up_process() -> None:
    register_schema()
    log_to_terminal()
