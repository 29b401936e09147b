"""`hydra/launcher=pool`: Hydra's face of `crosstune.pool`, found by Hydra's scan for plugins.

Imports nothing heavy, because the scan imports it at every command.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from crosstune.config import typed, write_run
from crosstune.errors import ConfigError, RunError
from crosstune.pool import Answer, Job, Pool, find_gpus, share_out, show_error
from crosstune.schema import Run


@dataclass
class PoolConf:
    """Options of the launcher."""

    _target_: str = "hydra_plugins.crosstune_pool.PoolLauncher"
    jobs: int | None = None  # runs side by side; null: one a GPU, or as many as the cores bear


ConfigStore.instance().store(
    group="hydra/launcher", name="pool", node=PoolConf, provider="crosstune"
)


class PoolLauncher(Launcher):
    """Runs the jobs of a sweep side by side, each in a process of its own."""

    def __init__(self, jobs: int | None) -> None:
        self.jobs = jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what the sweep is about."""
        self.context = hydra_context
        self.task = task_function
        self.config = config
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"hydra.launcher.jobs={self.jobs}: must be at least 1.")

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do the jobs and return their scores.

        Raises:
            RunError: jobs failed, in a sweep that does not ask how each one ended.
        """
        setup_globals()
        configs = {
            number: self._compose(overrides, number)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        }
        runs, answers = _read(configs)
        with tempfile.TemporaryDirectory(prefix="crosstune-") as folder:
            jobs = {number: _freeze(run, Path(folder), number) for number, run in runs.items()}
            gpus = find_gpus() if any(job.on_gpu for job in jobs.values()) else []
            cores = len(os.sched_getaffinity(0))
            share = share_out(self.jobs, len(jobs), cores, gpus, os.environ)
            answers |= Pool(share, lambda number: self._tell(configs[number])).run(jobs)
        failed = [answer for answer in answers.values() if answer.error]
        if failed and str(self.config.hydra.sweeper._target_).endswith("BasicSweeper"):
            raise RunError(f"{len(failed)} of {len(answers)} runs failed.")
        return [_returned(config, answers[number]) for number, config in configs.items()]

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _tell(self, config: DictConfig) -> None:
        self.context.callbacks.on_job_start(config=config, task_function=self.task)


def _read(configs: Mapping[int, DictConfig]) -> tuple[dict[int, Run], dict[int, Answer]]:
    """Return the runs, and an answer for each that is refused."""
    hydra: Any = HydraConfig.instance()
    runs: dict[int, Run] = {}
    refused: dict[int, Answer] = {}
    for number, config in configs.items():
        before, hydra.cfg = hydra.cfg, config  # `${hydra:…}` reads this one
        try:
            runs[number] = typed(config, config.hydra.overrides.task)
        except ConfigError as error:
            refused[number] = Answer(error=str(error), exit_code=error.exit_code)
            show_error(number, str(error))
        finally:
            hydra.cfg = before
    return runs, refused


def _freeze(run: Run, folder: Path, number: int) -> Job:
    config = folder / f"{number}.yaml"
    write_run(run, config)
    return Job(config, run.trainer.devices, on_gpu=run.trainer.accelerator != "cpu")


def _returned(config: DictConfig, answer: Answer) -> JobReturn:
    done = JobReturn(overrides=list(config.hydra.overrides.task))
    done.status = JobStatus.FAILED if answer.error else JobStatus.COMPLETED
    done.return_value = RunError(answer.error) if answer.error else answer.headline
    return done
