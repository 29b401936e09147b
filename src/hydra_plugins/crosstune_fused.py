"""Hydra plugin for `hydra/launcher=fused`; the work is done in `crosstune.sweeps.fused`.

Hydra imports it at every command, so it imports nothing heavy.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from typing_extensions import override

from crosstune.errors import ConfigError
from crosstune.startup import defer_garbage_collection
from crosstune.sweeps.fused.grouping import make_groups
from crosstune.sweeps.launcher import OnStart, Runs, Sweep
from crosstune.sweeps.process_pool import JobResult, print_result

log = logging.getLogger("crosstune.sweeps.fused")


@dataclass
class FusedConf:
    """Options of the launcher."""

    _target_: str = "hydra_plugins.crosstune_fused.FusedLauncher"
    size: int = 8  # at most so many runs are trained together


ConfigStore.instance().store(
    group="hydra/launcher", name="fused", node=FusedConf, provider="crosstune"
)


class FusedLauncher(Launcher):
    """Trains runs that differ only in numbers together, in this process."""

    def __init__(self, size: int) -> None:
        self.size = size

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.sweep = Sweep(hydra_context, task_function, config)
        if self.size < 1:
            raise ConfigError(f"hydra.launcher.size={self.size}: must be at least 1.")

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        return self.sweep.launch(job_overrides, initial_job_idx, self.run_jobs)

    def run_jobs(self, runs: Runs, on_start: OnStart) -> dict[int, JobResult]:
        """Train all runs and return their results."""
        with defer_garbage_collection():
            from crosstune.sweeps.fused.group_trainer import GroupTrainer
            from crosstune.sweeps.job import run_and_catch

        results: dict[int, JobResult] = {}

        def add_result(number: int, result: JobResult) -> None:
            results[number] = result
            print_result(number, result)

        groups = make_groups(runs, self.size)
        for number, reason in groups.alone.items():
            log.info("run %d is trained alone: %s", number + 1, reason)
        for group in groups.together:
            for number in group:
                on_start(number)
            GroupTrainer({number: runs[number] for number in group}, add_result).train()
        for number in groups.alone:
            on_start(number)
            add_result(number, run_and_catch(runs[number]))
        return results
