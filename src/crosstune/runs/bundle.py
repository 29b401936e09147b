"""A study as one zip file: what a report reads, without weights, paths or names of machines.

A bundle may come from anyone: its names, sizes and digests are checked, and nothing in it is run.
"""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from crosstune.errors import ConfigError, one_line
from crosstune.files import atomic_write
from crosstune.runs.integrity import FIELD, OWN, check_files, digest_record
from crosstune.runs.plan_file import PLAN, PlannedRun, read_plan
from crosstune.runs.record import read_record

FORMAT = 1
MANIFEST = "manifest.json"
MAX_FILES, MAX_FILE_BYTES, MAX_BYTES = 200_000, 2**30, 2**33  # of a bundle, unpacked
_PLANNED = ("data", "language", "model", "method", "seed", "run_id", "stand_in")  # fields kept
_RUN_FILES = ("predictions.parquet", "metrics.jsonl")
_MEMBER = re.compile(
    r"[0-9a-f]{12}/(?:record\.json|predictions\.parquet|metrics\.jsonl|task\.json|config\.yaml"
    r"|model/(?:\w[\w.-]*/)?\w[\w.-]*\.(?:safetensors|json|txt|model))|plan\.jsonl"
)
_STUDY = re.compile(r"[\w-][\w.-]{0,200}")
_PATH = re.compile(r"(?<![\w./])(?<!http:)(?<!https:)~?(?:/[^\s'\":,;|<>()\[\]{}]+)+/?")
_DATE = (2000, 1, 1, 0, 0, 0)  # the same study is the same bytes


class Bundle(NamedTuple):
    """What was read from one or several bundles."""

    experiment: str
    runs: int
    conflicts: list[str]  # runs that differ between bundles, as sentences


def write_bundle(outputs: Path, experiment: str, target: Path, with_weights: bool) -> int:
    """Write the finished and failed runs of a study to a zip file; return how many there are.

    With weights, `crosstune predict` applies an unpacked run whose base is on the hub or its own.

    Raises:
        ConfigError: the study has no record.
        RunError: a file is not as its record says.
    """
    folder = outputs / experiment
    records = sorted(folder.glob("*/record.json"))
    if not records:
        raise ConfigError(f"experiment={experiment}: no run with a record in {folder}.")
    members: dict[str, bytes | Path] = {}
    for path in records:
        record, run = read_record(path), path.parent.name
        if record["status"] == "unreadable":
            raise ConfigError(f"{path}: {record['error']}. Remove it, or restore it from a copy.")
        names = [name for name in _RUN_FILES if (path.parent / name).is_file()]
        clean = _clean_record(record)
        if with_weights and record["status"] == "finished":
            files = (file for file in (path.parent / "model").rglob("*") if file.is_file())
            models = sorted(file.relative_to(path.parent).as_posix() for file in files)
            names += ["task.json", *models]
            config = yaml.safe_dump(clean["config"], sort_keys=False, allow_unicode=True)
            members[f"{run}/config.yaml"] = config.encode("utf-8", "replace")
        check_files(path.parent, record, *names)
        clean[FIELD] = {k: v for k, v in record.get(FIELD, {}).items() if k in names}
        members[f"{run}/record.json"] = _dump({**clean, OWN: digest_record(clean)})
        members |= {f"{run}/{name}": path.parent / name for name in names}
    members |= {PLAN: plan} if (plan := _clean_plan(read_plan(folder))) else {}
    with atomic_write(target) as partial, zipfile.ZipFile(partial, "w") as archive:
        digests = {name: _add(archive, name, members[name]) for name in sorted(members)}
        manifest = {"format": FORMAT, "experiment": experiment, "crosstune": version("crosstune")}
        _add(archive, MANIFEST, _dump({**manifest, "files": digests}))
    return len(records)


def read_bundles(paths: Sequence[Path], root: Path) -> Bundle:
    """Unpack bundles of one study to `root/<experiment>`, which is made anew.

    Of a run that several bundles have with other results, the first counts.

    Raises:
        ConfigError: a file is no bundle, is damaged, or the bundles are of several studies.
    """
    with_names = [(path, *_open_bundle(path)) for path in paths]
    experiments = sorted({manifest["experiment"] for _, _, manifest in with_names})
    if len(experiments) > 1:
        raise ConfigError(f"bundle: these are of several studies: {', '.join(experiments)}.")
    folder = root / experiments[0]
    shutil.rmtree(folder, ignore_errors=True)
    first: dict[str, tuple[Path, Any]] = {}
    conflicts: list[str] = []
    for path, archive, manifest in with_names:
        with archive:
            for run in sorted({name.split("/")[0] for name in manifest["files"] if "/" in name}):
                result = _read_result(path, archive, run)
                if run not in first:
                    first[run] = (path, result)
                    _extract(path, archive, manifest["files"], run, folder)
                elif first[run][1] != result:
                    conflicts.append(
                        f"run {run}: {path.name} has other results than {first[run][0].name}, "
                        "which counts"
                    )
            if PLAN in manifest["files"]:
                with (folder / PLAN).open("ab") as plan:
                    plan.write(_read(path, archive, PLAN, manifest["files"][PLAN]))
    return Bundle(experiments[0], len(first), conflicts)


def _open_bundle(path: Path) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    try:
        archive = zipfile.ZipFile(path)
        names = archive.namelist()
        if archive.getinfo(MANIFEST).file_size > MAX_FILE_BYTES:
            raise ValueError("its manifest is too large")
        manifest = json.loads(archive.read(MANIFEST))
        files, experiment = manifest["files"], manifest["experiment"]
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']!a:.20}; this version reads {FORMAT}")
        if not _STUDY.fullmatch(experiment):
            raise ValueError(f"{experiment!a:.80} is no name of a study")
        odd = [name for name in files if not _MEMBER.fullmatch(name)]
        if odd or sorted(names) != sorted([*files, MANIFEST]) or len(names) > MAX_FILES:
            raise ValueError(f"files that no bundle has, or lacks: {(odd or names)[0]!a:.80}")
        if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
            raise ValueError(f"over {MAX_BYTES:,} bytes")
    except FileNotFoundError as error:
        raise ConfigError(f"bundle={path}: no such file.") from error
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"bundle={path}: no file that crosstune bundle wrote ({one_line(error)})."
        ) from error
    return archive, manifest


def _read_result(path: Path, archive: zipfile.ZipFile, run: str) -> Any:
    try:
        record = json.loads(archive.read(f"{run}/record.json"))
        return record["status"], record.get("scores"), record.get("report")
    except (KeyError, ValueError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise ConfigError(f"bundle={path}: run {run} has no record ({one_line(error)}).") from error


def _extract(
    path: Path, archive: zipfile.ZipFile, digests: Mapping[str, str], run: str, folder: Path
) -> None:
    for name, digest in digests.items():
        if name.startswith(f"{run}/"):
            target = folder / PurePosixPath(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_read(path, archive, name, digest))


def _read(path: Path, archive: zipfile.ZipFile, name: str, digest: str) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(MAX_FILE_BYTES + 1)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(f"bundle={path}: {name}: {one_line(error)}") from error
    if len(content) > MAX_FILE_BYTES or hashlib.sha256(content).hexdigest() != digest:
        raise ConfigError(
            f"bundle={path}: {name} is not as it was bundled. Ask for the file again."
        )
    return content


def _clean_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without paths."""
    short = {
        source: f"{digest[:8]}/{_base_name(source)}"
        for source, digest in record.get("data_sha256", {}).items()
    }
    clean = _clean(record, short)
    clean["data_sha256"] = {short[key]: value for key, value in record["data_sha256"].items()}
    return clean


def _clean(value: Any, short: Mapping[str, str]) -> Any:
    """Replace the data files by their short names, and other paths by their last part."""
    if isinstance(value, dict):
        return {key: _clean(item, short) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, short) for item in value]
    if isinstance(value, str):
        return short.get(value) or _PATH.sub(lambda match: _base_name(match[0]), value)
    return value


def _base_name(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2] or source


def _clean_plan(runs: Sequence[PlannedRun]) -> bytes:
    """Return the plan with names and ids alone, which say what is missing."""
    lines = [{key: run[key] for key in _PLANNED if key in run} | {"overrides": []} for run in runs]
    return "".join(json.dumps(run, ensure_ascii=False) + "\n" for run in lines).encode()


def _dump(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace")


def _add(archive: zipfile.ZipFile, name: str, content: bytes | Path) -> str:
    """Add a file to an archive, always as the same bytes; return its sha256."""
    raw = content if isinstance(content, bytes) else content.read_bytes()
    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = 0o644 << 16
    archive.writestr(info, raw, zipfile.ZIP_DEFLATED, 9)
    return hashlib.sha256(raw).hexdigest()
