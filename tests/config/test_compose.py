"""What the command line and the files of `conf/` may say, and what is refused in which words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra

import crosstune
from crosstune.config.compose import (
    compose_run,
    find_conf,
    read_config,
    register_schema,
    to_dict,
    write_config,
)
from crosstune.config.schema import Precision, TaskType, Tracker
from crosstune.errors import ConfigError

DEMO = ("data=demo_sentiment", "data.language=es")
FILES = (
    "data=files_classification",
    "data.train=a.tsv",
    "data.validation=b.tsv",
    "data.test={es: c.tsv, zh: d.tsv}",
    "data.text=sentence",
    "data.label=class",
    "data.language=es",
)


def refusal(*overrides):
    """Return what the user is told of overrides that must not pass."""
    with pytest.raises(ConfigError) as caught:
        compose_run([*DEMO, *overrides])
    return str(caught.value)


# --- what passes


def test_a_users_files_need_no_yaml():
    run = compose_run(FILES)
    assert run.data.kind is TaskType.classification
    assert run.data.reader["text"] == "sentence"
    assert run.data.test == {"es": "c.tsv", "zh": "d.tsv"}


def test_a_run_without_a_study_is_adhoc_and_offline():
    run = compose_run(DEMO)
    assert run.experiment == "adhoc"
    assert (run.logger.tracker, run.logger.mode.name) == (Tracker.wandb, "offline")


def test_a_study_needs_no_file():
    assert compose_run([*DEMO, "experiment=my_study"]).experiment == "my_study"


def test_the_learning_rate_is_the_methods_own():
    run = compose_run([*DEMO, "method=lora"])
    assert run.optimizer.learning_rate == run.method.learning_rate == 5e-4


def test_a_learning_rate_that_is_given_goes_before_the_methods_own():
    run = compose_run([*DEMO, "method=lora", "optimizer.learning_rate=0.01"])
    assert run.optimizer.learning_rate == 0.01


def test_an_option_that_a_file_leaves_out_is_added_with_a_plus():
    run = compose_run([*DEMO, "method=lora", "+method.peft.use_rslora=true"])
    assert run.method.peft["use_rslora"] is True


def test_what_a_run_wrote_reads_back_the_same(tmp_path):
    run = compose_run([*FILES, "method=lora", "trainer.precision=bf16", "allow=[mine]"])
    write_config(run, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == run


def test_enums_are_plain_by_name():
    assert to_dict(compose_run([*DEMO, "trainer.precision=bf16"]))["trainer"]["precision"] == (
        Precision.bf16.name
    )


# --- what is refused


@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sed=2", "sed: unknown key. Did you mean seed?"),
        ("data.bach_size=2", "data.bach_size: unknown key. Did you mean batch_size?"),
        ("trainer.gpus=2", "trainer.gpus: unknown key. Allowed: accelerate, accelerator,"),
    ],
)
def test_an_unknown_key_is_refused_whatever_sign_is_before_it(sign, override, words):
    assert words in refusal(f"{sign}{override}")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method=lroa", "method=lroa: no such option in conf/method"),
        ("method=lroa", "Did you mean lora? Allowed: "),
        ("model=bto", "Did you mean beto?"),
        ("methd=lora", "methd: unknown key. Did you mean method?"),
        ("method.peft.rank=3", "method.peft.rank: "),
        ("method.peft.rank=3", "write +method.peft.rank=…"),
    ],
)
def test_a_misspelt_option_gets_the_near_one(override, words):
    assert words in refusal("method=lora", override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=one", "seed"),
        ("seed=1.5", "1.5"),
        ("data.batch_size=true", "data.batch_size"),
        ("data.batch_size=[8]", "data.batch_size"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate"),
        ("trainer.precision=fp8", "expected one of [auto, fp32, bf16]"),
        ("data.kind=parsing", "expected one of [classification, tagging, extraction, relation"),
        ("logger.tracker=mlflow", "expected one of [wandb, csv, tensorboard, none]"),
        ("data=[a]", "data"),
        ("data.reader=3", "data.reader"),
        ("~data.metric", "data.metric"),
        ("seed=[1", "Cannot read the override 'seed=[1'"),
        ("seed=1,2", "To sweep over it, add --multirun"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_key(override, words):
    message = refusal(override)
    assert words in message
    assert "object_type" not in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "No data was chosen: give data=NAME. Allowed: "),
        (["data=demo_sentiment"], "data.language is missing: give data.language=…"),
        (["data=files_tagging", "data.language=es"], "data.train is missing: give data.train=…"),
    ],
)
def test_a_missing_value_is_named(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose_run(overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b", "a\\\\b"])
def test_a_study_whose_name_is_no_folder_name_is_refused(name):
    assert "a study's name holds letters, digits" in refusal(f"experiment='{name}'")


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "data.batch_size=0",
        "data.max_tokens=7",
        "data.batch_tokens=0",
        "data.limit=0",
        "trainer.max_epochs=-1",
        "trainer.max_steps=0",
        "trainer.devices=0",
        "trainer.patience=0",
        "optimizer.learning_rate=-0.1",
        "optimizer.learning_rate=nan",
        "optimizer.learning_rate=inf",
        "optimizer.warmup_ratio=-0.1",
        "model.vocab_size=299",
    ],
)
def test_a_value_out_of_range_is_refused(override):
    key, _, value = override.partition("=")
    assert f"{key}={float(value):g}".rstrip() in refusal(override).replace(".0:", ":")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.warmup_ratio=1.5", "at most 1"),
        ("model.attention=flash", "Allowed: sdpa, eager"),
        ("data.batch_size=32 trainer.devices=3", "must be a multiple of trainer.devices=3"),
        ("data.batch_tokens=9", "a batch holds at least one input"),
        ("data.language=spanish", "Did you mean es (Spanish)?"),
    ],
)
def test_a_value_that_cannot_be_is_refused(override, words):
    assert words in refusal(*override.split(" "))


# --- a folder of the user's, and what it may not do


@pytest.fixture
def user_conf(write, tmp_path):
    """Return a folder with a method of the user's, and with files that go too far."""
    write("conf/method/mine.yaml", "name: mine\nlearning_rate: 0.5\npeft: null\n")
    write("conf/method/odd.yaml", "name: odd\nlearning_rate: 0.5\nrank: 3\n")
    write("conf/method/words.yaml", "name: words\nlearning_rate: fast\n")
    write("conf/method/broken.yaml", "name: [broken\n")
    write("conf/experiment/grasping.yaml", "# @package _global_\nallow: [numpy]\n")
    grid = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      allow: '[numpy]'\n"
    write("conf/experiment/sly.yaml", grid)
    return tmp_path / "conf"


@pytest.fixture
def in_a_command(user_conf):
    """Stand where a running command stands that was given `--config-dir`."""
    register_schema()
    path = create_config_search_path(str(find_conf()))
    path.prepend("command-line", user_conf.as_uri(), SearchPathQuery(provider="schema"))
    Hydra.create_main_hydra2("train", path)
    yield
    GlobalHydra.instance().clear()


@pytest.mark.usefixtures("in_a_command")
def test_inside_a_command_its_config_dir_counts():
    run = compose_run([*DEMO, "method=mine"])
    assert (run.method.name, run.optimizer.learning_rate) == ("mine", 0.5)


@pytest.mark.usefixtures("user_conf")
def test_outside_of_the_command_that_folder_is_unknown():
    assert "method=mine: no such option" in refusal("method=mine")


@pytest.mark.usefixtures("in_a_command")
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("odd", "method.rank: unknown key. Allowed: "),
        ("words", "In 'method/words': "),
        ("broken", "broken.yaml"),
    ],
)
def test_a_users_file_is_held_to_yaml_and_to_the_schema(method, words):
    assert words in refusal(f"method={method}")


@pytest.mark.usefixtures("in_a_command")
@pytest.mark.parametrize("study", ["grasping", "sly"])
def test_a_file_admits_no_package(study):
    typing = ["allow=[numpy]"] if study == "sly" else []  # so a sweep hands its grid on
    assert "comes from a file" in refusal(f"experiment={study}", *typing)


@pytest.mark.usefixtures("in_a_command")
def test_the_command_line_admits_a_package_also_over_a_file():
    assert compose_run([*DEMO, "experiment=grasping", "allow=[mine]"]).allow == ["mine"]


def test_the_command_takes_a_folder_of_options(user_conf):
    source = str(Path(crosstune.__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "crosstune", "train", *DEMO, "method=mine"]
    done = subprocess.run(
        [*command, "--config-dir", str(user_conf), "--cfg", "job"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "name: mine" in done.stdout


def test_sources_typed_by_language_stand_alone_beside_those_of_the_file():
    words = ["data=sib200", "data.language=es"]
    assert len(compose_run(words).data.validation) > 1
    typed = compose_run([*words, "data.validation={es: mine.tsv}"])
    assert typed.data.validation == {"es": "mine.tsv"}
    assert typed.data.test == compose_run(words).data.test
