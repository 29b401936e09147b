"""Where a run stands, written so that it can go on from there as if it had never stopped.

One safetensors file, in whose header the plain values stand as JSON: the trainable weights, the
optimizer and its schedule, what the callbacks know, and the place in the loop. It is written
between two batches, before anything of the second has happened. The order of the data is a function
of (seed, epoch), and what is random in a step, like dropout, one of (seed, stage, epoch, batch), so
that no state of a random number generator has to be kept. Called by `run.py`.
"""

import json
import logging
import time
import warnings
from importlib.metadata import version
from os import fsync, truncate
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from crosstune.config.schema import Run
from crosstune.errors import RunError
from crosstune.files import atomic_write
from crosstune.methods import resize
from crosstune.runs.record import PACKAGES
from crosstune.training.callbacks import (
    BestWeights,
    best_weights_file,
    load_trainable_state,
    trainable_state,
)

FORMAT = 2
FILE, METRICS = "checkpoint.safetensors", "metrics.jsonl"
TENSOR = "tensor in this file"  # key under which the name of a tensor stands in the JSON
COST_SHARE = 0.05  # of the time, that the checkpoints between epochs may take
log = logging.getLogger(__name__)


class LoopPosition(NamedTuple):
    """What comes next: a batch of an epoch, of one of the stages of training."""

    stage: int
    epoch: int  # counted from 0; if it is over, how many there were
    batch: int
    step: int  # of the optimizer, already made
    over: bool  # training and validation of the stage are done: its best weights are to be tested


def restore_folder(folder: Path) -> bool:
    """Bring a run's folder back to its last checkpoint; return whether there is one to go on from.

    A checkpoint serves only the versions of the packages that wrote it.
    """
    state = read_checkpoint(folder / FILE)
    if state is None:
        return False
    if state["made_by"] != writer_versions():
        log.warning("%s: written by other versions, so the run starts anew", folder / FILE)
        return False
    metrics, best = folder / METRICS, state["callbacks"]["BestWeights"]["step"]
    lost = best >= 0 and not best_weights_file(folder, best).is_file()
    if lost or not metrics.is_file() or metrics.stat().st_size < state["metrics_bytes"]:
        log.warning("%s: what belongs to it is lost, so the run starts anew", folder)
        return False
    truncate(metrics, state["metrics_bytes"])
    return True


def remove_checkpoint(folder: Path) -> None:
    """Remove what only a run that goes on needs."""
    for path in (folder / FILE, *folder.glob(best_weights_file(folder, "*").name)):
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read the plain values of a checkpoint; there is none, or it is damaged: None."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def writer_versions() -> dict[str, Any]:
    """Return what must not change between a checkpoint and the run that goes on from it."""
    return {"format": FORMAT, **{name: version(name) for name in PACKAGES}}


class ResumeCheckpoint(pl.Callback):
    """Writes where the run stands, now and then; begins where the last process left it.

    Between epochs as often as it costs little, within one every so many seconds; on rank 0. It
    must come first among the callbacks. `stages` are the results of the stages that are over.
    """

    def __init__(self, folder: Path, run: Run, model: torch.nn.Module):
        self.folder, self.path = folder, folder / FILE
        self.seed, self.seconds = run.seed, run.trainer.checkpoint_every_seconds
        self.every = run.trainer.accumulate_grad_batches
        self.stages: list[dict[str, Any]] = []
        self.last: LoopPosition | None = None  # written or gone on from
        self.state = read_checkpoint(self.path)  # to go on from, until that is done
        self.since, self.cost = time.monotonic(), 0.0
        if self.state is not None:
            self.stages = self.state["stages"]
            if ranks := self.state["callbacks"].get("AllocateRanks", {}).get("ranks"):
                resize(model, ranks)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on from the checkpoint that was there at the start, if it is of this stage."""
        self.since = time.monotonic()
        if self.state is None:
            return
        with safe_open(self.path, "pt") as file:
            state = _unpack(self.state, file)
        self.state, self.last = None, LoopPosition(*state["place"])
        for callback in _callbacks(trainer):
            if found := state["callbacks"].get(type(callback).__name__):
                callback.load_state_dict(found)
        _move_to(trainer, self.last)
        log.info("goes on from epoch %d, batch %d", self.last.epoch + 1, self.last.batch + 1)
        if self.last.over:
            trainer.should_stop = True
            return
        load_trainable_state(pl_module, state["weights"])
        _load_optimizer(trainer.optimizers[0], state["optimizer"])
        cast(Any, trainer.lr_scheduler_configs[0].scheduler).load_state_dict(state["schedule"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint if it is time, and seed what is random in the step."""
        place = LoopPosition(
            len(self.stages), trainer.current_epoch, batch_idx, trainer.global_step, over=False
        )
        if trainer.is_global_zero and self._is_due(place):
            self.write(trainer, pl_module, place)
        numbers = [self.seed, place.stage, place.epoch, batch_idx, trainer.global_rank]
        seed_step(numbers, pl_module.device)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write that the training and the validation of the stage are over."""
        place = LoopPosition(
            len(self.stages), trainer.current_epoch, 0, trainer.global_step, over=True
        )
        if trainer.is_global_zero and place != self.last:
            self.write(trainer, pl_module, place)

    def write(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, place: LoopPosition
    ) -> None:
        """Write the checkpoint of a place, whole or not at all, over the one before."""
        began = time.monotonic()
        callbacks = {type(c).__name__: c for c in _callbacks(trainer) if c.state_dict()}
        state: dict[str, Any] = {
            "made_by": writer_versions(),
            "place": place,
            "stages": self.stages,
            "metrics_bytes": _flush(self.folder / METRICS),
            "callbacks": {name: callback.state_dict() for name, callback in callbacks.items()},
        }
        if not place.over:  # else the best weights are all that is needed, and have their own file
            schedule: Any = trainer.lr_scheduler_configs[0].scheduler
            state |= {
                "weights": trainable_state(pl_module),
                "optimizer": trainer.optimizers[0].state_dict(),
                "schedule": schedule.state_dict(),
            }
        tensors: dict[str, torch.Tensor] = {}
        plain = json.dumps(_pack(state, "", tensors))
        with atomic_write(self.path) as partial:
            save_file(tensors, partial, metadata={"state": plain})
        for best in callbacks.values():
            if isinstance(best, BestWeights):
                best.held = best.path
                best.prune()
        self.last, self.since = place, time.monotonic()
        self.cost = self.since - began

    def _is_due(self, place: LoopPosition) -> bool:
        if place == self.last or place.batch % self.every:
            return False  # gradients of earlier batches are being summed up
        if not place.epoch and not place.batch:
            return place.stage > 0  # the stage before is over for good
        waited = time.monotonic() - self.since
        return waited >= (
            min(self.seconds, self.cost / COST_SHARE) if not place.batch else self.seconds
        )


def seed_step(numbers: list[int], device: torch.device) -> None:
    """Make what is random in a training step a function of these numbers alone."""
    (seed,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    torch.default_generator.manual_seed(int(seed))  # `torch.manual_seed` takes 200 times as long
    if device.type == "cuda":
        torch.cuda.manual_seed(int(seed))


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return vars(trainer)["callbacks"]


def _flush(path: Path) -> int:
    """Bring a file to the disk and return its size."""
    with path.open("ab") as file:
        fsync(file.fileno())
        return file.tell()


def _move_to(trainer: pl.Trainer, place: LoopPosition) -> None:
    """Set Lightning's counters, so that its loop begins with this batch.

    Within an epoch its loops are told that they restart. Between two epochs they are not: the
    counters are those of an epoch that ended, with which a restarting loop skips the next epoch.
    """
    fit: Any = trainer.fit_loop
    epoch_loop = fit.epoch_loop
    begun, done = place.epoch + (place.batch > 0), place.epoch
    epochs = {"ready": begun, "started": begun, "processed": done, "completed": done}
    fit.epoch_progress.load_state_dict({"total": epochs, "current": epochs})
    names = ("ready", "started", "processed", "completed")
    before = dict.fromkeys(names, place.epoch * trainer.num_training_batches + place.batch)
    now = dict.fromkeys(names, place.batch)
    epoch_loop.batch_progress.load_state_dict(
        {"total": before, "current": now, "is_last_batch": False}
    )
    steps = epoch_loop.automatic_optimization.optim_progress.optimizer.step
    steps.total.ready = steps.total.completed = place.step
    epoch_loop.on_load_checkpoint({"_batches_that_stepped": place.step})
    if trainer.global_step != place.step or trainer.current_epoch != place.epoch:
        raise RunError("this version of Lightning cannot be told where to go on")
    if place.batch:
        # Lightning cannot see that the order is told where to begin
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        fit.restarting = True
        cast(Any, trainer.train_dataloader).sampler.start = place.batch


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give an optimizer its state and what changes in its groups; JSON has turned keys to text."""
    fresh = optimizer.state_dict()["param_groups"]
    groups = [
        {**new, **{k: v for k, v in old.items() if isinstance(v, int | float)}}
        for new, old in zip(fresh, saved["param_groups"], strict=True)
    ]
    state = {int(number): values for number, values in saved["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value as JSON has it, and put its tensors aside."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().contiguous()
        return {TENSOR: name}
    if isinstance(value, dict):
        return {str(key): _pack(part, f"{name}/{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(part, f"{name}/{key}", tensors) for key, part in enumerate(value)]
    return value


def _unpack(value: Any, file: Any) -> Any:
    """Return what was packed, with its tensors."""
    if isinstance(value, dict):
        if TENSOR in value:
            return file.get_tensor(value[TENSOR])
        return {key: _unpack(part, file) for key, part in value.items()}
    return [_unpack(part, file) for part in value] if isinstance(value, list) else value
