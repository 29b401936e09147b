"""A bit that flips in a checkpoint on the disk is noticed before a run goes on from it."""

import random
from pathlib import Path

import pytest
import torch

from crosstune.training import checkpoint as checkpoints
from crosstune.training.checkpoint import restore_folder
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.tensor_file import is_undamaged, save_tensors
from crosstune.training.train import train
from tests.tiny import tiny_run
from tests.training.test_checkpoint import OFTEN, kill_at

TENSORS = {
    "weights": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
    "step": torch.tensor(7),
    "mask": torch.tensor([True, False]),
}


def flip_bit(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position // 8] ^= 1 << position % 8
    path.write_bytes(raw)


def flip_any_bit(path: Path, seed: int) -> None:
    flip_bit(path, random.Random(seed).randrange(8 * path.stat().st_size))  # noqa: S311


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_tensors(TENSORS, tmp_path / "x.safetensors", {"state": '{"epoch": 1}'})
    return tmp_path / "x.safetensors"


def test_a_file_as_it_was_written_is_undamaged(file):
    assert is_undamaged(file)


def test_every_single_flipped_bit_of_a_file_is_noticed(file):
    for position in range(8 * file.stat().st_size):
        flip_bit(file, position)
        assert not is_undamaged(file), position
        flip_bit(file, position)


def test_a_missing_or_cut_file_is_damaged(file):
    file.write_bytes(file.read_bytes()[:-1])
    assert not is_undamaged(file)
    assert not is_undamaged(file.with_name("none"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in its second epoch."""
    outputs = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, FineTuningModule, "training_step", 7)
        with pytest.raises(BaseException, match=r"^$"):
            train(tiny_run(outputs, "classification", "method=lora", OFTEN))
    (path,) = outputs.rglob(checkpoints.CHECKPOINT_FILE)
    return path.parent


@pytest.mark.parametrize("pattern", ["checkpoint.safetensors", "best-*.safetensors"])
@pytest.mark.parametrize("seed", range(4))
def test_a_run_does_not_go_on_from_damaged_tensors(stopped, pattern, seed, caplog):
    (path,) = stopped.glob(pattern)
    intact = path.read_bytes()
    assert restore_folder(stopped)
    flip_any_bit(path, seed)
    assert not restore_folder(stopped)
    assert "starts anew" in caplog.text or checkpoints.read_checkpoint(path) is None
    path.write_bytes(intact)
