"""The mirrors of a run: what they get, and what they must never get."""

import getpass
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
from lightning_fabric.utilities.rank_zero import rank_zero_only
from wandb.proto import wandb_internal_pb2

from crosstune.cli.main import main
from crosstune.training import loggers as tracking
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.loggers import MetricsFile, open_loggers
from crosstune.training.train import train
from tests.tiny import tiny_overrides, tiny_run

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
    folders = {path.parent.name for path in swept.glob("mirrored/*/record.json")}
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


def test_no_file_is_named_after_the_machine(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "secret-machine")
    words = ("logger=tensorboard", "trainer.max_steps=2")
    folder = train(tiny_run(tmp_path, "classification", *words))
    events = list((folder / "tensorboard").rglob("events.*"))
    assert events
    assert all("localhost" in path.name for path in events)
    assert all(b"secret-machine" not in path.read_bytes() for path in events)


def test_a_csv_mirror_of_a_run_that_goes_on_has_every_line(tmp_path: Path) -> None:
    words = ("logger=csv", "trainer.checkpoint_every_seconds=0", "trainer.log_every_n_steps=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FineTuningModule, "on_validation_epoch_end", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tiny_run(tmp_path, "classification", *words))
    folder = train(tiny_run(tmp_path, "classification", *words, "retry=true"))
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    truth = [line["step"] for line in lines if "train/loss" in line]
    mirrored = pd.read_csv(folder / "csv" / "metrics.csv").dropna(subset="train/loss")
    assert list(mirrored["step"]) == truth == list(range(10))


def test_a_server_that_never_answers_leaves_the_run_unharmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setitem(tracking.TIMEOUTS, "init_timeout", 1.0)
        words = ("logger=wandb", "logger.mode=online", "trainer.max_steps=2")
        folder = train(tiny_run(tmp_path, "classification", *words))
    assert json.loads((folder / "record.json").read_text())["status"] == "finished"
    assert "W&B does not answer" in caplog.text
    assert len(wandb_files(tmp_path)) == 1


@pytest.mark.parametrize("tracker", ["wandb", "tensorboard", "csv"])
def test_a_further_rank_opens_no_mirror(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    run = tiny_run(tmp_path, "classification", f"logger.tracker={tracker}")
    with open_loggers(run, "0123456789ab", tmp_path) as loggers:
        assert [type(logger) for logger in loggers] == [MetricsFile]
    assert not list(tmp_path.iterdir())
