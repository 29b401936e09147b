"""`crosstune check`: one pass over a data set, for people and for programs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import BertConfig

from crosstune.cli.check import examine
from crosstune.cli.main import check
from crosstune.config.compose import compose_run
from crosstune.errors import ConfigError

SHARED = Path(__file__).parents[3] / "shared" / "data"
TABLE = ["data=files_classification", "data.text=text", "data.label=label", "data.language=es"]
TRAIN = "text\tlabel\nuno\ta\ndos\tb\n"


def table(*rows):
    return "text\tlabel\n" + "".join(f"{row}\n" for row in rows)


@pytest.fixture
def given(write):
    """Return overrides for three sound splits, those given by name in place of their own."""

    def overrides(**content):
        sound = {
            "train": TRAIN,
            "validation": table("tres\ta", "cuatro\tb"),
            "test": table("cinco\ta", "seis\tb"),
        } | content
        files = {name: write(f"{name}.tsv", text) for name, text in sound.items() if text}
        return [*TABLE, *(f"data.{name}={path}" for name, path in files.items())]

    return overrides


def rules(report):
    """Return the rules of what was found, balance left out."""
    return sorted(f.rule for f in report.findings if f.rule[0] != "B")


# --- the whole data set


def test_sound_data_has_no_fault(given):
    report = examine(compose_run(given()))
    assert rules(report) == []
    assert not report.faulty
    assert report.splits == {"train/es": 2, "validation/es": 2, "test/es": 2}


def test_a_text_of_train_in_the_test_is_an_error_and_is_counted(given):
    report = examine(compose_run(given(test=table("uno\ta", "DOS\tb"))))
    assert rules(report) == ["D102", "D202"]
    assert report.faulty
    assert report.leakage == {"test/es": 2}


@pytest.mark.parametrize("name", ["leakage", "D102"])
def test_leakage_that_is_allowed_is_no_error(given, name):
    report = examine(compose_run([*given(test=table("uno\ta", "x\tb")), f"data.allowed=[{name}]"]))
    assert rules(report) == ["D102"]
    assert not report.faulty


def test_a_rule_that_does_not_exist_cannot_be_allowed(given):
    with pytest.raises(ConfigError, match=r"allowed=leakages: no such rule. Did you mean leakage"):
        examine(compose_run([*given(), "data.allowed=[leakages]"]))


def test_the_faults_of_every_split_are_told_at_once(given):
    report = examine(
        compose_run(given(train=TRAIN + "solo\n", validation="text\n", test=table("\ta", "uno\tc")))
    )
    assert rules(report) == ["D102", "L101", "L103", "R103", "R104", "R108"]


def test_the_sound_lines_of_a_faulty_file_are_examined(given):
    report = examine(compose_run(given(train=TRAIN + "solo\nuno\ta\n", test=table("uno\tb"))))
    assert rules(report) == ["D101", "D102", "L103", "R103"]
    assert report.partial == ["train/es"]
    assert report.splits["train/es"] == 3
    assert "train/es: 3 rows of its valid lines" in report.as_text(False)


def test_a_train_of_one_label_is_told_and_the_rest_examined(given):
    report = examine(compose_run(given(train=table("uno\ta"), test=table("uno\tb"))))
    assert rules(report) == ["D102", "L101", "L101", "L103", "T102"]


def test_a_label_may_be_unseen_where_it_counts_as_missed(given):
    overrides = [*given(test=table("x\tc")), "data.unseen_labels=miss"]
    assert not examine(compose_run(overrides)).faulty


def test_hostile_text_never_reaches_the_terminal(given):
    evil = "\x1b]0;owned\x07\u202e"
    train = TRAIN + f"x\t{evil}\n{evil}\n"
    report = examine(compose_run(given(train=train, test=table(f"{evil}\ta"))))
    assert all(line.isprintable() for line in report.as_text(True).splitlines())
    assert report.as_json().isprintable()


# --- the command


def run_check(capsys, *overrides):
    code = check(list(overrides))
    return code, capsys.readouterr().out


def test_the_command_ends_in_1_on_an_error_and_in_0_without(given, capsys):
    assert run_check(capsys, *given())[0] == 0
    assert run_check(capsys, *given(test=table("uno\ta")))[0] == 1


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_one_split_is_enough(given, capsys, name):
    alone = {other: "" for other in ("train", "validation", "test") if other != name}
    code, out = run_check(capsys, *given(**alone))
    assert code == 0
    assert f"not given, so not examined: {', '.join(alone)}" in out


def test_no_split_at_all_is_refused():
    with pytest.raises(ConfigError, match="No split is given"):
        check(TABLE)


def test_json_is_one_object_with_everything(given, capsys):
    code, out = run_check(capsys, *given(validation="", test=table("uno\ta", "x\tc")), "--json")
    found = json.loads(out)
    assert code == 1
    assert found["data"] == "files_classification"
    assert found["splits"] == {"train/es": 2, "test/es": 2}
    assert found["missing"] == ["validation"]
    assert found["counts"]["D102"] == 1
    assert found["findings"][0].keys() == {"rule", "severity", "place", "value", "message"}


def test_all_true_lists_every_place(given, capsys):
    overrides = given(train=TRAIN + "solo\n" * 30)
    assert run_check(capsys, *overrides)[1].count("1 columns") == 20
    assert run_check(capsys, *overrides, "all=true")[1].count("1 columns") == 30


def test_the_help_lists_the_rules_and_is_quick():
    def cpu_seconds():
        before = os.times()
        command = [sys.executable, "-m", "crosstune", "check", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "D102  error" in done.stdout
        after = os.times()
        return after.children_user + after.children_system - before[2] - before[3]

    assert min(cpu_seconds() for _ in range(3)) < 0.8


def test_the_help_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'numpy', 'hydra', 'omegaconf'}"
    code = f"import sys, crosstune.data.quality.rules; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- tokenizers


@pytest.fixture
def checkpoint(tmp_path, wordpiece):
    """Return a folder with a tokenizer that knows few words."""
    folder = tmp_path / "checkpoint"
    wordpiece.save_pretrained(folder)
    BertConfig(vocab_size=len(wordpiece)).save_pretrained(folder)
    (folder / "model.safetensors").touch()
    return folder


def test_cuts_and_unknown_pieces_are_measured_where_a_model_is_named(given, capsys, checkpoint):
    overrides = given(train=table("El niño\ta", "€ € € €\tb"), test=table("la " * 50 + "\ta"))
    model = ["model=local", f"model.path={checkpoint}"]
    out = run_check(capsys, *overrides, *model, "data.max_tokens=16")[1]
    assert "train/es by local" in out
    assert "57.14% of subwords unknown" in out  # El, niñ, ##o and four unknown signs
    assert "100.0% of items cut to 16" in out
    assert [rule in out for rule in ("K101", "K102", "K103")] == [True] * 3


def test_mini_trains_its_tokenizer_on_train(given, capsys, tmp_path):
    overrides = [*given(), "model=mini", "model.vocab_size=400", f"outputs={tmp_path}"]
    code, out = run_check(capsys, *overrides)
    assert code == 0
    assert "0.0% of items cut to 128, 0.00% of subwords unknown" in out


def test_mini_needs_train(given):
    with pytest.raises(ConfigError, match="trains its tokenizer on train"):
        check([*given(train=""), "model=mini"])


def test_without_a_model_nothing_is_tokenized(given, capsys):
    assert "K101" not in run_check(capsys, *given())[1]


# --- real data: figures that were counted by other means


def shared(folder, suffix, splits=("train", "validation", "test")):
    return [f"data.{name}={SHARED / folder / name}.{suffix}" for name in splits]


@pytest.mark.shared
def test_the_331_reviews_of_chnsenticorp_are_found_within_a_minute():
    columns = ["data.text=text_a", "data.label=label", "data.language=zh"]
    files = shared("classification/zh/chnsenticorp", "tsv")
    start = time.process_time()
    report = examine(compose_run(["data=files_classification", *columns, *files]))
    seconds = time.process_time() - start
    counts = [rules(report).count(rule) for rule in ("D102", "D103", "D101")]
    assert counts == [331, 338, 1351 + 22 + 22]
    assert report.leakage == {"validation/zh": 340, "test/zh": 333}
    assert seconds < 60


@pytest.mark.shared
def test_the_40_sentences_of_weibo_are_found():
    files = [*shared("ner/zh/weibo", "conll"), "data.reader.strip_digit=true"]
    report = examine(compose_run(["data=files_tagging", "data.language=zh", *files]))
    counts = [rules(report).count(rule) for rule in ("D102", "D103", "D101", "G101")]
    assert counts == [40, 42, 101 + 7 + 8, 10 + 4]


@pytest.mark.shared
def test_the_5_offsets_of_cmrc_are_found():
    files = shared("qa/zh/cmrc2018_trial", "json", ("test",))
    absent = ["data.train=null", "data.validation=null"]
    run = compose_run(["data=files_extraction", "data.language=zh", *files, *absent])
    assert rules(examine(run)).count("T103") == 5


# --- planted bugs


def test_a_check_that_gives_a_faulty_file_up_would_be_seen(given, monkeypatch):
    run = compose_run(given(train=TRAIN + "solo\nuno\ta\n"))
    assert rules(examine(run)) == ["D101", "R103"]
    monkeypatch.setattr("crosstune.cli.check._MAX_PASSES", 1)
    assert rules(examine(run)) == ["R103"]
