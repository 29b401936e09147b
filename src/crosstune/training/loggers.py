"""Lightning loggers of a run: metrics.jsonl, and one mirror.

metrics.jsonl is the source of truth: one line per logged step, flushed at once. Weights & Biases,
TensorBoard and CSV are mirrors that nothing of ours reads; they get no facts about the machine or
the command line.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger, Logger
from typing_extensions import override

from crosstune.config.schema import Run, Tracker
from crosstune.errors import ConfigError, one_line

# W&B settings that record nothing about the machine, the command line or the code
PRIVATE_SETTINGS: dict[str, Any] = {
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "disable_code": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "host": "anonymous",
    "silent": True,
}
MODES = ("online", "offline")  # of `crosstune report wandb=`
# seconds to wait for a server, at the start and at the end of a run
TIMEOUTS: dict[str, Any] = {"init_timeout": 30.0, "finish_timeout": 60.0}
log = logging.getLogger(__name__)


class MetricsFile(Logger):
    """Appends one JSON object per logged step."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    @property
    @override
    def name(self) -> str:
        return self.path.stem

    @property
    @override
    def version(self) -> str:
        return ""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds the options."""


@contextmanager
def open_loggers(run: Run, run_id: str, folder: Path) -> Iterator[list[Logger]]:
    """Open metrics.jsonl and the chosen mirror; close the mirror at the end.

    A run on several devices has one mirror, that of rank 0.

    Raises:
        ConfigError: the mirror's package is not installed.
    """
    loggers: list[Logger] = [MetricsFile(folder / "metrics.jsonl")]
    tracker = Tracker.none if getattr(rank_zero_only, "rank", 0) else run.logger.tracker
    if tracker is Tracker.csv:
        loggers.append(_open_csv(folder))
    elif tracker is Tracker.tensorboard:
        loggers.append(_open_tensorboard(folder))
    elif tracker is Tracker.wandb:
        loggers.append(_open_wandb(run, run_id, folder))
    try:
        yield loggers
    finally:
        if tracker is Tracker.wandb:
            mirror: Any = loggers[-1]
            mirror.experiment.finish()  # other runs of this process may stay open


def _open_csv(folder: Path) -> Logger:
    """Return a CSV logger, which begins a new file, with what a resumed run has logged before."""
    logger = CSVLogger(folder, name="csv", version="")
    earlier = folder / "metrics.jsonl"
    if earlier.is_file():
        for line in map(json.loads, earlier.read_text("utf-8").splitlines()):
            logger.log_metrics(line, line.pop("step"))
    return logger


def _open_tensorboard(folder: Path) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        from tensorboard.summary.writer import event_file_writer

        # it puts the name of the machine into the name of its file, and has no option for it
        cast(Any, event_file_writer).socket = SimpleNamespace(gethostname=lambda: "localhost")
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "logger=tensorboard needs the package tensorboard: pip install crosstune[tensorboard]."
        ) from error


def _open_wandb(run: Run, run_id: str, folder: Path) -> Logger:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it calls a server even offline
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    config = {
        "run_id": run_id,
        "experiment": run.experiment,
        "data": run.data.name,
        "language": run.data.trained_on,
        "model": run.model.name,
        "method": run.method.name,
        "seed": run.seed,
        "learning_rate": run.optimizer.learning_rate,
        "batch_size": run.data.batch_size,
        "batch_tokens": run.data.batch_tokens,
        "max_tokens": run.data.max_tokens,
        "max_epochs": run.trainer.max_epochs,
        "max_steps": run.trainer.max_steps,
        "precision": run.trainer.precision.name,
    }
    names = (run.data.name, run.data.trained_on, run.model.name, run.method.name, str(run.seed))
    options: dict[str, Any] = {
        "name": "-".join(names),
        "dir": folder,
        "id": run_id,
        "resume": "allow",
        "reinit": "create_new",  # runs that are trained together are open side by side
        "project": run.logger.project,
        "group": run.experiment,
        "config": config,
        "settings": wandb.Settings(**PRIVATE_SETTINGS, **TIMEOUTS),
    }
    try:
        opened = wandb.init(mode=run.logger.mode.name, **options)
    except wandb.Error as error:
        reason = one_line(error)
        log.warning("W&B does not answer (%s): kept offline, for `wandb sync`", reason)
        options["id"] += "-offline"  # in this process the id of the run is in use
        opened = wandb.init(mode="offline", **options)
    return WandbLogger(experiment=opened, log_model=False)


def mirror_table(
    experiment: str, headers: Sequence[str], rows: Sequence[Sequence[str]], folder: Path, mode: str
) -> None:
    """Log a table to W&B as `table` of the run `report-<experiment>`, in the study's group.

    Raises:
        ConfigError: the mode is neither online nor offline.
    """
    if mode not in MODES:
        raise ConfigError(f"wandb={mode}: must be {' or '.join(MODES)}.")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it calls a server even offline
    import wandb  # takes half a second

    with wandb.init(
        name=f"report-{experiment}",
        dir=folder,
        mode=mode,
        project="crosstune",
        group=experiment,
        job_type="report",
        settings=wandb.Settings(**PRIVATE_SETTINGS),
    ) as run:
        run.log({"table": wandb.Table(columns=list(headers), data=[list(row) for row in rows])})
