"""Where a cell's numbers come from: configuration, data, versions, and the command that makes them.

Plain text from records and the study's plan; `details.py` sets it under a cell of the page.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_DIGITS = 12
_MOST = 8  # files of data, or commands, that are named under a cell


def read_commands(study: Path) -> dict[str, list[str]]:
    """Return the overrides of every run that the study's plan names, by run_id.

    A line that is no JSON object is passed over: the plan is told apart from the records.
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


def explain_origin(
    records: Sequence[Mapping[str, Any]], commands: Mapping[str, Sequence[str]]
) -> Iterable[str]:
    """Yield the lines on where the runs of one cell come from; what differs stands run by run."""
    yield from _list_alike("data", records, _name_files)
    yield from _list_alike("versions", records, _name_versions)
    yield from _list_alike("configuration", records, lambda record: [digest_config(record)])
    found = [commands.get(record["run_id"]) for record in records]
    told = write_commands([words for words in found if words])
    yield from told[:_MOST]
    if not all(found):
        yield "command: not planned; config.yaml in the run's folder holds every option"


def _list_alike(name: str, records: Sequence[Mapping[str, Any]], facts: Any) -> Iterable[str]:
    """Yield facts once where they are the same in all runs, else with the seeds that have them."""
    seeds: dict[str, list[str]] = {}
    for record in records:
        seeds.setdefault(", ".join(facts(record)), []).append(str(record["seed"]))
    for text, mine in seeds.items():
        whose = f" (seed {', '.join(mine)})" if len(seeds) > 1 else ""
        yield f"{name}{whose}: {text or 'not recorded'}"


def _name_files(record: Mapping[str, Any]) -> list[str]:
    files = record["data_sha256"].items()
    named = [f"{name} {digest[:_DIGITS]}" for name, digest in files]
    return [*named[:_MOST], f"{len(named) - _MOST} more"] if len(named) > _MOST else named


def _name_versions(record: Mapping[str, Any]) -> list[str]:
    found = record["environment"]
    names = ("crosstune", "git_commit", "torch", "transformers", "peft", "python", "platform")
    told = [f"{name} {str(found[name])[:_DIGITS]}" for name in names if found.get(name)]
    return [*told, "with changes not committed"] if found.get("git_dirty") else told


def write_commands(runs: Sequence[Sequence[str]]) -> list[str]:
    """Return the commands of runs; those that differ in nothing but the seed become one.

    >>> write_commands([["method=lora", "seed=1"], ["method=lora", "seed=2"]])
    ['crosstune train -m method=lora seed=1,2']
    >>> write_commands([["method=full"]])
    ['crosstune train method=full']
    """
    seeds: dict[tuple[str, ...], list[str]] = {}
    for words in runs:
        rest = tuple(word for word in words if not word.startswith("seed="))
        mine = seeds.setdefault(rest, [])
        mine += [word.removeprefix("seed=") for word in words if word.startswith("seed=")]
    commands = []
    for rest, mine in seeds.items():
        several = ["-m"] * (len(mine) > 1)
        seed = [f"seed={','.join(dict.fromkeys(mine))}"] if mine else []
        commands.append(shlex.join(["crosstune", "train", *several, *rest, *seed]))
    return commands
