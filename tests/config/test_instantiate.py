"""What a `_target_` may name, and that its options are bound before anything is built."""

import sys
from importlib import import_module

import pytest

from crosstune.config.instantiate import KEY, check_target, instantiate, locate_target
from crosstune.errors import ConfigError

READER = "crosstune.data.readers.read_table"
OWN_PACKAGE = '''
"""A package of the user's, with names of other modules in it."""

import json
import subprocess
from collections import OrderedDict
from os import system
from subprocess import run
from typing import Literal

built = []


class Thing:
    """Keeps its options."""

    def __init__(
        self,
        size: int,
        rate: float = 0.5,
        name: str = "a",
        on: bool = False,
        kind: Literal["soft", "hard"] = "soft",
        limit: int | None = None,
        sizes: list[int] | None = None,
        other: "Unknown" = None,
    ):
        if size < 0:
            raise ValueError("size must not be negative")
        self.options = dict(size=size, rate=rate, name=name, on=on, kind=kind, limit=limit)
        built.append(self)


class Postponed:
    """Annotates in strings."""

    def __init__(self, size: "int | None" = None):
        self.size = size


def make(**options):
    """Take any option."""
    return options
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the name of a package of the user's that can be imported."""
    (tmp_path / "own_package.py").write_text(OWN_PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_package"
    sys.modules.pop("own_package", None)


def thing(own, **options):
    return {KEY: f"{own}.Thing", "size": 1, **options}


# --- what a target may name


ADMITTED = {
    "data.reader": "crosstune.data.readers.read_conll",
    "method.peft": "peft.LoraConfig",
    "optimizer.algorithm": "torch.optim.AdamW",
    "model.config": "transformers.BertConfig",
}


@pytest.mark.parametrize(("where", "path"), ADMITTED.items())
def test_a_target_of_the_kind_that_its_key_takes_is_found(where, path):
    assert locate_target(path, where).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize(
    ("where", "path"),
    [(where, path) for where in ADMITTED for key, path in ADMITTED.items() if key != where]
    + [
        ("data.reader", "transformers.pipeline"),
        ("data.reader", "transformers.AutoModel"),
        ("data.reader", "transformers.dynamic_module_utils.get_class_from_dynamic_module"),
        ("data.reader", "crosstune.data.readers.files.read_file"),
        ("data.reader", "crosstune.data.synthetic.demo.Grammar"),
        ("method.peft", "peft.PeftModel"),
        ("method.peft", "peft.get_peft_model"),
        ("method.peft", "crosstune.methods.adapt"),
        ("model.config", "transformers.AutoConfig"),
        ("model.config", "transformers.Trainer"),
        ("model.config", "transformers.pipeline"),
        ("optimizer.algorithm", "transformers.Trainer"),
        ("optimizer.algorithm", "torch.optim.swa_utils.AveragedModel"),
        ("optimizer.algorithm", "transformers.get_scheduler"),
    ],
)
def test_a_target_of_another_kind_is_refused(where, path):
    message = "is outside the allowed|is no Split|is no Pe|is no PreT|is no Opt|no class or func"
    with pytest.raises(ConfigError, match=message):
        check_target({KEY: path}, where)


@pytest.mark.parametrize(
    "options",
    [
        {"trust_remote_code": True},
        {"auto_map": {"AutoConfig": "evil.Config"}},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"attn_implementation": "someone/kernels"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"rope_scaling": {"trust_remote_code": "yes"}},
        {"pad_token_id": [{KEY: "os.system"}]},
    ],
)
def test_an_option_that_names_code_is_refused_at_any_depth(options):
    with pytest.raises(ConfigError, match="runs no code from data, configurations or checkpoints"):
        check_target({KEY: "transformers.BertConfig", **options}, "model.config")


def test_a_method_names_no_module_to_import():
    for key in ("megatron_core", "megatron_config", "auto_mapping"):
        with pytest.raises(ConfigError, match=f"method.peft.{key}: this option names something"):
            check_target({KEY: "peft.LoraConfig", key: {"parent_library": "x"}}, "method.peft")


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.run",
        "builtins.eval",
        "eval",
        "torch.load",
        "crosstune.config.instantiate.instantiate",
        "crosstune.database.read",
        "peftx.LoraConfig",
        "",
    ],
)
def test_a_target_outside_the_allow_list_is_refused_with_what_to_do(path):
    with pytest.raises(ConfigError) as refusal:
        locate_target(path, "data.reader")
    message = str(refusal.value)
    assert f"data.reader._target_={path} is outside the allowed packages" in message
    assert "Allowed: crosstune.data." in message
    assert "allow=[my_package]" in message


@pytest.mark.parametrize(
    ("path", "home"),
    [
        ("crosstune.data.readers.files.Path", "pathlib"),
        ("crosstune.data.splits.build", "crosstune.config.instantiate"),
    ],
)
def test_what_an_allowed_module_merely_imported_is_refused(path, home):
    with pytest.raises(ConfigError, match=f"is defined in {home}|no class or function"):
        locate_target(path, "data.reader")


@pytest.mark.parametrize("name", ["run", "system", "json", "OrderedDict", "subprocess"])
def test_admitting_a_package_admits_nothing_that_it_imported(own, name):
    with pytest.raises(ConfigError, match=r"is defined in|no class or function of that name"):
        locate_target(f"{own}.{name}", "data.reader", [own])


def test_nothing_but_its_home_keeps_that_foreign_function_out(own):
    assert locate_target("subprocess.run", "data.reader", ["subprocess"]) is import_module(own).run
    assert locate_target(f"{own}.run", "data.reader", [own, "subprocess"]) is import_module(own).run


def test_a_module_of_an_admitted_package_is_no_target(own):
    with pytest.raises(ConfigError, match=r"cannot import own_package\.subprocess"):
        locate_target(f"{own}.subprocess.run", "data.reader", [own])


def test_a_package_is_admitted_by_its_whole_name(own):
    with pytest.raises(ConfigError, match="is outside the allowed packages"):
        locate_target(f"{own}.Thing", "data.reader", ["own"])


def test_a_missing_name_gets_the_near_one():
    with pytest.raises(ConfigError, match=r"no class or function of that name. Did you mean Lora"):
        locate_target("peft.LoraConfg", "method.peft")


def test_a_missing_reader_gets_the_readers_there_are():
    with pytest.raises(ConfigError, match=r"Did you mean read_conll\?.*read_table"):
        locate_target("crosstune.data.readers.read_conl", "data.reader")


def test_a_missing_module_is_named():
    with pytest.raises(ConfigError, match=r"cannot import crosstune\.data\.reader "):
        locate_target("crosstune.data.reader.read_conll", "data.reader")


# --- nodes and their options


@pytest.mark.parametrize("node", [{}, {"size": 1}, {KEY: None}, {KEY: 3}, None, "peft.LoraConfig"])
def test_a_node_without_a_target_is_not_built(node):
    with pytest.raises(ConfigError, match=r"method\.peft needs a _target_"):
        instantiate(node, "method.peft")


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_convert_", "_recursive_", "_x"])
def test_any_other_key_with_an_underscore_is_refused(own, key):
    with pytest.raises(ConfigError, match=f"model.config.{key}: only _target_ may start"):
        check_target(thing(own, **{key: True}), "model.config", [own])


def test_an_unknown_option_is_refused_with_the_near_one():
    with pytest.raises(ConfigError, match=r"data\.reader\.txt: unknown option. Did you mean text"):
        check_target({KEY: READER, "txt": "t"}, "data.reader")


def test_a_target_that_takes_any_option_gets_any(own):
    check_target({KEY: f"{own}.make", "what": 1}, "data.reader", [own])
    assert instantiate({KEY: f"{own}.make", "what": 1}, "data.reader", [own]) == {"what": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"size": 1.5},
        {"size": "1"},
        {"size": True},
        {"size": None},
        {"rate": "0.1"},
        {"rate": False},
        {"name": 3},
        {"on": 1},
        {"kind": "medium"},
        {"limit": "none"},
    ],
)
def test_a_scalar_of_the_wrong_type_is_refused(own, options):
    (key,) = options
    with pytest.raises(ConfigError, match=rf"model\.config\.{key}=.* but must be"):
        check_target(thing(own, **options), "model.config", [own])


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 1},
        {"rate": 0.1},
        {"on": True},
        {"kind": "hard"},
        {"limit": None},
        {"limit": 3},
        {"sizes": [1, 2]},
        {"other": 5},
    ],
)
def test_a_value_that_fits_its_annotation_passes(own, options):
    check_target(thing(own, **options), "model.config", [own])


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        ("peft.LoraConfig", "r", 8.5),
        ("peft.LoraConfig", "lora_dropout", "some"),
        ("peft.AdaLoraConfig", "lora_alpha", "16"),
        ("peft.PrefixTuningConfig", "prefix_projection", "yes"),
        ("transformers.BertConfig", "hidden_size", 12.5),
        ("torch.optim.AdamW", "eps", "tiny"),
    ],
)
def test_the_scalars_of_other_peoples_classes_are_checked(target, key, value):
    where = next(slot for slot, path in ADMITTED.items() if path.split(".")[0] in target)
    with pytest.raises(ConfigError, match=rf"{where}\.{key}=.* but must be"):
        check_target({KEY: target, key: value}, where)


def test_an_annotation_in_a_string_is_read(own):
    with pytest.raises(ConfigError, match=r"data\.reader\.size='a' is a str"):
        check_target({KEY: f"{own}.Postponed", "size": "a"}, "data.reader", [own])


def test_nothing_is_built_below_a_target(own):
    nested = {KEY: f"{own}.make", "parts": [{"plain": 1}, {"deep": thing(own)}]}
    with pytest.raises(ConfigError, match=r"method\.peft\.parts\[1\]\.deep\._target_: this option"):
        check_target(nested, "method.peft", [own])


def test_a_check_builds_nothing(own):
    check_target(thing(own), "model.config", [own])
    assert sys.modules[own].built == []


def test_a_build_gives_the_object_its_options(own):
    made = instantiate(thing(own, rate=0.25), "model.config", [own])
    assert made.options["rate"] == 0.25


def test_arguments_of_the_run_join_the_options(own):
    assert instantiate({KEY: f"{own}.Thing"}, "model.config", [own], size=7).options["size"] == 7


def test_a_missing_option_is_an_error_of_the_configuration(own):
    with pytest.raises(ConfigError, match=r"own_package\.Thing refuses .*'size'"):
        instantiate({KEY: f"{own}.Thing"}, "model.config", [own])


def test_a_value_that_the_target_refuses_is_an_error_of_the_configuration(own):
    with pytest.raises(ConfigError, match="size must not be negative"):
        instantiate(thing(own, size=-1), "model.config", [own])


@pytest.mark.parametrize(
    ("where", "key", "value", "remedy"),
    [
        ("optimizer.algorithm", "lr", 1.0, r"give optimizer\.learning_rate"),
        ("optimizer.algorithm", "weight_decay", 0.5, r"give optimizer\.weight_decay"),
        ("model.config", "vocab_size", 99, r"give model\.vocab_size"),
        ("model.config", "num_labels", 9, "leave it out"),
        ("method.peft", "modules_to_save", ["classifier"], "leave it out"),
        ("data.reader", "source", "a.tsv", r"give data\.train"),
    ],
)
def test_an_argument_of_run_time_is_refused_before_anything_is_loaded(where, key, value, remedy):
    node = {"_target_": "torch.optim.AdamW", key: value}
    message = rf"{where}\.{key}: crosstune sets this argument.*{remedy}"
    with pytest.raises(ConfigError, match=message):
        check_target(node, where)


def test_an_argument_that_the_caller_gives_is_refused_in_yaml():
    node = {"_target_": "crosstune.data.readers.read_text", "encoding": "latin-1"}
    message = r"data\.reader\.encoding: crosstune sets this argument itself"
    with pytest.raises(ConfigError, match=message):
        instantiate(node, "data.reader", encoding="utf-8")
