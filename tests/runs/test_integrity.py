"""A file of a run that is not as it was written is noticed before it is used."""

import json
import random
import shutil
from pathlib import Path

import pytest

from crosstune.errors import RunError
from crosstune.inference.load_run import load_run
from crosstune.reporting.records import read_records
from crosstune.runs.integrity import FIELD, OWN, digest_record, find_damage
from crosstune.runs.record import read_record
from crosstune.sweeps.verify import verify_study
from crosstune.training.train import train
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("trained")
    options = ("method=lora", "experiment=s", "trainer.max_steps=2")
    return train(tiny_run(outputs, "classification", *options))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    shutil.copytree(trained.parents[1], tmp_path / "o")
    return tmp_path / "o" / "s" / trained.name


def flip_bit(path: Path, seed: int) -> None:
    raw = bytearray(path.read_bytes())
    position = random.Random(seed).randrange(8 * len(raw))  # noqa: S311
    raw[position // 8] ^= 1 << position % 8
    path.write_bytes(raw)


def test_a_record_names_every_file_that_is_read_later(run):
    digests = read_record(run / "record.json")[FIELD]
    assert {"config.yaml", "task.json", "predictions.parquet"} < set(digests)
    assert {f"model/{path.name}" for path in (run / "model").iterdir()} < set(digests)


def test_an_untouched_run_has_no_damage(run):
    assert find_damage(run, read_record(run / "record.json")) == []
    found = verify_study(run.parents[1], "s")
    assert (found.runs, found.unchecked, found.damage) == (1, 0, [])


@pytest.mark.parametrize("seed", range(120))
def test_one_flipped_bit_in_any_file_is_found(run, seed):
    record = read_record(run / "record.json")
    name = random.Random(seed).choice([*record[FIELD], "record.json"])  # noqa: S311
    flip_bit(run / name, seed)
    damage = verify_study(run.parents[1], "s").damage
    if name == "record.json":  # white space between two fields carries nothing
        assert damage or json.loads((run / name).read_text("utf-8")) == record
    else:
        assert damage == [f"{run.name}/{name}: its bytes have changed since it was written"]


@pytest.mark.parametrize("name", ["model/adapter_model.safetensors", "task.json", "config.yaml"])
def test_a_damaged_run_is_not_loaded(run, name):
    flip_bit(run / name, 1)
    with pytest.raises(RunError, match=f"{name}: its bytes have changed since it was written"):
        load_run(run)


def test_a_missing_file_is_named(run):
    (run / "predictions.parquet").unlink()
    assert find_damage(run, read_record(run / "record.json")) == ["predictions.parquet: missing"]


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd"])
def test_a_record_of_others_names_no_file_outside_its_folder(run, name):
    record = read_record(run / "record.json")
    faults = find_damage(run, {FIELD: {name: record[OWN]}})
    assert faults == [f"{name!a}: no path in the run's folder"]


def test_a_record_of_an_earlier_version_is_not_called_damaged(run):
    path = run / "record.json"
    record = {key: value for key, value in read_record(path).items() if key not in (FIELD, OWN)}
    path.write_text(json.dumps(record))
    found = verify_study(run.parents[1], "s")
    assert (found.unchecked, found.damage) == (1, [])


def test_a_changed_score_is_in_no_table(run):
    path = run / "record.json"
    record = read_record(path)
    changed = path.read_text("utf-8").replace('"seed": 1', '"seed": 2', 1)
    assert changed != path.read_text("utf-8")
    path.write_text(changed, "utf-8")
    assert read_record(path)["status"] == "unreadable"
    study = read_records(run.parents[1], record["experiment"])
    assert study.records == []
    assert "changed since it was written" in study.unreadable[0][1]


def test_a_run_with_a_changed_record_is_trained_again_and_says_why(run, caplog):
    path = run / "record.json"
    expected = read_record(path)["scores"]
    path.write_text(path.read_text("utf-8").replace('"seed": 1', '"seed": 2', 1), "utf-8")
    options = ("method=lora", "experiment=s", "trainer.max_steps=2")
    assert train(tiny_run(run.parents[1], "classification", *options)) == run
    assert read_record(path)["scores"] == expected
    assert "record.json: its content has changed" in caplog.text


def test_the_digest_of_a_record_covers_every_field():
    record = {"status": "finished", "scores": {"test": {"es": {"f1": 0.5}}}}
    changed = {**record, "scores": {"test": {"es": {"f1": 0.6}}}}
    assert digest_record(record) != digest_record(changed)
    assert digest_record({**record, OWN: "x"}) == digest_record(record)
