"""The one LightningModule, for every task kind, model and method.

It asks the task for the loss and for what the logits say, and owns the optimizer. It knows no
kind, no language and no method; it writes nothing.
"""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import transformers
from torch import distributed

from crosstune.config.instantiate import instantiate
from crosstune.config.schema import Optimizer, Trainer
from crosstune.errors import ConfigError, RunError
from crosstune.methods import penalty_of
from crosstune.methods.madx import activate_language_adapter
from crosstune.models.acceleration.accelerate import Acceleration
from crosstune.models.frozen_prefix import find_frozen_prefix
from crosstune.tasks import Task
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.task import sum_losses
from crosstune.training.datamodule import FineTuningData

MONITOR = "validation/headline"  # mean of the headline metric over the languages trained on


Join = Callable[["FineTuningModule"], int]


def by_itself(learner: "FineTuningModule") -> int:
    """Leave a run's steps to itself: it shares them with no other run."""
    return 0


class Diverged(RunError):
    """The loss became infinite or not a number."""


class FineTuningModule(pl.LightningModule):
    """Trains a model on a task; `results[split][language]` holds what evaluation found."""

    def __init__(
        self,
        model: Any,
        task: Task,
        data: FineTuningData,
        optimizer: Optimizer,
        allow: list[str],
        loop: Trainer,
    ):
        super().__init__()
        self.model = model
        self.task, self.data, self.optimizer, self.allow = task, data, optimizer, allow
        self.loop = loop
        self.loss: torch.Tensor | None = None  # of the last step, this rank's share
        self.results: dict[str, dict[str, dict[str, Any]]] = {}
        self.predictions: dict[str, list[Prediction]] = {}
        self._outputs: dict[int, list[Output]] = {}
        self.acceleration = Acceleration(model, loop)
        self.add_up: Callable[[Task, Any, Any], Any] = (
            sum_losses  # runs trained together have another
        )

    def setup(self, stage: str) -> None:
        """Decide on padding before the loaders are made."""
        if stage == "fit":
            self.acceleration.start_unpadding(self.trainer.strategy.root_device)
            self.data.whole = self.acceleration.keeps_batches_whole

    def teardown(self, stage: str) -> None:
        """Restore the model as it was before training."""
        self.acceleration.end()

    def on_fit_start(self) -> None:
        """Switch dropout on: loaded checkpoints come in evaluation mode."""
        self.model.train()
        self.acceleration.start_layers()

    def on_train_start(self) -> None:
        """Switch dropout off in a frozen prefix, whose outputs may then be computed once."""
        if prefix := find_frozen_prefix(self.model):
            prefix.eval()
        planned = self.trainer.estimated_stepping_batches * self.loop.accumulate_grad_batches
        if self.add_up is sum_losses and planned > self.trainer.num_training_batches:
            move = self.trainer.strategy.batch_to_device
            batches = (move(batch, self.device) for batch in self.data.once())
            with self.trainer.precision_plugin.train_step_context():
                self.acceleration.start_cache(self.data.count(), batches)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the mean loss over the whole batch, all ranks together, and the method's penalty.

        What is logged is the loss of the task alone.
        """
        activate_language_adapter(self.model, self.data.stage[0])
        total, count = self.add_up(self.task, self.model, batch["parts"])
        world = self.trainer.world_size
        if world > 1:
            distributed.all_reduce(count)  # DDP averages gradients: undo it, divide by all terms
        loss = total * world / count.clamp(min=1)
        self.loss = loss.detach()
        logs_now = (self.global_step + 1) % self.loop.log_every_n_steps == 0
        if (logs_now or loss.device.type == "cpu") and not torch.isfinite(loss):
            raise Diverged(f"the loss is {loss.item()} at step {self.global_step + 1}")
        if logs_now:  # a value that no file gets costs time, and ranks would wait for each other
            self.log("train/loss", loss.detach(), sync_dist=world > 1)
        return loss + penalty_of(self.model)

    def configure_optimizers(self) -> Any:
        """Return the optimizer over what is trainable, and its schedule by step."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        decay = self.optimizer.weight_decay
        groups = [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = instantiate(
            self.optimizer.algorithm,
            "optimizer.algorithm",
            self.allow,
            params=[group for group in groups if group["params"]],
            lr=self.optimizer.learning_rate,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        try:
            schedule = transformers.get_scheduler(
                self.optimizer.schedule,
                optimizer,
                num_warmup_steps=round(self.optimizer.warmup_ratio * steps),
                num_training_steps=steps,
            )
        except ValueError as error:
            raise ConfigError(f"optimizer.schedule={self.optimizer.schedule}: {error}") from error
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the norm of all gradients together.

        Lightning's own refuses a fused optimizer in bf16, as if its gradients were scaled.
        """
        if gradient_clip_val is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def validation_step(
        self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Read off what the logits of one validation batch say."""
        self._read_off(batch, dataloader_idx, "validation")

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Read off what the logits of one test batch say."""
        self._read_off(batch, dataloader_idx, "test")

    def on_validation_epoch_end(self) -> None:
        """Score every validation language."""
        self._score("validation")

    def on_test_epoch_end(self) -> None:
        """Score every test language and keep the predictions."""
        self._score("test")

    def _read_off(self, batch: dict[str, Any], loader: int, split: str) -> None:
        if not batch["windows"]:
            return
        activate_language_adapter(self.model, list(self.data.encoded[split])[loader])
        read = self.task.predict_batch(self.model, batch)
        self._outputs.setdefault(loader, []).extend(
            (window, said, score)
            for window, (said, score) in zip(batch["windows"], read, strict=True)
        )

    def _score(self, split: str) -> None:
        self.results[split] = {}
        for loader, (language, encoded) in enumerate(self.data.encoded[split].items()):
            rows = self.data.rows[split][language]
            predictions = self.task.decode(rows, encoded, self._outputs.get(loader, []))
            result = self.task.compute_metrics(predictions, self.device)
            self.results[split][language] = result
            self.predictions[language] = predictions
            for metric, value in result["scores"].items():
                self.log(f"{split}/{language}/{metric}", float(value))
        if split == "validation":
            for language in self.data.stage:
                if self.data.data.metric not in self.results[split][language]["scores"]:
                    raise ConfigError(
                        f"data.metric={self.data.data.metric}: validation/{language} has no item "
                        "that it could be measured on."
                    )
            scores = [
                self.results[split][language]["scores"][self.data.data.metric]
                for language in self.data.stage
            ]
            self.log(MONITOR, sum(scores) / len(scores))
        self._outputs.clear()

    def collect(self, language: str) -> list[Prediction]:
        """Return the test predictions of all ranks, in the order of the file."""
        mine = self.predictions[language]
        shares: list[Any] = [mine]
        if self.trainer.world_size > 1:
            shares = [None] * self.trainer.world_size
            distributed.all_gather_object(shares, mine)
        return sorted((p for share in shares for p in share), key=lambda p: p.item)
