"""What AdaLoRA needs beside peft: ranks allocated over the run's own steps, and its penalty.

Zhang et al. 2023, https://arxiv.org/abs/2303.10512. peft holds the layers and says which ranks
matter; here is when it is asked, the term of the training loss, and the end of ranks that were
given up. Called by `learner.py` and `run.py`, for models of every method: others get nothing.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from peft import AdaLoraModel
from peft.tuners.adalora import AdaLoraLayer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn

from crosstune.errors import ConfigError, RunError

PLAN = ("tinit", "tfinal", "total_step")  # what of peft's config follows the run's own steps
FEWEST_STEPS = 3  # one for the first importances, one to reduce the ranks, one to train the last
log = logging.getLogger(__name__)


class BestStep(Protocol):
    """What of `callbacks.KeepBest` matters here."""

    score: float


def callbacks_of(model: nn.Module, best: BestStep) -> list[pl.Callback]:
    """Return what the model's method does beside the loop."""
    return [AllocateRanks(tuner, best)] if (tuner := _tuner_of(model)) else []


def penalty_of(model: nn.Module) -> Tensor | float:
    """Return what the model's method adds to the training loss.

    For AdaLoRA the weighted mean of ‖P Pᵀ - I‖ over the left and right factors of all matrices, the
    norm not squared, as the authors' program has it.
    """
    tuner = _tuner_of(model)
    if tuner is None:
        return 0.0
    name = tuner.trainable_adapter_name
    factors: list[Tensor] = []
    for layer in tuner.modules():
        if isinstance(layer, AdaLoraLayer):
            factors += [layer.lora_A[name], layer.lora_B[name].T]
    gaps = [torch.linalg.matrix_norm(p @ p.T - torch.eye(len(p)).to(p)) for p in factors]
    return _config_of(tuner).orth_reg_weight * torch.stack(gaps).mean()


def compact(model: nn.Module) -> None:
    """Drop the ranks that the model's method has given up; what the model computes stays.

    A matrix that has lost all keeps one of zeros, because peft takes an empty one for damage.
    """
    tuner = _tuner_of(model)
    if tuner is None or _config_of(tuner).rank_pattern is None:
        return
    kept = {name: (values != 0).flatten() for name, values in _singular_values(tuner)}
    ranks = [int(mask.sum()) for mask in kept.values()]
    for mask in kept.values():
        mask[0] |= not mask.any()
    pattern = {name: mask.tolist() for name, mask in kept.items()}
    tuner.resize_modules_by_rank_pattern(pattern, tuner.trainable_adapter_name)
    _config_of(tuner).rank_pattern = pattern
    told = (sum(ranks), len(ranks), min(ranks), max(ranks))
    log.info("ranks: %d in %d matrices, from %d to %d", *told)


def resize(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Give every matrix as many ranks as a checkpoint's: those of later stages have fewer."""
    tuner = _tuner_of(model)
    if tuner is None:
        return
    sizes = {name: len(values) for name, values in _singular_values(tuner)}
    pattern = {
        name: [True] * ranks[name] + [False] * (n - ranks[name]) for name, n in sizes.items()
    }
    if ranks != sizes:
        tuner.resize_modules_by_rank_pattern(pattern, tuner.trainable_adapter_name)


class AllocateRanks(pl.Callback):
    """Lets peft move the budget after every step of the optimizer, from its first to its last.

    Only what holds the last budget can be the best checkpoint. Of several stages of training the
    first allocates; later ones train the ranks that it has left.
    """

    def __init__(self, tuner: AdaLoraModel, best: BestStep):
        self.tuner, self.best, self.config = tuner, best, _config_of(tuner)
        self.step = 0  # of the optimizer, at the last allocation
        self.active = False
        self.planned = False
        if self.config.init_r <= self.config.target_r:
            raise ConfigError(
                f"method.peft.init_r={self.config.init_r}: AdaLoRA comes down to target_r="
                f"{self.config.target_r} ranks a matrix, so it must begin with more."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: the plan, the importances, the ranks in use."""
        allocator = self.tuner.rankallocator
        return {
            "step": self.step,
            "active": self.active,
            "plan": {name: getattr(self.config, name) for name in (*PLAN, "rank_pattern")},
            "ranks": {name: len(values) for name, values in _singular_values(self.tuner)},
            "importance": allocator.exp_avg_ipt,
            "uncertainty": allocator.exp_avg_unc,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.step, self.active, self.planned = state_dict["step"], state_dict["active"], True
        vars(self.config).update(state_dict["plan"])
        allocator = self.tuner.rankallocator
        devices = {n: p.device for n, p in self.tuner.model.named_parameters()}
        for target, source in (("exp_avg_ipt", "importance"), ("exp_avg_unc", "uncertainty")):
            values: dict[str, Tensor] = state_dict[source]
            loaded = {name: value.to(devices[name]) for name, value in values.items()}
            setattr(allocator, target, loaded)
        allocator.ipt = dict(allocator.exp_avg_ipt)  # peft asks only whether a name is there

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
        self.active = steps >= FEWEST_STEPS and self.config.rank_pattern is None
        if self.active:
            shares = self.config.tinit, self.config.tfinal, self.config.total_step
            self.config.tinit, self.config.tfinal = plan(*shares, steps)
            self.config.total_step = steps
        elif 0 < steps < FEWEST_STEPS:
            log.warning("%d steps are too few to allocate ranks: all stay as they begin", steps)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Allocate once the optimizer has made a step; its gradients are still there."""
        if not self.active or trainer.global_step == self.step:
            return
        done, self.step = self.step, trainer.global_step  # peft counts from 0
        self.tuner.update_and_allocate(done)
        if done == self.config.total_step - self.config.tfinal:
            self.best.score = -math.inf

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise RunError if more ranks are in use than the budget has."""
        used = sum(int((values != 0).sum()) for _, values in _singular_values(self.tuner))
        budget = self.tuner.rankallocator.target_bgt
        if self.active and used > budget:
            raise RunError(f"AdaLoRA: {used} ranks in use after training, in a budget of {budget}.")


def plan(tinit: int, tfinal: int, total: int, steps: int) -> tuple[int, int]:
    """Return a schedule's first and last phase for another number of steps, 3 at the least.

    Two steps or more come before the last allocation: after one, most importances are still 0.

    >>> plan(15, 50, 100, 4000)
    (600, 2000)
    >>> plan(15, 50, 100, 3)
    (0, 1)
    """
    last = min(max(1, round(tfinal / total * steps)), steps - 2)
    return min(round(tinit / total * steps), steps - last - 1), last


def _tuner_of(model: nn.Module) -> AdaLoraModel | None:
    tuner = getattr(model, "base_model", None)
    return tuner if isinstance(tuner, AdaLoraModel) else None


def _config_of(tuner: AdaLoraModel) -> Any:
    return tuner.peft_config[tuner.trainable_adapter_name]


def _singular_values(tuner: AdaLoraModel) -> list[tuple[str, Tensor]]:
    ending = f"lora_E.{tuner.trainable_adapter_name}"
    return [(n, p.detach()) for n, p in tuner.model.named_parameters() if n.endswith(ending)]
