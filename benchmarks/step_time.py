"""What crosstune's loop adds to a plain PyTorch loop: a step of each in turn, on the same batches.

A real run of `crosstune train`, with one callback more: before each step it takes the same step on
a copy of the model, with an optimizer of its own, and times both. Overrides on the command line;
prints one JSON object.
"""

import copy
import itertools
import json
import statistics
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
import transformers

import crosstune.training.train
from crosstune.config.compose import compose_run

WARM_UP = 5  # steps that are not counted


class Twin(pl.Callback):
    """Takes every step a second time, in plain PyTorch, and times both."""

    def __init__(self) -> None:
        self.took: list[tuple[tuple[float, float], tuple[float, float]]] = []  # ours, plain
        self.since = self.plain = (0.0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the model and make what a plain loop needs."""
        learner: Any = pl_module
        self.model, self.task = copy.deepcopy(learner.model), learner.task
        self.device = learner.device
        loader: Any = trainer.train_dataloader
        self.batches = iter(itertools.chain.from_iterable(itertools.repeat(loader)))
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        options = learner.optimizer
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters if p.ndim > 1]},
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            fused=True,
        )
        steps = int(trainer.estimated_stepping_batches)
        self.schedule = transformers.get_linear_schedule_with_warmup(
            self.optimizer, round(options.warmup_ratio * steps), steps
        )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note crosstune's time since the last step, and take a plain one.

        The last step of an epoch is followed by validation, and not counted.
        """
        began = _now()
        if batch_idx:
            self.took.append((_between(self.since, began), self.plain))
        self.step()
        self.since = _now()
        self.plain = _between(began, self.since)

    def step(self) -> None:
        """Take the next step of a plain loop."""
        parts = next(self.batches)["parts"]
        total, count = torch.zeros((), device=self.device), 0
        for part in parts:
            loss, terms = self.task.loss(self.model, _moved(part, self.device))
            total, count = total + loss, count + terms
        self.optimizer.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, torch.Tensor):
        return part.to(device, non_blocking=True)
    if isinstance(part, dict):
        return {name: _moved(value, device) for name, value in part.items()}
    return part


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _between(began: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    return ended[0] - began[0], ended[1] - began[1]


def main() -> None:
    """Train as the command line says, with the twin beside it."""
    twin = Twin()
    build_trainer = crosstune.training.train.build_trainer

    def build_with_twin(run: Any, folder: Any, callbacks: Any, *more: Any) -> pl.Trainer:
        # first among the callbacks: what the others do is part of crosstune's step
        return build_trainer(run, folder, [twin, *callbacks], *more)

    crosstune.training.train.build_trainer = build_with_twin
    crosstune.training.train.train(compose_run(sys.argv[1:]))
    walls, cpus = ([(ours[k], plain[k]) for ours, plain in twin.took[WARM_UP:]] for k in (0, 1))
    said = {
        "ours": statistics.median(ours for ours, _ in walls),
        "plain": statistics.median(plain for _, plain in walls),
        "median": statistics.median(ours / plain for ours, plain in walls),
        "wall": sum(ours for ours, _ in walls) / sum(plain for _, plain in walls),
        "cpu": sum(ours for ours, _ in cpus) / sum(plain for _, plain in cpus),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
