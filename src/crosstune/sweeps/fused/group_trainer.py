"""A group of runs that are trained together: each in a thread, and alone but for its steps.

Every thread does the whole of `run.train`, with its own trainer, order of the data, schedule,
clipping, early stopping, tests and record. Where it would send its batch through its model it meets
the others. A run that is done, failed or stopped early leaves them. Called by the launcher
`hydra/launcher=fused`.
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
from crosstune.sweeps.fused.hyperparameters import Place, read_settings
from crosstune.sweeps.fused.joint_step import JointStep, MemberBatch
from crosstune.sweeps.fused.rendezvous import Barrier, BarrierStopped
from crosstune.sweeps.job import run_isolated
from crosstune.training.lightning_module import FineTuningModule, LossStrategy

M_ARENA_MAX = -8  # as in glibc's malloc.h
log = logging.getLogger(__name__)


class Member(NamedTuple):
    """A run among the others: its number, its learner, what it trains and in what it differs."""

    number: int
    learner: FineTuningModule
    weights: dict[str, nn.Parameter]
    settings: dict[Place, float]


class GroupTrainer:
    """Trains runs together; `tell` hears of each that ends, with its number and its answer."""

    def __init__(self, runs: Mapping[int, Run], tell: Callable[[int, dict[str, Any]], None]):
        self.runs, self.tell = runs, tell
        self.step = JointStep()
        self.meeting = Barrier(runs, self.step)
        self.frozen: dict[str, Tensor] = {}  # held once
        self.sharing: set[int] = set()  # runs that use it

    def train(self) -> None:
        """Train all runs; return when the last one has ended."""
        threads = [
            threading.Thread(target=self._train, args=pair, daemon=True)
            for pair in self.runs.items()
        ]
        _use_one_heap()
        with (
            silence_libraries()
        ):  # for all: threads that came and went would mix up what was silenced before
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            except BaseException:  # Ctrl-C comes here alone
                self.meeting.stop()
                for thread in threads:
                    thread.join()
                raise
        together, alone = self.step.together, self.step.alone
        log.info("%d runs together: %d steps joint, %d alone", len(self.runs), together, alone)

    def _train(self, number: int, run: Run) -> None:
        with suppress(BarrierStopped), self.meeting.attend(number):
            self.tell(number, run_isolated(run, loss_strategy=JointLoss(number, self)))

    def sum_losses(
        self, seat: Member, task: Any, model: Any, parts: Sequence[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a run's batch, and the number of its terms."""
        if seat.number not in self.sharing:
            self._share_frozen(seat)
        data = seat.learner.data
        pad_id: Any = data.tokenizer.pad_token_id
        draw = (data.seed, seat.learner.trainer.fit_loop.total_batch_idx)
        brought = MemberBatch(task, model, *seat[2:], parts, data.whole, pad_id, draw)
        given = self.meeting.meet(seat.number, brought)
        total = _HandOut.apply(given.total, given.gradients, *seat.weights.values())
        return total, given.terms

    def _share_frozen(self, seat: Member) -> None:
        """Let a run use the frozen weights that the others use, once they are where it trains.

        Only what they hold is shared: each run moves its own parameters from and to its device.
        """
        for name, parameter in seat.learner.model.named_parameters():
            if parameter.requires_grad or ".original_module." in name:
                continue  # the latter is the head before training, which nothing reads
            held = self.frozen.setdefault(name, parameter.data)
            if not torch.equal(held, parameter.data):
                raise RunError(f"{name} is frozen, but not as in the runs it is trained with")
            parameter.data = held
        self.sharing.add(seat.number)


class JointLoss(LossStrategy):
    """Computes the losses of one run together with those of the other runs of its group."""

    def __init__(self, number: int, group: GroupTrainer):
        self.number, self.group = number, group
        self.member: Member | None = None  # None: the run is trained alone

    @override
    def attach(self, module: FineTuningModule) -> None:
        model_type = module.model.config.model_type
        architecture = ARCHITECTURES.get(model_type)
        if architecture is None or not architecture.vmappable:
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


def _use_one_heap() -> None:
    """Let new threads share the heaps there are: one at a time works, and glibc gives each its own.

    What one thread frees the others could not use: eight runs took half as much memory again.
    """
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None:
        limit(M_ARENA_MAX, 1)


class _HandOut(torch.autograd.Function):
    """Gives each weight the gradient that was made for it."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: Sequence[Any], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return (None, None, *(None if g is None else g * grads[0] for g in ctx.gradients))
