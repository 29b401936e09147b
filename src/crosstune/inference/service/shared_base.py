"""Loads several finished runs that share one base model, with one copy of the base weights.

Each run has a model with its own head and adapter; equal parameters are shared by reference.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosstune.errors import ConfigError
from crosstune.inference.load_run import ADAPTER, FinishedRun, find_run, load_run
from crosstune.runs.record import read_record

SharedWeights = dict[tuple[torch.Size, torch.dtype], list[nn.Parameter]]


def load_shared(paths: Iterable[Path]) -> list[FinishedRun]:
    """Load finished runs whose adapters have the same base, or a single run of any kind.

    Runs are loaded one at a time, so that memory holds at most two copies of the base.

    Raises:
        ConfigError: a run is not finished, is given twice, or has another base.
        RunError: the files of a run are damaged.
    """
    folders = [find_run(path) for path in paths]
    _check_bases(folders)
    shared: SharedWeights = {}
    runs: list[FinishedRun] = []
    for folder in folders:
        saved = load_run(folder)
        share_base_weights(saved.model, shared)
        runs.append(saved._replace(tokenizer=runs[0].tokenizer if runs else saved.tokenizer))
    return runs


def share_base_weights(model: nn.Module, shared: SharedWeights) -> None:
    """Replace parameters of a model by equal shared ones; add its other parameters to these."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            candidates = shared.setdefault((parameter.shape, parameter.dtype), [])
            equal = next((other for other in candidates if _is_equal(other, parameter)), None)
            if equal is None:
                candidates.append(parameter)
            else:
                setattr(module, name, equal)


def count_bytes(models: Iterable[nn.Module]) -> int:
    """Return the size of all parameters of these models, shared ones counted once."""
    return sum({id(p): p.nbytes for model in models for p in model.parameters()}.values())


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(_to_bytes(one), _to_bytes(other))


def _to_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten().view(torch.uint8)  # tells 0.0 from -0.0


def _check_bases(folders: Sequence[Path]) -> None:
    records = [read_record(folder / "record.json") for folder in folders]
    ids = [record.get("run_id") for record in records]
    for number, run_id in enumerate(ids):
        if run_id in ids[:number]:
            raise ConfigError(f"run={folders[number]}: {run_id} is given twice.")
    bases = [_base_of(folder, record) for folder, record in zip(folders, records, strict=True)]
    whole = [str(folder) for folder, base in zip(folders, bases, strict=True) if base is None]
    if whole and len(folders) > 1:
        raise ConfigError(
            f"run: {', '.join(whole)} saved a whole model instead of an adapter; serve it alone."
        )
    different = [
        f"{folder} ({_describe_base(base)})"
        for folder, base in zip(folders, bases, strict=True)
        if base != bases[0]
    ]
    if different:
        raise ConfigError(
            f"run: adapters that are served together share one base and tokenizer. Those of "
            f"{folders[0]} ({_describe_base(bases[0])}) are not those of {', '.join(different)}."
        )


def _base_of(folder: Path, record: dict[str, Any]) -> tuple[str, str] | None:
    """Return what identifies the base and tokenizer of a run; None if it saved a whole model."""
    if not (folder / "model" / ADAPTER).is_file():
        return None
    config: Any = record.get("config", {})
    model = config.get("model", {})
    base = record.get("base_sha256") or f"{model.get('hub_id')}@{model.get('revision')}"
    return str(base), str(record.get("tokenizer_sha256"))


def _describe_base(base: tuple[str, str] | None) -> str:
    return ", ".join(name if "@" in name else f"sha256 {name[:12]}" for name in base or ())
