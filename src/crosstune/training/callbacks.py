"""What happens beside the loop: the best weights kept, the cost metered, progress told.

Called by Lightning; put together by `run.py`.
"""

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from crosstune.files import atomic_write
from crosstune.tasks.task import sum_losses
from crosstune.training.cost import PeakMemory, Throughput, count_flops, measure_state, name_device

COUNTED = 4  # windows whose operations are counted: a whole batch would cost a step
log = logging.getLogger(__name__)


class BestWeights(pl.Callback):
    """Keeps the trainable weights of the validation with the best headline score."""

    def __init__(self, folder: Path, headline: str):
        self.folder = folder
        self.headline = headline
        self.score = -math.inf
        self.step = -1  # of the best validation
        self.seen = -1  # of the last validation
        self.results: dict[str, Any] = {}  # what the best validation found, by language
        self.held: Path | None = None  # the best that the last checkpoint goes on from

    @property
    def path(self) -> Path:
        """Where the best weights lie."""
        return best_weights_file(self.folder, self.step)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; the weights have a file of their own."""
        names = ("score", "step", "seen", "results")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        vars(self).update(state_dict)
        self.held = self.path

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the trainable weights if the headline score is the best so far."""
        self.seen = trainer.global_step
        score = float(trainer.callback_metrics[self.headline])
        if score <= self.score:
            return
        self.score, self.step = score, trainer.global_step
        self.results = cast(Any, pl_module).results["validation"]
        if trainer.is_global_zero:
            with atomic_write(self.path) as partial:
                save_file(trainable_state(pl_module), partial)
            self.prune()

    def prune(self) -> None:
        """Remove the weights of earlier bests, but for those that a checkpoint goes on from."""
        for path in self.folder.glob(best_weights_file(self.folder, "*").name):
            if path not in (self.path, self.held):
                path.unlink()

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the best weights back on every rank."""
        trainer.strategy.barrier()
        load_trainable_state(pl_module, load_file(self.path))
        trainer.strategy.barrier()


def best_weights_file(folder: Path, step: int | str) -> Path:
    """Return where the weights of a best validation lie until the run is over."""
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
    """Give a module the trainable weights that `trainable_state` returned."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(weights[name])


class CostMeter(pl.Callback):
    """Measures what training and testing cost: seconds, rates, operations, state, memory.

    Rates leave the first `cost.WARM_UP` batches out, and so do the seconds of inference; those of
    training are whole. Operations are counted on windows of their own before the time runs, which
    changes nothing that the run computes. Stages of training add up; inference is the last test.
    """

    def __init__(self) -> None:
        self.training, self.inference = Throughput(), Throughput()
        self.memory = PeakMemory()
        self.counted: dict[str, float | int] = {}
        self.device_name = ""  # what all this was measured on

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, so that a resumed run costs what it cost in all."""
        return {
            "training": self.training.read(),
            "counted": self.counted,
            "peak": self.memory.read(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.training = Throughput(**state_dict["training"])
        self.counted, self.memory.earlier = state_dict["counted"], state_dict["peak"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the memory of earlier runs in this process, and not that of earlier stages."""
        if self.device_name:
            return
        if trainer.max_epochs and "train_flops_per_token" not in self.counted:
            learner = cast(Any, pl_module)
            learner.model.train()
            with trainer.precision_plugin.train_step_context():
                loader, work = (
                    learner.data.train_dataloader(),
                    partial(_differentiate, learner.task),
                )
                self._count_flops("train", learner, loader, work)
        weights = [*pl_module.parameters(), *pl_module.buffers()]
        own = sum(weight.numel() * weight.element_size() for weight in weights)
        self.memory.start(pl_module.device, own)
        self.device_name = name_device(pl_module.device)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the time run."""
        self.training.start(pl_module.device)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the time: evaluation is no training."""
        self.training.stop()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the time run again where training goes on."""
        if trainer.state.fn == "fit":
            self.training.start(pl_module.device)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the sub-words of this rank's share, padding left out."""
        self.training.count(batch["tokens"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the time, and measure what the optimizer keeps."""
        self.training.stop()
        self._rate("train", self.training, trainer)
        self.counted["optimizer_bytes"] = sum(map(measure_state, trainer.optimizers))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the operations of a batch, then let the time of inference run."""
        learner = cast(Any, pl_module)
        with trainer.precision_plugin.test_step_context():
            loader = learner.data.test_dataloader()[0]
            self._count_flops("inference", learner, loader, learner.task.predict_batch)
        self.inference = Throughput()
        self.inference.start(pl_module.device)

    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the sub-words of this rank's share, padding left out."""
        self.inference.count(batch["tokens"])

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the time: scoring is no inference."""
        self.inference.stop()
        self._rate("inference", self.inference, trainer)
        if self.inference.warm_seconds:
            self.counted["inference_seconds"] = round(self.inference.warm_seconds, 3)

    def read(self) -> dict[str, float | int]:
        """Return every cost that was measured, by its name in the record."""
        cost = dict(self.counted)
        if self.training.seconds > 0:
            cost["train_seconds"] = round(self.training.seconds, 3)
        peak = self.memory.read()
        return cost if peak is None else {**cost, "peak_memory_bytes": peak}

    def _rate(self, name: str, pace: Throughput, trainer: pl.Trainer) -> None:
        """Set a rate over the sub-words of all ranks."""
        share = torch.tensor(pace.tokens, device=trainer.strategy.root_device)
        tokens = int(trainer.strategy.reduce(share, reduce_op="sum"))
        if pace.warm_seconds:
            self.counted[f"{name}_tokens_per_second"] = round(tokens / pace.warm_seconds, 1)

    def _count_flops(
        self, name: str, learner: Any, loader: DataLoader[Any], work: Callable[[Any, Any], Any]
    ) -> None:
        """Set the operations a sub-word of windows in the middle of a loader's order."""
        order: Any = list(cast(Any, loader.sampler))
        share = order[len(order) // 2]
        batch = loader.dataset[share._replace(windows=share.windows[:COUNTED])]
        if tokens := batch["tokens"]:
            batch = learner.trainer.strategy.batch_to_device(batch, learner.device)
            flops = count_flops(lambda: work(learner.model, batch), learner.device)
            self.counted[f"{name}_flops_per_token"] = round(flops / tokens)


class ProgressLog(pl.Callback):
    """Logs one line a validation: how far, and the scores of the headline metric."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the scores."""
        told = [
            f"{name.split('/', 1)[1]} {float(value):.3f}"
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        ][:3]
        if (loss := cast(Any, pl_module).loss) is not None:
            mean: Any = trainer.strategy.reduce(loss, reduce_op="mean")  # over ranks
            told.insert(0, f"loss {float(mean):.3f}")
        log.info("step %d: %s", trainer.global_step, ", ".join(told))


def _differentiate(task: Any, model: Any, batch: dict[str, Any]) -> None:
    """Go forward and back once, and leave no gradient behind."""
    total, _ = sum_losses(task, model, batch["parts"])
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.autograd.grad(total, weights, allow_unused=True)
