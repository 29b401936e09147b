"""What makes a run this run and no other: everything that can change its result, hashed.

Finds a local model's folder and digests its weights, but loads none of it: this file imports
nothing heavy, so that a study can be planned at once. Called by `run.py` and `sweep.py`.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosstune.config.compose import to_dict
from crosstune.config.schema import Method, Model, ModelOrigin, Precision, Run
from crosstune.data.splits import Splits
from crosstune.errors import ConfigError
from crosstune.runs.record import read_record

RESULT_FORMAT = 7  # raise when a change of the code changes what the same run gives
ADAPTER = "adapter_model.safetensors"
# packages whose version can change what the same run gives
FINGERPRINTED_PACKAGES = (
    "torch",
    "pytorch-lightning",
    "transformers",
    "tokenizers",
    "peft",
    "torchmetrics",
)
INDIFFERENT = {
    "experiment": (),
    "outputs": (),
    "allow": (),
    "retry": (),
    "tuned": (),  # what it changes is in the configuration
    "logger": (),
    "model": ("path",),  # its weights count, not where they lie
    "data": ("train", "validation", "test", "allowed"),  # likewise; `allowed` is of the checks
    "method": ("search", "language_adapters"),  # the weights of those count, not their folders
    "trainer": (
        "accelerator",
        "devices",
        "strategy",
        "log_every_n_steps",
        "checkpoint_every_seconds",
    ),
}


def compute_run_id(run: Run, splits: Splits) -> str:
    """Return the run id: 12 hex digits over all that can change a result, and nothing else."""
    content = {
        name: {language: sorted(split.digests.values()) for language, split in languages.items()}
        for name, languages in splits.items()
    }
    parts = [RESULT_FORMAT, result_config(run), content, digest_weights(run.model)]
    parts += [spoken] if (spoken := digest_language_adapters(run.method)) else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def result_config(run: Run) -> dict[str, Any]:
    """Return the configuration as plain values, without what cannot change a result."""
    config = to_dict(run)
    for group, keys in INDIFFERENT.items():
        if keys:
            config[group] = {k: v for k, v in config[group].items() if k not in keys}
        else:
            del config[group]
    return config


def resolve_defaults(run: Run) -> Run:
    """Return the run with what the machine decides decided: the model's folder, the precision.

    Raises:
        ConfigError: the model's folder holds nothing loadable.
    """
    precision = run.trainer.precision
    if precision is Precision.auto:
        import torch  # heavy, and only `auto` asks the machine

        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = Precision.bf16 if has_bf16 else Precision.fp32
    trainer = replace(run.trainer, precision=precision)
    method = resolve_language_adapters(run.method)
    return replace(run, model=resolve_model(run.model), method=method, trainer=trainer)


def resolve_model(model: Model) -> Model:
    """Return the model with its folder found, checked to hold what can be loaded safely.

    A `path` may be a transformers folder, the folder of a run, or the folder of a study with
    exactly one finished run that left a whole model.

    Raises:
        ConfigError: nothing loadable is there, or a hub revision is no commit.
    """
    pinned = re.fullmatch(r"[0-9a-f]{40}|refs/pr/\d+", model.revision or "")
    if model.origin is ModelOrigin.hub and not pinned:
        raise ConfigError(
            f"model.revision={model.revision}: name the 40-digit commit (or refs/pr/N) of "
            f"{model.hub_id}, so that the weights cannot change under the study."
        )
    if model.origin is not ModelOrigin.local:
        return model
    if model.path is None:
        raise ConfigError("model.path is missing: give model.path=DIR.")
    root = Path(model.path)
    candidates = [root, root / "model", *_finished_models(root)]
    found = [folder for folder in candidates if (folder / "config.json").is_file()]
    if len(found) != 1:
        reason = "no such folder" if not root.is_dir() else f"{len(found)} models found in it"
        raise ConfigError(
            f"model.path={model.path}: {reason}. Give a folder with config.json and "
            "*.safetensors, a finished run's folder, or a study's folder with one such run."
        )
    if not list(found[0].glob("*.safetensors")):
        raise ConfigError(
            f"model.path={found[0]}: no *.safetensors in it. Pickled weights are never loaded; "
            "save the model with save_pretrained of a recent transformers first."
        )
    return replace(model, path=found[0].as_posix())


def resolve_language_adapters(method: Method) -> Method:
    """Return the method with the folders of its language adapters found.

    A folder may be a saved adapter's, that of a run, or of a study with exactly one finished run
    that was trained on the language.

    Raises:
        ConfigError: no adapter is there, or several are.
    """
    if not method.language_adapters:
        return method
    if not isinstance(method.language_adapters, dict):
        raise ConfigError(
            f"method.language_adapters={method.language_adapters}: give {{LANGUAGE: FOLDER, …}}."
        )
    found = {
        language: _find_language(language, Path(str(folder))).as_posix()
        for language, folder in method.language_adapters.items()
    }
    return replace(method, language_adapters=found)


def _find_language(language: str, root: Path) -> Path:
    candidates = [root, root / "model", *_finished_models(root, language)]
    found = [folder for folder in candidates if (folder / ADAPTER).is_file()]
    if len(found) != 1:
        raise ConfigError(
            f"method.language_adapters.{language}={root}: {len(found)} adapters found there. Give "
            "the folder of a finished run of method=madx_language, or of a study with one such run "
            "on that language."
        )
    return found[0]


def digest_language_adapters(method: Method) -> dict[str, str]:
    """Return language -> sha256 of the weights of its adapter."""
    return {
        language: _digest(Path(folder) / ADAPTER)
        for language, folder in sorted((method.language_adapters or {}).items())
    }


def digest_weights(model: Model) -> str:
    """Return what identifies the weights: a digest of the files, or the hub's commit."""
    if model.origin is ModelOrigin.local:
        digest = hashlib.sha256()
        for path in sorted(Path(str(model.path)).iterdir()):
            if path.suffix in (".safetensors", ".json", ".txt", ".model"):
                digest.update(path.name.encode())
                digest.update(bytes.fromhex(_digest(path)))
        return digest.hexdigest()
    return f"{model.hub_id}@{model.revision}" if model.origin is ModelOrigin.hub else "random"


def find_stale_reasons(record: dict[str, Any]) -> list[str]:
    """Return what has changed since a run was recorded, and can have changed its result.

    Versions of packages, what our own code computes, and the bytes of data files that are still
    where they were; each in a clause.
    """
    environment = record.get("environment", {})
    changes = [
        f"{name} was {environment.get(name)} and is {now}"
        for name, now in _versions().items()
        if environment.get(name) != now
    ]
    if record.get("result_format") != RESULT_FORMAT:
        changes.append("crosstune computes otherwise since")
    for name, digest in record.get("data_sha256", {}).items():
        file = Path(name)
        # what is compressed was digested as it is inside
        if file.is_file() and file.suffix != ".gz" and _digest(file) != digest:
            changes.append(f"{name} has changed")
    return changes


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in FINGERPRINTED_PACKAGES}


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_version(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _digest_version(path: Path, size: int, modified_ns: int) -> str:
    """Return the sha256 of a file, read once per process as long as it does not change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finished_models(study: Path, language: str | None = None) -> Iterator[Path]:
    for path in sorted(study.glob("*/record.json")):
        record = read_record(path)
        fits = language is None or record.get("train_language") == language
        if record.get("status") == "finished" and fits:
            yield path.parent / "model"
