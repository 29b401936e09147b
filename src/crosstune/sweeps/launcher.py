"""What our launchers have in common: Hydra's jobs as runs, and their answers as Hydra wants them.

Called by the plugins in `src/hydra_plugins`; imports nothing heavy, because Hydra imports those at
every command.
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
from crosstune.sweeps.process_pool import JobResult, show_error

Runs = Mapping[int, Run]
OnStart = Callable[[int], None]  # hears the number of a run that starts


class Sweep(NamedTuple):
    """A sweep as Hydra hands it to a launcher."""

    context: HydraContext
    task: TaskFunction
    config: DictConfig

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        first: int,
        do: Callable[[Runs, OnStart], Mapping[int, JobResult]],
    ) -> list[JobReturn]:
        """Let `do` do the jobs, numbered from `first`, and return their scores.

        Raises:
            RunError: jobs failed, in a sweep that does not ask how each one ended.
        """
        setup_globals()
        configs = {
            number: self._compose(overrides, number)
            for number, overrides in enumerate(job_overrides, first)
        }
        runs, answers = _read(configs)
        answers |= do(runs, lambda number: self._tell(configs[number]))
        # what another process is at work on is told, and is no failure
        failed = [answer for answer in answers.values() if answer.exit_code]
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


def _read(configs: Mapping[int, DictConfig]) -> tuple[dict[int, Run], dict[int, JobResult]]:
    """Return the runs, and an answer for each that is refused."""
    hydra: Any = HydraConfig.instance()
    runs: dict[int, Run] = {}
    refused: dict[int, JobResult] = {}
    for number, config in configs.items():
        before, hydra.cfg = hydra.cfg, config  # `${hydra:…}` reads this one
        try:
            runs[number] = to_run(config, config.hydra.overrides.task)
        except ConfigError as error:
            refused[number] = JobResult(error=str(error), exit_code=error.exit_code)
            show_error(number, str(error))
        finally:
            hydra.cfg = before
    return runs, refused


def _returned(config: DictConfig, answer: JobResult) -> JobReturn:
    done = JobReturn(overrides=list(config.hydra.overrides.task))
    failed = bool(answer.exit_code)
    done.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    done.return_value = RunError(answer.error) if failed else answer.headline
    return done
