"""Checks of the JSON that describes a checkpoint or an adapter, before a library acts on it.

Libraries load kernels, quantizers or modules that such a file names, and build layers as it says.
"""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils.peft_utils import find_adapter_config_file

from crosstune.config.instantiate import find_code_option
from crosstune.errors import ConfigError, one_line

# of a model that fits no machine; the largest checkpoints have 128 layers of 16,384
LIMITS = {
    "num_hidden_layers": 1_000,
    "hidden_size": 100_000,
    "intermediate_size": 1_000_000,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 100_000_000,
    "num_attention_heads": 10_000,
    "num_labels": 1_000_000,
}

# code that runs with trust_remote_code alone, which is False wherever we load (checkpoints that
# transformers has classes for may still name it); what peft imports with megatron_config alone
_IGNORED = ("auto_map", "auto_mapping", "custom_pipelines", "megatron_core")


def check_checkpoint(pretrained_model_name_or_path: str, **options: Any) -> None:
    """Check the `config.json` of a checkpoint, given as for `from_pretrained`.

    Raises:
        ConfigError: as `check_checkpoint_config`, also about an adapter beside it.
    """
    config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **options)
    if not isinstance(config, dict):
        raise ConfigError(
            f"{pretrained_model_name_or_path}, config.json: it holds a {type(config).__name__}, "
            "not an object."
        )
    check_checkpoint_config(config, f"{pretrained_model_name_or_path}, config.json")
    # transformers loads an adapter that lies beside the weights
    options = {key: options[key] for key in ("revision", "local_files_only") if key in options}
    adapter = find_adapter_config_file(pretrained_model_name_or_path, **options)
    if adapter is not None:
        read_adapter_config(Path(adapter).parent)


def check_checkpoint_config(config: dict[str, Any], where: str) -> None:
    """Check the content of a checkpoint's `config.json`.

    Raises:
        ConfigError: it names code, kernels or a quantization, or sizes beyond `LIMITS`.
    """
    check_adapter_config(config, where)
    for key, limit in LIMITS.items():
        value = config.get(key)
        if value is not None and (type(value) is not int or not 0 <= value <= limit):
            raise ConfigError(f"{where}: {key} is {value!a:.40}; it must be from 0 to {limit:,}.")


def check_adapter_config(config: dict[str, Any], where: str) -> None:
    """Check the content of a peft adapter's `adapter_config.json`.

    Raises:
        ConfigError: it names code or kernels that a library would load.
    """
    key = find_code_option(config, ignored=_IGNORED)
    if key:
        raise ConfigError(
            f"{where}: {key} names kernels, a module or a quantization that a library would load; "
            "crosstune runs no code from a checkpoint. If the model works without it, remove the "
            "key from the file."
        )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `adapter_config.json`, checked.

    Raises:
        ConfigError: it is missing, no JSON object, or names code.
    """
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: it holds a {type(config).__name__}, not an object.")
    check_adapter_config(config, str(path))
    return config
