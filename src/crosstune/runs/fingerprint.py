"""Run ids: a hash of everything that can change a run's result.

Also resolves what an id depends on: the folders of local models and adapters, and the precision.
Imports nothing heavy and loads no weights, so that a study is planned quickly.
"""

import hashlib
import json
import re
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosstune.config.compose import to_dict
from crosstune.config.schema import (
    Method,
    Model,
    ModelOrigin,
    Precision,
    Run,
    select_result_options,
)
from crosstune.data.splits import Splits
from crosstune.errors import ConfigError
from crosstune.runs.record import read_record

RESULT_FORMAT = 7  # raise it when a change of the code changes results
ADAPTER = "adapter_model.safetensors"
# packages whose version can change results
FINGERPRINTED_PACKAGES = (
    "torch",
    "pytorch-lightning",
    "transformers",
    "tokenizers",
    "peft",
    "torchmetrics",
)


def compute_run_id(run: Run, splits: Splits) -> str:
    """Return the run id: 12 hex digits, a hash of all that can change a result, and no more."""
    model = digest_weights(run.model)
    parts = [RESULT_FORMAT, result_config(run), digest_splits(splits), model]
    parts += [adapters] if (adapters := digest_language_adapters(run.method)) else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def result_config(run: Run) -> dict[str, Any]:
    """Return the configuration as plain values, without what cannot change a result."""
    return select_result_options(to_dict(run))


def resolve_defaults(run: Run) -> Run:
    """Return the run with the values that depend on the machine: folders and precision.

    Raises:
        ConfigError: a folder of the model or of an adapter has nothing to load.
    """
    precision = run.trainer.precision
    if precision is Precision.auto:
        import torch  # heavy, and only `auto` needs it

        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = Precision.bf16 if has_bf16 else Precision.fp32
    trainer = replace(run.trainer, precision=precision)
    method = resolve_language_adapters(run.method)
    return replace(run, model=resolve_model(run.model), method=method, trainer=trainer)


def resolve_model(model: Model) -> Model:
    """Return the model with the folder that its `path` leads to.

    A `path` may be a transformers folder, the folder of a run, or the folder of a study with
    exactly one finished run that saved a whole model.

    Raises:
        ConfigError: nothing can be loaded there, or a hub revision is not a commit.
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
    folders = _find_saved(root, "config.json")
    if len(folders) != 1:
        reason = f"{len(folders)} models found in it" if root.is_dir() else "no such folder"
        raise ConfigError(
            f"model.path={model.path}: {reason}. Give a folder with config.json and "
            "*.safetensors, a finished run's folder, or a study's folder with one such run."
        )
    if not list(folders[0].glob("*.safetensors")):
        raise ConfigError(
            f"model.path={folders[0]}: no *.safetensors in it. Pickled weights are never loaded; "
            "save the model with save_pretrained of a recent transformers first."
        )
    return replace(model, path=folders[0].as_posix())


def resolve_language_adapters(method: Method) -> Method:
    """Return the method with the folders that the paths of its language adapters lead to.

    A path may be the folder of a saved adapter, of a run, or of a study with exactly one finished
    run that was trained on the language.

    Raises:
        ConfigError: a path leads to no adapter, or to several.
    """
    if not method.language_adapters:
        return method
    if not isinstance(method.language_adapters, dict):
        raise ConfigError(
            f"method.language_adapters={method.language_adapters}: give {{LANGUAGE: FOLDER, …}}."
        )
    folders: dict[str, str] = {}
    for language, root in method.language_adapters.items():
        adapters = _find_saved(Path(str(root)), ADAPTER, language)
        if len(adapters) != 1:
            raise ConfigError(
                f"method.language_adapters.{language}={root}: {len(adapters)} adapters found "
                "there. Give the folder of a finished run of method=madx_language, or of a study "
                "with one such run on that language."
            )
        folders[language] = adapters[0].as_posix()
    return replace(method, language_adapters=folders)


def digest_splits(splits: Splits) -> dict[str, dict[str, list[str]]]:
    """Return split -> language -> sorted sha256 digests of its files."""
    return {
        name: {language: sorted(split.digests.values()) for language, split in languages.items()}
        for name, languages in splits.items()
    }


def digest_language_adapters(method: Method) -> dict[str, str]:
    """Return language -> sha256 of the weights of its adapter."""
    return {
        language: _digest(Path(folder) / ADAPTER)
        for language, folder in sorted((method.language_adapters or {}).items())
    }


def digest_weights(model: Model) -> str:
    """Return what identifies the weights: a digest of the model's files, or the hub's commit."""
    if model.origin is ModelOrigin.local:
        digest = hashlib.sha256()
        for path in sorted(Path(str(model.path)).iterdir()):
            if path.suffix in (".safetensors", ".json", ".txt", ".model"):
                digest.update(path.name.encode())
                digest.update(bytes.fromhex(_digest(path)))
        return digest.hexdigest()
    return f"{model.hub_id}@{model.revision}" if model.origin is ModelOrigin.hub else "random"


def find_stale_reasons(record: dict[str, Any]) -> list[str]:
    """Return what has changed since a run was recorded and may change its result, as clauses.

    Covers versions of packages, our own code, and the bytes of data files that still exist.
    """
    environment = record.get("environment", {})
    changes = [
        f"{name} was {environment.get(name)} and is {now}"
        for name, now in _versions().items()
        if environment.get(name) != now
    ]
    if record.get("result_format") != RESULT_FORMAT:
        changes.append("crosstune computes results differently since")
    for name, digest in record.get("data_sha256", {}).items():
        file = Path(name)
        # the digest of a compressed file is that of its content
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


def _find_saved(root: Path, file: str, language: str | None = None) -> list[Path]:
    """Return the folders with this file: `root`, its `model`, those of finished runs below it."""
    folders = [root, root / "model"]
    for path in sorted(root.glob("*/record.json")):
        record = read_record(path)
        fits = language is None or record.get("train_language") == language
        if record.get("status") == "finished" and fits:
            folders.append(path.parent / "model")
    return [folder for folder in folders if (folder / file).is_file()]
