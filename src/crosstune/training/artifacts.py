"""What a finished run leaves beside its weights: `task.json` and the digest of its base model."""

import json
from pathlib import Path
from typing import Any

from peft import PeftModel

from crosstune.config.schema import Model, ModelOrigin
from crosstune.files import atomic_write
from crosstune.runs.fingerprint import digest_weights
from crosstune.tasks import Task

TASK = "task.json"


def write_task(task: Task, folder: Path) -> None:
    """Write what the task learned from train and validation: labels, scale, threshold."""
    with atomic_write(folder / TASK) as partial:
        content = {"class": type(task).__name__, **vars(task)}
        partial.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def digest_base(model: Any) -> dict[str, str]:
    """Return base_sha256, the digest of the folder that an adapter's base lies in; {} if none.

    A hub checkpoint needs none: its commit is pinned.
    """
    if not isinstance(model, PeftModel):
        return {}
    base = Path(str(model.peft_config["default"].base_model_name_or_path))
    return {"base_sha256": digest_weights(model_in_folder(base))} if base.is_dir() else {}


def model_in_folder(path: Path) -> Model:
    """Return the model group that names a transformers folder."""
    return Model(name=path.name, origin=ModelOrigin.local, path=path.as_posix())
