"""A finished run, loaded again: its task, tokenizer and weights, checked to be those it tested.

Everything in a run's folder is data: the configuration is read into the schema and nothing that it
names is imported. `run.py` writes what only the run knows; `predict.py` and `export.py` load it.
"""

import dataclasses
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
import yaml
from omegaconf.errors import OmegaConfBaseException
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.config.compose import read_config
from crosstune.config.schema import Model, ModelOrigin, Run
from crosstune.errors import ConfigError, RunError
from crosstune.logs import silence_libraries
from crosstune.methods.madx import list_language_adapters, load_language_adapters
from crosstune.methods.prompts import install_prompt_hooks
from crosstune.models.load import digest_tokenizer, load_model, load_tokenizer
from crosstune.runs.fingerprint import digest_weights, resolve_model
from crosstune.runs.record import read_record
from crosstune.tasks import TASK_CLASSES, Task
from crosstune.training.artifacts import TASK, model_in_folder

ADAPTER = "adapter_config.json"


class FinishedRun(NamedTuple):
    """A finished run; `model` is in float32 and evaluation mode."""

    folder: Path
    run: Run
    record: dict[str, Any]
    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: Any  # a peft model, or the whole model

    @property
    def adapted(self) -> bool:
        """Whether the run left an adapter, to be put on its base."""
        return (self.folder / "model" / ADAPTER).is_file()


def load_run(path: Path) -> FinishedRun:
    """Load a finished run from its folder, or from that of a study with exactly one.

    Raises:
        ConfigError: no finished run is there, or what it was trained on is gone or has changed.
        RunError: its files are damaged.
    """
    folder = find_run(path)
    record, run = read_record(folder / "record.json"), _read_config(folder)
    task = _read_task(folder)
    held = model_in_folder(folder / "model")
    if not list((folder / "model").glob("*.safetensors")):
        raise RunError(f"{folder}/model: no *.safetensors in it; pickled weights are never loaded.")
    try:
        tokenizer = load_tokenizer(held, iter(()), "", folder)
    except Exception as error:  # tokenizers has no class of its own for a file at fault
        raise RunError(f"{held.path}: its tokenizer: {_flat(error)}") from error
    if digest_tokenizer(tokenizer) != record.get("tokenizer_sha256"):
        raise RunError(
            f"{folder}/model: its tokenizer is not the one that the run was tested with."
        )
    saved = FinishedRun(folder, run, record, task, tokenizer, None)
    with silence_libraries():
        model = _load_adapted(saved) if saved.adapted else _load_whole(held, run.model, task)
    return saved._replace(model=model.eval())


def find_run(path: Path) -> Path:
    """Return the folder of the finished run that `path` is, or that alone is finished in it.

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
    found = [p.parent for p in records if read_record(p).get("status") == "finished"]
    if len(found) != 1:
        reason = f"{len(found)} finished runs in it" if path.is_dir() else "no such folder"
        names = f": {', '.join(folder.name for folder in found[:5])}" if found else ""
        raise ConfigError(
            f"run={path}: {reason}{names}. Give the folder of a finished run, "
            "outputs/<experiment>/<run_id>, or of a study with exactly one."
        )
    return found[0]


def load_base(saved: FinishedRun) -> PreTrainedModel:
    """Load the model that the adapter of a run was trained on, its head to be replaced.

    Raises:
        ConfigError: it is gone, or not what the run was trained on.
    """
    source = saved.run.model
    if not is_on_hub(source):
        held = model_in_folder(_find_base(saved.folder, saved.record))
        source = replace(held, attention=source.attention)
    return load_model(resolve_model(source), saved.task, saved.tokenizer, []).model


def is_on_hub(model: Model) -> bool:
    """Say whether a model hub has the base of an adapter just as it is."""
    return model.origin is ModelOrigin.hub and not model.extend_vocab and not model.decoder


def _find_base(folder: Path, record: dict[str, Any]) -> Path:
    named = _read_json(folder / "model" / ADAPTER).get("base_model_name_or_path")
    given = Path(str(named))
    kept = folder.resolve().parents[1] / ".cache" / "bases" / given.name
    found = next((path for path in (given, kept) if path.is_dir()), None)
    if found is None:
        raise ConfigError(
            f"run={folder}: the model that its adapter was trained on is gone: neither {given} nor "
            f"{kept} is a folder. Restore it, or train again."
        )
    if digest_weights(model_in_folder(found)) != record.get("base_sha256"):
        raise ConfigError(
            f"run={folder}: {found} is not the model that its adapter was trained on: its files "
            "have changed since. Restore them, or train again."
        )
    return found


def _load_adapted(saved: FinishedRun) -> PeftModel:
    model = install_prompt_hooks(load_adapter(load_base(saved), saved.folder))
    if languages := list_language_adapters(saved.folder / "model"):
        load_language_adapters(model, languages)
    return model


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Load the adapter of a run onto its base as plain peft does.

    Raises:
        ConfigError: peft and crosstune lack its method.
        RunError: it does not fit.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(base, folder / "model")
        except KeyError as error:
            raise ConfigError(
                f"run={folder}: neither peft nor crosstune has the method {error}; it comes from a "
                "package of your own, which only `crosstune train` admits."
            ) from error
        except (UserWarning, ValueError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{folder}/model does not fit its base: {_flat(error)}") from error


def _load_whole(held: Model, trained: Model, task: Task) -> PreTrainedModel:
    auto: Any = getattr(transformers, task.auto_class)
    try:
        model, info = auto.from_pretrained(
            held.path,
            dtype=torch.float32,
            attn_implementation=trained.attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{held.path}: {_flat(error)}") from error
    own = {f"{name}." for name in task.add_modules(model)}
    foreign = [key for key in info["unexpected_keys"] if not key.startswith(tuple(own))]
    if missing := [*info["missing_keys"], *foreign]:
        raise RunError(
            f"{held.path}: {len(missing)} weights do not fit, {sorted(missing)[0]} first"
        )
    stored = [load_file(path) for path in sorted(Path(str(held.path)).glob("*.safetensors"))]
    for name in own:
        weights = {
            k.removeprefix(name): t
            for file in stored
            for k, t in file.items()
            if k.startswith(name)
        }
        model.get_submodule(name.rstrip(".")).load_state_dict(weights)
    return model


def _read_config(folder: Path) -> Run:
    path = folder / "config.yaml"
    try:
        if "${" in path.read_text("utf-8"):  # what a run writes is resolved: nothing to look up
            raise RunError(f"{path}: it holds a reference (${{…}}), which no run leaves.")
        run = read_config(path)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise RunError(f"{path}: unreadable: {_flat(error)}") from error
    if run.model.attention not in ("sdpa", "eager"):  # other names may be code on a hub
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
        raise RunError(f"{path}: no kind of task is called {name!r}.")
    given = {f.name for f in dataclasses.fields(TASK_CLASSES[name]) if f.init}
    try:
        return TASK_CLASSES[name](**{key: value for key, value in content.items() if key in given})
    except TypeError as error:
        raise RunError(f"{path}: {error}") from error


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: unreadable: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: no JSON object.")
    return found
