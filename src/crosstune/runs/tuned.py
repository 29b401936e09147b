"""Fair arms: which values a search tries for an arm, and where a study finds what it chose.

`crosstune tune` (tune.py) writes `outputs/<experiment>.tuning/chosen.json`; a run with `tuned=true`
takes its arm's values from there. An arm is everything of a run but its seed, its test data and the
values searched for. Imports nothing heavy, so that a study can be planned at once.
"""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crosstune.config.compose import run_from_dict, scale_learning_rate, to_dict
from crosstune.config.schema import Run
from crosstune.data.splits import Splits
from crosstune.errors import ConfigError
from crosstune.files import atomic_write
from crosstune.runs.fingerprint import digest_weights, result_config

RATE = "optimizer.learning_rate"


class Choice(NamedTuple):
    """What a search found for an arm."""

    arm: dict[str, Any]  # what the trials had in common
    seed: int
    trials: int  # asked for, the same number for every arm of a study
    values: dict[str, Any]  # of the best trial, by dotted key
    validation: float  # its headline score
    tried: list[dict[str, Any]]  # every trial: values, run_id, and validation if it finished

    @property
    def told(self) -> str:
        """The choice in a line."""
        config = self.arm["config"]
        data = config["data"]
        languages = "+".join([data["language"], *data["further_languages"]])
        names = (config["method"]["name"], config["model"]["name"], data["name"], languages)
        values = ", ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{' · '.join(names)}: {values}, validation {self.validation:.3f}"


def make_trials(run: Run, trials: int) -> list[dict[str, Any]]:
    """Return the values of each trial of an arm: what the run has by itself, first.

    Learning rates lie half a power of ten apart around the run's own. Where the method's `search`
    names more keys, the trials are drawn from the whole grid by the run's seed.

    Raises:
        ConfigError: `method.search` names a key that the run has not.
    """
    grid = {RATE: [scale_learning_rate(run.optimizer.learning_rate, f) for f in _factors(trials)]}
    grid |= {key: [_get(run, key), *values] for key, values in run.method.search.items()}
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    own = {key: _get(run, key) for key in grid}
    others = [point for point in dict.fromkeys(map(json.dumps, points)) if point != json.dumps(own)]
    if run.method.search:
        order = np.random.default_rng(run.seed).permutation(len(others))
        others = [others[number] for number in order]
    return [own, *(json.loads(point) for point in others)][:trials]


def _factors(trials: int) -> list[float]:
    """Return the factors of the learning rate, the mildest first.

    >>> _factors(5)
    [1.0, 3.2, 0.32, 10.0, 0.1]
    """
    steps = [0, *(sign * size for size in range(1, trials) for sign in (1, -1))]
    return [float(f"{10 ** (step / 2):.2g}") for step in steps[:trials]]


def override_values(run: Run, values: dict[str, Any]) -> Run:
    """Return the run with the values at these dotted keys."""
    plain = to_dict(run)
    for key, value in values.items():
        *path, last = key.split(".")
        node: Any = plain
        for part in path:
            node = node[part]
        node[last] = value
    return run_from_dict(plain)


def arm_key(run: Run, splits: Splits) -> dict[str, Any]:
    """Return what all trials and all seeds of an arm have in common."""
    config = result_config(override_values(run, dict.fromkeys([RATE, *run.method.search], 0)))
    del config["seed"]
    content = {
        name: {language: sorted(split.digests.values()) for language, split in parts.items()}
        for name, parts in splits.items()
        if name != "test"
    }
    return {"config": config, "data": content, "model": digest_weights(run.model)}


def apply_tuned(run: Run, splits: Splits) -> tuple[Run, dict[str, Any]]:
    """Return the run with the values chosen for its arm, and how they were chosen.

    Raises:
        ConfigError: nothing was chosen for this arm under these very conditions.
    """
    if not run.tuned:
        return run, {}
    path = tuned_file(run)
    choices = read_choices(path)
    arm = arm_key(run, splits)
    found = next((choice for choice in choices if choice.arm == arm), None)
    if found is None:
        raise ConfigError(
            f"tuned=true: {path} holds no choice for method={run.method.name}, "
            f"model={run.model.name}, data={run.data.name}, {run.data.trained_on} under these "
            f"options{_nearest(arm, choices)}. Run crosstune tune with the same words first."
        )
    facts = {"trials": found.trials, "seed": found.seed, "values": found.values}
    return override_values(run, found.values), {**facts, "validation": found.validation}


def tuned_file(run: Run) -> Path:
    """Return where a study's choices lie."""
    return Path(run.outputs) / f"{run.experiment}.tuning" / "chosen.json"


def read_choices(path: Path) -> list[Choice]:
    """Read what searches chose; none was made: no choices."""
    if not path.is_file():
        return []
    return [Choice(**choice) for choice in json.loads(path.read_text("utf-8"))]


def write_choices(path: Path, choices: Sequence[Choice]) -> None:
    """Add choices to the study's file, the newer of an arm in place of the older."""
    kept = [old for old in read_choices(path) if all(old.arm != new.arm for new in choices)]
    with atomic_write(path) as partial:
        rows = [choice._asdict() for choice in (*kept, *choices)]
        partial.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")


def choose_best(arm: dict[str, Any], seed: int, tried: list[dict[str, Any]]) -> Choice:
    """Return the choice among an arm's trials: the best validation, the earlier of equals.

    Raises:
        ConfigError: no trial finished.
    """
    scores = [trial.get("validation", -math.inf) for trial in tried]
    best = max(range(len(tried)), key=lambda number: (scores[number], -number))
    if scores[best] == -math.inf:
        raise ConfigError(f"none of the {len(tried)} trials of an arm finished; see their records.")
    return Choice(arm, seed, len(tried), tried[best]["values"], scores[best], tried)


def _get(run: Run, key: str) -> Any:
    node: Any = to_dict(run)
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            raise ConfigError(f"method.search: the run has no {key}.")
        node = node[part]
    return node


def _nearest(arm: dict[str, Any], choices: Sequence[Choice]) -> str:
    """Say in what the nearest arm that was tuned differs."""
    if not choices:
        return ""
    differences = [_differences(arm, choice.arm) for choice in choices]
    nearest = min(differences, key=len)
    shown = "; ".join(nearest[:3])
    return f" (the nearest differs in {shown})"


def _differences(one: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [d for k in keys for d in _differences(one.get(k), other.get(k), f"{where}.{k}")]
    name = where.removeprefix(".config").lstrip(".")
    return [] if one == other else [f"{name}: {one} here, {other} there"]
