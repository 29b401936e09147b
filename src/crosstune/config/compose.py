"""Composes `conf/` and the command line into a typed `Run`, with Hydra.

`compose_run` and `to_run` turn what Hydra composed into dataclasses and refuse what the schema does
not have. `explain_compose_error` turns errors of Hydra and OmegaConf into one paragraph.
"""

import copy
import dataclasses
import os
import re
from collections.abc import Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from traceback import walk_tb
from typing import Any, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from crosstune.config.overrides import parse_override
from crosstune.config.paths import find_conf, find_config_files
from crosstune.config.schema import OPTIONS, RETIRED_OPTIONS, Run
from crosstune.config.search_path import register_search_path
from crosstune.config.validate import check_values
from crosstune.errors import ConfigError, one_line, suggest
from crosstune.files import read_yaml

_PLAIN_ERRORS = (AssertionError, AttributeError, TypeError, ValueError)  # of OmegaConf.update
COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, *_PLAIN_ERRORS)
EXTRAS = {"submitit": "slurm", "optuna": "optuna"}  # first word of a plugin -> our extra


def scale_learning_rate(learning_rate: float, factor: float) -> float:
    """Return the product, rounded to 12 significant digits.

    >>> scale_learning_rate(5e-5, 6)
    0.0003
    """
    return float(f"{learning_rate * factor:.12g}")


def choose_by_name(name: str, values: dict[str, Any], otherwise: Any) -> Any:
    """Return the value of a name: what runs of one study that need different values interpolate.

    In YAML: `max_epochs: "${by:${data.name},{wikiann: 10},3}"`.

    >>> values = {"wikiann": 10}
    >>> choose_by_name("wikiann", values, 3), choose_by_name("xquad", values, 3)
    (10, 3)
    """
    return values.get(name, otherwise)


@cache
def register_schema() -> None:
    """Register the schema, our resolvers and how files are read; conf/train.yaml starts with it."""
    register_search_path()
    OmegaConf.register_new_resolver("scale", scale_learning_rate, replace=True)
    OmegaConf.register_new_resolver("by", choose_by_name, replace=True)
    ConfigStore.instance().store(name="run_schema", node=Run, provider="crosstune")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose a configuration, Hydra's own part included.

    Within a running Hydra command its search path is used, and with it the user's `--config-dir`.

    Raises:
        ConfigError: an override, a file or a value is wrong.
    """
    register_schema()
    try:
        if GlobalHydra.instance().is_initialized():
            return compose("train", list(overrides), return_hydra_config=True)
        with initialize_config_dir(str(find_conf()), version_base="1.3"):
            return compose("train", list(overrides), return_hydra_config=True)
    except COMPOSE_ERRORS as error:
        explained = explain_compose_error(error)
        explained.is_composition = True
        raise explained from error
    except ConfigError as error:  # about a YAML file
        error.is_composition = True
        raise


def compose_run(overrides: Sequence[str]) -> Run:
    """Compose one run.

    Raises:
        ConfigError: an override, a file or a value is wrong.
    """
    config = compose_config(overrides)
    hydra: Any = HydraConfig.instance()
    before, hydra.cfg = hydra.cfg, config  # where `${hydra:…}` is read from
    try:
        return to_run(config, overrides)
    finally:
        hydra.cfg = before


def to_run(config: DictConfig, overrides: Sequence[str]) -> Run:
    """Return the composed configuration as dataclasses, every interpolation resolved.

    Raises:
        ConfigError: a key is not in the schema, a value is missing or out of bounds, or a file
            sets `allow`.
    """
    plain = copy.deepcopy(config)
    OmegaConf.set_struct(plain, False)
    plain.pop("hydra", None)
    try:
        _replace_sources(plain, overrides)
        _check_keys(plain, Run, "")
        if plain.allow and not _is_allow_typed(overrides):
            raise ConfigError(
                f"allow={list(plain.allow)} comes from a file. Packages of your own are allowed on "
                "the command line only: allow=[my_package]."
            )
        run: Any = OmegaConf.to_object(plain)
    except OmegaConfBaseException as error:
        raise explain_compose_error(error) from error
    _expand_home(run)
    check_values(run)
    return run


def _expand_home(run: Run) -> None:
    """Replace `~` in paths: shells leave it where it follows `data.train=`."""

    def expand(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: expand(item) for key, item in value.items()}
        return os.path.expanduser(value) if isinstance(value, str) else value

    for key in ["outputs", *(key for key, facts in OPTIONS.items() if facts.is_path)]:
        *group, name = key.split(".")
        owner = getattr(run, group[0]) if group else run
        setattr(owner, name, expand(getattr(owner, name)))


def _replace_sources(plain: DictConfig, overrides: Sequence[str]) -> None:
    """Keep of each split the languages that were typed; Hydra merges them with a file's."""
    typed: dict[str, set[Any]] = {}
    for text in overrides:
        override = parse_override(text)
        group, _, key = override.key_or_group.partition(".")
        split, _, language = key.partition(".")
        value = override.value()
        if group != "data" or split not in ("train", "validation", "test"):
            continue
        if isinstance(value, dict) and not language:
            typed[split] = set(value)
        elif split in typed:
            typed[split].add(language)
    for split, languages in typed.items():
        sources = plain.data[split]
        if isinstance(sources, DictConfig):
            for language in set(sources) - languages:
                del sources[language]


def read_config(path: Path) -> Run:
    """Read a `config.yaml` that `write_config` wrote; nothing in it is instantiated."""
    return run_from_dict(read_yaml(path))


def run_from_dict(plain: dict[str, Any]) -> Run:
    """Return the run of a `to_dict`, also of an older version; nothing in it is instantiated."""
    plain = copy.deepcopy(plain)
    for key in RETIRED_OPTIONS:
        group, _, name = key.partition(".")
        if isinstance(part := plain.get(group), dict):
            part.pop(name, None)
    run: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Run), plain))
    return run


def to_dict(value: Any) -> Any:
    """Return a run, or a part of it, as nested dicts of plain values, enums by name."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {to_dict(key): to_dict(item) for key, item in value.items()}
    return [to_dict(item) for item in value] if isinstance(value, list | tuple) else value


def write_config(run: Run, path: Path) -> None:
    """Write the whole resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(to_dict(run), sort_keys=False, allow_unicode=True), "utf-8")


def explain_compose_error(error: Exception) -> ConfigError:
    """Return an error of Hydra or OmegaConf as one clear paragraph; raise another as it is."""
    if isinstance(error, _PLAIN_ERRORS) and not isinstance(error, OmegaConfBaseException):
        frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
        if not frames[-1].startswith(("omegaconf", "hydra.")):
            raise error
        return ConfigError(
            "An override does not fit its key: a group takes a name, and no option can be given "
            "below a key that is null here, as method.peft of a method without a peft config, or "
            f"holds a list ({one_line(error)})."
        )
    if isinstance(error, MissingConfigException):
        return _explain_missing_config(error)
    if isinstance(error, MissingMandatoryValue):
        match = re.search(r"full_key: (\S+)", str(error))
        key = match.group(1) if match else "a value"
        return ConfigError(f"{key} is missing: give {key}=… on the command line.")
    if isinstance(error, OverrideParseException):
        return ConfigError(f"Cannot read the override {error.override!r}: {one_line(error)}")
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else None
    text = " ".join(one_line(part) for part in (error, cause) if part is not None)
    choice = re.search(r"You must specify '(\S+)', e\.g", text)
    if choice:
        group = choice.group(1)
        return ConfigError(f"No {group} was chosen: give {group}=NAME. {_list_choices(group)}")
    key = re.search(r"Key '(\S+)' (?:is not in struct|not in '(\w+)')", text)
    full = re.search(r"full_key: (\S+)", text)
    if key:
        path = full.group(1) if full else key.group(1)
        if not (allowed := _list_fields_beside(path)):
            return ConfigError(f"{path}: not in its file; to add an option there, write +{path}=…")
        return ConfigError(f"{path}: unknown key. {suggest(key.group(1), allowed)}")
    return ConfigError(re.sub(r"\s*(object_type|reference_type)=\S+", "", text))


def _explain_missing_config(error: MissingConfigException) -> ConfigError:
    missing = str(error.missing_cfg_file)
    group, _, name = missing.rpartition("/")
    options = list(error.options or [])
    if group.startswith("hydra/") and (extra := EXTRAS.get(name.partition("_")[0])):
        return ConfigError(f"{group}={name} needs: pip install 'crosstune[{extra}]'")
    where = f"in conf/{group} or a folder given with --config-dir" if group else "in conf"
    return ConfigError(f"{group}={name}: no such option {where}. {suggest(name, options)}")


def _list_choices(group: str) -> str:
    files = sorted(find_config_files(group))
    return f"Allowed: {', '.join(files)}." if files else ""


def _list_fields_beside(path: str) -> list[str]:
    node: Any = Run
    for part in path.split(".")[:-1]:
        node = get_type_hints(node).get(part, Run) if dataclasses.is_dataclass(node) else Run
    return [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []


def _check_keys(node: DictConfig, schema: Any, where: str) -> None:
    hints = get_type_hints(schema)
    for key in node:
        path = f"{where}{key}"
        if key not in hints:
            raise ConfigError(f"{path}: unknown key. {suggest(str(key), list(hints))}")
        value = node._get_node(key)
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, DictConfig):
            _check_keys(value, hints[key], f"{path}.")


def _is_allow_typed(overrides: Sequence[str]) -> bool:
    """Return whether the user typed `allow`; a sweep hands on the grid of a file as overrides."""
    grid = HydraConfig.get().sweeper.params if HydraConfig.initialized() else None
    if any(str(key).lstrip("+") == "allow" for key in grid or {}):
        return False
    return any(text.lstrip("+").startswith("allow=") for text in overrides)
