"""The part that our Hydra launchers share: Hydra's jobs become runs, and results Hydra's returns.

Imports nothing heavy: Hydra's scan for plugins imports this file at every command.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from crosstune.config.compose import to_run
from crosstune.config.schema import Run
from crosstune.errors import ConfigError, RunError
from crosstune.sweeps.process_pool import JobResult, print_result

Runs = Mapping[int, Run]
OnStart = Callable[[int], None]  # called with the number of a run that starts


class Sweep(NamedTuple):
    """A sweep as Hydra hands it to a launcher."""

    context: HydraContext
    task: TaskFunction
    config: DictConfig

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        first: int,
        execute: Callable[[Runs, OnStart], Mapping[int, JobResult]],
    ) -> list[JobReturn]:
        """Execute the jobs, numbered from `first`, and return their scores.

        Raises:
            RunError: jobs failed, and the sweeper does not look at each result (BasicSweeper).
        """
        setup_globals()
        configs = {
            number: self._compose(overrides, number)
            for number, overrides in enumerate(job_overrides, first)
        }
        runs, results = _read_runs(configs)
        on_job_start = self.context.callbacks.on_job_start
        results |= execute(runs, lambda n: on_job_start(config=configs[n], task_function=self.task))
        # a run that another process holds has an error, but exit code 0: it did not fail
        failed = [result for result in results.values() if result.exit_code]
        if failed and str(self.config.hydra.sweeper._target_).endswith("BasicSweeper"):
            raise RunError(f"{len(failed)} of {len(results)} runs failed.")
        return [_to_job_return(config, results[number]) for number, config in configs.items()]

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config


def _read_runs(configs: Mapping[int, DictConfig]) -> tuple[dict[int, Run], dict[int, JobResult]]:
    """Return the valid runs, and a failed result for each invalid configuration."""
    hydra: Any = HydraConfig.instance()
    runs: dict[int, Run] = {}
    invalid: dict[int, JobResult] = {}
    for number, config in configs.items():
        before, hydra.cfg = hydra.cfg, config  # `${hydra:…}` reads this one
        try:
            runs[number] = to_run(config, config.hydra.overrides.task)
        except ConfigError as error:
            invalid[number] = JobResult(error=str(error), exit_code=error.exit_code)
            print_result(number, invalid[number])
        finally:
            hydra.cfg = before
    return runs, invalid


def _to_job_return(config: DictConfig, result: JobResult) -> JobReturn:
    job = JobReturn(overrides=list(config.hydra.overrides.task))
    failed = bool(result.exit_code)
    job.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    job.return_value = RunError(result.error) if failed else result.headline
    return job
