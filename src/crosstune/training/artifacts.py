"""The files that a finished run leaves: its model and tokenizer, task.json, its predictions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from crosstune.config.schema import Model, ModelOrigin, Run
from crosstune.files import apply_umask, atomic_write
from crosstune.models.load import LoadedModel, save_base_model
from crosstune.runs.fingerprint import digest_weights
from crosstune.runs.integrity import FIELD, digest_files
from crosstune.tasks import Task
from crosstune.tasks.prediction import Prediction

TASK = "task.json"
ADAPTER = "adapter_config.json"


def save_adapter_base(
    loaded: LoadedModel, run: Run, tokenizer: PreTrainedTokenizerBase, cache: Path
) -> None:
    """Save the base of an adapter, unless a hub or a folder has it, so that it can be named."""
    if run.method.peft is not None:
        save_base_model(loaded.model, run.model, tokenizer, cache)


def write_model(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the trained weights and the tokenizer to `folder/model`."""
    model.save_pretrained(str(folder / "model"))
    tokenizer.save_pretrained(folder / "model")
    apply_umask(folder / "model")


def write_task(task: Task, folder: Path) -> None:
    """Write what the task learned from train and validation: labels, scale, threshold."""
    with atomic_write(folder / TASK) as partial:
        content = {"class": type(task).__name__, **vars(task)}
        partial.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def write_predictions(
    predictions: Mapping[str, Sequence[Prediction]], task: Task, folder: Path
) -> None:
    """Write predictions.parquet: one row per language and test item.

    Where a task scores single items, each score has a column.
    """
    rows = [
        {**prediction._asdict(), "language": language, **task.item_scores(prediction)}
        for language, items in predictions.items()
        for prediction in items
    ]
    known = ("item", "extra", "id", "language", "gold", "prediction", "score")
    columns = [*known[2:], *(name for name in rows[0] if name not in known)]
    table = pa.table({column: [row[column] for row in rows] for column in columns})
    with atomic_write(folder / "predictions.parquet") as partial:
        pq.write_table(table, partial)


def digest_artifacts(model: Any, folder: Path) -> dict[str, Any]:
    """Return the digests of a run's files, and of the folder of its adapter's base, if it has one.

    A hub checkpoint needs none: its commit is pinned.
    """
    digests: dict[str, Any] = {FIELD: digest_files(folder)}
    if isinstance(model, PeftModel):
        base = Path(str(model.peft_config["default"].base_model_name_or_path))
        if base.is_dir():
            digests["base_sha256"] = digest_weights(model_in_folder(base))
    return digests


def list_base_folders(folder: Path) -> list[Path]:
    """Return where the base of a run's adapter may be, as recorded and if the study was moved.

    Older runs recorded a path relative to the working folder.
    """
    config = json.loads((folder / "model" / ADAPTER).read_text("utf-8"))
    recorded = Path(str(config.get("base_model_name_or_path")))
    above = folder.resolve().parents
    return [recorded, above[1] / ".cache" / "bases" / recorded.name, *(p / recorded for p in above)]


def model_in_folder(path: Path) -> Model:
    """Return the model group that names a transformers folder."""
    return Model(name=path.name, origin=ModelOrigin.local, path=path.as_posix())
