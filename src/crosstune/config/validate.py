"""Checks of a typed run that its types do not cover.

The bounds of single options are in the schema; rules about several options are here.
"""

import math
import re
from dataclasses import is_dataclass
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from crosstune.config.schema import OPTIONS, Data, Option, Run
from crosstune.errors import ConfigError
from crosstune.languages import check_language

_MAX_NAME_BYTES = 200  # file systems allow 255, and some names are longer than the study's
_PROJECT = r"[^/\\#?%:\x00-\x1f]{1,128}"


def check_values(run: Run) -> None:
    """Raise ConfigError at the first option whose value is not allowed."""
    if (
        not re.fullmatch(r"[\w.-]+", run.experiment)
        or run.experiment.startswith(".")
        or len(run.experiment.encode()) > _MAX_NAME_BYTES
    ):
        raise ConfigError(
            f"experiment={run.experiment}: a study's name holds letters, digits, '_', '-' and '.', "
            f"does not start with '.', and has at most {_MAX_NAME_BYTES} bytes."
        )
    if not re.fullmatch(_PROJECT, run.logger.project):
        raise ConfigError(
            f"logger.project={run.logger.project}: Weights & Biases takes names of 1 to 128 "
            r"characters without / \ # ? % and :."
        )
    for key, hint in _find_types().items():
        value = attrgetter(key)(run)
        if not _has_type(value, hint):  # an interpolation, which is resolved after Hydra's check
            raise ConfigError(f"{key}={value!r} is a {type(value).__name__}, not {hint}.")
    _check_languages(run.data)
    for key, facts in OPTIONS.items():
        value = attrgetter(key)(run)
        if value is not None:
            _check_bounds(key, value, facts)
    if run.data.batch_tokens is not None and run.data.batch_tokens < run.data.max_tokens:
        raise ConfigError(
            f"data.batch_tokens={run.data.batch_tokens}: a batch holds at least one input, of up "
            f"to data.max_tokens={run.data.max_tokens} subwords."
        )
    if run.data.batch_size is not None and run.data.batch_size % run.trainer.devices:
        raise ConfigError(
            f"data.batch_size={run.data.batch_size} is the batch of one optimizer step over all "
            f"devices and must be a multiple of trainer.devices={run.trainer.devices}."
        )


@cache
def _find_types() -> dict[str, Any]:
    """Return the type of every option."""
    hints: dict[str, Any] = {}
    for group, schema in get_type_hints(Run).items():
        inner = get_type_hints(schema) if is_dataclass(schema) else {}
        hints |= {f"{group}.{name}": hint for name, hint in inner.items()} or {group: schema}
    return {key: hint for key, hint in hints.items() if key in OPTIONS}


def _has_type(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_has_type(value, part) for part in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def _check_bounds(key: str, value: Any, facts: Option) -> None:
    if facts.minimum is not None and not facts.minimum <= value < math.inf:
        raise ConfigError(f"{key}={value}: must be at least {facts.minimum} and finite.")
    if facts.exclusive_minimum is not None and not facts.exclusive_minimum < value:
        raise ConfigError(f"{key}={value}: must be above {facts.exclusive_minimum}.")
    if facts.maximum is not None and value > facts.maximum:
        raise ConfigError(f"{key}={value}: must be at most {facts.maximum}.")
    if facts.allowed and value not in facts.allowed:
        allowed = ", ".join(facts.allowed)
        raise ConfigError(
            f"{key}={value}. Allowed: {allowed}. About this option: {facts.sentence}."
        )


def _check_languages(data: Data) -> None:
    for language in data.train_languages:
        check_language(language)
    if len(set(data.train_languages)) < len(data.train_languages):
        raise ConfigError(f"data.further_languages={data.further_languages}: a language twice.")
    if data.in_turn and not data.further_languages:
        raise ConfigError(
            "data.in_turn: name the languages after the first, in their order, with "
            "data.further_languages=[zh, en]."
        )
