"""Overrides as a user types them, before Hydra reads them."""

import pytest

from crosstune.config.compose import compose_run
from crosstune.config.overrides import parse_override, prepare_overrides
from crosstune.errors import ConfigError
from crosstune.sweeps.plan import expand_overrides
from crosstune.training.prepare import prepare
from tests.tiny import tiny_overrides


def value_of(word: str):
    return parse_override(prepare_overrides([word])[0]).value()


@pytest.mark.parametrize(
    "text",
    [
        "文本",
        "~/t.tsv",
        "(1)",
        "[2]",
        "a&b",
        "#x",
        "l'avis",
        "año",
        "a=b",
        "a;b",
        "x[1,2].tsv",
        "f(1,2)",
    ],
)
def test_a_text_that_the_grammar_refuses_arrives_as_it_was_typed(text: str) -> None:
    assert value_of(f"data.text={text}") == text


@pytest.mark.parametrize("text", ["007", "1e3", "1_000", "true", "NaN", "0x10", "20240501"])
def test_a_text_that_looks_like_a_number_stays_the_text(text: str) -> None:
    assert value_of(f"data.label={text}") == text


@pytest.mark.parametrize(
    "word",
    [
        "seed=1,2",
        "seed=range(1,4)",
        "data.limit=null",
        "optimizer.learning_rate=1e-5",
        "data.text=choice(a,b)",
        "data.further_languages=[zh,en]",
        "+data.reader.rows={train: 40, test: 7}",
        "data.test={es: a.tsv, zh: b.tsv}",
        "data.train=${data.root}/a.tsv",
        "data.text='quoted, text'",
        "hydra/launcher=pool",
    ],
)
def test_valid_overrides_are_left_alone(word: str) -> None:
    assert prepare_overrides([word]) == [word]


def test_a_dictionary_may_hold_such_texts() -> None:
    assert value_of("data.test={es:~/t.tsv, zh: 文(1,2).tsv}") == {
        "es": "~/t.tsv",
        "zh": "文(1,2).tsv",
    }


def test_a_comma_still_sweeps_over_such_texts() -> None:
    jobs = expand_overrides(prepare_overrides([*tiny_overrides("o"), "data.text=文本,标签"]))
    assert [word for job in jobs for word in job if "data.text" in word] == [
        "data.text='文本'",
        "data.text='标签'",
    ]


@pytest.mark.parametrize(
    ("word", "pairs"),
    [
        ("data.test={es: a, es: b}", ("es: a", "es: b")),
        ("data.test={es: 文, zh: x, es: b}", ("es: '文'", "es: b")),
        ("+data.task.x={a: {b: 1, b: 2}}", ("b: 1", "b: 2")),
        ("+data.task.x=[{b: 1, b: 1}]", ("b: 1",)),
        ("method.peft={r: 8,r: 8}", ("r: 8",)),
    ],
)
def test_a_key_given_twice_in_a_dictionary_is_an_error_that_shows_both(word, pairs) -> None:
    with pytest.raises(ConfigError, match="given twice") as caught:
        prepare_overrides([word])
    for pair in pairs:
        assert pair in str(caught.value)


def test_of_an_override_given_twice_the_last_counts_as_in_hydra() -> None:
    assert compose_run([*tiny_overrides("o"), "seed=1", "method=lora", "seed=2"]).seed == 2


def test_languages_typed_one_by_one_count_over_the_dictionary_before_them() -> None:
    typed = ("data.test={es: demo:a, zh: demo:b}", "data.test.zh=demo:c")
    run = compose_run([*tiny_overrides("o"), *typed])
    assert run.data.test == {"es": "demo:a", "zh": "demo:c"}


@pytest.mark.parametrize(
    "word", ["foo", "文", "data.text=a,,b", "data.test={es: a", "method=null", "data.text=\udcff"]
)
def test_what_is_no_override_ends_in_an_error_of_ours(word: str) -> None:
    with pytest.raises(ConfigError):
        prepare_overrides([word])


def test_a_tilde_in_a_path_is_the_home_folder(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    words = prepare_overrides(["data.test={es: ~/t.tsv}", "outputs=~/runs"])
    run = compose_run([*tiny_overrides("o"), *words])
    assert (run.data.test, run.outputs) == ({"es": "/home/ana/t.tsv"}, "/home/ana/runs")


@pytest.mark.parametrize(
    ("word", "close"),
    [
        ("data.reader.txt=a", "text"),
        ("method.peft.lora_alhpa=4", "lora_alpha"),
        ("optimizer.algorithm.bates=[0.9, 0.99]", "betas"),
        ("model.config.hidden_sise=8", "hidden_size"),
    ],
)
def test_a_misspelt_option_of_a_target_gets_the_name_that_is_close(word: str, close: str) -> None:
    texts = ("data=files_classification", "data.text=a", "data.label=b", "data.language=es")
    files = ("data.train=a.tsv", "data.validation=a.tsv", "data.test=null", "method=lora")
    with pytest.raises(ConfigError, match=f"unknown option. Did you mean {close}"):
        prepare(compose_run(prepare_overrides([*texts, *files, word])))


def test_an_option_of_a_target_needs_no_plus() -> None:
    words = prepare_overrides([*tiny_overrides("o"), "method=lora", "method.peft.use_dora=true"])
    assert compose_run(words).method.peft["use_dora"] is True


def test_an_option_below_a_list_is_an_error_of_ours() -> None:
    with pytest.raises(ConfigError, match="An override does not fit its key"):
        compose_run(prepare_overrides([*tiny_overrides("o"), "allow.x=1"]))


@pytest.mark.parametrize("word", ["method@y=1_0", "~logger@y=-1", "++allow=???", "++seed=???"])
def test_a_value_that_does_not_fit_its_key_is_an_error_of_ours(word: str) -> None:
    with pytest.raises(ConfigError):
        compose_run([*tiny_overrides("o"), *prepare_overrides([word])])


@pytest.mark.parametrize(
    "word",
    [
        "data.further_languages=${seed}",
        "data.task=${seed}",
        "data.reader=${data.name}",
        "data.limit=${data.name}",
        "trainer.compile=${data.name}",
    ],
)
def test_an_interpolation_to_a_value_of_another_type_is_an_error_of_ours(word: str) -> None:
    with pytest.raises(ConfigError, match=word.split("=")[0]):
        compose_run([*tiny_overrides("o"), *prepare_overrides([word])])


def test_an_option_below_null_is_an_error_of_ours() -> None:
    with pytest.raises(ConfigError, match="An override does not fit its key"):
        compose_run(prepare_overrides([*tiny_overrides("o"), "method=full", "method.peft.r=4"]))
