"""The mirrors of a run: what they get, and what they must never get."""

import getpass
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from crosstune.cli import main
from crosstune.run import train
from tiny import tiny_overrides, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")


def wandb_files(outputs: Path) -> list[Path]:
    return sorted(outputs.glob("*/*/wandb/offline-run-*/*.wandb"))


def records(path: Path) -> list[Any]:
    """Read a .wandb file: LevelDB log blocks of 32 KiB behind a header of 7 bytes."""
    data, at, parts, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record: Any = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a sweep of two runs, mirrored to W&B offline."""
    outputs = tmp_path_factory.mktemp("swept")
    overrides = [o for o in tiny_overrides(outputs) if o != "logger=none"]
    arguments = ["-m", "experiment=mirrored", "seed=1,2", "trainer.max_steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["crosstune", "train", *arguments, *overrides])
        assert main() == 0
    return outputs


def test_each_run_of_a_sweep_has_a_wandb_run_of_its_own(swept: Path) -> None:
    folders = {path.name for path in swept.glob("mirrored/*") if path.is_dir()}
    names = [path.stem.removeprefix("run-") for path in wandb_files(swept)]
    assert sorted(names) == sorted(folders)
    assert wandb.run is None


def test_wandb_gets_the_names_of_the_run_and_its_scores(swept: Path) -> None:
    found = records(wandb_files(swept)[0])
    run = next(record.run for record in found if record.HasField("run"))
    config = {item.key: item.value_json for item in run.config.update}
    assert run.run_group == "mirrored"
    assert config["method"] == '"full"'
    assert config["language"] == '"es"'
    assert config["run_id"] == f'"{run.run_id}"'
    keys = {"/".join(i.nested_key) or i.key for r in found for i in r.history.item}
    assert "test/es/accuracy" in keys


def test_nothing_of_the_machine_or_the_command_line_reaches_wandb(swept: Path) -> None:
    secrets = [str(swept), str(Path.cwd()), f"{getpass.getuser()}@", "trainer.max_steps=2"]
    for path in wandb_files(swept):
        content = path.read_bytes()
        assert [word for word in secrets if word.encode() in content] == []
        assert b"mirrored" in content, "the check itself must find what is there"


@pytest.mark.parametrize(
    ("tracker", "pattern"), [("csv", "metrics.csv"), ("tensorboard", "events.*")]
)
def test_other_mirrors_write_into_the_folder_of_the_run(
    tracker: str, pattern: str, tmp_path: Path
) -> None:
    folder = train(tiny_run(tmp_path, "classification", f"logger={tracker}", "trainer.max_steps=2"))
    assert list((folder / tracker).rglob(pattern))
