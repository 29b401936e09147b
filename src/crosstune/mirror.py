"""The final table of a study at Weights & Biases: one run of its own beside those of the study.

Only `crosstune report … wandb=online` (or offline) asks for it. The report itself is local and
complete before; nothing of ours reads this copy.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from crosstune.errors import ConfigError
from crosstune.tracking import DISCREET

MODES = ("online", "offline")


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
