"""One language or several trained on, many tested, in one run."""

import json
from pathlib import Path

import pytest

from crosstune.config.compose import compose_run
from crosstune.errors import ConfigError
from crosstune.training.train import train
from tests.tiny import MODEL

TEXTS = {
    "es": ("muy bueno", "muy malo"),
    "en": ("very good", "very bad"),
    "zh": ("很好", "很差"),
}
COMMON = (
    "data.text=text",
    "data.label=label",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "logger=none",
)


@pytest.fixture
def files(write):
    """Return a file of labelled rows for each language."""
    found = {}
    for language, (good, bad) in TEXTS.items():
        rows = [f"{good} {n}\tpos\n{bad} {n}\tneg" for n in range(6 if language == "es" else 3)]
        found[language] = write(f"{language}.tsv", "text\tlabel\n" + "\n".join(rows) + "\n")
    return found


def record_of(tmp_path: Path, *overrides: str, model: tuple[str, ...] = MODEL):
    run = compose_run(
        ["data=files_classification", *model, *COMMON, f"outputs={tmp_path}", *overrides]
    )
    folder = train(run)
    return json.loads((folder / "record.json").read_text()), folder


def by_language(files, *languages):
    return "{" + ", ".join(f"{one}: {files[one]}" for one in languages) + "}"


def test_a_run_trained_on_one_language_is_tested_on_many(files, tmp_path):
    record, _ = record_of(
        tmp_path,
        "data.language=en",
        f"data.train={files['en']}",
        f"data.validation={files['en']}",
        f"data.test={by_language(files, 'en', 'es', 'zh')}",
    )
    assert record["train_language"] == "en"
    assert list(record["scores"]["test"]) == ["en", "es", "zh"]
    assert list(record["scores"]["validation"]) == ["en"]


def test_joint_training_chooses_by_the_mean_over_its_languages(files, tmp_path):
    sources = by_language(files, "es", "zh")
    record, folder = record_of(
        tmp_path,
        "data.language=es",
        "data.further_languages=[zh]",
        "data.sampling_temperature=5",
        f"data.train={sources}",
        f"data.validation={sources}",
        f"data.test={by_language(files, 'es', 'zh', 'en')}",
    )
    assert record["train_language"] == "es+zh"
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    (last,) = [line for line in lines if "validation/headline" in line]
    scores = [last[f"validation/{one}/accuracy"] for one in ("es", "zh")]
    assert last["validation/headline"] == pytest.approx(sum(scores) / 2)


@pytest.fixture
def in_turn(files):
    sources = by_language(files, "es", "zh")
    return (
        "data.language=es",
        "data.further_languages=[zh]",
        "data.in_turn=true",
        f"data.train={sources}",
        f"data.validation={sources}",
        f"data.test={sources}",
    )


def test_languages_in_turn_are_tested_after_each_stage(in_turn, tmp_path):
    record, _ = record_of(tmp_path, *in_turn)
    assert record["train_language"] == "es>zh"
    assert [stage["languages"] for stage in record["stages"]] == [["es"], ["zh"]]
    assert all(set(stage["scores"]["test"]) == {"es", "zh"} for stage in record["stages"])
    assert record["scores"] == record["stages"][-1]["scores"]


def test_a_run_of_no_epochs_measures_what_an_earlier_run_left(in_turn, files, tmp_path):
    staged, _ = record_of(tmp_path, *in_turn)
    alone, _ = record_of(
        tmp_path,
        "data.language=es",
        f"data.train={files['es']}",
        f"data.validation={by_language(files, 'es', 'zh')}",
        f"data.test={by_language(files, 'es', 'zh')}",
        "trainer.max_epochs=0",
        model=("model=local", f"model.path={tmp_path}/adhoc/{staged['run_id']}"),
    )
    assert alone["scores"]["test"] == staged["scores"]["test"]
    assert "train_seconds" not in alone["cost"]


def test_languages_in_turn_need_an_order(files, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.in_turn: name the languages after the first"):
        compose_run(
            [
                "data=files_classification",
                "data.language=es",
                "data.in_turn=true",
                "data.text=text",
                "data.label=label",
                *(f"data.{split}={files['es']}" for split in ("train", "validation", "test")),
            ]
        )
