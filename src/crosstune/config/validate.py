"""What values the options of a run may have, beyond their types.

Called by `config.py` once a run is typed; imports nothing heavy.
"""

import math
import re

from crosstune.config.schema import Batching, Data, Run
from crosstune.errors import ConfigError
from crosstune.languages import check_language


def check_values(run: Run) -> None:
    """Raise ConfigError at the first option whose value cannot be."""
    if not re.fullmatch(r"[\w.-]+", run.experiment) or run.experiment.startswith("."):
        raise ConfigError(
            f"experiment={run.experiment}: a study's name holds letters, digits, '_', '-' and '.' "
            "and does not start with '.'."
        )
    _check_languages(run.data)
    for name, value, least in (
        ("seed", run.seed, 0),
        ("data.batch_size", run.data.batch_size, 1),
        ("data.max_tokens", run.data.max_tokens, 8),
        ("data.batch_tokens", run.data.batch_tokens, 1),
        ("data.limit", run.data.limit, 1),
        ("data.shots", run.data.shots, 1),
        ("trainer.max_epochs", run.trainer.max_epochs, 0),
        ("trainer.max_steps", run.trainer.max_steps, 1),
        ("trainer.devices", run.trainer.devices, 1),
        ("trainer.accumulate_grad_batches", run.trainer.accumulate_grad_batches, 1),
        ("trainer.patience", run.trainer.patience, 1),
        ("trainer.log_every_n_steps", run.trainer.log_every_n_steps, 1),
        ("optimizer.learning_rate", run.optimizer.learning_rate, 0.0),
        ("model.learning_rate_scale", run.model.learning_rate_scale, 0.0),
        ("optimizer.weight_decay", run.optimizer.weight_decay, 0.0),
        ("optimizer.warmup_ratio", run.optimizer.warmup_ratio, 0.0),
        ("model.vocab_size", run.model.vocab_size, 300),
        ("model.extend_vocab", run.model.extend_vocab, 300),
    ):
        if value is not None and not least <= value < math.inf:
            raise ConfigError(f"{name}={value}: must be at least {least} and finite.")
    if run.optimizer.warmup_ratio > 1:
        raise ConfigError(f"optimizer.warmup_ratio={run.optimizer.warmup_ratio}: at most 1.")
    if run.model.attention not in ("sdpa", "eager"):
        raise ConfigError(f"model.attention={run.model.attention}. Allowed: sdpa, eager.")
    _check_batches(run.data)
    _check_devices(run)


def _check_batches(data: Data) -> None:
    if data.batch_tokens is None:
        return
    if data.batching is Batching.bucketed:
        raise ConfigError("data.batch_tokens is for data.batching=uniform: take one of both.")
    if data.batch_tokens < data.max_tokens:
        raise ConfigError(
            f"data.batch_tokens={data.batch_tokens}: a batch holds at least one input, of up to "
            f"data.max_tokens={data.max_tokens} sub-words."
        )


def _check_devices(run: Run) -> None:
    if run.trainer.strategy not in ("auto", "ddp"):
        raise ConfigError(
            f"trainer.strategy={run.trainer.strategy}. Allowed: auto, ddp. Others share out the "
            "weights or start processes of their own, and what a run leaves would not be whole."
        )
    if run.data.batch_size % run.trainer.devices:
        raise ConfigError(
            f"data.batch_size={run.data.batch_size} is the batch of one optimizer step over all "
            f"devices and must be a multiple of trainer.devices={run.trainer.devices}."
        )


def _check_languages(data: Data) -> None:
    for language in data.train_languages:
        check_language(language)
    if len(set(data.train_languages)) < len(data.train_languages):
        raise ConfigError(f"data.further_languages={data.further_languages}: a language twice.")
    if data.in_turn and not data.further_languages:
        raise ConfigError(
            "data.in_turn: name the languages after the first, in their order, with "
            "data.further_languages=[zh, en]."
        )
    if data.sampling_temperature <= 0:
        raise ConfigError(f"data.sampling_temperature={data.sampling_temperature}: above 0.")
