"""A study travels as one file: the same table elsewhere, no path in it, nothing of it is run."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from crosstune.cli.main import main
from crosstune.errors import ConfigError
from crosstune.inference.load_run import load_run
from crosstune.runs import bundle as bundles
from crosstune.runs.bundle import read_bundles, write_bundle
from crosstune.training.train import train
from tests.tiny import tiny_run

FIXTURES = Path(__file__).parents[1] / "fixtures" / "records_0_1"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / "old", tmp_path / "outputs" / "old")
    return tmp_path / "outputs"


def pack(outputs: Path, name: str = "a.zip") -> Path:
    target = outputs.parent / name
    write_bundle(outputs, "old", target, False)
    return target


def report(monkeypatch, outputs: Path, *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["crosstune", "report", *words, f"outputs={outputs}"])
    assert main() == 0
    folder = outputs / "bundles" / "old" if words[0].startswith("bundle=") else outputs / "old"
    return (folder / "report" / "table.csv").read_text("utf-8")


def edit(path: Path, **changes: Any) -> Path:
    """Return the bundle with other members; None removes one. The manifest follows."""
    with zipfile.ZipFile(path) as archive:
        members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    members |= changes.pop("members", {})
    manifest |= changes
    target = path.with_name(f"edited_{path.name}")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
        archive.writestr("manifest.json", json.dumps(manifest))
    return target


def test_the_report_of_a_bundle_has_the_table_of_the_study(monkeypatch, outputs, tmp_path):
    there = report(monkeypatch, tmp_path / "there", f"bundle={pack(outputs)}")
    assert there == report(monkeypatch, outputs, "experiment=old")


def test_a_bundle_with_weights_brings_runs_that_load(tmp_path):
    folder = train(tiny_run(tmp_path / "here", "classification", "trainer.max_steps=1"))
    assert write_bundle(tmp_path / "here", "adhoc", tmp_path / "a.zip", True) == 1
    found = read_bundles([tmp_path / "a.zip"], tmp_path / "there")
    there = load_run(tmp_path / "there" / "adhoc" / folder.name)
    here = load_run(folder)
    assert found.experiment == "adhoc"
    for name, weight in here.model.state_dict().items():
        assert torch.equal(weight, there.model.state_dict()[name])


def test_the_same_study_is_the_same_bytes(outputs):
    assert pack(outputs).read_bytes() == pack(outputs, "b.zip").read_bytes()


def test_a_bundle_holds_no_path_and_keeps_files_of_one_name_apart(outputs):
    for path in (outputs / "old").glob("*/record.json"):
        record = json.loads(path.read_text("utf-8"))
        record["config"]["data"]["train"] = "/home/ana/secret/es/train.tsv"
        record["config"]["model"]["path"] = "/home/ana/models/mine"
        record["data_sha256"] = {
            "/home/ana/secret/es/train.tsv": "aa" * 32,
            "/home/ana/secret/zh/train.tsv": "bb" * 32,
        }
        record["error"] = "no such file: '/home/ana/x.tsv' (see https://example.org/a/b)"
        path.write_text(json.dumps(record), "utf-8")
    with zipfile.ZipFile(pack(outputs)) as archive:
        texts = [archive.read(name).decode("latin-1") for name in archive.namelist()]
        records = [json.loads(archive.read(n)) for n in archive.namelist() if "record" in n]
    assert not [text for text in texts if "ana" in text]
    assert list(records[0]["data_sha256"]) == ["aaaaaaaa/train.tsv", "bbbbbbbb/train.tsv"]
    assert records[0]["config"]["data"]["train"] == "aaaaaaaa/train.tsv"
    assert records[0]["config"]["model"]["path"] == "mine"
    assert records[0]["error"] == "no such file: 'x.tsv' (see https://example.org/a/b)"


def test_runs_of_two_machines_are_merged_and_conflicts_are_named(outputs, tmp_path):
    whole = pack(outputs)
    runs = sorted(path.parent.name for path in (outputs / "old").glob("*/record.json"))
    shutil.rmtree(outputs / "old" / runs[0])
    path = outputs / "old" / runs[1] / "record.json"
    record = json.loads(path.read_text("utf-8"))
    record["scores"]["validation"] = {"es": {"accuracy": 0.123}}
    path.write_text(json.dumps(record), "utf-8")
    found = read_bundles([pack(outputs, "b.zip"), whole], tmp_path / "root")
    assert found.runs == len(runs)
    assert found.conflicts == [f"run {runs[1]}: a.zip has other results than b.zip, which counts"]
    assert "0.123" in (tmp_path / "root" / "old" / runs[1] / "record.json").read_text("utf-8")


def test_bundles_of_two_studies_are_not_merged(outputs, tmp_path):
    other = edit(pack(outputs), experiment="other")
    with pytest.raises(ConfigError, match="of several studies: old, other"):
        read_bundles([pack(outputs), other], tmp_path / "root")


@pytest.mark.parametrize(
    "name",
    [
        "../../evil/record.json",
        "/etc/evil",
        "0123456789ab/../../x",
        "0123456789ab/run.py",
        "0123456789ab/model/evil.py",
        "0123456789ab/model/../x.json",
        "0123456789ab/model/pytorch_model.bin",
        "plan.jsonl/x",
    ],
)
def test_a_member_that_no_bundle_has_is_refused(outputs, tmp_path, name):
    path = pack(outputs)
    with zipfile.ZipFile(path) as archive:
        files = json.loads(archive.read("manifest.json"))["files"]
    evil = edit(path, members={name: b"x"}, files={**files, name: "0" * 64})
    with pytest.raises(ConfigError, match="no file that crosstune bundle wrote"):
        read_bundles([evil], tmp_path / "root" / "deep")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "changes",
    [
        {"experiment": "../../x"},
        {"experiment": ""},
        {"experiment": 3},
        {"format": 99},
        {"files": {}},
        {"files": ["a"]},
        {"files": {"plan.jsonl": "0" * 64}},
    ],
)
def test_a_hostile_manifest_is_refused(outputs, tmp_path, changes):
    with pytest.raises(ConfigError, match="no file that crosstune bundle wrote"):
        read_bundles([edit(pack(outputs), **changes)], tmp_path / "root")


def test_a_member_that_was_changed_is_refused(outputs, tmp_path):
    path = pack(outputs)
    run = next((outputs / "old").glob("*/record.json")).parent.name
    evil = edit(path, members={f"{run}/predictions.parquet": b"other"})
    with pytest.raises(ConfigError, match="is not as it was bundled"):
        read_bundles([evil], tmp_path / "root")


def test_a_bomb_is_refused_before_it_is_unpacked(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="over 1,000 bytes"):
        read_bundles([pack(outputs)], tmp_path / "root")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\0" * 1000])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.zip: no file that crosstune bundle wrote"):
        read_bundles([tmp_path / "a.zip"], tmp_path / "root")
    with pytest.raises(ConfigError, match=r"b\.zip: no such file"):
        read_bundles([tmp_path / "b.zip"], tmp_path / "root")


def test_hostile_texts_of_a_bundle_are_inert_on_the_page(monkeypatch, outputs, tmp_path):
    script, escape = "<script>alert(1)</script>", "\x1b]0;title\x07"
    for path in (outputs / "old").glob("*/record.json"):
        record = json.loads(path.read_text("utf-8"))
        record["method"] = f"=cmd|{script}{escape}"
        path.write_text(json.dumps(record), "utf-8")
    table = report(monkeypatch, tmp_path / "there", f"bundle={pack(outputs)}")
    folder = tmp_path / "there" / "bundles" / "old" / "report"
    page = (folder / "index.html").read_text("utf-8")
    assert script not in page
    assert "\x1b" not in page + table
    assert "\n=cmd" not in table
    assert ",=cmd" not in table
