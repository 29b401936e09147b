"""MAD-X: adapters of languages, frozen, below the adapter of a task.

Pfeiffer et al. 2020, https://aclanthology.org/2020.emnlp-main.617. The adapters themselves are
`bottleneck.py`'s, and a language's is trained there by masked LM. Here they are loaded beside a
task's, found again in what a run saved, and one of them is activated wherever training or
evaluation turns to a language.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from crosstune.errors import ConfigError
from crosstune.methods.adapters import BottleneckLayer
from crosstune.methods.bottleneck import BottleneckConfig, BottleneckModel

log = logging.getLogger(__name__)

PREFIX = "language_"  # before a language's code: the name of its adapter in peft, and of its folder


def load_language_adapters(model: Any, folders: Mapping[str, str]) -> None:
    """Put the language adapters of these folders into an adapted model, frozen and at rest.

    Warns if there are none where the task's adapter was made for them.

    Raises:
        ConfigError: a folder holds no language adapter, or one of another encoder.
    """
    task = getattr(model, "peft_config", {}).get("default")
    if not folders and getattr(task, "above_language", False):
        log.warning(
            "no language adapters: the task adapter is on the bare encoder. Train one a language "
            "with method=madx_language and give 'method.language_adapters={es: DIR, zh: DIR}'"
        )
    for language, folder in folders.items():
        _learn(model, language, Path(folder))


def list_language_adapters(folder: Path) -> dict[str, str]:
    """Return language -> folder of the language adapters that a saved model has."""
    found = sorted(folder.glob(f"{PREFIX}*/adapter_config.json"))
    return {path.parent.name.removeprefix(PREFIX): path.parent.as_posix() for path in found}


def activate_language_adapter(model: Any, language: str) -> None:
    """Put the adapter of a language to work, if the model has adapters of languages.

    Raises:
        ConfigError: it has some, but none of this language.
    """
    known = [name for name in getattr(model, "peft_config", {}) if name.startswith(PREFIX)]
    if not known:
        return
    name = PREFIX + language
    if name not in known:
        codes = ", ".join(code.removeprefix(PREFIX) for code in known)
        raise ConfigError(f"no language adapter for {language}, only for {codes}.")
    for module in model.modules():
        if isinstance(module, BottleneckLayer):
            module.below = name


def _learn(model: Any, language: str, folder: Path) -> None:
    where, name = f"method.language_adapters.{language}={folder}", PREFIX + language
    tuner = getattr(model, "base_model", None)
    if not isinstance(tuner, BottleneckModel):
        raise ConfigError(f"{where}: language adapters are for method=madx only.")
    tuner.peft_config[name] = _read_config(where, folder)
    try:
        tuner.inject_adapter(tuner.model, name)
        saved = load_file(folder / "adapter_model.safetensors")
        weights = {key: tensor for key, tensor in saved.items() if ".bottleneck_" in key}
        result = set_peft_model_state_dict(model, weights, adapter_name=name)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: does not fit this encoder ({reason})") from error
    missing = [key for key in result.missing_keys if f".{name}." in key]
    if odd := missing + result.unexpected_keys:
        raise ConfigError(f"{where}: does not fit this encoder, {odd[0]} has no counterpart.")


def _read_config(where: str, folder: Path) -> BottleneckConfig:
    """Return how a language adapter is built; where, and with which head, this model decides."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ConfigError(f"{where}: no adapter_config.json in it; is it a peft method's run?")
    kind = json.loads(path.read_text("utf-8")).get("peft_type")
    if kind == "BOTTLENECK":
        config: Any = BottleneckConfig.from_pretrained(folder.as_posix())
        if config.style == "pfeiffer":
            config.target_modules = config.modules_to_save = None
            return config
    raise ConfigError(f"{where}: not what method=madx_language trains, but {kind}.")
