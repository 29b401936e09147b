"""Trains a group of runs together: one thread per run, which shares nothing but training steps.

Every thread does a whole run, with its own trainer, data order, schedule, clipping, early stopping,
tests and record. At each training step it waits at a barrier, where one pass makes the steps of
all. A run that finishes, fails or stops early leaves the barrier.
"""

import ctypes
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from crosstune.config.schema import Run
from crosstune.errors import RunError
from crosstune.logs import silence_libraries
from crosstune.models.architectures import ARCHITECTURES
from crosstune.sweeps.fused.hyperparameters import SettingKey, read_settings
from crosstune.sweeps.fused.joint_step import JointStep, MemberBatch
from crosstune.sweeps.fused.rendezvous import Barrier, BarrierAborted
from crosstune.sweeps.job import run_and_catch
from crosstune.sweeps.process_pool import JobResult
from crosstune.training.lightning_module import FineTuningModule, LossStrategy

M_ARENA_MAX = -8  # as in glibc's malloc.h
log = logging.getLogger(__name__)


class Member(NamedTuple):
    """A run of the group: its number, module, trainable weights, and settings that may differ."""

    number: int
    module: FineTuningModule
    weights: dict[str, nn.Parameter]
    settings: dict[SettingKey, float]


class GroupTrainer:
    """Trains runs together; `on_end` is called with the number and the result of each run."""

    def __init__(self, runs: Mapping[int, Run], on_end: Callable[[int, JobResult], None]):
        self.runs, self.on_end = runs, on_end
        self.step = JointStep()
        self.barrier = Barrier(runs, self.step)
        self.frozen: dict[str, Tensor] = {}  # one copy for all runs
        self.sharing: set[int] = set()  # numbers of the runs that use it

    def train(self) -> None:
        """Train all runs; return when the last one has ended."""
        threads = [
            threading.Thread(target=self._train, args=item, daemon=True)
            for item in self.runs.items()
        ]
        _limit_heaps()
        # around all threads: nested silences of threads would restore the wrong log levels
        with silence_libraries():
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            except BaseException:  # only this thread gets Ctrl-C
                self.barrier.abort()
                for thread in threads:
                    thread.join()
                raise
        together, alone = self.step.together, self.step.alone
        log.info("%d runs together: %d steps joint, %d alone", len(self.runs), together, alone)

    def _train(self, number: int, run: Run) -> None:
        with suppress(BarrierAborted), self.barrier.member(number):
            self.on_end(number, run_and_catch(run, loss_strategy=JointLoss(number, self)))

    def sum_losses(
        self, member: Member, task: Any, model: Any, parts: Sequence[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a run's batch, and the number of its terms."""
        if member.number not in self.sharing:
            self._share_frozen(member)
        data = member.module.data
        pad_id: Any = data.tokenizer.pad_token_id
        draw = (data.seed, member.module.trainer.fit_loop.total_batch_idx)
        batch = MemberBatch(task, model, *member[2:], parts, data.keeps_batches_whole, pad_id, draw)
        loss = self.barrier.wait(member.number, batch)
        total = _UseGradients.apply(loss.total, loss.gradients, *member.weights.values())
        return total, loss.terms

    def _share_frozen(self, member: Member) -> None:
        """Point the frozen weights of a run to those of the group, once they are on its device.

        Only the data is shared: each run moves its own parameters to and from its device.
        """
        for name, parameter in member.module.model.named_parameters():
            if parameter.requires_grad or ".original_module." in name:
                continue  # peft's unused copy of the head from before training
            shared = self.frozen.setdefault(name, parameter.data)
            if not torch.equal(shared, parameter.data):
                raise RunError(f"{name} is frozen, but differs from the other runs of the group")
            parameter.data = shared
        self.sharing.add(member.number)


class JointLoss(LossStrategy):
    """Computes the losses of one run together with those of the other runs of its group."""

    def __init__(self, number: int, group: GroupTrainer):
        self.number, self.group = number, group
        self.member: Member | None = None  # None: the run is trained alone

    @override
    def attach(self, module: FineTuningModule) -> None:
        model_type = module.model.config.model_type
        architecture = ARCHITECTURES.get(model_type)
        if architecture is None or not architecture.supports_vmap:
            log.info("trained alone: encoders of type %s are not mapped over", model_type)
            return
        trained = {n: p for n, p in module.model.named_parameters() if p.requires_grad}
        self.member = Member(self.number, module, trained, read_settings(module.model))
        self.fused_with = len(self.group.runs) - 1

    @override
    def sum_losses(
        self, task: Any, model: Any, parts: Sequence[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        if self.member is None:
            return super().sum_losses(task, model, parts)
        return self.group.sum_losses(self.member, task, model, parts)


def _limit_heaps() -> None:
    """Let new threads share the existing heaps, since only one thread runs at a time.

    By default glibc gives each its own, whose freed memory the others cannot use: eight runs took
    half as much memory again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


class _UseGradients(torch.autograd.Function):
    """Gives each weight the gradient that the joint pass computed for it."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: Sequence[Any], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return (None, None, *(None if g is None else g * grads[0] for g in ctx.gradients))
