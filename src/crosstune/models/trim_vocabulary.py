"""Trims the vocabulary of a multilingual checkpoint to some languages (`model.languages`).

Kept are the subwords in the scripts of the languages, every single character, special tokens, and
every subword that the texts of the study contain. These texts are therefore encoded as before, with
the same logits; so is any text in these scripts. Subwords of other languages in the same script
stay, as no list says which are whose.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import regex
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError
from crosstune.files import atomic_folder, is_intact, write_digests
from crosstune.languages import list_character_scripts
from crosstune.models.load import find_folder, load_checkpoint_tokenizer
from crosstune.models.tokenizers import CONTINUATION
from crosstune.runs.fingerprint import digest_weights

MARKERS = ("▁", CONTINUATION)  # of a subword at the start of a word, and of one inside a word
log = logging.getLogger(__name__)


def trim_checkpoint(model: Model, texts: Iterable[str], content: str, cache: Path) -> Model:
    """Return the model as a folder with a trimmed vocabulary; itself without `model.languages`.

    The folder is written once for the same checkpoint, languages and texts, whose digest is
    `content`.

    Raises:
        ConfigError: the model has random weights, or its tokenizer is neither Unigram
            (SentencePiece) nor WordPiece.
    """
    if model.languages is None:
        return model
    if model.origin is ModelOrigin.scratch:
        raise ConfigError(
            f"model.languages={model.languages}: model={model.name} has no vocabulary to trim; its "
            "tokenizer is trained on the study's texts."
        )
    key = json.dumps([digest_weights(model), sorted(model.languages), content])
    folder = cache / "bases" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not is_intact(folder):
        source = find_folder(model)
        tokenizer = load_checkpoint_tokenizer(model)
        trimmed = trim_tokenizer(tokenizer, texts, model.languages)
        config = json.loads((source / "config.json").read_text("utf-8"))
        names: Any = trimmed.convert_ids_to_tokens(list(range(len(trimmed))))
        rows: Any = tokenizer.convert_tokens_to_ids(names)
        with atomic_folder(folder) as partial:
            _trim_weights(source, partial, rows, config["vocab_size"])
            trimmed.save_pretrained(partial)
            config["vocab_size"] = len(rows)
            (partial / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
            write_digests(partial)
        log.info("model.languages: %d of %d subwords are kept", len(rows), len(tokenizer))
    local = {"origin": ModelOrigin.local, "path": folder.as_posix()}
    return replace(model, **local, hub_id=None, revision=None)


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], languages: Sequence[str]
) -> PreTrainedTokenizerFast:
    """Return the tokenizer with the subwords that `languages` and `texts` need, in the old order.

    Raises:
        ConfigError: the tokenizer is neither Unigram (SentencePiece) nor WordPiece.
    """
    backend: Any = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    kind = state["model"]["type"]
    if kind not in ("Unigram", "WordPiece"):
        raise ConfigError(
            f"model.languages: not for a tokenizer of type {kind}, whose subwords are built from "
            "one another. Allowed: Unigram (SentencePiece) and WordPiece."
        )
    encodings = (backend.encode(text, add_special_tokens=False) for text in texts)
    needed = {index for encoding in encodings for index in encoding.ids}
    pad_id: Any = tokenizer.pad_token_id
    needed.update(range((pad_id or 0) + 1))  # some models count positions from its id
    needed.update(token["id"] for token in state["added_tokens"])
    scripts = "".join(rf"\p{{Script={name}}}" for name in list_character_scripts(languages))
    is_written_in = regex.compile(f"[{scripts}]*")
    vocabulary = state["model"]["vocab"]
    unigram = kind == "Unigram"
    subwords = [one for one, _ in vocabulary] if unigram else sorted(vocabulary, key=vocabulary.get)
    indices = [
        index
        for index, subword in enumerate(subwords)
        if index in needed or _is_needed(subword, is_written_in)
    ]
    new_ids = {subwords[index]: new for new, index in enumerate(indices)}
    state["model"]["vocab"] = [vocabulary[i] for i in indices] if unigram else dict(new_ids)
    if unigram:
        state["model"]["unk_id"] = indices.index(state["model"]["unk_id"])
    for token in state["added_tokens"]:  # some stand beside the vocabulary, after it
        token["id"] = new_ids.setdefault(token["content"], len(new_ids))
    _renumber(state["post_processor"] or {}, new_ids)
    names = {name: value for name, value in tokenizer.special_tokens_map.items() if value}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_input_names=tokenizer.model_input_names,
        model_max_length=tokenizer.model_max_length,
        **names,
    )


def _trim_weights(source: Path, folder: Path, rows: Sequence[int], size: int) -> None:
    """Write the weights with these rows of every tensor that has a row for each of `size` subwords.

    These are the embeddings, and the matrix and bias of an output layer.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(source.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            for axis in (axis for axis, length in enumerate(tensor.shape) if length == size):
                tensor = tensor.index_select(axis, torch.tensor(rows))
            weights[name] = tensor
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _is_needed(subword: str, is_written_in: Any) -> bool:
    for marker in MARKERS:
        subword = subword.removeprefix(marker)
    is_byte = regex.fullmatch("<0x[0-9A-F]{2}>", subword) is not None
    return len(subword) <= 1 or is_byte or is_written_in.fullmatch(subword) is not None


def _renumber(processor: dict[str, Any], new_ids: dict[str, int]) -> None:
    """Write the new ids of special tokens into the state of a post-processor."""
    for step in processor.get("processors", [processor]):
        for token in (step.get("special_tokens") or {}).values():
            token["ids"] = [new_ids[name] for name in token["tokens"]]
        for key in step.keys() & {"sep", "cls"}:  # of BertProcessing and RobertaProcessing
            step[key] = [step[key][0], new_ids[step[key][0]]]
