"""Hydra plugin for `hydra/launcher=pool`; the work is done in `crosstune.sweeps.process_pool`.

Hydra imports it at every command, so it imports nothing heavy.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from typing_extensions import override

from crosstune.config.compose import write_config
from crosstune.config.schema import Run
from crosstune.errors import ConfigError
from crosstune.runs.plan_file import read_plan
from crosstune.sweeps.launcher import OnStart, Runs, Sweep
from crosstune.sweeps.process_pool import (
    Job,
    JobResult,
    ProcessPool,
    divide_resources,
    find_gpus,
    start_forkserver,
)


@dataclass
class PoolConf:
    """Options of the launcher."""

    _target_: str = "hydra_plugins.crosstune_pool.PoolLauncher"
    jobs: int | None = None  # runs side by side; null: one per GPU, or as many as the cores allow


ConfigStore.instance().store(
    group="hydra/launcher", name="pool", node=PoolConf, provider="crosstune"
)


class PoolLauncher(Launcher):
    """Runs the jobs of a sweep in parallel, each in its own process."""

    def __init__(self, jobs: int | None) -> None:
        self.jobs = jobs

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.sweep = Sweep(hydra_context, task_function, config)
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"hydra.launcher.jobs={self.jobs}: must be at least 1.")
        start_forkserver()  # imports while Hydra composes the jobs

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        return self.sweep.launch(job_overrides, initial_job_idx, self.run_jobs)

    def run_jobs(self, runs: Runs, on_start: OnStart) -> dict[int, JobResult]:
        """Train all runs and return their results."""
        if not runs:
            return {}
        with tempfile.TemporaryDirectory(prefix="crosstune-") as folder:
            jobs = {number: _write_job(run, Path(folder), number) for number, run in runs.items()}
            gpus = find_gpus() if any(job.on_gpu for job in jobs.values()) else []
            cores = len(os.sched_getaffinity(0))
            resources = divide_resources(self.jobs, len(jobs), cores, gpus, os.environ)
            from crosstune.sweeps.progress import show_progress  # imports rich

            first = next(iter(runs.values()))
            study = Path(first.outputs) / first.experiment
            with show_progress(study, read_plan(study)) as write_line:
                return ProcessPool(resources, on_start, write_line).run(jobs)


def _write_job(run: Run, folder: Path, number: int) -> Job:
    config = folder / f"{number}.yaml"
    write_config(run, config)
    return Job(config, run.trainer.devices, on_gpu=run.trainer.accelerator != "cpu")
