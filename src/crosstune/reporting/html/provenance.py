"""Where a cell's numbers come from: data, versions, configuration, and the commands of its runs."""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_DIGITS = 12
_MOST = 8  # data files, or commands, listed under a cell


def read_commands(study: Path) -> dict[str, list[str]]:
    """Return the overrides of every run that the study's plan names, by run_id.

    Lines that are no JSON objects are skipped.
    """
    path = study / "plan.jsonl"
    commands = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            plan = json.loads(line)
        except ValueError:
            continue
        if isinstance(plan, dict) and isinstance(plan.get("overrides"), list):
            commands[str(plan.get("run_id"))] = [str(word) for word in plan["overrides"]]
    return commands


def digest_config(record: Mapping[str, Any]) -> str:
    """Return 12 hex digits over a run's whole configuration.

    >>> digest_config({"config": {"seed": 1}})
    'a4bbadc1c789'
    """
    text = json.dumps(record["config"], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:_DIGITS]


def describe_origin(
    records: Sequence[Mapping[str, Any]], commands: Mapping[str, Sequence[str]]
) -> Iterable[str]:
    """Yield the lines on where the runs of one cell come from; what differs is listed by seed."""
    yield from _list_by_seed("data", records, _name_files)
    yield from _list_by_seed("versions", records, _name_versions)
    yield from _list_by_seed("configuration", records, lambda record: [digest_config(record)])
    overrides = [commands.get(record["run_id"]) for record in records]
    yield from render_commands([words for words in overrides if words])[:_MOST]
    if not all(overrides):
        yield "command: not planned; config.yaml in the run's folder holds every option"


def _list_by_seed(
    name: str,
    records: Sequence[Mapping[str, Any]],
    list_facts: Callable[[Mapping[str, Any]], list[str]],
) -> Iterable[str]:
    """Yield facts once if they are the same in all runs, else with the seeds that have them."""
    seeds: dict[str, list[str]] = {}
    for record in records:
        seeds.setdefault(", ".join(list_facts(record)), []).append(str(record["seed"]))
    for text, matching in seeds.items():
        which = f" (seed {', '.join(matching)})" if len(seeds) > 1 else ""
        yield f"{name}{which}: {text or 'not recorded'}"


def _name_files(record: Mapping[str, Any]) -> list[str]:
    digests = record["data_sha256"].items()
    names = [f"{name} {digest[:_DIGITS]}" for name, digest in digests]
    return [*names[:_MOST], f"{len(names) - _MOST} more"] if len(names) > _MOST else names


def _name_versions(record: Mapping[str, Any]) -> list[str]:
    versions = record["environment"]
    names = ("crosstune", "git_commit", "torch", "transformers", "peft", "python", "platform")
    listed = [f"{name} {str(versions[name])[:_DIGITS]}" for name in names if versions.get(name)]
    return [*listed, "with changes not committed"] if versions.get("git_dirty") else listed


def render_commands(runs: Sequence[Sequence[str]]) -> list[str]:
    """Return the commands of runs; those that differ only in the seed become one.

    >>> render_commands([["method=lora", "seed=1"], ["method=lora", "seed=2"]])
    ['crosstune train -m method=lora seed=1,2']
    >>> render_commands([["method=full"]])
    ['crosstune train method=full']
    """
    seeds_of: dict[tuple[str, ...], list[str]] = {}
    for words in runs:
        rest = tuple(word for word in words if not word.startswith("seed="))
        seeds = [word.removeprefix("seed=") for word in words if word.startswith("seed=")]
        seeds_of.setdefault(rest, []).extend(seeds)
    commands = []
    for rest, seeds in seeds_of.items():
        multirun = ["-m"] if len(seeds) > 1 else []
        seed = [f"seed={','.join(dict.fromkeys(seeds))}"] if seeds else []
        commands.append(shlex.join(["crosstune", "train", *multirun, *rest, *seed]))
    return commands
