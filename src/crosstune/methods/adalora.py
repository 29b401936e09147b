"""AdaLoRA: rank allocation over the run's own steps, and the orthogonality penalty.

Zhang et al. 2023, https://arxiv.org/abs/2303.10512. peft holds the layers and scores the ranks;
this file decides when it allocates, adds the penalty and drops the ranks that were pruned.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from peft import AdaLoraModel
from peft.tuners.adalora import AdaLoraLayer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor
from typing_extensions import override

from crosstune.errors import ConfigError, RunError
from crosstune.methods.tuning_method import BestScore, TuningMethod

SCHEDULE = ("tinit", "tfinal", "total_step")  # options of peft's config that follow the run's steps
MIN_STEPS = 3  # for the first importances, for reducing the ranks, for training the rest
log = logging.getLogger(__name__)


class AdaLora(TuningMethod):
    """The penalty and the ranks of an AdaLoRA model."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.tuner: AdaLoraModel = model.base_model

    @classmethod
    @override
    def fits(cls, model: Any) -> bool:
        return isinstance(getattr(model, "base_model", None), AdaLoraModel)

    @property
    def adapter(self) -> str:
        """The name of the adapter in training; peft sets none on a model loaded for inference."""
        return self.tuner.trainable_adapter_name

    @property
    def config(self) -> Any:
        """The peft config of the adapter in training."""
        return self.tuner.peft_config[self.adapter]

    @override
    def penalty(self) -> Tensor:
        # the weighted mean of ‖P Pᵀ - I‖ over the left and right factors of all matrices, the norm
        # not squared, as in the authors' program
        factors: list[Tensor] = []
        for layer in self.tuner.modules():
            if isinstance(layer, AdaLoraLayer):
                factors += [layer.lora_A[self.adapter], layer.lora_B[self.adapter].T]
        gaps = [torch.linalg.matrix_norm(p @ p.T - torch.eye(len(p)).to(p)) for p in factors]
        return self.config.orth_reg_weight * torch.stack(gaps).mean()

    @override
    def callbacks(self, best: BestScore) -> list[pl.Callback]:
        return [AllocateRanks(self, best)]

    @override
    def finish(self) -> None:
        # what the model computes stays; a matrix that has lost all ranks keeps one of zeros,
        # because peft takes an empty one for damage
        if self.config.rank_pattern is None:
            return
        used = {name: (values != 0).flatten() for name, values in self.singular_values().items()}
        ranks = [int(mask.sum()) for mask in used.values()]
        for mask in used.values():
            mask[0] |= not mask.any()
        self.config.rank_pattern = {name: mask.tolist() for name, mask in used.items()}
        self.tuner.resize_modules_by_rank_pattern(self.config.rank_pattern, self.adapter)
        counts = (sum(ranks), len(ranks), min(ranks), max(ranks))
        log.info("ranks: %d in %d matrices, from %d to %d", *counts)

    @override
    def shape(self) -> dict[str, int]:
        return {name: len(values) for name, values in self.singular_values().items()}

    @override
    def restore_shape(self, shape: Mapping[str, int]) -> None:
        sizes = self.shape()
        if shape != sizes:
            masks = {
                name: [True] * shape[name] + [False] * (n - shape[name])
                for name, n in sizes.items()
            }
            self.tuner.resize_modules_by_rank_pattern(masks, self.adapter)

    def singular_values(self) -> dict[str, Tensor]:
        """Return the singular values of each matrix by parameter name; pruned ones are 0."""
        ending = f"lora_E.{self.adapter}"
        return {n: p.detach() for n, p in self.tuner.model.named_parameters() if n.endswith(ending)}


class AllocateRanks(pl.Callback):
    """Lets peft allocate the rank budget after every optimizer step, over the whole training.

    Only weights within the final budget can be the best checkpoint. Of several stages of training
    the first allocates; later ones train the ranks that are left.
    """

    def __init__(self, method: AdaLora, best: BestScore):
        self.method, self.best = method, best
        self.tuner, self.config = method.tuner, method.config
        self.step = 0  # of the optimizer, at the last allocation
        self.active = False
        self.planned = False
        if self.config.init_r <= self.config.target_r:
            raise ConfigError(
                f"method.peft.init_r={self.config.init_r}: AdaLoRA comes down to target_r="
                f"{self.config.target_r} ranks a matrix, so it must begin with more."
            )

    @override
    def state_dict(self) -> dict[str, Any]:
        allocator = self.tuner.rankallocator
        return {
            "step": self.step,
            "active": self.active,
            "plan": {name: getattr(self.config, name) for name in (*SCHEDULE, "rank_pattern")},
            "importance": allocator.exp_avg_ipt,
            "uncertainty": allocator.exp_avg_unc,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.active, self.planned = state_dict["step"], state_dict["active"], True
        vars(self.config).update(state_dict["plan"])
        allocator = self.tuner.rankallocator
        devices = {n: p.device for n, p in self.tuner.model.named_parameters()}
        for target, source in (("exp_avg_ipt", "importance"), ("exp_avg_unc", "uncertainty")):
            values: dict[str, Tensor] = state_dict[source]
            loaded = {name: value.to(devices[name]) for name, value in values.items()}
            setattr(allocator, target, loaded)
        allocator.ipt = dict(allocator.exp_avg_ipt)  # peft checks only whether a name is there

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plan the run's own steps, unless a checkpoint holds the plan.

        Raises:
            ConfigError: training may stop before the plan does.
        """
        if any(isinstance(callback, EarlyStopping) for callback in vars(trainer)["callbacks"]):
            raise ConfigError(
                "trainer.patience: AdaLoRA plans its ranks over all steps, and cannot stop early."
            )
        if self.planned:
            return
        steps = int(trainer.estimated_stepping_batches)
        self.active = steps >= MIN_STEPS and self.config.rank_pattern is None
        if self.active:
            schedule = self.config.tinit, self.config.tfinal, self.config.total_step
            self.config.tinit, self.config.tfinal = scale_schedule(*schedule, steps)
            self.config.total_step = steps
        elif 0 < steps < MIN_STEPS:
            log.warning("%d steps are too few to allocate ranks: all stay as they begin", steps)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not self.active or trainer.global_step == self.step:
            return
        previous, self.step = self.step, trainer.global_step  # peft counts from 0
        self.tuner.update_and_allocate(previous)  # the gradients of the step are still there
        if previous == self.config.total_step - self.config.tfinal:
            self.best.score = -math.inf

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise RunError if more ranks are in use than the budget has."""
        used = sum(int((values != 0).sum()) for values in self.method.singular_values().values())
        budget = self.tuner.rankallocator.target_bgt
        if self.active and used > budget:
            raise RunError(f"AdaLoRA: {used} ranks in use after training, in a budget of {budget}.")


def scale_schedule(tinit: int, tfinal: int, total: int, steps: int) -> tuple[int, int]:
    """Return a schedule's first and last phase for another number of steps, at least 3.

    Two steps or more come before the last allocation: after one, most importances are still 0.

    >>> scale_schedule(15, 50, 100, 4000)
    (600, 2000)
    >>> scale_schedule(15, 50, 100, 3)
    (0, 1)
    """
    last = min(max(1, round(tfinal / total * steps)), steps - 2)
    return min(round(tinit / total * steps), steps - last - 1), last
