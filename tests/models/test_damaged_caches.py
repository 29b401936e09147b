"""What lies in the cache carries its digest: damage on a disk is noticed, and mended."""

import json
import random
import shutil
from pathlib import Path

import pytest

from crosstune.training.train import train
from tests.tiny import tiny_run

OPTIONS = ("method=lora", "trainer.max_steps=2")


def scores_of(folder: Path) -> dict:
    record = json.loads((folder / "record.json").read_text("utf-8"))
    return {name: record[name] for name in ("scores", "report", "tokenizer_sha256", "base_sha256")}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The cache of a run, and what the run came to."""
    outputs = tmp_path_factory.mktemp("first")
    folder = train(tiny_run(outputs, "classification", *OPTIONS))
    return outputs / ".cache", scores_of(folder)


def list_files(cache: Path, kind: str) -> list[Path]:
    return sorted(path for path in (cache / kind).rglob("*") if path.is_file())


def flip_bit(raw: bytes, seed: int) -> bytes:
    changed = bytearray(raw)
    position = random.Random(seed).randrange(8 * len(changed))  # noqa: S311
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


DAMAGES = {
    "flip 1": lambda raw: flip_bit(raw, 1),
    "flip 2": lambda raw: flip_bit(raw, 2),
    "flip 3": lambda raw: flip_bit(raw, 3),
    "cut": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "zeros": lambda raw: bytes(len(raw)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["encoded", "tokenizers", "bases"])
def test_a_damaged_cache_is_made_again_and_the_scores_stay(first, tmp_path, caplog, kind, damage):
    cache, expected = first
    shutil.copytree(cache, tmp_path / ".cache")
    for path in list_files(tmp_path / ".cache", kind):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    folder = train(tiny_run(tmp_path, "classification", *OPTIONS))
    actual = scores_of(folder)
    assert actual["scores"] == expected["scores"]
    assert actual["report"] == expected["report"]
    assert actual["base_sha256"] == expected["base_sha256"]
    assert "was damaged on disk" in caplog.text


def test_an_intact_cache_is_used_without_a_word(first, tmp_path, caplog):
    cache, expected = first
    shutil.copytree(cache, tmp_path / ".cache")
    assert scores_of(train(tiny_run(tmp_path, "classification", *OPTIONS))) == expected
    assert "encoded before" in caplog.text
    assert "damaged" not in caplog.text
