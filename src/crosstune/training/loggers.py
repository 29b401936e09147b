"""Where the numbers of a run go while it runs: metrics.jsonl first, then its mirrors.

metrics.jsonl is the truth: one line a logged step, flushed as it is written. Weights & Biases,
TensorBoard and CSV copy it; nothing of ours reads them back, and nothing that tells of the machine
or the command line is sent to them.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger, Logger

from crosstune.config.schema import Run, Tracker
from crosstune.errors import ConfigError

# settings under which nothing of the machine, the command line or the code is recorded
DISCREET: dict[str, Any] = {
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
# seconds to wait for a server that may never answer, at the start and at the end of a run
PATIENCE: dict[str, Any] = {"init_timeout": 30.0, "finish_timeout": 60.0}
log = logging.getLogger(__name__)


class MetricsFile(Logger):
    """Lightning logger that appends one JSON object a logged step."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.path.stem

    @property
    def version(self) -> str:
        """Nothing is versioned: a run has one file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one line and flush it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write nothing: config.yaml holds the options."""


@contextmanager
def open_loggers(run: Run, run_id: str, folder: Path) -> Iterator[list[Logger]]:
    """Give metrics.jsonl and the chosen mirror, and close the mirror behind the run.

    Raises:
        ConfigError: the mirror's package is not installed.
    """
    loggers: list[Logger] = [MetricsFile(folder / "metrics.jsonl")]
    tracker = run.logger.tracker
    if tracker is Tracker.csv:
        loggers.append(_csv(folder))
    elif tracker is Tracker.tensorboard:
        loggers.append(_tensorboard(folder))
    elif tracker is Tracker.wandb:
        loggers.append(_wandb(run, run_id, folder))
    try:
        yield loggers
    finally:
        if tracker is Tracker.wandb:
            mirror: Any = loggers[-1]
            mirror.experiment.finish()  # others of this process may stay open


def _csv(folder: Path) -> Logger:
    """Return a logger that has what a run that goes on has logged before: it begins a new file."""
    logger = CSVLogger(folder, name="csv", version="")
    earlier = folder / "metrics.jsonl"
    if earlier.is_file() and os.environ.get("LOCAL_RANK", "0") == "0":
        for line in map(json.loads, earlier.read_text("utf-8").splitlines()):
            logger.log_metrics(line, line.pop("step"))
    return logger


def _tensorboard(folder: Path) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "logger=tensorboard needs the package tensorboard: pip install crosstune[tensorboard]."
        ) from error


def _wandb(run: Run, run_id: str, folder: Path) -> Logger:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it asks a server even offline
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    facts = {
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
        "config": facts,
        "settings": wandb.Settings(**DISCREET, **PATIENCE),
    }
    try:
        opened = wandb.init(mode=run.logger.mode.name, **options)
    except wandb.Error as error:
        log.warning("W&B does not answer (%s): kept offline, for `wandb sync`", _line(error))
        options["id"] += "-offline"  # the run's own id counts as taken in this process
        opened = wandb.init(mode="offline", **options)
    return WandbLogger(experiment=opened, log_model=False)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def mirror_table(
    experiment: str, headers: Sequence[str], rows: Sequence[Sequence[str]], folder: Path, mode: str
) -> None:
    """Log a table as `table` of the run `report-<experiment>`, in the study's group.

    Raises:
        ConfigError: the mode is none.
    """
    if mode not in MODES:
        raise ConfigError(f"wandb={mode}: must be {' or '.join(MODES)}.")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it asks a server even offline
    import wandb  # takes half a second, and only this mirror needs it

    with wandb.init(
        name=f"report-{experiment}",
        dir=folder,
        mode=mode,
        project="crosstune",
        group=experiment,
        job_type="report",
        settings=wandb.Settings(**DISCREET),
    ) as run:
        run.log({"table": wandb.Table(columns=list(headers), data=[list(row) for row in rows])})
