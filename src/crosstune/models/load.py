"""Load the tokenizer and the model of a run: from the hub, from a folder, or with random weights.

Reads safetensors only, runs no code from a checkpoint, and returns float32 models in training mode.
Also finds the modules of the task head, which every method trains and saves.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub import snapshot_download
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.config.instantiate import instantiate
from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError
from crosstune.files import atomic_folder, is_intact, write_digests
from crosstune.models.architectures import ARCHITECTURES
from crosstune.models.checkpoint_config import check_checkpoint, check_checkpoint_config
from crosstune.models.load_errors import NOT_FAST, explain_load_errors
from crosstune.models.tokenizers import (
    extend_embeddings,
    extend_tokenizer,
    make_literal,
    read_tokenizer,
    train_tokenizer,
    wrap_tokenizer,
    write_tokenizer,
)
from crosstune.tasks import Task

log = logging.getLogger(__name__)
# model classes whose head has an output for each label of the task
_LABEL_HEADS = ("AutoModelForSequenceClassification", "AutoModelForTokenClassification")
transformers.utils.logging.disable_progress_bar()  # it has one step for a checkpoint of one shard


class LoadedModel(NamedTuple):
    """A model with a task head, the names of the head's modules, and whether it was trained."""

    model: PreTrainedModel
    head: list[str]
    kept_head: bool = False  # the head is the checkpoint's


def load_tokenizer(
    model: Model, texts: Iterable[str], content: str, cache: Path
) -> PreTrainedTokenizerBase:
    """Load the checkpoint's tokenizer, or train one on `texts`; `content` is their digest."""
    if model.origin is ModelOrigin.scratch:
        path = cache / "tokenizers" / f"{content}-{model.tokenizer.value}-{model.vocab_size}.json"
        if (backend := read_tokenizer(path)) is None:
            trained = train_tokenizer(texts, int(model.vocab_size or 0), model.tokenizer.value)
            backend = write_tokenizer(trained.backend_tokenizer, path)
        return make_literal(wrap_tokenizer(backend))
    tokenizer = load_checkpoint_tokenizer(model)
    if model.extend_vocab is not None:
        tokenizer = extend_tokenizer(tokenizer, texts, model.extend_vocab)
    return make_literal(tokenizer)


def find_folder(model: Model) -> Path:
    """Return the folder of a checkpoint, downloaded if it is the hub's."""
    if model.origin is ModelOrigin.local:
        return Path(str(model.path))
    with explain_load_errors(model):
        folder = snapshot_download(
            str(model.hub_id),
            revision=model.revision,
            allow_patterns=["*.safetensors", "*.json"],
            ignore_patterns=["*/*"],
        )
    return Path(folder)


def load_checkpoint_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint, as it is."""
    options = _checkpoint_options(model)
    if model.do_lower_case is not None:
        options["do_lower_case"] = model.do_lower_case
    with explain_load_errors(model):
        check_checkpoint(**options)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**options)
        if getattr(tokenizer, "add_prefix_space", None) is False:
            # without it byte-level BPE encodes the first word of a text differently
            tokenizer = transformers.AutoTokenizer.from_pretrained(**options, add_prefix_space=True)
    if not tokenizer.is_fast:
        raise ConfigError(f"model={model.name}: {NOT_FAST}")
    return tokenizer


def load_model(
    model: Model, task: Task, tokenizer: PreTrainedTokenizerBase, allow: Sequence[str]
) -> LoadedModel:
    """Load or build the model with the task's head, in float32 and training mode.

    New weights (the head; a pooler that the checkpoint lacks) are drawn from torch's global
    generator, which must be seeded first. The head of a checkpoint that was trained for other
    labels or another task is replaced by a new one, unless `model.keep_head` is set.

    Raises:
        ConfigError: the checkpoint lacks weights of the encoder, or of a head that the task needs
            pretrained, or is not available; or its head cannot be kept.
    """
    auto: Any = getattr(transformers, task.auto_class)
    labels: dict[str, Any] = {}
    if task.labels:
        labels["id2label"] = dict(enumerate(task.labels))
        labels["label2id"] = {label: index for index, label in enumerate(task.labels)}
    options = {"dtype": torch.float32, "attn_implementation": model.attention}
    if model.origin is not ModelOrigin.scratch:
        with explain_load_errors(model):
            check_checkpoint(**_checkpoint_options(model))
    if model.decoder is not None:
        return _load_encoder_decoder(model, task, tokenizer, options)
    if model.origin is ModelOrigin.scratch:
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        config = instantiate(model.config or {}, "model.config", allow, **sizes, **labels)
        return _build_random(model, task, tokenizer, config, options)
    with explain_load_errors(model):
        built, info = auto.from_pretrained(
            **_checkpoint_options(model),
            **options,
            **labels,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        trained_for = transformers.AutoConfig.from_pretrained(**_checkpoint_options(model))
    kept_head = _renew_head(built, info, trained_for, task, model)
    if model.extend_vocab is not None:
        extend_embeddings(built, load_checkpoint_tokenizer(model), tokenizer)
    _check_vocabulary(built, tokenizer, model)
    _freeze_unused_pooler(built)
    missing = sorted(info["missing_keys"])
    head = _head_with_new_pooler(built, missing, model)
    prefix = f"{built.base_model_prefix}."
    if missing_head := [key for key in missing if not key.startswith(prefix)]:
        source = f"model={model.name}: {model.path or model.hub_id}"
        task.on_missing_head_weights(source, missing_head)
    return LoadedModel(built.train(), head + task.add_modules(built), kept_head)


def _build_random(
    model: Model,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    config: Any,
    options: dict[str, Any],
) -> LoadedModel:
    check_checkpoint_config(config.to_dict(), "model.config")
    if config.is_encoder_decoder:
        vars(config).update(_decoder_tokens(tokenizer))
    auto: Any = getattr(transformers, task.auto_class)
    with explain_load_errors(model):
        built = auto.from_config(config, **options)
    pooler = f"{built.base_model_prefix}.pooler"
    fresh = [pooler] if getattr(built.base_model, "pooler", None) is not None else []
    return LoadedModel(built.train(), find_head(built) + fresh + task.add_modules(built))


def _renew_head(
    built: PreTrainedModel,
    info: dict[str, Any],
    trained_for: transformers.PretrainedConfig,
    task: Task,
    model: Model,
) -> bool:
    """Replace a head that was trained for something else; return whether the head is trained.

    `trained_for` is the configuration in the checkpoint's folder.

    Raises:
        ConfigError: weights of the encoder, or of a head that is to be kept, have another shape.
    """
    prefix = f"{built.base_model_prefix}."
    mismatched = {key for key, *_ in info["mismatched_keys"]}
    head = {name for name, _ in built.named_parameters() if not name.startswith(prefix)}
    present = head - mismatched - set(info["missing_keys"])
    if wrong := sorted(mismatched - head) or (sorted(mismatched) if model.keep_head else []):
        raise ConfigError(
            f"model={model.name}: the checkpoint's {wrong[0]} has another shape than the model; "
            f"its head is for {trained_for.num_labels} labels, the data has {len(task.labels)}."
        )
    if task.auto_class not in _LABEL_HEADS or not task.labels or model.keep_head:
        return bool(present)
    names: Any = trained_for.id2label
    labels = [names[index] for index in sorted(names)]
    same_task = type(built).__name__ in (trained_for.architectures or [])
    if same_task and labels == task.labels:
        return bool(present)
    for name in sorted({key.rpartition(".")[0] for key in present}):
        module = built.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            vars(parameter).pop("_is_hf_initialized", None)
        built._init_weights(module)
    if present:
        log.info("model=%s: its head is for other labels or another task: a new one", model.name)
    return False


def _load_encoder_decoder(
    model: Model, task: Task, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]
) -> LoadedModel:
    """Load a checkpoint twice, as the encoder and as the decoder of one model.

    Rothe et al. 2020, https://aclanthology.org/2020.tacl-1.18: only the cross-attention is new; it
    belongs to the head.
    """
    if model.decoder != "same" or model.origin is ModelOrigin.scratch:
        raise ConfigError(
            f"model.decoder={model.decoder}: give same, for a checkpoint with weights, or null."
        )
    if task.auto_class != "AutoModelForSeq2SeqLM":
        raise ConfigError(f"model.decoder=same: {type(task).__name__} generates no text.")
    options = {
        **_checkpoint_options(model),
        **options,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    as_decoder = {"is_decoder": True, "add_cross_attention": True}
    auto: Any = transformers.AutoModel
    auto_decoder: Any = transformers.AutoModelForCausalLM
    with explain_load_errors(model):
        encoder, encoder_info = auto.from_pretrained(**options)
        decoder, decoder_info = auto_decoder.from_pretrained(**options, **as_decoder)
    prefix = encoder.base_model_prefix
    missing = [f"{prefix}.{key}" for key in encoder_info["missing_keys"]]
    _head_with_new_pooler(encoder, missing, model)
    missing = [key for key in decoder_info["missing_keys"] if ".crossattention." not in key]
    head = _head_with_new_pooler(decoder, sorted(missing), model)
    head += [name for name, _ in decoder.named_modules() if name.endswith(".crossattention")]
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder.config, decoder.config, **_decoder_tokens(tokenizer)
    )
    built = transformers.EncoderDecoderModel(config=config, encoder=encoder, decoder=decoder)
    _freeze_unused_pooler(built)
    return LoadedModel(
        built.train(), [f"decoder.{name}" for name in head] + task.add_modules(built)
    )


def _check_vocabulary(
    built: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, model: Model
) -> None:
    rows = getattr(built.get_input_embeddings(), "num_embeddings", None)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and largest >= rows:
        raise ConfigError(
            f"model={model.name}: the tokenizer in {model.path or model.hub_id} has ids up to "
            f"{largest}, but the weights have {rows} embeddings. They are not of one model."
        )


def _decoder_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the special tokens of a new decoder: like BART's it starts with the last token."""
    return {
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "forced_eos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.sep_token_id,
    }


def _freeze_unused_pooler(model: PreTrainedModel) -> None:
    """Freeze the pooler of an encoder with a decoder, which does not read its output."""
    if model.config.is_encoder_decoder:
        pooler = getattr(model.get_encoder(), "pooler", None)
        if pooler is not None:
            pooler.requires_grad_(False)


def find_head(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules on top of the encoder, except those tied to its weights."""
    encoder = {id(parameter) for parameter in model.base_model.parameters()}

    def is_new(module: nn.Module) -> bool:
        weights = [id(parameter) for parameter in module.parameters()]
        return bool(weights) and encoder.isdisjoint(weights)

    head: list[str] = []
    for name, child in model.named_children():
        if name == model.base_model_prefix:
            continue
        if is_new(child):
            head.append(name)
        else:
            leaves = (
                (inner, leaf) for inner, leaf in child.named_modules() if not [*leaf.children()]
            )
            head += [f"{name}.{inner}" for inner, leaf in leaves if is_new(leaf)]
    return head


def save_base_model(
    loaded: PreTrainedModel, source: Model, tokenizer: PreTrainedTokenizerBase, cache: Path
) -> None:
    """Save a model that no folder and no hub has, so that its adapter can name its base."""
    if not (source.origin is ModelOrigin.scratch or source.extend_vocab or source.decoder):
        return
    digest = hashlib.sha256(json.dumps(loaded.config.to_dict(), default=str).encode())
    for name, tensor in sorted(loaded.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    folder = cache / "bases" / digest.hexdigest()[:16]
    if not is_intact(folder):
        with atomic_folder(folder) as partial:
            loaded.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            write_digests(partial)
    loaded.config._name_or_path = folder.as_posix()
    loaded.name_or_path = folder.as_posix()


def check_length(model: PreTrainedModel, max_tokens: int, prompt: int = 0) -> None:
    """Raise ConfigError if an input and its prompt are longer than the encoder's positions."""
    config: Any = getattr(model.config, "encoder", model.config)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 0:
        return
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is not None and architecture.positions_after_padding:
        positions -= config.pad_token_id + 1
    if max_tokens + prompt > positions:
        more = f" and method.peft.num_virtual_tokens={prompt}" if prompt else ""
        raise ConfigError(
            f"data.max_tokens={max_tokens}{more}: {config.model_type} has {positions} positions."
        )


def _head_with_new_pooler(
    model: PreTrainedModel, missing: Sequence[str], source: Model
) -> list[str]:
    """Return the names of the head's modules; `missing` are the weights that no file has."""
    prefix = f"{model.base_model_prefix}."
    # the halves of an encoder-decoder share no prefix, and have no new head
    missing = [k for k in missing if model.config.is_encoder_decoder or k.startswith(prefix)]
    outside_pooler = [key for key in missing if not key.startswith(f"{prefix}pooler.")]
    if outside_pooler:
        raise ConfigError(
            f"model={source.name}: {source.path or source.hub_id} lacks {len(outside_pooler)} "
            f"weights of the encoder, such as {outside_pooler[0]}; is it a whole encoder, and not "
            "an adapter?"
        )
    # a pooler that masked LM did not train is as new as the head, and must not stay frozen
    return find_head(model) + ([f"{prefix}pooler"] if missing else [])


def _checkpoint_options(model: Model) -> dict[str, Any]:
    if model.origin is ModelOrigin.local:
        options = {"pretrained_model_name_or_path": model.path, "local_files_only": True}
    else:
        options = {"pretrained_model_name_or_path": model.hub_id, "revision": model.revision}
    return {**options, "trust_remote_code": False}
