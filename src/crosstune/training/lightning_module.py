"""The one LightningModule, for every task, model, method and language.

The task computes the loss and decodes the logits, the tuning method adds what it needs, and the
module owns the optimizer. It writes no files.
"""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import transformers
from torch import distributed
from typing_extensions import override

from crosstune.config.instantiate import instantiate
from crosstune.config.schema import Run
from crosstune.errors import ConfigError
from crosstune.methods import find_tuning_method
from crosstune.models.acceleration.accelerate import Acceleration
from crosstune.models.frozen_prefix import find_frozen_prefix
from crosstune.tasks import Task
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.task import sum_losses
from crosstune.training.datamodule import FineTuningData
from crosstune.training.failures import Diverged
from crosstune.training.results import EvaluationResult

MONITOR = "validation/headline"  # mean of the headline metric over the languages trained on


class LossStrategy:
    """Computes the loss of a batch; runs that share their training steps have another strategy."""

    fused_with = 0  # number of other runs that share the steps of this one

    def attach(self, module: "FineTuningModule") -> None:
        """Prepare for the steps of a module, which calls it once."""

    def sum_losses(
        self, task: Task, model: Any, parts: Sequence[dict[str, Any]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of the parts of a batch, and the number of its terms."""
        return sum_losses(task, model, parts)


class FineTuningModule(pl.LightningModule):
    """Trains a model on a task.

    Attributes:
        results: split -> language -> result of the last evaluation.
        predictions: language -> this rank's predictions of the last evaluation.
        loss: of the last training step, this rank's share.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        data: FineTuningData,
        run: Run,
        loss_strategy: LossStrategy | None = None,
    ):
        super().__init__()
        self.model, self.method = model, find_tuning_method(model)
        self.task, self.data, self.run = task, data, run
        self.trainer_options = run.trainer
        self.loss: torch.Tensor | None = None
        self.results: dict[str, dict[str, EvaluationResult]] = {}
        self.predictions: dict[str, list[Prediction]] = {}
        self._outputs: dict[int, list[Output]] = {}  # by number of the evaluation loader
        self.acceleration = Acceleration(model, run.trainer)
        self.loss_strategy = loss_strategy or LossStrategy()
        self.loss_strategy.attach(self)

    def setup(self, stage: str) -> None:
        """Decide on padding before the loaders are made."""
        if stage == "fit":
            self.acceleration.start_unpadding(self.trainer.strategy.root_device)
            self.data.keeps_batches_whole = self.acceleration.keeps_batches_whole

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
        planned = (
            self.trainer.estimated_stepping_batches * self.trainer_options.accumulate_grad_batches
        )
        if not self.loss_strategy.fused_with and planned > self.trainer.num_training_batches:
            move = self.trainer.strategy.batch_to_device
            batches = (
                move(batch, self.device) for batch in self.data.iterate_train_and_validation()
            )
            with self.trainer.precision_plugin.train_step_context():
                self.acceleration.start_cache(self.data.count(), batches)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the mean loss over the batch of all ranks, plus the method's penalty.

        The logged loss is that of the task alone.
        """
        self.method.activate_language(self.data.stage[0])
        total, count = self.loss_strategy.sum_losses(self.task, self.model, batch["parts"])
        world = self.trainer.world_size
        if world > 1:
            distributed.all_reduce(count)  # DDP averages gradients: undo it, divide by all terms
        loss = total * world / count.clamp(min=1)
        self.loss = loss.detach()
        logs_now = (self.global_step + 1) % self.trainer_options.log_every_n_steps == 0
        if (logs_now or loss.device.type == "cpu") and not torch.isfinite(loss):
            raise Diverged(f"the loss is {loss.item()} at step {self.global_step + 1}")
        if logs_now:  # logging costs time, and makes the ranks wait for each other
            self.log("train/loss", loss.detach(), sync_dist=world > 1)
        return loss + self.method.penalty()

    def configure_optimizers(self) -> Any:
        """Return the optimizer of the trainable parameters, and its schedule by step."""
        options = self.run.optimizer
        trainable = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        matrices = [p for name, p in trainable if p.ndim > 1 and not self.method.is_scale(name)]
        decayed = set(map(id, matrices))
        others = [p for _, p in trainable if id(p) not in decayed]
        groups = [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = instantiate(
            options.algorithm,
            "optimizer.algorithm",
            self.run.allow,
            params=[group for group in groups if group["params"]],
            lr=options.learning_rate,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        try:
            schedule = transformers.get_scheduler(
                options.schedule,
                optimizer,
                num_warmup_steps=round(options.warmup_ratio * steps),
                num_training_steps=steps,
            )
        except ValueError as error:
            raise ConfigError(f"optimizer.schedule={options.schedule}: {error}") from error
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the norm of all gradients together.

        Lightning's own method refuses a fused optimizer in bf16, as if its gradients were scaled.
        """
        if gradient_clip_val is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    @override
    def validation_step(
        self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._predict("validation", batch, dataloader_idx)

    @override
    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._predict("test", batch, dataloader_idx)

    @override
    def on_validation_epoch_end(self) -> None:
        self._evaluate("validation")
        metric, results = self.run.data.metric, self.results["validation"]
        for language in self.data.stage:
            if metric not in results[language].scores:
                raise ConfigError(
                    f"data.metric={metric}: validation/{language} has no item that it could be "
                    "measured on."
                )
        scores = [results[language].scores[metric] for language in self.data.stage]
        self.log(MONITOR, sum(scores) / len(scores))

    @override
    def on_test_epoch_end(self) -> None:
        self._evaluate("test")

    def _predict(self, split: str, batch: dict[str, Any], loader: int) -> None:
        if not batch["windows"]:
            return
        self.method.activate_language(list(self.data.encoded[split])[loader])
        predicted = self.task.predict_batch(self.model, batch)
        self._outputs.setdefault(loader, []).extend(
            (window, prediction, score)
            for window, (prediction, score) in zip(batch["windows"], predicted, strict=True)
        )

    def _evaluate(self, split: str) -> None:
        """Decode, measure and log each language of a split."""
        self.results[split] = {}
        for loader, (language, encoded) in enumerate(self.data.encoded[split].items()):
            rows = self.data.rows[split][language]
            predictions = self.task.decode(rows, encoded, self._outputs.get(loader, []))
            result = EvaluationResult(**self.task.compute_metrics(predictions, self.device))
            self.results[split][language] = result
            self.predictions[language] = predictions
            for metric, value in result.scores.items():
                self.log(f"{split}/{language}/{metric}", float(value))
        self._outputs.clear()

    def gather_predictions(self) -> dict[str, list[Prediction]]:
        """Return language -> the predictions of all ranks, in the order of the file."""
        return {language: self._gather(mine) for language, mine in self.predictions.items()}

    def _gather(self, mine: list[Prediction]) -> list[Prediction]:
        shares: list[Any] = [mine]
        if self.trainer.world_size > 1:
            shares = [None] * self.trainer.world_size
            distributed.all_gather_object(shares, mine)
        return sorted((p for share in shares for p in share), key=lambda p: p.item)
