"""A checkpoint's description is data: it names no code, no kernels and no impossible sizes."""

import json

import pytest
from transformers import BertConfig

from crosstune.errors import ConfigError
from crosstune.models.checkpoint_config import check_checkpoint_config, read_adapter_config

HOSTILE = {
    "kernels": {"_attn_implementation": "kernels-community/flash-attn3"},
    "kernels of a part": {"text_config": {"attn_implementation": "someone/kernels:x"}},
    "quantization": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "layers": {"num_hidden_layers": 10**6},
    "no layers": {"num_hidden_layers": -1},
    "width": {"hidden_size": 10**12},
    "text": {"vocab_size": "30000"},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_config_is_refused_by_its_key(change):
    config = {**BertConfig().to_dict(), **change}
    key = next(iter(change)) if "text_config" not in change else "text_config.attn_implementation"
    with pytest.raises(ConfigError, match=f"x: {key} "):
        check_checkpoint_config(config, "x")


@pytest.mark.parametrize("kernel", ["eager", "sdpa", "flash_attention_2", None])
def test_attention_of_the_libraries_themselves_passes(kernel):
    check_checkpoint_config({"_attn_implementation": kernel, "auto_map": {"AutoModel": "m.M"}}, "x")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "adapter_config.json"),
        ("[1]", "it holds a list, not an object"),
        ("[" * 100_000, "RecursionError|recursion"),
        ('{"megatron_config": {"a": 1}, "megatron_core": "evil"}', "megatron_config names kernels"),
    ],
)
def test_a_hostile_adapter_config_is_refused(tmp_path, text, fault):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        read_adapter_config(tmp_path)


def test_the_adapter_config_that_peft_writes_passes(tmp_path):
    config = {"megatron_config": None, "megatron_core": "megatron.core", "auto_mapping": {"a": "b"}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_adapter_config(tmp_path) == config
