"""Which runs of a sweep can be trained together, and why the others cannot.

Runs form a group if their passes through the model differ in numbers only: same base model, data,
batch size and shape of the method. Seed, scale, dropout rate, optimizer, schedule, clipping, number
of steps and early stopping may differ. Imports nothing heavy.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from crosstune.config.compose import to_dict
from crosstune.config.schema import ModelOrigin, Run, TaskType
from crosstune.errors import CrosstuneError
from crosstune.models.resolve import resolve_defaults
from crosstune.runs.fingerprint import result_config

KINDS = (TaskType.classification, TaskType.tagging)
TASK_OPTIONS = ("crf", "separator")  # they change the loss
METHODS = (
    "peft.LoraConfig",
    "peft.IA3Config",
    "peft.LNTuningConfig",
    "crosstune.methods.head_only",
    "crosstune.methods.bitfit.BitFitConfig",
    "crosstune.methods.bottleneck.BottleneckConfig",
)
MADX_OPTIONS = ("above_language", "invertible")
# options in which runs of a group may differ
FREE = {
    "method": ("learning_rate",),
    "trainer": ("patience", "gradient_clip_val", "max_epochs", "max_steps", "log_every_n_steps"),
}
FREE_PEFT = ("lora_alpha", "lora_dropout")


class RunGroups(NamedTuple):
    """Numbers of runs that are trained together, and of all others with the reason."""

    together: list[list[int]]
    alone: dict[int, str]


def make_groups(runs: Mapping[int, Run], size: int) -> RunGroups:
    """Divide runs into groups of at most `size`."""
    alone: dict[int, str] = {}
    by_shape: dict[str, list[int]] = {}
    first_with: dict[str, int] = {}
    for number, unresolved in runs.items():
        try:
            run = resolve_defaults(unresolved)
        except CrosstuneError as error:
            alone[number] = str(error)  # training the run raises it again and records it
            continue
        identity = json.dumps([result_config(run), run.outputs, run.experiment], sort_keys=True)
        first = first_with.setdefault(identity, number)
        if first != number:
            alone[number] = f"it repeats run {first + 1}"
        elif reason := find_obstacle(run):
            alone[number] = reason
        else:
            by_shape.setdefault(shape_of(run), []).append(number)
    together: list[list[int]] = []
    for numbers in by_shape.values():
        for start in range(0, len(numbers), size):
            group = numbers[start : start + size]
            if len(group) > 1:
                together.append(group)
            else:
                alone[group[0]] = "no other run has its base, data and shape"
    return RunGroups(together, dict(sorted(alone.items())))


def find_obstacle(run: Run) -> str:
    """Return why a run cannot be trained in any group; "" if it can."""
    peft = run.method.peft or {}
    if run.data.kind not in KINDS:
        return f"data.kind={run.data.kind.name}"
    if set(TASK_OPTIONS) & {name for name, value in run.data.task.items() if value}:
        return f"data.task={run.data.task}"
    if run.method.peft is None:
        return f"method={run.method.name} leaves nothing frozen"
    if peft.get("_target_") not in METHODS or any(peft.get(option) for option in MADX_OPTIONS):
        return f"method={run.method.name}"
    if run.trainer.devices > 1:
        return f"trainer.devices={run.trainer.devices}"
    if run.trainer.compile:
        return "trainer.compile=true"
    if len(run.data.stages) > 1:
        return "data.in_turn=true"
    return ""


def shape_of(run: Run) -> str:
    """Return what all runs of a group have in common, as JSON."""
    config = to_dict(run)
    common: dict[str, Any] = {
        name: {key: value for key, value in config[name].items() if key not in FREE.get(name, ())}
        for name in ("data", "model", "method", "trainer")
    }
    peft = common["method"]["peft"]
    common["method"]["peft"] = {
        **{key: value for key, value in peft.items() if key not in FREE_PEFT},
        "has_lora_dropout": bool(peft.get("lora_dropout")),  # at rate 0 peft adds no dropout module
    }
    if run.model.origin is ModelOrigin.scratch or run.model.extend_vocab:
        common["seed"] = run.seed  # it draws weights that stay frozen
    if run.tuned:
        common["optimizer"] = config["optimizer"]  # it identifies the arm of the tuned values
    return json.dumps([common, run.outputs, run.experiment], sort_keys=True)
