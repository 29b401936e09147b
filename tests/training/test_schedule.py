"""Small data gets small batches and enough epochs, unless the user says otherwise."""

from dataclasses import replace

import pytest

from crosstune.config.compose import compose_run
from crosstune.data.splits import Split
from crosstune.training.schedule import MIN_STEPS, resolve_schedule

FILES = ("data=files_classification", "data.text=text", "data.label=label", "data.language=es")
FILES += ("data.train=a.tsv", "data.validation=a.tsv", "data.test=null")


def resolve(rows: int, *words: str, languages: int = 1) -> tuple[int | None, int | None]:
    """Return batch size and epochs of a run with so many training rows in each language."""
    run = compose_run([*FILES, *words])
    split = Split([{"label": "ab"[n % 2]} for n in range(rows)], {})
    names = ("es", "zh", "en")[:languages]
    resolved = resolve_schedule(run, {"train": dict.fromkeys(names, split)})
    return resolved.data.batch_size, resolved.trainer.max_epochs


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (5, (8, 200)),
        (300, (8, 6)),
        (701, (8, 3)),
        (1600, (16, 3)),
        (3200, (32, 3)),
        (10**6, (32, 3)),
    ],
)
def test_the_defaults_follow_the_rows(rows, expected):
    assert resolve(rows) == expected


@pytest.mark.parametrize("rows", [9, 64, 300, 1000, 5000])
def test_there_are_enough_steps_whatever_the_rows(rows):
    size, epochs = resolve(rows)
    assert epochs * (rows // size) >= MIN_STEPS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("data.batch_size=32",), (32, 23)),
        (("trainer.max_epochs=1",), (8, 1)),
        (("trainer.max_epochs=0",), (8, 0)),
        (("data.batch_size=4", "trainer.max_epochs=2"), (4, 2)),
    ],
)
def test_what_is_given_stays(words, expected):
    assert resolve(300, *words) == expected


def test_limits_shots_and_languages_count():
    assert resolve(10**4, "data.limit=300") == (8, 6)
    assert resolve(10**4, "data.shots=8") == (8, 100)  # of two labels
    assert resolve(1600, "data.further_languages=[zh]", languages=2) == (32, 3)
    words = ("data.further_languages=[zh]", "data.in_turn=true")
    assert resolve(1600, *words, languages=2) == (16, 3)


def test_accumulated_batches_count_as_one_step():
    assert resolve(3200, "trainer.accumulate_grad_batches=4") == (8, 3)


def test_the_batch_is_a_multiple_of_the_devices():
    run = compose_run([*FILES, "trainer.max_epochs=1"])
    run = replace(run, trainer=replace(run.trainer, devices=3))
    split = Split([{"label": "a"}] * 100, {})
    assert resolve_schedule(run, {"train": {"es": split}}).data.batch_size == 9
