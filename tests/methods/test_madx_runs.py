"""MAD-X from the command line's side: each language is tested with its own adapter, or refused."""

import pyarrow.parquet as pq
import pytest

from crosstune.config.compose import compose_run
from crosstune.errors import ConfigError
from crosstune.inference.predict import predict
from crosstune.runs.record import read_record
from crosstune.training.train import train
from tests.tiny import tiny_overrides

STEPS = ("trainer.max_epochs=1", "trainer.max_steps=3", "optimizer.learning_rate=0.05")
TOGETHER = ("data.train=${data.test}", "data.validation=${data.test}")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Return a folder with an encoder, `base`, and its adapters of two languages, `languages`."""
    root = tmp_path_factory.mktemp("madx")
    train(compose_run(tiny_overrides(root, "masked_lm", "experiment=base", *STEPS)))
    for language in ("es", "zh"):
        own = ("experiment=languages", "method=madx_language", f"data.language={language}")
        overrides = tiny_overrides(root, "masked_lm", *own, *STEPS)
        train(compose_run(on_base(root, overrides)))
    for language, text in (("es", "La casa"), ("zh", "房子很")):
        lines = [f"{text} {n}\t{'good' if n % 2 else 'bad'}" for n in range(8)]
        (root / f"{language}.tsv").write_text("\n".join(["text\tlabel", *lines]), "utf-8")
    return root


def on_base(root, overrides):
    """Return the overrides with the encoder of the study `base` in place of a new one."""
    kept = [text for text in overrides if not text.startswith("model")]
    return [*kept, "model=local", f"model.path={root / 'base'}"]


def task(root, adapters, *more, method="madx"):
    """Return a run on Spanish that is tested on Spanish and Chinese."""
    files = [f"data.{split}={root / 'es.tsv'}" for split in ("train", "validation")]
    files += [f"data.test={{es: {root / 'es.tsv'}, zh: {root / 'zh.tsv'}}}", "data.language=es"]
    columns = ("data.text=text", "data.label=label", "data.batch_size=4")
    given = f"method.language_adapters={adapters.replace('LANGUAGES', str(root / 'languages'))}"
    common = ("trainer=cpu", "logger=none", f"outputs={root}", f"method={method}", *STEPS)
    overrides = ["data=files_classification", *files, *columns, *common, given, *more]
    return compose_run(on_base(root, overrides))


def scores(folder, language):
    """Return what the test of a language wrote down as scores."""
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    return [row["score"] for row in rows if row["language"] == language]


@pytest.fixture(scope="module")
def own(outputs):
    """Return a run in which each language has its own adapter."""
    return train(task(outputs, "{es: LANGUAGES, zh: LANGUAGES}"))


@pytest.fixture(scope="module")
def borrowed(outputs):
    """Return one in which Chinese is tested with the Spanish adapter."""
    (spanish,) = (
        path.parent
        for path in (outputs / "languages").glob("*/record.json")
        if read_record(path)["train_language"] == "es"
    )
    return train(task(outputs, f"{{es: LANGUAGES, zh: {spanish}}}"))


def test_each_language_is_tested_with_its_own_adapter(own, borrowed):
    assert scores(own, "es") == scores(borrowed, "es")
    assert scores(own, "zh") != scores(borrowed, "zh")


@pytest.mark.parametrize("language", ["es", "zh"])
def test_prediction_speaks_the_language_that_it_is_asked_for(own, outputs, tmp_path, language):
    target = tmp_path / "said.parquet"
    predict(own, outputs / f"{language}.tsv", target, language)
    assert [row["score"] for row in pq.read_table(target).to_pylist()] == scores(own, language)


def test_the_language_adapters_are_part_of_the_name_and_the_record(own, borrowed):
    digests = [
        read_record(run / "record.json")["language_adapters_sha256"] for run in (own, borrowed)
    ]
    assert own.name != borrowed.name
    assert digests[0]["es"] == digests[1]["es"] == digests[1]["zh"] != digests[0]["zh"]


def test_the_run_keeps_task_and_languages_and_not_the_encoder(own):
    files = {path.relative_to(own / "model").as_posix() for path in own.rglob("*.safetensors")}
    assert files == {
        "adapter_model.safetensors",
        "language_es/adapter_model.safetensors",
        "language_zh/adapter_model.safetensors",
    }


@pytest.mark.parametrize(
    ("adapters", "more", "said"),
    [
        ("{zh: LANGUAGES}", (), "none for es, which the data has. Given: zh"),
        ("{es: LANGUAGES}", (), "none for zh"),
        ("{es: LANGUAGES, zh: /nowhere}", (), "0 adapters found there"),
        ("LANGUAGES", (), "give {LANGUAGE: FOLDER"),
        (
            "{es: LANGUAGES, zh: LANGUAGES}",
            (*TOGETHER, "data.further_languages=[zh]"),
            "trained on together",
        ),
    ],
)
def test_what_cannot_be_spoken_is_refused_before_training(outputs, adapters, more, said):
    with pytest.raises(ConfigError, match=said):
        train(task(outputs, adapters, *more))


def test_another_method_takes_no_language_adapters(outputs):
    with pytest.raises(ConfigError, match="not for method=lora"):
        train(task(outputs, "{es: LANGUAGES, zh: LANGUAGES}", method="lora"))


def test_a_language_after_another_is_trained_with_its_own_adapter(outputs):
    more = (*TOGETHER, "data.in_turn=true", "data.further_languages=[zh]")
    run = task(outputs, "{es: LANGUAGES, zh: LANGUAGES}", *more)
    assert read_record(train(run) / "record.json")["train_language"] == "es>zh"
