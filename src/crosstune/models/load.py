"""Tokenizer and encoder of a run: from the hub, from a folder, or built and random.

Safetensors only, code from a checkpoint never, float32 always, training mode on. Says which
modules make up the task head, because those are trained and saved by every method.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.config.instantiate import instantiate
from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError
from crosstune.files import atomic_folder, atomic_write
from crosstune.models.tokenizers import (
    extend_embeddings,
    extend_tokenizer,
    make_literal,
    train_tokenizer,
    wrap_tokenizer,
)
from crosstune.tasks import Task

_NOT_FAST = (
    "its tokenizer has no fast version here. Marian checkpoints have none at all: take mT5, mBART, "
    "T5 or BART instead. Where one of those brings a SentencePiece model and no tokenizer.json, "
    "pip install sentencepiece converts it."
)
transformers.utils.logging.disable_progress_bar()  # one shard's progress says nothing


class LoadedModel(NamedTuple):
    """An encoder with a task head, and the names of the head's modules."""

    model: PreTrainedModel
    head: list[str]


def load_tokenizer(
    model: Model, texts: Iterator[str], content: str, cache: Path
) -> PreTrainedTokenizerBase:
    """Load the checkpoint's tokenizer, or train one on `texts`, which `content` identifies."""
    if model.origin is ModelOrigin.scratch:
        name = f"{content}-{model.tokenizer.value}-{model.vocab_size}.json"
        path = cache / "tokenizers" / name
        if not path.is_file():
            trained = train_tokenizer(texts, int(model.vocab_size or 0), model.tokenizer.value)
            with atomic_write(path) as partial:
                trained.backend_tokenizer.save(str(partial))
        return make_literal(wrap_tokenizer(Tokenizer.from_file(str(path))))
    tokenizer = _load_own_tokenizer(model)
    if model.extend_vocab is not None:
        tokenizer = extend_tokenizer(tokenizer, texts, model.extend_vocab)
    return make_literal(tokenizer)


def _load_own_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    options = _source(model)
    if model.do_lower_case is not None:
        options["do_lower_case"] = model.do_lower_case
    with _source_errors(model):
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**options)
        if getattr(tokenizer, "add_prefix_space", None) is False:
            # byte-level BPE reads a first word without its space otherwise: words would depend
            # on whether they start a sentence
            tokenizer = transformers.AutoTokenizer.from_pretrained(**options, add_prefix_space=True)
    if not tokenizer.is_fast:
        raise ConfigError(f"model={model.name}: {_NOT_FAST}")
    return tokenizer


def digest_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of all that decides how a text is parted."""
    backend: Any = tokenizer.backend_tokenizer
    backend.no_truncation()  # how the last text was cut stays in it otherwise
    backend.no_padding()
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def load_model(
    model: Model, task: Task, tokenizer: PreTrainedTokenizerBase, allow: Sequence[str]
) -> LoadedModel:
    """Load or build the encoder with the task's head, in float32 and training mode.

    New weights (the head; a pooler that the checkpoint lacks) come from torch's global generator:
    seed it first.

    Raises:
        ConfigError: the checkpoint lacks weights of the encoder itself, or of a head that the task
            must not start at random, or cannot be reached.
    """
    auto: Any = getattr(transformers, task.auto_class)
    labels: dict[str, Any] = {}
    if task.labels:
        labels["id2label"] = dict(enumerate(task.labels))
        labels["label2id"] = {label: number for number, label in enumerate(task.labels)}
    options = {"dtype": torch.float32, "attn_implementation": model.attention}
    if model.decoder is not None:
        return _start_decoder(model, task, tokenizer, options)
    if model.origin is ModelOrigin.scratch:
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        config = instantiate(model.config or {}, "model.config", allow, **sizes, **labels)
        if config.is_encoder_decoder:
            vars(config).update(_ends_of(tokenizer))
        with _source_errors(model):
            built = auto.from_config(config, **options)
        pooler = f"{built.base_model_prefix}.pooler"
        fresh = [pooler] if getattr(built.base_model, "pooler", None) is not None else []
        return LoadedModel(built.train(), find_head(built) + fresh + task.add_modules(built))
    with _source_errors(model):
        built, info = auto.from_pretrained(
            **_source(model), **options, **labels, use_safetensors=True, output_loading_info=True
        )
    if model.extend_vocab is not None:
        extend_embeddings(built, _load_own_tokenizer(model), tokenizer)
    _rest_pooler(built)
    missing = sorted(info["missing_keys"])
    head = _head_of(built, missing, model)
    if lost := [key for key in missing if not key.startswith(f"{built.base_model_prefix}.")]:
        task.on_missing_head_weights(f"model={model.name}: {model.path or model.hub_id}", lost)
    return LoadedModel(built.train(), head + task.add_modules(built))


def _start_decoder(
    model: Model, task: Task, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]
) -> LoadedModel:
    """Load an encoder twice, the second time as a decoder that looks at the first.

    Rothe et al. 2020, https://aclanthology.org/2020.tacl-1.18: only the attention from one to the
    other is new, and belongs to the head.
    """
    if model.decoder != "same" or model.origin is ModelOrigin.scratch:
        raise ConfigError(
            f"model.decoder={model.decoder}: give same, for a checkpoint with weights, or null."
        )
    if task.auto_class != "AutoModelForSeq2SeqLM":
        raise ConfigError(f"model.decoder=same: {type(task).__name__} writes no text.")
    given = {**_source(model), **options, "use_safetensors": True, "output_loading_info": True}
    as_decoder = {"is_decoder": True, "add_cross_attention": True}
    auto: Any = transformers.AutoModel
    auto_decoder: Any = transformers.AutoModelForCausalLM
    with _source_errors(model):
        encoder, read = auto.from_pretrained(**given)
        decoder, begun = auto_decoder.from_pretrained(**given, **as_decoder)
    _head_of(encoder, [f"{encoder.base_model_prefix}.{key}" for key in read["missing_keys"]], model)
    known = [key for key in begun["missing_keys"] if ".crossattention." not in key]
    head = _head_of(decoder, sorted(known), model)
    head += [name for name, _ in decoder.named_modules() if name.endswith(".crossattention")]
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder.config, decoder.config, **_ends_of(tokenizer)
    )
    built = transformers.EncoderDecoderModel(config=config, encoder=encoder, decoder=decoder)
    _rest_pooler(built)
    return LoadedModel(
        built.train(), [f"decoder.{name}" for name in head] + task.add_modules(built)
    )


def _ends_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return how a new decoder begins and ends a text: as BART does, with its last piece first."""
    return {
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "forced_eos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.sep_token_id,
    }


def _rest_pooler(model: PreTrainedModel) -> None:
    """Freeze the pooler of an encoder that a decoder looks at: nothing reads what it gives."""
    if model.config.is_encoder_decoder:
        pooler = getattr(model.get_encoder(), "pooler", None)
        if pooler is not None:
            pooler.requires_grad_(False)


def find_head(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules on top of the encoder, less those tied to its weights."""
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    head: list[str] = []
    for name, child in model.named_children():
        own = list(child.parameters())
        if name == model.base_model_prefix or not own:
            continue
        if not any(id(parameter) in inside for parameter in own):
            head.append(name)
            continue
        head += [
            f"{name}.{inner}"
            for inner, leaf in child.named_modules()
            if list(leaf.parameters(recurse=False))
            and not list(leaf.children())
            and not any(id(parameter) in inside for parameter in leaf.parameters())
        ]
    return head


def save_base_model(
    loaded: PreTrainedModel, source: Model, tokenizer: PreTrainedTokenizerBase, cache: Path
) -> None:
    """Write a model that no folder or hub has as it is, so that its adapter can name its base."""
    made_here = source.origin is ModelOrigin.scratch or source.extend_vocab or source.decoder
    if not made_here:
        return
    digest = hashlib.sha256(json.dumps(loaded.config.to_dict(), default=str).encode())
    for name, tensor in sorted(loaded.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    folder = cache / "bases" / digest.hexdigest()[:16]
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            loaded.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    loaded.config._name_or_path = folder.as_posix()
    loaded.name_or_path = folder.as_posix()


def check_length(model: PreTrainedModel, max_tokens: int, prompt: int = 0) -> None:
    """Raise ConfigError if the encoder has fewer positions than an input and its prompt take."""
    config: Any = getattr(model.config, "encoder", model.config)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 0:
        return
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1  # their positions start behind the padding's
    if max_tokens + prompt > positions:
        more = f" and method.peft.num_virtual_tokens={prompt}" if prompt else ""
        raise ConfigError(
            f"data.max_tokens={max_tokens}{more}: {config.model_type} has {positions} positions."
        )


def _head_of(model: PreTrainedModel, missing: Sequence[str], source: Model) -> list[str]:
    head = find_head(model)
    prefix = f"{model.base_model_prefix}."
    both = model.config.is_encoder_decoder  # its halves have no prefix in common, and no new head
    inside = [key for key in missing if both or key.startswith(prefix)]
    foreign = [key for key in inside if not key.startswith(f"{prefix}pooler.")]
    if foreign:
        raise ConfigError(
            f"model={source.name}: {source.path or source.hub_id} lacks {len(foreign)} weights of "
            f"the encoder, {foreign[0]} among them; is it a whole encoder, and not an adapter?"
        )
    # a pooler that masked LM never trained is as new as the head, and must not stay frozen
    return head + ([f"{prefix}pooler"] if inside else [])


def _source(model: Model) -> dict[str, Any]:
    if model.origin is ModelOrigin.local:
        return {
            "pretrained_model_name_or_path": model.path,
            "local_files_only": True,
            "trust_remote_code": False,
        }
    return {
        "pretrained_model_name_or_path": model.hub_id,
        "revision": model.revision,
        "trust_remote_code": False,
    }


class _source_errors:
    """Turns what transformers says of an unreachable checkpoint into what the user can do."""

    def __init__(self, model: Model):
        self.model = model

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        message = " ".join(str(error).split())
        if "SentencePiece" in message or "`tiktoken`" in message:
            raise ConfigError(f"model={self.model.name}: {_NOT_FAST} ({message})") from error
        if not isinstance(error, OSError | ValueError) or isinstance(error, ConfigError):
            return
        if message.startswith("Unrecognized configuration class"):
            raise ConfigError(
                f"model={self.model.name}: this kind of task has no head for its architecture. "
                "Generation needs an encoder-decoder: model=mini_seq2seq, a checkpoint of one, or "
                "an encoder's checkpoint with model.decoder=same."
            ) from error
        if self.model.origin is ModelOrigin.hub:
            raise ConfigError(
                f"model={self.model.name}: {self.model.hub_id} at {self.model.revision} is neither "
                "in the local hub cache nor reachable. Connect once to fill the cache, or copy the "
                "checkpoint's folder here and use model=local model.path=DIR; model=mini needs no "
                f"download. ({message})"
            ) from error
        raise ConfigError(f"model.path={self.model.path}: {message}") from error
