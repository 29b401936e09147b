"""What transformers raises about a checkpoint -> an error that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError, one_line

NOT_FAST = (
    "its tokenizer has no fast version here. Marian checkpoints have none at all: use mT5, mBART, "
    "T5 or BART instead. Where one of those has a SentencePiece model and no tokenizer.json, "
    "pip install sentencepiece converts it."
)


@contextmanager
def explain_load_errors(model: Model) -> Iterator[None]:
    """Turn errors of transformers about a checkpoint into advice to the user."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        message = one_line(error)
        if "SentencePiece" in message or "`tiktoken`" in message:
            raise ConfigError(f"model={model.name}: {NOT_FAST} ({message})") from error
        if isinstance(error, SafetensorError):
            raise ConfigError(
                f"model={model.name}: the weights in {model.path or model.hub_id} are damaged or "
                f"cut off ({message}). Copy or fetch them again."
            ) from error
        if not isinstance(error, OSError | ValueError):  # malformed files raise anything there
            if isinstance(error, MemoryError) or "memory" in message:
                raise
            raise ConfigError(
                f"model={model.name}: transformers cannot load {model.path or model.hub_id}: "
                f"{type(error).__name__}: {message}"
            ) from error
        if message.startswith("Unrecognized configuration class"):
            raise ConfigError(
                f"model={model.name}: this kind of task has no head for its architecture. "
                "Generation needs an encoder-decoder: model=mini_seq2seq, a checkpoint of one, or "
                "an encoder's checkpoint with model.decoder=same."
            ) from error
        if model.origin is ModelOrigin.hub:
            raise ConfigError(
                f"model={model.name}: {model.hub_id} at {model.revision} is neither in the local "
                "hub cache nor reachable. Connect once to fill the cache, or copy the checkpoint's "
                "folder here and use model=local model.path=DIR; model=mini needs no download. "
                f"({message})"
            ) from error
        raise ConfigError(f"model.path={model.path}: {message}") from error
