"""`hydra/launcher=fused`, found by Hydra's scan for plugins; `crosstune.sweeps.fused` does it.

Imports nothing heavy, because the scan imports it at every command.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from crosstune.errors import ConfigError
from crosstune.startup import defer_garbage_collection
from crosstune.sweeps.fused.grouping import make_groups
from crosstune.sweeps.launcher import OnStart, Runs, Sweep
from crosstune.sweeps.process_pool import JobResult, show_error

log = logging.getLogger("crosstune.sweeps.fused")


@dataclass
class FusedConf:
    """Options of the launcher."""

    _target_: str = "hydra_plugins.crosstune_fused.FusedLauncher"
    size: int = 8  # runs that are trained together, at most


ConfigStore.instance().store(
    group="hydra/launcher", name="fused", node=FusedConf, provider="crosstune"
)


class FusedLauncher(Launcher):
    """Trains runs together that differ in numbers alone, in this process."""

    def __init__(self, size: int) -> None:
        self.size = size

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what the sweep is about."""
        self.sweep = Sweep(hydra_context, task_function, config)
        if self.size < 1:
            raise ConfigError(f"hydra.launcher.size={self.size}: must be at least 1.")

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do the jobs and return their scores."""
        return self.sweep.launch(job_overrides, initial_job_idx, self.do)

    def do(self, runs: Runs, tell: OnStart) -> dict[int, JobResult]:
        """Return the answer of every run."""
        # heavy, and Hydra's scan for plugins imports this file at every command
        with defer_garbage_collection():
            from crosstune.sweeps.fused.group_trainer import GroupTrainer
            from crosstune.sweeps.job import run_isolated

        answers: dict[int, JobResult] = {}

        def keep(number: int, said: dict[str, Any]) -> None:
            answers[number] = JobResult(**said)
            if answers[number].error:
                show_error(number, answers[number].error)
            else:
                print(answers[number].folder, flush=True)

        groups = make_groups(runs, self.size)
        for number, reason in groups.alone.items():
            log.info("run %d is trained alone: %s", number + 1, reason)
        for group in groups.together:
            for number in group:
                tell(number)
            GroupTrainer({number: runs[number] for number in group}, keep).train()
        for number in groups.alone:
            tell(number)
            keep(number, run_isolated(runs[number]))
        return answers
