"""Which runs of a sweep can be trained together, and why the others cannot.

Runs go together whose passes through the model differ in nothing but numbers: the same base, data,
batch size and shape of the method. Each keeps its seed, scale, rate of dropout, optimizer,
schedule, clipping, number of steps and early stopping. Imports nothing heavy. Called by the
launcher `hydra/launcher=fused`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crosstune.config.compose import to_dict
from crosstune.config.schema import ModelOrigin, Run, TaskType
from crosstune.errors import CrosstuneError
from crosstune.runs.fingerprint import resolve_defaults, result_config

KINDS = (TaskType.classification, TaskType.tagging)
OPTIONS = ("crf", "separator")  # of a kind, with which its loss is another
METHODS = (
    "peft.LoraConfig",
    "peft.IA3Config",
    "peft.LNTuningConfig",
    "crosstune.methods.head_only",
    "crosstune.methods.bitfit.BitFitConfig",
    "crosstune.methods.bottleneck.BottleneckConfig",
)
LANGUAGES = ("above_language", "invertible")  # parts of MAD-X
FREE = {"method": ("learning_rate",), "trainer": ("patience", "gradient_clip_val")}
NUMBERS = ("lora_alpha", "lora_dropout")
STEPS = ("max_epochs", "max_steps", "log_every_n_steps")  # each run has its own loop


class RunGroups(NamedTuple):
    """Numbers of runs that are trained together, and of all others with the reason."""

    together: list[list[int]]
    alone: dict[int, str]


def make_groups(runs: Mapping[int, Run], size: int) -> RunGroups:
    """Return groups of at most `size` runs."""
    alone: dict[int, str] = {}
    found: dict[str, list[int]] = {}
    first: dict[str, int] = {}
    for number, given in runs.items():
        try:
            run = resolve_defaults(given)
        except CrosstuneError as error:
            alone[number] = str(error)  # it is told again where the run is done, and recorded
            continue
        whole = [result_config(run), run.outputs, run.experiment]
        same = first.setdefault(json.dumps(whole, sort_keys=True), number)
        if same != number:
            alone[number] = f"it is run {same + 1} once more"
        elif reason := find_obstacle(run):
            alone[number] = reason
        else:
            found.setdefault(shape_of(run), []).append(number)
    together = [group for numbers in found.values() for group in _part(numbers, size)]
    reason = "no other run has its base, data and shape"
    alone |= {number: reason for group in together if len(group) == 1 for number in group}
    return RunGroups([group for group in together if len(group) > 1], dict(sorted(alone.items())))


def find_obstacle(run: Run) -> str:
    """Return why a run can go with no other; nothing if it can."""
    peft = run.method.peft or {}
    if run.data.kind not in KINDS:
        return f"data.kind={run.data.kind.name}"
    if set(OPTIONS) & {name for name, value in run.data.task.items() if value}:
        return f"data.task={run.data.task}"
    if run.method.peft is None:
        return f"method={run.method.name} leaves nothing frozen"
    if peft.get("_target_") not in METHODS or any(peft.get(option) for option in LANGUAGES):
        return f"method={run.method.name}"
    if run.trainer.devices > 1:
        return f"trainer.devices={run.trainer.devices}"
    if run.trainer.compile:
        return "trainer.compile=true"
    if len(run.data.stages) > 1:
        return "data.in_turn=true"
    return ""


def shape_of(run: Run) -> str:
    """Return what runs that go together have in common."""
    plain = to_dict(run)
    free = {**FREE, "trainer": (*FREE["trainer"], *STEPS)}
    common: dict[str, Any] = {
        name: {key: value for key, value in plain[name].items() if key not in free.get(name, ())}
        for name in ("data", "model", "method", "trainer")
    }
    peft = common["method"]["peft"]
    common["method"]["peft"] = {
        **{key: value for key, value in peft.items() if key not in NUMBERS},
        "dropped": bool(peft.get("lora_dropout")),  # at rate 0 peft puts no dropout there
    }
    if run.model.origin is ModelOrigin.scratch or run.model.extend_vocab:
        common["seed"] = run.seed  # it draws weights that stay frozen
    if run.tuned:
        common["optimizer"] = plain["optimizer"]  # part of what names the arm
    return json.dumps([common, run.outputs, run.experiment], sort_keys=True)


def _part(numbers: Sequence[int], size: int) -> list[list[int]]:
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]
