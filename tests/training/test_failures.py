"""What ends a run is named, says what helps, and loses nothing."""

import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from crosstune.errors import ConfigError, RunError
from crosstune.training import train as run_module
from crosstune.training.failures import explain_failure
from crosstune.training.train import train
from tests.tiny import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
FULL = OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_short_memory_says_which_batch_makes_the_same_steps_in_less(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "classification", "trainer.accumulate_grad_batches=3")
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    said = str(explain_failure(error, run))
    assert "data.batch_size=4 trainer.accumulate_grad_batches=6" in said
    assert "(24)" in said


def test_a_budget_of_sub_words_is_halved_while_it_holds_one_text(tmp_path: Path) -> None:
    error = MemoryError()
    run = tiny_run(tmp_path, "classification", "data.max_tokens=32", "data.batch_tokens=64")
    assert "data.batch_tokens=32 trainer.accumulate_grad_batches=2" in str(
        explain_failure(error, run)
    )
    run = tiny_run(tmp_path, "classification", "data.max_tokens=32", "data.batch_tokens=62")
    assert "fewer data.max_tokens" in str(explain_failure(error, run))


def test_what_torch_says_on_a_cpu_is_short_memory_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    run = tiny_run(tmp_path, "classification", "data.batch_size=1")
    assert "data.max_tokens" in str(explain_failure(error.value, run))


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    for error in (ConfigError("x"), ValueError("x"), OSError(errno.ENOENT, "x")):
        assert explain_failure(error, run) is error


def test_a_disk_that_fills_at_a_checkpoint_is_named_and_loses_nothing(tmp_path: Path) -> None:
    words = ("classification", "trainer.checkpoint_every_seconds=0", "trainer.max_epochs=1")
    with pytest.raises(RunError, match="the disk is full") as error, files_of_at_most(300_000):
        train(tiny_run(tmp_path, *words))
    assert "checkpoint" in str(error.getrepr())
    (folder,) = (path.parent for path in tmp_path.glob("adhoc/*/record.json"))
    assert not list(folder.glob(".checkpoint*")), "no half of a checkpoint is left"
    assert json.loads((folder / "record.json").read_text())["status"] == "failed"
    assert train(tiny_run(tmp_path, *words, "retry=true")) == folder


@pytest.mark.parametrize("step", ["write_predictions", "write_record", "write_task"])
def test_a_disk_that_fills_at_the_end_loses_no_training(
    step: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise FULL

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, step, full)
        with pytest.raises(RunError, match="the disk is full"):
            train(tiny_run(tmp_path, "classification", "trainer.max_epochs=1"))
    with caplog.at_level("INFO"):
        train(tiny_run(tmp_path, "classification", "trainer.max_epochs=1", "retry=true"))
    assert "goes on from epoch 2" in caplog.text
