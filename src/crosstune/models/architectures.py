"""Where the layers of an encoder are and what they are called, by model type.

A table, and the functions that find modules with it. Which of them a method adapts is written in
the method's YAML; nothing here knows a method. Called by `methods/`.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from crosstune.config.schema import TargetModules
from crosstune.errors import ConfigError


class Architecture(NamedTuple):
    """Patterns: of a layer's path, and of its matrices' paths below it."""

    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    up: str  # the feed-forward block's first matrix
    down: str  # and its last


BERT = Architecture(
    layer=r"encoder\.layer\.\d+",
    query=r"attention\.self\.query",
    key=r"attention\.self\.key",
    value=r"attention\.self\.value",
    attention_output=r"attention\.output\.dense",
    up=r"intermediate\.dense",
    down=r"output\.dense",
)
DEBERTA = BERT._replace(
    query=r"attention\.self\.query_proj",
    key=r"attention\.self\.key_proj",
    value=r"attention\.self\.value_proj",
)
DISTILBERT = Architecture(
    layer=r"transformer\.layer\.\d+",
    query=r"attention\.q_lin",
    key=r"attention\.k_lin",
    value=r"attention\.v_lin",
    attention_output=r"attention\.out_lin",
    up=r"ffn\.lin1",
    down=r"ffn\.lin2",
)
T5 = Architecture(
    layer=r"(?:encoder|decoder)\.block\.\d+",
    query=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.q",
    key=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.k",
    value=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.v",
    attention_output=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.o",
    up=r"layer\.\d\.DenseReluDense\.wi(?:_[01])?",
    down=r"layer\.\d\.DenseReluDense\.wo",
)
BART = Architecture(
    layer=r"(?:encoder|decoder)\.layers\.\d+",
    query=r"(?:self_attn|encoder_attn)\.q_proj",
    key=r"(?:self_attn|encoder_attn)\.k_proj",
    value=r"(?:self_attn|encoder_attn)\.v_proj",
    attention_output=r"(?:self_attn|encoder_attn)\.out_proj",
    up=r"fc1",
    down=r"fc2",
)
ARCHITECTURES = {
    "bert": BERT,
    "roberta": BERT,
    "xlm-roberta": BERT,
    "camembert": BERT,
    "electra": BERT,
    "distilbert": DISTILBERT,
    "deberta-v2": DEBERTA,
    "t5": T5,
    "mt5": T5,
    "bart": BART,
    "mbart": BART,
    "marian": BART,
}
ROLES = {
    TargetModules.query_value: ("query", "value"),
    TargetModules.key_value_down: ("key", "value", "down"),
    TargetModules.linear: ("query", "key", "value", "attention_output", "up", "down"),
}


def architecture_of(model: PreTrainedModel) -> Architecture:
    """Return the anatomy of a model, or of the halves of one made of two encoders.

    Raises:
        ConfigError: the table lacks its type.
    """
    config = model.config
    kind = getattr(config, "encoder", config).model_type if config.is_encoder_decoder else None
    kind = kind or config.model_type
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"the layers of {kind} models are not known here, but those of "
            f"{', '.join(ARCHITECTURES)}. Name the modules in method.peft.target_modules=[…], "
            "or use method=full or head_only."
        )
    return ARCHITECTURES[kind]


def find_parts(model: PreTrainedModel, roles: Sequence[str]) -> list[str]:
    """Return the full names of the matrices with these roles, layer by layer."""
    anatomy = architecture_of(model)
    inside = "|".join(getattr(anatomy, role) for role in roles)
    pattern = re.compile(rf"(?:.*\.)?{anatomy.layer}\.(?:{inside})")
    return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]


def find_layers(model: PreTrainedModel) -> list[str]:
    """Return the full names of the layers, from the input to the output."""
    pattern = re.compile(rf"(?:.*\.)?{architecture_of(model).layer}")
    return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]


def find_norms(model: nn.Module, whole: Sequence[str]) -> list[str]:
    """Return the full names of the normalisation layers outside the modules trained whole."""
    return [
        name
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Norm")
        and not any(name == one or name.startswith(f"{one}.") for one in whole)
    ]


def choose_targets(
    model: PreTrainedModel, targets: TargetModules, whole: Sequence[str]
) -> dict[str, list[str]]:
    """Return the arguments of a peft config that name what it adapts."""
    if targets is TargetModules.norms:
        return {"target_modules": find_norms(model, whole)}
    chosen = {"target_modules": find_parts(model, ROLES[targets])}
    if targets is TargetModules.key_value_down:
        chosen["feedforward_modules"] = find_parts(model, ("down",))
    return chosen
