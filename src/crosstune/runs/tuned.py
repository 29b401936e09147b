"""Learning rates chosen by `crosstune tune`, stored in `chosen.json`.

One rate is chosen for each arm: a configuration without its seed, test data and learning rate.
`apply_tuned` sets the chosen values on a run with `tuned=true`.
"""

import json
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from crosstune.config.compose import run_from_dict, scale_learning_rate, to_dict
from crosstune.config.schema import Run
from crosstune.data.splits import Splits
from crosstune.errors import ConfigError, one_line
from crosstune.files import atomic_write, read_regular
from crosstune.runs.fingerprint import digest_splits, digest_weights, result_config

RATE = "optimizer.learning_rate"


class Choice(NamedTuple):
    """The result of the search for one arm."""

    arm: dict[str, Any]  # what all trials share
    seed: int
    trials: int  # requested: the same number for every arm of a study
    values: dict[str, Any]  # of the best trial, by dotted key
    validation: float  # its headline score
    tried: list[dict[str, Any]]  # every trial: values, run_id, and validation if it finished

    @property
    def summary(self) -> str:
        """The choice in one line."""
        config = self.arm["config"]
        data = config["data"]
        languages = "+".join([data["language"], *data["further_languages"]])
        names = (config["method"]["name"], config["model"]["name"], data["name"], languages)
        values = ", ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{' · '.join(names)}: {values}, validation {self.validation:.3f}"


def make_trials(run: Run, trials: int) -> list[dict[str, Any]]:
    """Return the values of each trial of an arm, first the run's own.

    Learning rates are half a power of ten apart.
    """
    factors = _learning_rate_factors(trials)
    return [{RATE: scale_learning_rate(run.optimizer.learning_rate, f)} for f in factors]


def _learning_rate_factors(trials: int) -> list[float]:
    """Return the factors on the learning rate, the smallest changes first.

    >>> _learning_rate_factors(5)
    [1.0, 3.2, 0.32, 10.0, 0.1]
    """
    steps = [0, *(sign * size for size in range(1, trials) for sign in (1, -1))]
    return [float(f"{10 ** (step / 2):.2g}") for step in steps[:trials]]


def override_values(run: Run, values: dict[str, Any]) -> Run:
    """Return the run with these values, given by dotted key."""
    plain = to_dict(run)
    for key, value in values.items():
        *path, last = key.split(".")
        node: Any = plain
        for part in path:
            node = node[part]
        node[last] = value
    return run_from_dict(plain)


def arm_key(run: Run, splits: Splits) -> dict[str, Any]:
    """Return what all trials and all seeds of an arm share."""
    config = result_config(override_values(run, {RATE: 0}))
    del config["seed"]
    digests = digest_splits(splits)
    digests.pop("test", None)
    return {"config": config, "data": digests, "model": digest_weights(run.model)}


def apply_tuned(run: Run, splits: Splits) -> tuple[Run, dict[str, Any]]:
    """Return the run with the values chosen for its arm, and how they were chosen.

    Raises:
        ConfigError: no choice was made for this arm under the same conditions.
    """
    if not run.tuned:
        return run, {}
    path = tuned_file(run)
    choices = read_choices(path)
    arm = arm_key(run, splits)
    choice = next((choice for choice in choices if choice.arm == arm), None)
    if choice is None:
        raise ConfigError(
            f"tuned=true: {path} holds no choice for method={run.method.name}, "
            f"model={run.model.name}, data={run.data.name}, {run.data.trained_on} under these "
            f"options{_describe_nearest(arm, choices)}. Run crosstune tune with the same overrides "
            "first."
        )
    facts = {key: getattr(choice, key) for key in ("trials", "seed", "values", "validation")}
    return override_values(run, choice.values), facts


def tuned_file(run: Run) -> Path:
    """Return the path of the choices of a run's study."""
    return Path(run.outputs) / f"{run.experiment}.tuning" / "chosen.json"


def read_choices(path: Path) -> list[Choice]:
    """Read the choices of a study; a missing file has none.

    Raises:
        ConfigError: the file is no list of choices, or one sets more than a learning rate.
    """
    if not path.is_file():
        return []
    try:
        choices = [Choice(**choice) for choice in json.loads(read_regular(path))]
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: no list of choices ({one_line(error)}). Delete it and tune again."
        ) from error
    for choice in choices:
        rate = choice.values.get(RATE) if isinstance(choice.values, dict) else None
        if not isinstance(rate, float | int) or not 0 < rate < inf or len(choice.values) > 1:
            raise ConfigError(
                f"{path}: a choice sets {choice.values!a:.200}, where tuning chooses {RATE} and "
                "nothing else. Delete the file and tune again."
            )
    return choices


def write_choices(path: Path, choices: Sequence[Choice]) -> None:
    """Add choices to the study's file; they replace older ones of the same arms."""
    older = [old for old in read_choices(path) if all(old.arm != new.arm for new in choices)]
    with atomic_write(path) as partial:
        rows = [choice._asdict() for choice in (*older, *choices)]
        partial.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")


def choose_best(arm: dict[str, Any], seed: int, tried: list[dict[str, Any]]) -> Choice:
    """Return the trial of an arm with the best validation score; of equals, the first.

    Raises:
        ConfigError: no trial finished.
    """
    finished = [trial for trial in tried if "validation" in trial]
    if not finished:
        raise ConfigError(f"none of the {len(tried)} trials of an arm finished; see their records.")
    best = max(finished, key=lambda trial: trial["validation"])
    return Choice(arm, seed, len(tried), best["values"], best["validation"], tried)


def _describe_nearest(arm: dict[str, Any], choices: Sequence[Choice]) -> str:
    """Return a clause that names in what the nearest tuned arm differs."""
    if not choices:
        return ""
    nearest = min((_list_differences(arm, choice.arm) for choice in choices), key=len)
    return f" (the nearest differs in {'; '.join(nearest[:3])})"


def _list_differences(one: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [
            d for k in keys for d in _list_differences(one.get(k), other.get(k), f"{where}.{k}")
        ]
    name = where.removeprefix(".config").lstrip(".")
    return [] if one == other else [f"{name}: {one} here, {other} there"]
