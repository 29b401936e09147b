"""Resolves the options that depend on the machine: folders of models and adapters, precision.

Imports nothing heavy unless the precision is `auto`.
"""

import re
from dataclasses import replace
from pathlib import Path

from crosstune.config.schema import Method, Model, ModelOrigin, Precision, Run
from crosstune.data.readers.file_kind import LFS
from crosstune.errors import ConfigError
from crosstune.models.packaged_encoders import find_packaged
from crosstune.runs.fingerprint import ADAPTER
from crosstune.runs.record import read_record


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
    model = resolve_model(find_packaged(run.model, Path(run.outputs) / ".cache"))
    return replace(run, model=model, method=method, trainer=trainer)


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
    for file in sorted(folders[0].iterdir()):
        if file.is_file() and _is_lfs_pointer(file):
            raise ConfigError(
                f"model.path={folders[0]}: {file.name} is a Git LFS pointer and not the file "
                "itself. Fetch it with git lfs pull."
            )
    return replace(model, path=folders[0].resolve().as_posix())


def _is_lfs_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


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
        folders[language] = adapters[0].resolve().as_posix()
    return replace(method, language_adapters=folders)


def _find_saved(root: Path, file: str, language: str | None = None) -> list[Path]:
    """Return the folders with this file: `root`, its `model`, those of finished runs below it."""
    folders = [root, root / "model"]
    for path in sorted(root.glob("*/record.json")):
        record = read_record(path)
        fits = language is None or record.get("train_language") == language
        if record.get("status") == "finished" and fits:
            folders.append(path.parent / "model")
    return [folder for folder in folders if (folder / file).is_file()]
