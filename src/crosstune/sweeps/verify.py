"""`crosstune verify`: whether the files of a study's finished runs are as they were written."""

from pathlib import Path
from typing import NamedTuple

from crosstune.runs.integrity import FIELD, find_damage
from crosstune.runs.plan_file import unknown_study
from crosstune.runs.record import read_record


class Verification(NamedTuple):
    """What was looked at, and what is damaged."""

    runs: int
    files: int
    unchecked: int  # runs of earlier versions, without digests
    damage: list[str]  # a clause with run and file


def verify_study(outputs: Path, experiment: str) -> Verification:
    """Compare every file of the finished runs of a study with the digest in its record.

    Raises:
        ConfigError: the study has no record.
    """
    paths = sorted((outputs / experiment).glob("*/record.json"))
    if not paths:
        raise unknown_study(outputs, experiment)
    runs = files = unchecked = 0
    damage: list[str] = []
    for path in paths:
        record = read_record(path)
        if record["status"] == "unreadable":
            damage.append(f"{path.parent.name}/record.json: {record['error']}")
        if record["status"] != "finished":
            continue
        digests = record.get(FIELD)
        runs, unchecked = runs + 1, unchecked + (not isinstance(digests, dict))
        files += len(digests) if isinstance(digests, dict) else 0
        damage += [f"{path.parent.name}/{fault}" for fault in find_damage(path.parent, record)]
    return Verification(runs, files, unchecked, damage)
