"""Callbacks of every run: the best weights on validation, and a log line per validation."""

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import nn
from typing_extensions import override

from crosstune.files import atomic_write
from crosstune.training.results import EvaluationResult
from crosstune.training.tensor_file import save_tensors

log = logging.getLogger(__name__)


class BestWeights(pl.Callback):
    """Saves the trainable weights of the validation with the best headline score."""

    def __init__(self, folder: Path, monitor: str):
        self.folder = folder
        self.monitor = monitor
        self.score = -math.inf
        self.step = -1  # of the best validation
        self.last_validation_step = -1
        self.results: dict[str, EvaluationResult] = {}  # language -> of the best validation
        self.in_checkpoint: Path | None = None  # the weights that the last checkpoint needs

    @property
    def path(self) -> Path:
        """The file of the best weights."""
        return best_weights_file(self.folder, self.step)

    @override
    def state_dict(self) -> dict[str, Any]:
        results = {language: asdict(result) for language, result in self.results.items()}
        return {
            "score": self.score,
            "step": self.step,
            "last_validation_step": self.last_validation_step,
            "results": results,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)
        self.results = {
            language: EvaluationResult(**result)
            for language, result in state_dict["results"].items()
        }
        self.in_checkpoint = self.path

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.last_validation_step = trainer.global_step
        score = float(trainer.callback_metrics[self.monitor])
        if score <= self.score:
            return
        self.score, self.step = score, trainer.global_step
        self.results = cast(Any, pl_module).results["validation"]
        if trainer.is_global_zero:
            with atomic_write(self.path) as partial:
                save_tensors(trainable_state(pl_module), partial)
            self.prune()

    def prune(self) -> None:
        """Remove the weights that are neither the best nor needed by a checkpoint."""
        for path in self.folder.glob(best_weights_file(self.folder, "*").name):
            if path not in (self.path, self.in_checkpoint):
                path.unlink()

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the best weights on every rank."""
        trainer.strategy.barrier()
        load_trainable_state(pl_module, load_file(self.path))
        trainer.strategy.barrier()


def best_weights_file(folder: Path, step: int | str) -> Path:
    """Return the file of the weights of a best validation; removed when the run is finished."""
    return folder / f"best-{step}.safetensors"


def trainable_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the trainable weights by name."""
    return {
        name: parameter.detach().contiguous()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def load_trainable_state(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load the weights that `trainable_state` returned."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(weights[name])


class ProgressLog(pl.Callback):
    """Logs step, loss and headline scores at each validation."""

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = [
            f"{name.split('/', 1)[1]} {float(value):.3f}"
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        ][:3]
        if (loss := cast(Any, pl_module).loss) is not None:
            mean: Any = trainer.strategy.reduce(loss, reduce_op="mean")  # over ranks
            values.insert(0, f"loss {float(mean):.3f}")
        log.info("step %d: %s", trainer.global_step, ", ".join(values))
