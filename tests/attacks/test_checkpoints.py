"""A hostile checkpoint is refused, or trained on without anything of it that runs."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForSequenceClassification

from tests.attacks.arena import TOUCH, Touch, attack

CODE = f"import os\nos.system('{TOUCH}')\nclass Config: pass\nclass Model: pass\n"
CONFIG: dict[str, dict[str, Any]] = {
    "auto map": {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}},
    "unknown type with code": {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}},
    "kernels": {"_attn_implementation": "someone/kernels"},
    "quantization": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "trust": {"trust_remote_code": True},
    "million layers": {"num_hidden_layers": 10**6},
    "no layers": {"num_hidden_layers": -1},
    "text for layers": {"num_hidden_layers": "1; touch marker"},
    "no width": {"hidden_size": 0},
    "huge width": {"hidden_size": 10**9},
    "huge vocabulary": {"vocab_size": 10**12},
    "heads": {"num_attention_heads": 7},
    "activation": {"hidden_act": "os.system"},
    "dtype": {"torch_dtype": "os.system"},
    "labels": {"id2label": {str(n): "\x1b[31m" for n in range(3)}},
    "many labels": {"num_labels": 10**9},
    "position type": {"position_embedding_type": "__import__"},
    "architectures": {"architectures": ["os.system", "\x1b[31m"]},
}
PICKLE = pickle.dumps(Touch())
HEADER = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}).encode()
FILES: dict[str, Callable[[Path], Any]] = {
    "pickle alone": lambda f: _replace(f, "model.safetensors", "pytorch_model.bin", PICKLE),
    "pickle beside": lambda f: (f / "pytorch_model.bin").write_bytes(PICKLE),
    "pickle as safetensors": lambda f: (f / "model.safetensors").write_bytes(PICKLE),
    "index of pickles": lambda f: _replace(
        f, "model.safetensors", "pytorch_model.bin.index.json", b'{"weight_map": {"a": "b.bin"}}'
    ),
    "index outside": lambda f: _replace(
        f, "model.safetensors", "model.safetensors.index.json", b'{"weight_map": {"a": "../../x"}}'
    ),
    "empty weights": lambda f: (f / "model.safetensors").write_bytes(b""),
    "header alone": lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**62)),
    "impossible shape": lambda f: (f / "model.safetensors").write_bytes(
        struct.pack("<Q", len(HEADER)) + HEADER + b"1234"
    ),
    "half the weights": lambda f: _halve(f / "model.safetensors"),
    "text for config": lambda f: (f / "config.json").write_text("BertConfig()"),
    "list for config": lambda f: (f / "config.json").write_text("[]"),
    "deep config": lambda f: (f / "config.json").write_text("[" * 100_000),
    "no config": lambda f: (f / "config.json").unlink(),
    "tokenizer code": lambda f: (f / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}, "tokenizer_class": "Evil"}'
    ),
    "tokenizer text": lambda f: (f / "tokenizer.json").write_text("{"),
    "deep tokenizer": lambda f: (f / "tokenizer.json").write_text('{"a":' * 100_000),
    "tokenizer of another kind": lambda f: (f / "tokenizer.json").write_text('{"model": 5}'),
    "vocabulary": lambda f: _replace(f, "tokenizer.json", "vocab.txt", b"\xff\xfe\x00"),
    "pickled tokenizer": lambda f: _replace(f, "tokenizer.json", "spiece.model", PICKLE),
    "a pipe for config": lambda f: _pipe(f / "config.json"),
    "adapter beside": lambda f: (f / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "someone/x", "megatron_config": {"a": 1}}'
    ),
}


def _replace(folder: Path, old: str, new: str, content: bytes) -> None:
    (folder / old).unlink()
    (folder / new).write_bytes(content)


def _halve(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _pipe(path: Path) -> None:
    import os

    path.unlink()
    os.mkfifo(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, byte_bpe: Any) -> Path:
    """A checkpoint that trains."""
    folder = tmp_path_factory.mktemp("sound")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(byte_bpe), intermediate_size=16, **size)
    BertForSequenceClassification(config).save_pretrained(folder)
    byte_bpe.save_pretrained(folder)
    return folder


@pytest.fixture
def home(sound: Path, tmp_path: Path) -> Path:
    """A working folder with a copy of it that a test may change, and code beside it."""
    shutil.copytree(sound, tmp_path / "model")
    for place in (tmp_path, tmp_path / "model"):
        (place / "evil.py").write_text(CODE)
    rows = "".join(f"texto {n}\t{'ab'[n % 2]}\n" for n in range(8))
    (tmp_path / "rows.tsv").write_text(f"text\tlabel\n{rows}")
    return tmp_path


def train(home: Path) -> int:
    splits = [f"data.{name}=rows.tsv" for name in ("train", "validation", "test")]
    columns = ["data.text=text", "data.label=label", "data.language=es", "data.max_tokens=16"]
    model = ["model=local", "model.path=model", "trainer=cpu", "trainer.max_steps=1", "logger=none"]
    done = attack(home, "train", "data=files_classification", *splits, *columns, *model)
    assert done.returncode == 0 or "crosstune train: " in done.stderr
    return done.returncode


def test_the_untouched_checkpoint_trains(home):
    assert train(home) == 0


@pytest.mark.parametrize("name", CONFIG)
def test_a_hostile_description_runs_nothing(home, name):
    path = home / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | CONFIG[name]))
    train(home)


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_of_a_checkpoint_runs_nothing(home, name):
    FILES[name](home / "model")
    train(home)
