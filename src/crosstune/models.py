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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from crosstune.build import build
from crosstune.errors import ConfigError
from crosstune.schema import Model, Origin
from crosstune.tasks import Task
from crosstune.whole import whole_file, whole_folder

transformers.utils.logging.disable_progress_bar()  # one shard's progress says nothing
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Loaded(NamedTuple):
    """An encoder with a task head, and the names of the head's modules."""

    model: PreTrainedModel
    head: list[str]


def load_tokenizer(
    model: Model, texts: Iterator[str], content: str, cache: Path
) -> PreTrainedTokenizerBase:
    """Load the checkpoint's tokenizer, or train one on `texts`, which `content` identifies."""
    if model.origin is Origin.scratch:
        path = cache / "tokenizers" / f"{content}-{model.vocab_size}.json"
        if not path.is_file():
            trained = train_tokenizer(texts, int(model.vocab_size or 0))
            with whole_file(path) as partial:
                trained.save(str(partial))
        tokenizer: Any = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_file(str(path)),
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
            model_max_length=512,
            pad_token="[PAD]",  # noqa: S106 - a piece of the vocabulary, no secret
            unk_token="[UNK]",  # noqa: S106
            cls_token="[CLS]",  # noqa: S106
            sep_token="[SEP]",  # noqa: S106
            mask_token="[MASK]",  # noqa: S106
        )
        return _literal(tokenizer)
    options = _source(model)
    if model.do_lower_case is not None:
        options["do_lower_case"] = model.do_lower_case
    with _hub_errors(model):
        tokenizer = transformers.AutoTokenizer.from_pretrained(**options)
        if getattr(tokenizer, "add_prefix_space", None) is False:
            # byte-level BPE reads a first word without its space otherwise: words would depend
            # on whether they start a sentence
            tokenizer = transformers.AutoTokenizer.from_pretrained(**options, add_prefix_space=True)
    if not tokenizer.is_fast:
        raise ConfigError(f"model={model.name}: its tokenizer has no fast version.")
    return _literal(tokenizer)


def _literal(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Let a "[SEP]" or "[MASK]" that stands in a text be text, and nothing special."""
    tokenizer.split_special_tokens = True
    return tokenizer


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE; the same texts give the same pieces every time."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, tokenizer.token_to_id(piece)) for piece in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def load_model(
    model: Model, task: Task, tokenizer: PreTrainedTokenizerBase, allow: Sequence[str]
) -> Loaded:
    """Load or build the encoder with the task's head, in float32 and training mode.

    New weights (the head; a pooler that the checkpoint lacks) come from torch's global generator:
    seed it first.

    Raises:
        ConfigError: the checkpoint lacks weights of the encoder itself, or cannot be reached.
    """
    auto: Any = getattr(transformers, task.auto_class)
    labels: dict[str, Any] = {}
    if task.labels:
        labels["id2label"] = dict(enumerate(task.labels))
        labels["label2id"] = {label: number for number, label in enumerate(task.labels)}
    options = {"dtype": torch.float32, "attn_implementation": model.attention}
    if model.origin is Origin.scratch:
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        config = build(model.config or {}, "model.config", allow, **sizes, **labels)
        built = auto.from_config(config, **options)
        pooler = f"{built.base_model_prefix}.pooler"
        fresh = [pooler] if getattr(built.base_model, "pooler", None) is not None else []
        return Loaded(built.train(), find_head(built) + fresh + task.extend(built))
    with _hub_errors(model):
        built, info = auto.from_pretrained(
            **_source(model), **options, **labels, use_safetensors=True, output_loading_info=True
        )
    head = _head_of(built, sorted(info["missing_keys"]), model)
    return Loaded(built.train(), head + task.extend(built))


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


def keep_base(loaded: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cache: Path) -> None:
    """Write a random encoder to the cache, so that an adapter trained on it can name its base."""
    digest = hashlib.sha256(json.dumps(loaded.config.to_dict(), default=str).encode())
    for name, tensor in sorted(loaded.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    folder = cache / "bases" / digest.hexdigest()[:16]
    if not folder.is_dir():
        with whole_folder(folder) as partial:
            loaded.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    loaded.config._name_or_path = folder.as_posix()
    loaded.name_or_path = folder.as_posix()


def check_length(model: PreTrainedModel, max_tokens: int) -> None:
    """Raise ConfigError if the encoder has fewer positions than an input may have sub-words."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or positions < 0:
        return
    if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= model.config.pad_token_id + 1  # their positions start behind the padding's
    if max_tokens > positions:
        raise ConfigError(
            f"data.max_tokens={max_tokens}: {model.config.model_type} has {positions} positions."
        )


def _head_of(model: PreTrainedModel, missing: Sequence[str], source: Model) -> list[str]:
    head = find_head(model)
    prefix = f"{model.base_model_prefix}."
    inside = [key for key in missing if key.startswith(prefix)]
    foreign = [key for key in inside if not key.startswith(f"{prefix}pooler.")]
    if foreign:
        raise ConfigError(
            f"model={source.name}: {source.path or source.hub_id} lacks {len(foreign)} weights of "
            f"the encoder, {foreign[0]} among them; is it a whole encoder, and not an adapter?"
        )
    # a pooler that masked LM never trained is as new as the head, and must not stay frozen
    return head + ([f"{prefix}pooler"] if inside else [])


def _source(model: Model) -> dict[str, Any]:
    if model.origin is Origin.local:
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


class _hub_errors:
    """Turns what transformers says of an unreachable checkpoint into what the user can do."""

    def __init__(self, model: Model):
        self.model = model

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not isinstance(error, OSError | ValueError) or isinstance(error, ConfigError):
            return
        if self.model.origin is Origin.hub:
            raise ConfigError(
                f"model={self.model.name}: {self.model.hub_id} at {self.model.revision} is neither "
                "in the local hub cache nor reachable. Connect once to fill the cache, or copy the "
                "checkpoint's folder here and use model=local model.path=DIR; model=mini needs no "
                f"download. ({' '.join(str(error).split())})"
            ) from error
        message = " ".join(str(error).split())
        raise ConfigError(f"model.path={self.model.path}: {message}") from error
