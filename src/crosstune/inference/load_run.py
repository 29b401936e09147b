"""Loads a finished run: its task, tokenizer and model, checked to be those that it was tested with.

Everything in a run's folder is data: nothing that its configuration names is imported.
"""

import dataclasses
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from omegaconf.errors import OmegaConfBaseException
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.config.compose import read_config
from crosstune.config.schema import Model, ModelOrigin, Run
from crosstune.errors import ConfigError, RunError, one_line
from crosstune.logs import silence_libraries
from crosstune.methods.madx import list_language_adapters, load_language_adapters
from crosstune.methods.prompts import install_prompt_hooks
from crosstune.models.checkpoint_config import check_checkpoint, read_adapter_config
from crosstune.models.load import load_model, load_tokenizer
from crosstune.models.resolve import resolve_model
from crosstune.models.tokenizers import digest_tokenizer
from crosstune.runs.fingerprint import digest_weights
from crosstune.runs.integrity import check_files
from crosstune.runs.record import read_record
from crosstune.tasks import TASK_CLASSES, Task
from crosstune.training.artifacts import ADAPTER, TASK, list_base_folders, model_in_folder


class FinishedRun(NamedTuple):
    """A finished run; the model is in float32 and evaluation mode."""

    folder: Path
    run: Run
    record: dict[str, Any]
    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: Any  # a peft model, or the whole model

    @property
    def adapted(self) -> bool:
        """Whether the run saved an adapter instead of a whole model."""
        return (self.folder / "model" / ADAPTER).is_file()


def load_run(path: Path) -> FinishedRun:
    """Load a finished run from its folder, or from that of a study with exactly one.

    Raises:
        ConfigError: there is no finished run, or its base model is gone or has changed.
        RunError: its files are damaged.
    """
    folder = find_run(path)
    record = read_record(folder / "record.json")
    check_files(folder, record, "config.yaml", TASK, "model")
    run = _read_config(folder)
    task = _read_task(folder)
    source = model_in_folder(folder / "model")
    if not list((folder / "model").glob("*.safetensors")):
        raise RunError(f"{folder}/model: no *.safetensors in it; pickled weights are never loaded.")
    try:
        tokenizer = load_tokenizer(source, iter(()), "", folder)
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        raise RunError(f"{source.path}: its tokenizer: {_shorten(error)}") from error
    if digest_tokenizer(tokenizer) != record.get("tokenizer_sha256"):
        raise RunError(
            f"{folder}/model: its tokenizer is not the one that the run was tested with."
        )
    saved = FinishedRun(folder, run, record, task, tokenizer, None)
    with silence_libraries():
        model = (
            _load_adapted(saved) if saved.adapted else _load_whole_model(source, run.model, task)
        )
    return saved._replace(model=model.eval())


def find_run(path: Path) -> Path:
    """Return the folder of a finished run: `path`, or the only finished run in a study's folder.

    Raises:
        ConfigError: there is none, or more than one.
    """
    if (path / "record.json").is_file():
        record = read_record(path / "record.json")
        if record.get("status") != "finished":
            raise ConfigError(
                f"run={path}: its record says {record.get('status')!r}, not 'finished'. Repeat the "
                "command that trained it; only finished runs have weights to load."
            )
        return path
    records = sorted(path.glob("*/record.json"))
    finished = [p.parent for p in records if read_record(p).get("status") == "finished"]
    if len(finished) != 1:
        reason = f"{len(finished)} finished runs in it" if path.is_dir() else "no such folder"
        names = f": {', '.join(folder.name for folder in finished[:5])}" if finished else ""
        raise ConfigError(
            f"run={path}: {reason}{names}. Give the folder of a finished run, "
            "outputs/<experiment>/<run_id>, or of a study with exactly one."
        )
    return finished[0]


def load_base(saved: FinishedRun) -> PreTrainedModel:
    """Load the base model of a run's adapter; its head is still random.

    Raises:
        ConfigError: it is gone, or has changed.
    """
    source = saved.run.model
    if not is_on_hub(source):
        local = model_in_folder(_find_base(saved.folder, saved.record))
        source = replace(local, attention=source.attention)
    return load_model(resolve_model(source), saved.task, saved.tokenizer, []).model


def is_on_hub(model: Model) -> bool:
    """Return whether the base model of an adapter is on a model hub, unchanged."""
    is_changed = model.extend_vocab or model.languages or model.decoder
    return model.origin is ModelOrigin.hub and not is_changed


def _find_base(folder: Path, record: dict[str, Any]) -> Path:
    _read_json(folder / "model" / ADAPTER)  # whole, or an error
    recorded, cached, *others = list_base_folders(folder)
    base = next((path for path in (recorded, cached, *others) if path.is_dir()), None)
    if base is None:
        raise ConfigError(
            f"run={folder}: the model that its adapter was trained on is gone: neither {recorded} "
            f"nor {cached} is a folder. Restore it, or repeat the command that trained the run."
        )
    if digest_weights(model_in_folder(base)) != record.get("base_sha256"):
        raise ConfigError(
            f"run={folder}: {base} is not the model that its adapter was trained on: its files "
            "have changed since. Restore them, or train again."
        )
    return base


def _load_adapted(saved: FinishedRun) -> PeftModel:
    model = install_prompt_hooks(load_adapter(load_base(saved), saved.folder))
    if languages := list_language_adapters(saved.folder / "model"):
        load_language_adapters(model, languages)
    return model


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Load the adapter of a run onto its base, as plain peft does.

    Raises:
        ConfigError: neither peft nor crosstune has its method.
        RunError: it does not fit the base.
    """
    read_adapter_config(folder / "model")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(base, folder / "model")
        except KeyError as error:
            raise ConfigError(
                f"run={folder}: neither peft nor crosstune has the method {error}; it comes from a "
                "package of your own, which only `crosstune train` imports."
            ) from error
        except (UserWarning, ValueError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{folder}/model does not fit its base: {_shorten(error)}") from error


def _load_whole_model(source: Model, trained: Model, task: Task) -> PreTrainedModel:
    auto: Any = getattr(transformers, task.auto_class)
    try:
        check_checkpoint(str(source.path), local_files_only=True)
        model, info = auto.from_pretrained(
            source.path,
            dtype=torch.float32,
            attn_implementation=trained.attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{source.path}: {_shorten(error)}") from error
    prefixes = tuple(f"{name}." for name in task.add_modules(model))  # modules of ours, e.g. a CRF
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(prefixes)]
    if faults := sorted([*info["missing_keys"], *unexpected]):
        raise RunError(f"{source.path}: {len(faults)} weights do not fit, {faults[0]} first")
    weights: dict[str, torch.Tensor] = {}
    for path in Path(str(source.path)).glob("*.safetensors"):
        weights |= load_file(path)
    for prefix in prefixes:
        state = {k.removeprefix(prefix): t for k, t in weights.items() if k.startswith(prefix)}
        model.get_submodule(prefix.rstrip(".")).load_state_dict(state)
    return model


def _read_config(folder: Path) -> Run:
    path = folder / "config.yaml"
    try:
        if "${" in path.read_text("utf-8"):  # a run writes resolved values only
            raise RunError(f"{path}: it holds a reference (${{…}}), which no run writes.")
        run = read_config(path)
    except (OSError, ValueError, ConfigError, OmegaConfBaseException) as error:
        raise RunError(f"{path}: unreadable: {_shorten(error)}") from error
    if run.model.attention not in ("sdpa", "eager"):  # other names may load code from a hub
        raise RunError(f"{path}: model.attention={run.model.attention}. Allowed: sdpa, eager.")
    return run


def _read_task(folder: Path) -> Task:
    path = folder / TASK
    if not path.is_file():
        raise ConfigError(
            f"run={folder}: no {TASK} in it, because an earlier crosstune trained it. Remove the "
            "folder and repeat its command."
        )
    content = _read_json(path)
    name = content.pop("class", None)
    if name not in TASK_CLASSES:
        raise RunError(f"{path}: no task class is called {name!r}.")
    names = {f.name for f in dataclasses.fields(TASK_CLASSES[name]) if f.init}
    try:
        return TASK_CLASSES[name](**{key: value for key, value in content.items() if key in names})
    except TypeError as error:
        raise RunError(f"{path}: {error}") from error


def _shorten(error: Exception) -> str:
    return one_line(error)[:300]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: unreadable: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: no JSON object.")
    return content
