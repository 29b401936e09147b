"""Random values of options on the command line: a valid configuration, or an error of ours."""

import random
import secrets
import string

import pytest

from crosstune.config.compose import compose_run
from crosstune.config.overrides import prepare_overrides
from crosstune.config.schema import OPTIONS
from crosstune.errors import CrosstuneError
from tests.tiny import tiny_overrides

KEYS = (
    *("data", "model", "method", "optimizer", "trainer", "logger", "experiment"),
    *("seed", "outputs", "retry", "tuned", "lock", "allow", "data.train", "data.test"),
    *("data.text", "data.language", "data.languages", "data.further_languages", "data.limit"),
    *("data.batch_size", "data.max_tokens", "data.reader", "data.task", "data.unseen_labels"),
    *("model.path", "model.config", "model.vocab_size", "method.peft", "method.targets"),
    *("optimizer.learning_rate", "optimizer.schedule", "trainer.devices", "trainer.precision"),
    *("trainer.max_steps", "trainer.strategy", "logger.project", "hydra.job.name"),
)
PARTS = (
    *(
        "",
        "null",
        "true",
        "0",
        "1",
        "-1",
        "1e400",
        "nan",
        "inf",
        "0x1f",
        "1_0",
        "007",
        "4294967296",
    ),
    *("es", "zh-Hant", "文本", "niño", "~", "~/t.tsv", "(1)", "[2]", "&", "#", ";", "!", "%", "^"),
    *("{", "}", "[", "]", "(", ")", ",", ":", "=", "'", '"', "\\", " ", "\t", "\n", "\x00", "\x1b"),
    *(
        "${seed}",
        "${",
        "${oc.env:HOME}",
        "${nope}",
        "${by:a,{a: 1},2}",
        "${hydra:job.num}",
        "$",
        "??",
    ),
    *("???", "{es: a, zh: b}", "{es: a, es: b}", "[a, b]", "_target_", "os.system", "full", "lora"),
    *(
        "choice(a,b)",
        "range(1,3)",
        "glob(*)",
        "str(",
        "../..",
        "/",
        ".",
        "a.b",
        "@",
        "+",
        "😀",
        "\ud800",
    ),
    *(
        "\u202e",
        "\ufeff",
        "{a: {b: [1, {c: 2}]}}",
        "{_target_: os.system}",
        "<x>",
        "|",
        "`",
        "int(x)",
    ),
)
PREFIXES = ("", "", "", "", "+", "++", "~")


def make_override(rng: random.Random) -> str:
    """Return an override: parts that mean something, random characters, or both."""
    key = rng.choice(KEYS)
    parts = [rng.choice(PARTS) for _ in range(rng.choice((1, 1, 1, 2, 3, 5)))]
    if rng.random() < 0.2:
        parts.append("".join(rng.choices(string.printable + "文ñé", k=rng.randrange(12))))
    if rng.random() < 0.1:
        key += rng.choice((".x", "@y", "/z", ".", "文", "[0]", " ", ".es"))
    return f"{rng.choice(PREFIXES)}{key}={''.join(parts)}"


@pytest.mark.slow
def test_any_value_of_any_option_ends_in_a_configuration_or_in_an_error_of_ours() -> None:
    seed = secrets.randbelow(10**6)
    rng = random.Random(seed)  # noqa: S311
    base = tiny_overrides("outputs")
    for number in range(2000):
        word = make_override(rng)
        try:
            compose_run([*base, *prepare_overrides([word])])
        except CrosstuneError as error:
            message = str(error)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, override {number}: {word!a}") from error
        else:
            message = "a valid configuration"
        assert message.strip(), f"seed {seed}, override {number}: {word!a}"


def test_the_options_of_the_fuzz_exist() -> None:
    groups = {"data", "model", "method", "optimizer", "trainer", "logger"}
    assert len({*KEYS} - groups - {"hydra.job.name"} & {*OPTIONS}) >= 30
