"""MAD-X: frozen language adapters below a task adapter.

Pfeiffer et al. 2020, https://aclanthology.org/2020.emnlp-main.617. The adapters are those of
`bottleneck.py`; a language's is trained by masked LM. This file loads them beside a task's adapter
and activates one per language.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from typing_extensions import override

from crosstune.config.schema import Run
from crosstune.errors import ConfigError, one_line
from crosstune.methods.bottleneck import BottleneckConfig, BottleneckLayer, BottleneckModel
from crosstune.methods.tuning_method import TuningMethod
from crosstune.models.checkpoint_config import read_adapter_config

log = logging.getLogger(__name__)

PREFIX = "language_"  # + language code: the name of its adapter in peft, and of its folder


class MadX(TuningMethod):
    """Activates the adapter of a language."""

    @classmethod
    @override
    def fits(cls, model: Any) -> bool:
        return any(name.startswith(PREFIX) for name in getattr(model, "peft_config", {}))

    @override
    def activate_language(self, language: str) -> None:
        name = PREFIX + language
        known = [name for name in self.model.peft_config if name.startswith(PREFIX)]
        if name not in known:
            codes = ", ".join(code.removeprefix(PREFIX) for code in known)
            raise ConfigError(f"no language adapter for {language}, only for {codes}.")
        for module in self.model.modules():
            if isinstance(module, BottleneckLayer):
                module.language_adapter = name


def check_language_adapters(run: Run, languages: set[str]) -> None:
    """Raise ConfigError unless a run that uses language adapters has one for each language."""
    if not (known := run.method.language_adapters):
        return
    if not (run.method.peft or {}).get("above_language"):
        raise ConfigError(f"method.language_adapters: not for method={run.method.name}, but madx.")
    if len(max(run.data.stages, key=len)) > 1:
        raise ConfigError(
            "method.language_adapters: languages trained on together share their batches, which "
            "one language's adapter cannot serve. Give data.in_turn=true, or one language."
        )
    if missing := sorted(languages - set(known)):
        raise ConfigError(
            f"method.language_adapters: none for {', '.join(missing)}, which the data has. "
            f"Given: {', '.join(known)}."
        )


def load_language_adapters(model: Any, folders: Mapping[str, str]) -> None:
    """Load the language adapters in these folders into an adapted model, frozen and inactive.

    Warns if there are none but the task's adapter was made for them.

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
        _load_language_adapter(model, language, Path(folder))


def list_language_adapters(folder: Path) -> dict[str, str]:
    """Return language -> folder of the language adapters that a saved model has."""
    paths = sorted(folder.glob(f"{PREFIX}*/adapter_config.json"))
    return {path.parent.name.removeprefix(PREFIX): path.parent.as_posix() for path in paths}


def _load_language_adapter(model: Any, language: str, folder: Path) -> None:
    where, name = f"method.language_adapters.{language}={folder}", PREFIX + language
    tuner = getattr(model, "base_model", None)
    if not isinstance(tuner, BottleneckModel):
        raise ConfigError(f"{where}: language adapters are for method=madx only.")
    tuner.peft_config[name] = _read_adapter_config(where, folder)
    try:
        tuner.inject_adapter(tuner.model, name)
        saved = load_file(folder / "adapter_model.safetensors")
        weights = {key: tensor for key, tensor in saved.items() if ".bottleneck_" in key}
        result = set_peft_model_state_dict(model, weights, adapter_name=name)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{where}: does not fit this encoder ({one_line(error)})") from error
    missing = [key for key in result.missing_keys if f".{name}." in key]
    if unmatched := missing + result.unexpected_keys:
        raise ConfigError(f"{where}: does not fit this encoder, {unmatched[0]} has no counterpart.")


def _read_adapter_config(where: str, folder: Path) -> BottleneckConfig:
    """Read how a language adapter is built; this model decides its position and head."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ConfigError(f"{where}: no adapter_config.json in it; is it a peft method's run?")
    peft_type = read_adapter_config(folder).get("peft_type")
    if peft_type == "BOTTLENECK":
        config: Any = BottleneckConfig.from_pretrained(folder.as_posix())
        if config.style == "pfeiffer":
            config.target_modules = config.modules_to_save = None
            return config
    raise ConfigError(f"{where}: not what method=madx_language trains, but {peft_type}.")
