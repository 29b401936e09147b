"""A run small enough for a test: a one-layer encoder on a few rows of the demo's own text."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from crosstune.config.compose import compose_run
from crosstune.config.schema import Run

ROWS = "++data.reader.rows={train: 40, validation: 12, test: 7}"
MODEL = (
    "model=mini",
    "model.vocab_size=400",
    "model.config.num_hidden_layers=1",
    "model.config.hidden_size=32",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=64",
)
DATA = {
    "classification": ("data=demo_sentiment", "data.language=es"),
    "tagging": ("data=demo_entities", "data.language=zh"),
    "masked_lm": ("data=demo_text", "data.test=test"),
}
METHODS = ("full", "head_only", "bitfit", "lora")


def tiny_overrides(outputs: Path, kind: str = "classification", *more: str) -> list[str]:
    """Return the overrides of a tiny run of a kind."""
    common = ("trainer=cpu", "trainer.max_epochs=2", "data.batch_size=8", "logger=none")
    return [*DATA[kind], ROWS, *MODEL, *common, f"outputs={outputs}", *more]


def tiny_run(outputs: Path, kind: str = "classification", *more: str) -> Run:
    """Return a tiny run of a kind, composed once whatever the folder."""
    run = copy.deepcopy(_composed(kind, *more))
    return replace(run, outputs=str(outputs))


@cache
def _composed(kind: str, *more: str) -> Run:
    return compose_run(tiny_overrides(Path("outputs"), kind, *more))


def saying(logits: torch.Tensor) -> Callable[..., Any]:
    """Return a model that gives these logits whatever it reads."""
    return lambda **inputs: SimpleNamespace(logits=logits)


def batch_of(labels: torch.Tensor) -> dict[str, Any]:
    """Return a batch of labels for such a model."""
    return {"inputs": {}, "labels": labels}
