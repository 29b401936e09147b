"""The table of supported model types.

It names the modules of attention, feed-forward and norm layers, and what each type supports. To
support a new type, add an entry to `ARCHITECTURES`. `choose_targets` turns `method.targets` into
peft's `target_modules`.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from peft.utils import TaskType
from torch import nn
from transformers import PreTrainedModel

from crosstune.config.schema import TargetModules
from crosstune.errors import ConfigError


class Architecture(NamedTuple):
    """What is known of a model type; the strings are patterns of module paths.

    `layer` is a path in the model, the others are paths below a layer.
    """

    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    up: str  # first matrix of the feed-forward block
    down: str  # and its last
    attention_block: str  # its output goes into the residual sum
    feedforward_block: str  # likewise
    block_norm: str | None  # norm after the residual sum of the feed-forward block
    encoder_takes_prefix: bool = False  # its attention accepts keys and values beside its own
    positions_after_padding: bool = False  # position ids start at pad_token_id + 1
    # path, below the encoder, of a stack whose layers take hidden states and a mask alone, and know
    # neither order nor distance: they can do without padding, and their outputs can be cached
    layer_stack: str | None = None
    supports_vmap: bool = False  # takes a 4-D mask as it is, and branches on no tensor's value


BERT = Architecture(
    layer=r"encoder\.layer\.\d+",
    query=r"attention\.self\.query",
    key=r"attention\.self\.key",
    value=r"attention\.self\.value",
    attention_output=r"attention\.output\.dense",
    up=r"intermediate\.dense",
    down=r"output\.dense",
    attention_block=r"attention\.output\.dropout",
    feedforward_block=r"output\.dropout",
    block_norm=r"output\.LayerNorm",
    encoder_takes_prefix=True,
    layer_stack="encoder",
    supports_vmap=True,
)
ROBERTA = BERT._replace(positions_after_padding=True)
DEBERTA = BERT._replace(
    query=r"attention\.self\.query_proj",
    key=r"attention\.self\.key_proj",
    value=r"attention\.self\.value_proj",
    encoder_takes_prefix=False,
    layer_stack=None,
    supports_vmap=False,
)
DISTILBERT = Architecture(
    layer=r"transformer\.layer\.\d+",
    query=r"attention\.q_lin",
    key=r"attention\.k_lin",
    value=r"attention\.v_lin",
    attention_output=r"attention\.out_lin",
    up=r"ffn\.lin1",
    down=r"ffn\.lin2",
    attention_block=r"attention\.out_lin",
    feedforward_block="ffn",
    block_norm="output_layer_norm",
    layer_stack="transformer",
)
T5 = Architecture(
    layer=r"(?:encoder|decoder)\.block\.\d+",
    query=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.q",
    key=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.k",
    value=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.v",
    attention_output=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.o",
    up=r"layer\.\d\.DenseReluDense\.wi(?:_[01])?",
    down=r"layer\.\d\.DenseReluDense\.wo",
    attention_block=r"layer\.\d\.(?:SelfAttention|EncDecAttention)\.o",
    feedforward_block=r"layer\.\d\.DenseReluDense",
    block_norm=None,
)
BART = Architecture(
    layer=r"(?:encoder|decoder)\.layers\.\d+",
    query=r"(?:self_attn|encoder_attn)\.q_proj",
    key=r"(?:self_attn|encoder_attn)\.k_proj",
    value=r"(?:self_attn|encoder_attn)\.v_proj",
    attention_output=r"(?:self_attn|encoder_attn)\.out_proj",
    up="fc1",
    down="fc2",
    attention_block=r"(?:self_attn|encoder_attn)\.out_proj",
    feedforward_block="fc2",
    block_norm="final_layer_norm",
)
ARCHITECTURES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": BERT,
    "distilbert": DISTILBERT,
    "deberta-v2": DEBERTA,
    "t5": T5,
    "mt5": T5,
    "bart": BART,
    "mbart": BART._replace(block_norm=None),  # normalizes before a block, not after its sum
    "marian": BART,
}
# End of the path of the module whose output enters the first layer, in encoders of BERT's kinds
ENCODER_EMBEDDINGS = "embeddings.dropout"
# Heads that peft trains whole for a task even if `modules_to_save` lacks their names; for some
# tasks it adds the names only after the adapter is in place
HEAD_NAMES = {
    TaskType.SEQ_CLS: ("classifier", "score"),
    TaskType.TOKEN_CLS: ("classifier", "score"),
    TaskType.QUESTION_ANS: ("qa_outputs",),
}
# Ends of class names: heads that read the first subword alone, in the types with a `layer_stack`
FIRST_SUBWORD_HEADS = ("ForSequenceClassification",)
ROLES = {
    TargetModules.query_value: ("query", "value"),
    TargetModules.key_value_down: ("key", "value", "down"),
    TargetModules.linear: ("query", "key", "value", "attention_output", "up", "down"),
}


def unwrap_adapter(model: Any) -> Any:
    """Return the model inside a peft model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def architecture_of(model: PreTrainedModel) -> Architecture:
    """Return the row of a model's type, or of the halves of one made of two encoders.

    Raises:
        ConfigError: the table lacks the type.
    """
    config = model.config
    model_type = (
        getattr(config, "encoder", config).model_type if config.is_encoder_decoder else None
    )
    model_type = model_type or config.model_type
    if model_type not in ARCHITECTURES:
        raise ConfigError(
            f"the layers of {model_type} models are not known here, but those of "
            f"{', '.join(ARCHITECTURES)}. Name the modules in method.peft.target_modules=[…], "
            "or use method=full or head_only."
        )
    return ARCHITECTURES[model_type]


def list_types_supporting(fact: str) -> list[str]:
    """Return the model types whose row has a true `fact`, by name."""
    return sorted(name for name, row in ARCHITECTURES.items() if getattr(row, fact))


def find_parts(model: PreTrainedModel, roles: Sequence[str]) -> list[str]:
    """Return the full names of the matrices with these roles, layer by layer."""
    architecture = architecture_of(model)
    inside = "|".join(getattr(architecture, role) for role in roles)
    pattern = re.compile(rf"(?:.*\.)?{architecture.layer}\.(?:{inside})")
    return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]


def find_layers(model: PreTrainedModel) -> list[str]:
    """Return the full names of the layers, from the input to the output."""
    pattern = re.compile(rf"(?:.*\.)?{architecture_of(model).layer}")
    return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]


def find_norms(model: nn.Module, saved: Sequence[str]) -> list[str]:
    """Return the full names of the normalization layers outside the modules saved whole."""
    return [
        name
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Norm")
        and not any(name == one or name.startswith(f"{one}.") for one in saved)
    ]


def choose_targets(
    model: PreTrainedModel, targets: TargetModules, saved: Sequence[str]
) -> dict[str, list[str]]:
    """Return the arguments of a peft config that name the modules to adapt."""
    if targets is TargetModules.norms:
        return {"target_modules": find_norms(model, saved)}
    chosen = {"target_modules": find_parts(model, ROLES[targets])}
    if targets is TargetModules.key_value_down:
        chosen["feedforward_modules"] = find_parts(model, ("down",))
    return chosen
