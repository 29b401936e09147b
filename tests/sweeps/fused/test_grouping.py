"""Which runs are trained together, and what is said of the others."""

from functools import cache
from pathlib import Path

import pytest

from crosstune.config.compose import compose_run
from crosstune.config.schema import Run
from crosstune.sweeps.fused.grouping import make_groups
from tests.tiny import tiny_run

LOCAL = ("model=local", "data=demo_sentiment", "data.language=es", "method=lora", "logger=none")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder that looks like a model's: nothing of it is loaded here."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return f"model.path={folder}"


def runs_of(*variants: tuple[str, ...]) -> dict[int, Run]:
    return {number: composed(*LOCAL, *words) for number, words in enumerate(variants)}


@cache
def composed(*words: str) -> Run:
    return compose_run(words)


@pytest.mark.parametrize(
    "words",
    [
        "seed=2",
        "optimizer.learning_rate=0.01",
        "optimizer.weight_decay=0.3",
        "optimizer.schedule=constant",
        "method.peft.lora_alpha=4",
        "method.peft.lora_dropout=0.3",
        "trainer.patience=2",
        "trainer.max_epochs=7",
    ],
)
def test_runs_go_together_that_differ_in_a_number(words: str, base: str) -> None:
    assert make_groups(runs_of((base,), (base, words)), 8).together == [[0, 1]]


@pytest.mark.parametrize(
    "words",
    [
        "method.peft.r=4",
        "method.peft.lora_dropout=0.0",
        "data.batch_size=16",
        "data.max_tokens=32",
        "data.language=zh",
        "trainer.accumulate_grad_batches=2",
        "method=bitfit",
    ],
)
def test_runs_go_apart_whose_passes_have_another_shape(words: str, base: str) -> None:
    groups = make_groups(runs_of((base,), (base, words)), 8)
    assert groups.together == []
    assert set(groups.alone.values()) == {"no other run has its base, data and shape"}


def test_a_group_has_at_most_the_size_that_was_asked_for(base: str) -> None:
    runs = runs_of(*((base, f"seed={seed}") for seed in range(5)))
    assert make_groups(runs, 2).together == [[0, 1], [2, 3]]
    assert list(make_groups(runs, 2).alone) == [4]


def test_a_base_that_each_seed_draws_is_shared_by_runs_of_one_seed(tmp_path: Path) -> None:
    seeds = [("seed=1",), ("seed=2",), ("seed=1", "optimizer.learning_rate=0.1")]
    runs = {
        number: tiny_run(tmp_path, "classification", "method=lora", *words)
        for number, words in enumerate(seeds)
    }
    assert make_groups(runs, 8).together == [[0, 2]]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("method=full",), "method=full leaves nothing frozen"),
        (("method=adalora",), "method=adalora"),
        (("method=prompt_tuning",), "method=prompt_tuning"),
        (("method=madx",), "method=madx"),
        (("data=demo_text",), "data.kind=masked_lm"),
        (("trainer=ddp", "trainer.devices=2"), "trainer.devices=2"),
        (("trainer.compile=true",), "trainer.compile=true"),
        (("data.further_languages=[zh]", "data.in_turn=true"), "data.in_turn=true"),
        (("+data.task.separator=' '",), "data.task={'separator': ' '}"),
    ],
)
def test_a_run_that_can_go_with_no_other_is_named_with_the_reason(
    words: tuple[str, ...], reason: str, base: str
) -> None:
    groups = make_groups(runs_of((base, *words), (base, *words, "seed=2")), 8)
    assert groups.together == []
    assert groups.alone == {0: reason, 1: reason}


def test_a_run_that_is_asked_for_twice_is_trained_once(base: str) -> None:
    groups = make_groups(runs_of((base,), (base, "seed=2"), (base, "logger=csv")), 8)
    assert groups.together == [[0, 1]]
    assert groups.alone == {2: "it repeats run 1"}


def test_a_run_whose_model_is_not_there_stops_no_other(base: str, tmp_path: Path) -> None:
    runs = runs_of((base,), (base, "seed=2"), (f"model.path={tmp_path / 'nowhere'}",))
    groups = make_groups(runs, 8)
    assert groups.together == [[0, 1]]
    assert "no such folder" in groups.alone[2]
