"""Exact checkpoints: a run that is stopped and resumed ends as if it had not been stopped.

One safetensors file, whose header holds plain values as JSON: trainable weights, optimizer,
schedule, callbacks and the position in the loop, between two batches. The order of the data depends
on (seed, epoch) and the random numbers of a step on (seed, stage, epoch, batch, rank), so no state
of a random number generator is stored.
"""

import json
import logging
import time
import warnings
from dataclasses import asdict
from importlib.metadata import version
from os import fsync, truncate
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors import SafetensorError, safe_open
from typing_extensions import override

from crosstune.config.schema import Run
from crosstune.errors import RunError
from crosstune.files import atomic_write
from crosstune.methods import TuningMethod
from crosstune.runs.record import PACKAGES
from crosstune.training.callbacks import (
    BestWeights,
    best_weights_file,
    load_trainable_state,
    trainable_state,
)
from crosstune.training.results import StageResult
from crosstune.training.tensor_file import is_undamaged, save_tensors

FORMAT = 4
CHECKPOINT_FILE, METRICS = "checkpoint.safetensors", "metrics.jsonl"
TENSOR = "tensor in this file"  # key of a tensor's name in the JSON
MAX_TIME_SHARE = 0.05  # of the training time, for the checkpoints between epochs
log = logging.getLogger(__name__)


class LoopPosition(NamedTuple):
    """The batch that comes next."""

    stage: int
    epoch: int  # from 0; of a finished stage, the number of its epochs
    batch: int
    step: int  # optimizer steps so far
    finished: bool  # training and validation of the stage are over; the test is not


def restore_folder(folder: Path) -> bool:
    """Restore a run's folder to its last checkpoint; return whether there is one to resume from.

    A run resumes only with the package versions that wrote the checkpoint.
    """
    state = read_checkpoint(folder / CHECKPOINT_FILE)
    if state is None:
        return False
    if state.get("versions") != writer_versions():
        log.warning(
            "%s: written by other versions, so the run starts anew", folder / CHECKPOINT_FILE
        )
        return False
    metrics, best = folder / METRICS, state["callbacks"]["BestWeights"]["step"]
    best_lost = best >= 0 and not best_weights_file(folder, best).is_file()
    if best_lost or not metrics.is_file() or metrics.stat().st_size < state["metrics_bytes"]:
        log.warning("%s: files of its checkpoint are missing, so the run starts anew", folder)
        return False
    files = [folder / CHECKPOINT_FILE, *([best_weights_file(folder, best)] if best >= 0 else [])]
    if damaged := [file for file in files if not is_undamaged(file)]:
        log.warning("%s was damaged on disk, so the run starts anew", damaged[0])
        return False
    truncate(metrics, state["metrics_bytes"])
    return True


def remove_checkpoint(folder: Path) -> None:
    """Remove the files that only a resumed run needs."""
    for path in (folder / CHECKPOINT_FILE, *folder.glob(best_weights_file(folder, "*").name)):
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read the plain values of a checkpoint; None if it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def writer_versions() -> dict[str, Any]:
    """Return the versions that must not change between a checkpoint and the resumed run."""
    return {"format": FORMAT, **{name: version(name) for name in PACKAGES}}


class ResumeCheckpoint(pl.Callback):
    """Writes checkpoints and resumes from the one that exists at the start.

    Rank 0 writes between epochs if that takes little of the time, and within an epoch every
    `trainer.checkpoint_every_seconds`. It must be the first callback. `stages` are the results of
    the finished stages.
    """

    def __init__(self, folder: Path, run: Run, method: TuningMethod):
        self.folder, self.path, self.method = folder, folder / CHECKPOINT_FILE, method
        self.seed, self.seconds = run.seed, run.trainer.checkpoint_every_seconds
        self.accumulate = run.trainer.accumulate_grad_batches
        self.stages: list[StageResult] = []
        self.last: LoopPosition | None = None  # of the last checkpoint written or loaded
        self.state = read_checkpoint(self.path)  # until it is loaded
        self.written_at, self.write_seconds = time.monotonic(), 0.0
        if self.state is not None:
            self.stages = [StageResult.from_dict(stage) for stage in self.state["stages"]]
            method.restore_shape(self.state["method_shape"])

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.written_at = time.monotonic()
        if self.state is None:
            return
        with safe_open(self.path, "pt") as file:
            state = _unpack(self.state, file)
        self.state, self.last = None, LoopPosition(*state["position"])
        for callback in _callbacks(trainer):
            if callback_state := state["callbacks"].get(type(callback).__name__):
                callback.load_state_dict(callback_state)
        restore_loop(trainer, self.last)
        log.info("goes on from epoch %d, batch %d", self.last.epoch + 1, self.last.batch + 1)
        if self.last.finished:
            trainer.should_stop = True
            return
        load_trainable_state(pl_module, state["weights"])
        _load_optimizer(trainer.optimizers[0], state["optimizer"])
        cast(Any, trainer.lr_scheduler_configs[0].scheduler).load_state_dict(state["schedule"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint if one is due, and seed the step."""
        position = LoopPosition(
            len(self.stages), trainer.current_epoch, batch_idx, trainer.global_step, finished=False
        )
        if trainer.is_global_zero and self._is_due(position):
            self.write(trainer, pl_module, position)
        numbers = [self.seed, position.stage, position.epoch, batch_idx, trainer.global_rank]
        seed_step(numbers, pl_module.device)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint after the training and validation of a stage."""
        position = LoopPosition(
            len(self.stages), trainer.current_epoch, 0, trainer.global_step, finished=True
        )
        if trainer.is_global_zero and position != self.last:
            self.write(trainer, pl_module, position)

    def write(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, position: LoopPosition
    ) -> None:
        """Replace the checkpoint by one of this position; an atomic write."""
        started = time.monotonic()
        callbacks = {type(c).__name__: c for c in _callbacks(trainer) if c.state_dict()}
        state: dict[str, Any] = {
            "versions": writer_versions(),
            "position": position,
            "stages": [asdict(stage) for stage in self.stages],
            "method_shape": self.method.shape(),
            "metrics_bytes": _flush(self.folder / METRICS),
            "callbacks": {name: callback.state_dict() for name, callback in callbacks.items()},
        }
        if not position.finished:  # else only the best weights are needed, which have a file
            schedule: Any = trainer.lr_scheduler_configs[0].scheduler
            state |= {
                "weights": trainable_state(pl_module),
                "optimizer": trainer.optimizers[0].state_dict(),
                "schedule": schedule.state_dict(),
            }
        tensors: dict[str, torch.Tensor] = {}
        plain = json.dumps(_pack(state, "", tensors))
        with atomic_write(self.path) as partial:
            save_tensors(tensors, partial, {"state": plain})
        for best in callbacks.values():
            if isinstance(best, BestWeights):
                best.in_checkpoint = best.path
                best.prune()
        self.last, self.written_at = position, time.monotonic()
        self.write_seconds = self.written_at - started

    def _is_due(self, position: LoopPosition) -> bool:
        if position == self.last or position.batch % self.accumulate:
            return False  # gradients are being accumulated
        if not position.epoch and not position.batch:
            return position.stage > 0  # the stage before has ended
        interval = self.seconds
        if not position.batch:
            interval = min(interval, self.write_seconds / MAX_TIME_SHARE)
        return time.monotonic() - self.written_at >= interval


def seed_step(numbers: list[int], device: torch.device) -> None:
    """Make the random numbers of a training step a function of these numbers alone."""
    (seed,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    torch.default_generator.manual_seed(int(seed))  # `torch.manual_seed` takes 200 times as long
    if device.type == "cuda":
        torch.cuda.manual_seed(int(seed))


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return vars(trainer)["callbacks"]


def _flush(path: Path) -> int:
    """Flush a file to the disk and return its size."""
    with path.open("ab") as file:
        fsync(file.fileno())
        return file.tell()


def restore_loop(trainer: pl.Trainer, position: LoopPosition) -> None:
    """Set Lightning's counters, so that its loop begins with this batch.

    Within an epoch its loops are set to restart. Between two epochs they are not: the counters are
    those of an epoch that ended, and a restarting loop would skip the next one.
    """
    fit: Any = trainer.fit_loop
    epoch_loop = fit.epoch_loop
    started, done = position.epoch + (position.batch > 0), position.epoch
    epochs = {"ready": started, "started": started, "processed": done, "completed": done}
    fit.epoch_progress.load_state_dict({"total": epochs, "current": epochs})
    names = ("ready", "started", "processed", "completed")
    total = dict.fromkeys(names, position.epoch * trainer.num_training_batches + position.batch)
    current = dict.fromkeys(names, position.batch)
    epoch_loop.batch_progress.load_state_dict(
        {"total": total, "current": current, "is_last_batch": False}
    )
    steps = epoch_loop.automatic_optimization.optim_progress.optimizer.step
    steps.total.ready = steps.total.completed = position.step
    epoch_loop.on_load_checkpoint({"_batches_that_stepped": position.step})
    if trainer.global_step != position.step or trainer.current_epoch != position.epoch:
        raise RunError("this version of Lightning cannot resume from a given batch")
    if position.batch:
        # Lightning does not know that our sampler can start at a batch
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        fit.restarting = True
        cast(Any, trainer.train_dataloader).sampler.start = position.batch


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's state and the numbers of its groups; the JSON keys are strings."""
    fresh = optimizer.state_dict()["param_groups"]
    groups = [
        {**new, **{k: v for k, v in old.items() if isinstance(v, int | float)}}
        for new, old in zip(fresh, saved["param_groups"], strict=True)
    ]
    state = {int(number): values for number, values in saved["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value as JSON, and collect its tensors."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().contiguous()
        return {TENSOR: name}
    if isinstance(value, dict):
        return {str(key): _pack(part, f"{name}/{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(part, f"{name}/{key}", tensors) for key, part in enumerate(value)]
    return value


def _unpack(value: Any, file: Any) -> Any:
    """Reverse `_pack`."""
    if isinstance(value, dict):
        if TENSOR in value:
            return file.get_tensor(value[TENSOR])
        return {key: _unpack(part, file) for key, part in value.items()}
    return [_unpack(part, file) for part in value] if isinstance(value, list) else value
