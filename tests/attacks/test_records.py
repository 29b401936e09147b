"""Hostile records in a study are named and left out; nothing of them acts where they are shown."""

import csv
import io
import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from crosstune.training.train import train
from tests.attacks.arena import MARKER, Touch, attack
from tests.tiny import tiny_run

TEXT = '"><script>touch("marker")</script>\x1b[31m\x9b31m\u202e=cmd|\' /C calc\'!A0\r\n\x07'
RAW = {
    "empty": b"",
    "white space": b" \n",
    "null": b"null",
    "number": b"1e999",
    "list": b"[]",
    "text": b'"finished"',
    "cut": b'{"schema": 1, "status": "fini',
    "depth of lists": b"[" * 100_000,
    "depth of objects": b'{"a":' * 100_000,
    "depth in a field": b'{"status":"finished","config":' + b"[" * 900 + b"]" * 900 + b"}",
    "long number": b'{"status": "finished", "seed": ' + b"9" * 10_000 + b"}",
    "not a number": b'{"status": "finished", "seed": NaN}',
    "utf-16": '{"status": "finished"}'.encode("utf-16"),
    "latin-1": b'{"status": "finished", "experiment": "\xf1"}',
    "null byte": b'{"status": "finished"}\x00',
    "half a surrogate": b'{"status": "finished", "experiment": "\\ud800"}',
    "key twice": b'{"status": "failed", "status": "finished"}',
    "binary": bytes(range(256)),
    "pickle": pickle.dumps(Touch()),
    "yaml": b"status: !!python/object/apply:os.system [touch marker]",
}
# changes of a sound record, with its digest removed
FIELDS: dict[str, dict[str, Any]] = {
    "schema": {"schema": 99},
    "no scores": {"scores": None},
    "list of scores": {"scores": [1]},
    "flat scores": {"scores": {"test": 0.5}},
    "text for a score": {"scores": {"test": {"es": {"accuracy": "=1+1"}}}},
    "infinite score": {"scores": {"test": {"es": {"accuracy": float("inf")}}}},
    "huge score": {"scores": {"test": {"es": {"accuracy": 10**400}}}},
    "true score": {"scores": {"test": {"es": {"accuracy": True}}}},
    "names": {"experiment": TEXT, "data": TEXT, "model": TEXT, "method": TEXT},
    "language": {"train_language": TEXT, "scores": {TEXT: {TEXT: {TEXT: 0.5}}}},
    "headline": {"headline": {"metric": TEXT, "split": TEXT}},
    "list for a headline": {"headline": ["accuracy"]},
    "error": {"status": "failed", "error": TEXT},
    "nested error": {"status": "failed", "error": {"a": [TEXT]}},
    "status": {"status": TEXT},
    "warnings": {"warnings": [TEXT]},
    "no list of warnings": {"warnings": {TEXT: TEXT}},
    "run id": {"run_id": "../../x"},
    "number as run id": {"run_id": 5},
    "seed": {"seed": -(2**70)},
    "text as seed": {"seed": TEXT},
    "cost": {"cost": {"train_seconds": -1e308, "peak_memory_bytes": 1e308}},
    "text as cost": {"cost": {"train_seconds": TEXT}},
    "config": {"config": {"data": {"name": {TEXT: TEXT}}, "trainer": [TEXT]}},
    "environment": {"environment": {TEXT: TEXT, "torch": [TEXT]}},
    "digests": {"data_sha256": {"/etc/passwd": TEXT, "../../x": "0" * 64}},
    "files": {"files_sha256": {"/dev/zero": "0", "../../../etc/passwd": "0"}},
    "own digest": {"record_sha256": [TEXT]},
    "report": {"report": {"test": {"es": {"classes": {TEXT: {TEXT: 0.5}}}}}},
    "list as report": {"report": {"test": [TEXT]}},
    "long name": {"data": "d" * 100_000},
    "many scores": {"scores": {"test": {"es": {f"m{n}": 0.5 for n in range(500)}}}},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sound run and every hostile record in a study of the name s."""
    home = tmp_path_factory.mktemp("home")
    options = ("method=lora", "experiment=s", "trainer.max_steps=1")
    sound = train(tiny_run(home / "outputs", "classification", *options))
    good = json.loads((sound / "record.json").read_text("utf-8"))
    del good["record_sha256"]
    records = dict(RAW)
    for name, change in FIELDS.items():
        run_id = f"{len(records):012x}"
        records[name] = json.dumps({**good, "run_id": run_id, **change}).encode()
    for number, raw in enumerate(records.values()):
        folder = sound.parent / f"{number:012x}"
        folder.mkdir()
        (folder / "record.json").write_bytes(raw)
        shutil.copy(sound / "predictions.parquet", folder)
    special = sound.parent / "special"
    special.mkdir()
    os.mkfifo(special / "record.json")
    for name in ("plan.jsonl", "chosen.json", "multirun.yaml"):
        (sound.parent / name).write_text(
            f'{TEXT}\n{{"run_id": 1}}\n[1]\n{{"run_id": "{"[" * 9_000}'
        )
    for name, target in (("zero", "/dev/zero"), ("loop", "loop"), ("folder", ".")):
        (sound.parent / name).mkdir()
        (sound.parent / name / "record.json").symlink_to(target)
    return home


@pytest.mark.parametrize(
    "words",
    [
        ("status", "experiment=s"),
        ("verify", "experiment=s"),
        ("forget", "experiment=s"),
        ("bundle", "experiment=s", "output=s.zip"),
        ("train", "data=demo_sentiment", "data.language=es", "experiment=s", "tuned=true"),
    ],
    ids=lambda words: words[0],
)
def test_a_verb_ends_cleanly_on_hostile_records(study, words):
    attack(study, *words)


def test_the_report_shows_the_sound_run_and_no_hostile_text_acts(study):
    done = attack(study, "report", "experiment=s")
    assert "lora" in done.stdout
    page = (study / "outputs" / "s" / "report" / "index.html").read_text("utf-8")
    assert re.findall(rf"<script>touch\(.{MARKER}", page) == []
    for path in (study / "outputs" / "s" / "report").glob("*.csv"):
        rows = csv.reader(io.StringIO(path.read_text("utf-8")))
        cells = [cell for row in rows for cell in row]
        assert [cell for cell in cells if cell.lstrip("\x00 \t\r\n\u202e")[:1] in tuple("=@")] == []
