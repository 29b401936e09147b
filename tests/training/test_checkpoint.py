"""A run that is stopped anywhere and goes on ends as if it had never been stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crosstune.training import batching, callbacks
from crosstune.training import checkpoint as checkpoints
from crosstune.training import lightning_module as learner
from crosstune.training.train import train
from tests.tiny import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
OFTEN = "trainer.checkpoint_every_seconds=0"
ADALORA = ("method=adalora", "method.peft.init_r=4", "method.peft.target_r=2")
STUCK = ("trainer.patience=1", "optimizer.learning_rate=0.0", "trainer.max_epochs=5")
IN_TURN = (
    "data.further_languages=[zh]",
    "data.in_turn=true",
    *(f"data.{split}={{es: {split}, zh: {split}}}" for split in ("train", "validation", "test")),
)


class Killed(BaseException):
    """Ends a run without a word, as SIGKILL would."""


def kill_at(patch: pytest.MonkeyPatch, owner: type, method: str, count: int) -> None:
    """Let the call of this number of a method end the run, halfway through."""
    original, calls = getattr(owner, method), []

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        result = original(self, *arguments, **named)
        calls.append(1)
        if len(calls) == count:
            raise Killed
        return result

    patch.setattr(owner, method, counted)


def killed(outputs: Path, count: int, *words: str, owner: Any = None, method: str = "") -> None:
    """Train until a call, by default of a training step, of this number."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, owner or learner.FineTuningModule, method or "training_step", count)
        with pytest.raises(Killed):
            train(tiny_run(outputs, "classification", OFTEN, *words))


def left(folder: Path) -> dict[str, Any]:
    """Return all that a run leaves, but times and places."""
    record = json.loads((folder / "record.json").read_text())
    # the digests are of files that name the folder; those that matter are compared below
    for name in ("cost", "started", "finished", "files_sha256", "record_sha256"):
        del record[name]
    del record["config"]["outputs"], record["config"]["trainer"]["checkpoint_every_seconds"]
    files = [folder / "predictions.parquet", folder / "metrics.jsonl"]
    files += sorted((folder / "model").glob("*.safetensors"))
    return {"record": record, **{path.name: path.read_bytes() for path in files}}


def resumed(outputs: Path, *words: str) -> dict[str, Any]:
    return left(train(tiny_run(outputs, "classification", OFTEN, *words)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Return a function that gives what an uninterrupted run leaves."""
    known: dict[tuple[str, ...], dict[str, Any]] = {}

    def uninterrupted(*words: str) -> dict[str, Any]:
        if words not in known:
            outputs = tmp_path_factory.mktemp("whole")
            known[words] = left(train(tiny_run(outputs, "classification", *words)))
        return known[words]

    return uninterrupted


# 40 rows in batches of 8: an epoch has 5 batches, and there are 2 epochs
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((3,), ()),
        pytest.param((6,), (), marks=pytest.mark.slow),
        pytest.param((2, 2, 4), ("method=lora",), marks=pytest.mark.slow),
        ((6,), ("trainer.max_steps=8",)),
        pytest.param((5,), ("trainer.accumulate_grad_batches=2",), marks=pytest.mark.slow),
        pytest.param((8,), STUCK, marks=pytest.mark.slow),
        ((4, 5), ADALORA),
    ],
)
def test_a_run_killed_in_a_step_ends_as_if_it_had_not_been(
    steps: tuple[int, ...], words: tuple[str, ...], tmp_path: Path, whole: Any
) -> None:
    for step in steps:
        killed(tmp_path, step, *words)
    assert resumed(tmp_path, *words) == whole(*words)


@pytest.mark.parametrize(
    ("owner", "method", "count"),
    [
        # while the second epoch is validated
        pytest.param(learner.FineTuningModule, "validation_step", 2, marks=pytest.mark.slow),
        (
            callbacks.BestWeights,
            "on_validation_end",
            1,
        ),  # the best weights are newer than the place
        (learner.FineTuningModule, "test_step", 1),  # when training is over
        pytest.param(checkpoints.ResumeCheckpoint, "finish", 1, marks=pytest.mark.slow),
        pytest.param(checkpoints.ResumeCheckpoint, "write", 5, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_outside_a_step_ends_as_if_it_had_not_been(
    owner: type, method: str, count: int, tmp_path: Path, whole: Any
) -> None:
    killed(tmp_path, count, owner=owner, method=method)
    assert resumed(tmp_path) == whole()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((11,), ADALORA),
        pytest.param((4, 12), ADALORA, marks=pytest.mark.slow),
        pytest.param((4, 12), (), marks=pytest.mark.slow),
    ],
)
def test_a_run_on_languages_in_turn_goes_on_in_its_stage(
    steps: tuple[int, ...], words: tuple[str, ...], tmp_path: Path, whole: Any
) -> None:
    done = 0
    for step in steps:
        killed(tmp_path, step - done, *IN_TURN, *words)
        done = step - 1  # the step it was killed in comes again
    assert resumed(tmp_path, *IN_TURN, *words) == whole(*IN_TURN, *words)


def test_a_killed_run_leaves_no_record(tmp_path: Path) -> None:
    killed(tmp_path, 7)
    assert not list(tmp_path.rglob("record.json"))
    assert list(tmp_path.rglob(checkpoints.CHECKPOINT_FILE))


def test_a_finished_run_keeps_no_checkpoint(tmp_path: Path) -> None:
    folder = train(tiny_run(tmp_path, "classification", OFTEN))
    assert not list(folder.glob("*.safetensors"))


def test_a_checkpoint_holds_what_is_trained_and_not_the_base(tmp_path: Path) -> None:
    killed(tmp_path, 7, "method=lora")
    (path,) = tmp_path.rglob(checkpoints.CHECKPOINT_FILE)
    with checkpoints.safe_open(path, "pt") as file:
        weights = [name for name in file.keys() if name.startswith("/weights/")]  # noqa: SIM118
    assert weights
    assert not [name for name in weights if "encoder.layer" in name and "lora_" not in name]


def test_a_checkpoint_of_other_versions_is_not_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: Any
) -> None:
    killed(tmp_path, 7)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(checkpoints, "FORMAT", 0)
        assert resumed(tmp_path) == whole()
    assert "starts anew" in caplog.text
    assert "goes on" not in caplog.text


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path, whole: Any) -> None:
    killed(tmp_path, 7)
    (path,) = tmp_path.rglob(checkpoints.CHECKPOINT_FILE)
    path.write_bytes(path.read_bytes()[:1000])
    assert resumed(tmp_path) == whole()


def test_without_time_to_lose_only_epochs_are_written(tmp_path: Path) -> None:
    positions: list[checkpoints.LoopPosition] = []
    original = checkpoints.ResumeCheckpoint.write

    def noted(self: Any, trainer: Any, module: Any, position: checkpoints.LoopPosition) -> None:
        positions.append(position)
        original(self, trainer, module, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.ResumeCheckpoint, "write", noted)
        train(tiny_run(tmp_path, "classification"))
    assert [(p.epoch, p.batch, p.finished) for p in positions] == [(1, 0, False), (2, 0, True)]


def differs(outputs: Path, whole: Any, *words: str) -> bool:
    """Return whether a run killed in its fourth step ends otherwise than one that was not."""
    killed(outputs, 4, *words)
    return resumed(outputs, *words) != whole(*words)


def test_an_order_that_begins_anew_is_seen(
    tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole()
    monkeypatch.setattr(
        batching.TrainingSampler, "start", property(lambda s: 0, lambda s, v: None), raising=False
    )
    assert differs(tmp_path, whole)


def test_dropout_that_is_not_seeded_by_step_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "seed_step", lambda numbers, device: None)
    alone = left(train(tiny_run(tmp_path / "alone", "classification")))
    killed(tmp_path / "killed", 4)
    assert resumed(tmp_path / "killed") != alone


def test_a_checkpoint_on_the_last_batch_of_an_epoch_is_seen(
    tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters as they stand after the last batch let Lightning skip what follows."""
    original = checkpoints.restore_loop

    def on_last_batch(trainer: Any, position: checkpoints.LoopPosition) -> None:
        assert (position.epoch, position.batch) == (1, 0)
        original(trainer, position)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        progress.current.ready = progress.current.started = progress.current.processed = 5
        progress.current.completed, progress.is_last_batch = 5, True
        trainer.fit_loop.restarting = True

    whole("trainer.max_steps=10")
    monkeypatch.setattr(checkpoints, "restore_loop", on_last_batch)
    killed(tmp_path, 6, "trainer.max_steps=10")
    assert resumed(tmp_path, "trainer.max_steps=10") != whole("trainer.max_steps=10")
