"""What happens beside the loop: the best weights kept, the cost metered, progress told.

Called by Lightning; put together by `run.py`.
"""

import logging
import math
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file

from crosstune.cost import PeakMemory, Stopwatch
from crosstune.whole import whole_file

log = logging.getLogger(__name__)


class KeepBest(pl.Callback):
    """Keeps the trainable weights of the validation with the best headline score."""

    def __init__(self, folder: Path, headline: str):
        self.path = folder / "best.safetensors"
        self.headline = headline
        self.score = -math.inf
        self.step = -1  # of the best validation
        self.seen = -1  # of the last validation
        self.results: dict[str, Any] = {}  # what the best validation found, by language

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the trainable weights if the headline score is the best so far."""
        self.seen = trainer.global_step
        score = float(trainer.callback_metrics[self.headline])
        if score <= self.score:
            return
        self.score, self.step = score, trainer.global_step
        self.results = cast(Any, pl_module).results["validation"]
        if trainer.is_global_zero:
            with whole_file(self.path) as partial:
                save_file(_trainable(pl_module), partial)

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the best weights back on every rank, and remove their file."""
        trainer.strategy.barrier()
        best = load_file(self.path)
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(best[name])
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self.path.unlink()


class CostMeter(pl.Callback):
    """Counts tokens and seconds of training, and the peak memory of the run."""

    def __init__(self) -> None:
        self.tokens = 0  # of this rank, in this stage of training
        self.all_tokens = 0
        self.watch = Stopwatch()
        self.memory = PeakMemory()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the memory of earlier runs in this process, and not that of earlier stages."""
        if not self.all_tokens:
            self.memory.start(pl_module.device)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the time run."""
        self.watch.start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the time: evaluation is no training."""
        self.watch.stop()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the time run again where training goes on."""
        if trainer.state.fn == "fit":
            self.watch.start()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the time, and add the other ranks' sub-words."""
        self.watch.stop()
        share = torch.tensor(self.tokens, device=pl_module.device)
        self.all_tokens += int(trainer.strategy.reduce(share, reduce_op="sum"))
        self.tokens = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the sub-words of this rank's share, padding left out."""
        self.tokens += batch["tokens"]

    def read(self) -> dict[str, float | int]:
        """Return train_seconds, train_tokens_per_second and peak_memory_bytes where measured."""
        cost: dict[str, float | int] = {}
        if self.watch.seconds > 0:
            cost["train_seconds"] = round(self.watch.seconds, 3)
            cost["train_tokens_per_second"] = round(self.all_tokens / self.watch.seconds, 1)
        peak = self.memory.read()
        return cost if peak is None else {**cost, "peak_memory_bytes": peak}


class Tell(pl.Callback):
    """Logs one line a validation: how far, and the scores of the headline metric."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the scores."""
        metrics = trainer.callback_metrics
        scores = [
            f"{name.split('/', 1)[1]} {float(value):.3f}"
            for name, value in metrics.items()
            if name.startswith("validation/")
        ]
        loss = f"loss {float(metrics['train/loss']):.3f}, " if "train/loss" in metrics else ""
        log.info("step %d: %s%s", trainer.global_step, loss, ", ".join(scores[:3]))


def _trainable(module: pl.LightningModule) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().contiguous()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
