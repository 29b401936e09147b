"""Resolves the options that depend on how much data there is: batch size and epochs.

Warm-up and a linear decay over a few dozen steps teach a new head nothing: on 300 rows, batches of
32 and three epochs are 30 steps, after which most methods give one label to every text.
"""

import math
from dataclasses import replace

from crosstune.config.schema import Data, Run
from crosstune.data.splits import Splits

BATCH_SIZES = (8, 16, 32)  # the largest that leaves STEPS_PER_EPOCH, else the first
STEPS_PER_EPOCH = 100
MIN_EPOCHS, MIN_STEPS = 3, 200


def resolve_schedule(run: Run, splits: Splits) -> Run:
    """Return the run with `data.batch_size` and `trainer.max_epochs` where they are null."""
    rows = count_training_rows(run.data, splits) // len(run.data.stages)
    devices, accumulated = run.trainer.devices, run.trainer.accumulate_grad_batches
    size, epochs = run.data.batch_size, run.trainer.max_epochs
    if size is None:
        size = choose_batch_size(rows // accumulated)
        size = math.ceil(size / devices) * devices
    if epochs is None:
        steps = max(1, rows // (size * accumulated))
        epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS / steps))
        if run.data.batch_tokens is not None:  # how many rows fit is known once they are encoded
            epochs = MIN_EPOCHS
    data, trainer = replace(run.data, batch_size=size), replace(run.trainer, max_epochs=epochs)
    return replace(run, data=data, trainer=trainer)


def choose_batch_size(rows: int) -> int:
    """Return the default batch size for so many rows between two steps of the optimizer.

    >>> [choose_batch_size(rows) for rows in (10, 300, 1600, 3199, 3200, 10**6)]
    [8, 8, 16, 16, 32, 32]
    """
    return max([BATCH_SIZES[0], *(s for s in BATCH_SIZES if rows >= s * STEPS_PER_EPOCH)])


def count_training_rows(data: Data, splits: Splits) -> int:
    """Return how many rows training takes, as `data.limit` and `data.shots` say."""
    total = 0
    for split in splits["train"].values():
        rows = split.rows[: data.limit]
        if data.shots is not None:
            total += data.shots * len({str(row.get("label")) for row in rows})
        else:
            total += len(rows)
    return total
