"""Run ids: a hash of the options, data and weights that decide a run's result.

Versions of packages are not hashed: `find_stale_reasons` compares them with a record's. Imports
nothing heavy and loads no weights, so that a study is planned quickly.
"""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosstune.config.compose import to_dict
from crosstune.config.schema import (
    Method,
    Model,
    ModelOrigin,
    Run,
    TaskType,
    select_result_options,
)
from crosstune.data.splits import Splits, iterate_rows
from crosstune.files import digest_file
from crosstune.languages import SPACELESS_SCRIPTS, script_of

ADAPTER = "adapter_model.safetensors"
RESULT_FORMAT = 7  # raise it when a change of the code changes results
_LABEL_HEADS = ("ForSequenceClassification", "ForTokenClassification")
# packages whose version can change results
STALENESS_PACKAGES = (
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
    parts += [changes] if (changes := list_result_changes(run, splits)) else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def list_result_changes(run: Run, splits: Splits) -> list[str]:
    """Return the corrections of crosstune's own code that change the result of this run.

    They are part of its id, so that runs which they do not concern keep the id they have.
    """
    target = str((run.method.peft or {}).get("_target_"))
    scales = target.endswith((".IA3Config", ".AdaLoraConfig")) and run.optimizer.weight_decay > 0
    code = str(run.data.task.get("target_language") or run.data.language)
    script = script_of(code) if run.data.kind is TaskType.generation else ""
    unspaced = script in SPACELESS_SCRIPTS or script == "Kore"
    changes = {
        "scales are not decayed": scales,
        "a class for each unseen label": _has_unseen_labels(splits),
        "answers of no word by each script": run.data.kind is TaskType.extraction,
        "words of BLEU by script": unspaced and code != "zh",
        "a new head for new labels": _has_label_head(run.model),
    }
    return [name for name, concerns in changes.items() if concerns]


def _has_unseen_labels(splits: Splits) -> bool:
    """Return whether a label or tag occurs in validation or test alone."""
    labels: dict[bool, set[str]] = {True: set(), False: set()}  # of train, of the others
    for name, _, row in iterate_rows(splits):
        tags, label = row.get("tags") or [], row.get("label")
        labels[name == "train"].update([*tags, label] if isinstance(label, str) else tags)
    return not labels[False] <= labels[True]


def _has_label_head(model: Model) -> bool:
    """Return whether a folder has a model with a head for labels."""
    path = Path(str(model.path)) / "config.json"
    if model.origin is not ModelOrigin.local or not path.is_file():
        return False
    try:
        names = json.loads(path.read_text("utf-8")).get("architectures") or []
    except (ValueError, AttributeError, RecursionError):
        return False  # the loader reports it
    return any(str(name).endswith(_LABEL_HEADS) for name in names)


def result_config(run: Run) -> dict[str, Any]:
    """Return the configuration as plain values, without what cannot change a result."""
    return select_result_options(to_dict(run))


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
    return {name: version(name) for name in STALENESS_PACKAGES}


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_version(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _digest_version(path: Path, size: int, modified_ns: int) -> str:
    """Return the sha256 of a file, read once per process as long as it does not change."""
    return digest_file(path)
