"""Several finished runs on one base, loaded together: each weight of the base is held once.

Runs differ in kind, so each has a model with a head of its own; what their models hold in common
they hold by reference. Called by `serve.py`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosstune.errors import ConfigError
from crosstune.inference.load_run import ADAPTER, FinishedRun, find_run, load_run
from crosstune.runs.record import read_record

Pool = dict[tuple[torch.Size, torch.dtype], list[nn.Parameter]]


def load_shared(paths: Iterable[Path]) -> list[FinishedRun]:
    """Load finished runs whose adapters are of one base, or a single one of whatever kind.

    One model at a time is loaded and then shares what it can, so that memory never holds more than
    two bases, and one in the end.

    Raises:
        ConfigError: a run is not finished, given twice, or has another base.
        RunError: its files are damaged.
    """
    folders = [find_run(path) for path in paths]
    _check_bases(folders)
    pool: Pool = {}
    runs: list[FinishedRun] = []
    for folder in folders:
        saved = load_run(folder)
        share_base_weights(saved.model, pool)
        runs.append(saved._replace(tokenizer=runs[0].tokenizer if runs else saved.tokenizer))
    return runs


def share_base_weights(model: nn.Module, pool: Pool) -> None:
    """Let a model use the pool's parameter wherever it has the very same; give it the others."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            known = pool.setdefault((parameter.shape, parameter.dtype), [])
            same = next((held for held in known if _is_same(held, parameter)), None)
            if same is None:
                known.append(parameter)
            else:
                setattr(module, name, same)


def count_bytes(models: Iterable[nn.Module]) -> int:
    """Return the bytes of all parameters of some models, shared ones counted once."""
    found = {id(p): p.nbytes for model in models for p in model.parameters()}
    return sum(found.values())


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten().view(torch.uint8)  # 0.0 and -0.0 are two


def _check_bases(folders: Sequence[Path]) -> None:
    records = [read_record(folder / "record.json") for folder in folders]
    ids = [record.get("run_id") for record in records]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            raise ConfigError(f"run={folders[number]}: {name} is given twice.")
    bases = [_base_of(*found) for found in zip(folders, records, strict=True)]
    whole = [str(folder) for folder, base in zip(folders, bases, strict=True) if base is None]
    if whole and len(folders) > 1:
        raise ConfigError(
            f"run: {', '.join(whole)} left a whole model and no adapter, which is served alone."
        )
    others = [
        f"{folder} ({_brief(base)})"
        for folder, base in zip(folders, bases, strict=True)
        if base != bases[0]
    ]
    if others:
        raise ConfigError(
            f"run: adapters that are served together share one base and tokenizer. Those of "
            f"{folders[0]} ({_brief(bases[0])}) are not those of {', '.join(others)}."
        )


def _base_of(folder: Path, record: dict[str, Any]) -> tuple[str, str] | None:
    """Return what identifies the base of a run and its tokenizer, None if it is a whole model."""
    if not (folder / "model" / ADAPTER).is_file():
        return None
    config: Any = record.get("config", {})
    model = config.get("model", {})
    base = record.get("base_sha256") or f"{model.get('hub_id')}@{model.get('revision')}"
    return str(base), str(record.get("tokenizer_sha256"))


def _brief(base: tuple[str, str] | None) -> str:
    return ", ".join(name if "@" in name else f"sha256 {name[:12]}" for name in base or ())
