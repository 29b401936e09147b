"""Prompt methods: learned vectors among the words, or before the keys and values of every layer.

peft trains, saves and loads them. Here is what makes them right on every kind and encoder: their
sizes, the place of the prompt behind the first piece, which classifiers read, and one output a
sub-word. Called by `methods/__init__.py`, and by whoever loads a saved adapter.
"""

import inspect
from typing import Any

import torch
from peft import PeftModel, PromptLearningConfig
from peft.utils import PeftType, TaskType
from torch import Tensor, nn
from transformers import PreTrainedModel

from crosstune.errors import ConfigError
from crosstune.models.architectures import types_with


def set_prompt_sizes(model: PreTrainedModel, config: PromptLearningConfig) -> None:
    """Give a config the sizes of a model where it does not say them itself.

    A prompt of n vectors of the word embeddings' width E has n·E numbers. A prefix has 2·n·L·D: a
    key and a value of width D in each of L layers. They are those of the encoder's attention, or of
    the decoder's own where there is one.

    Raises:
        ConfigError: the model has no place for the method.
    """
    both, number = model.config.is_encoder_decoder, config.num_virtual_tokens
    if both and config.task_type != TaskType.SEQ_2_SEQ_LM:
        raise ConfigError(
            f"method.peft: prompts on {model.config.model_type}, an encoder with a decoder, are "
            "for generation only."
        )
    if number < 1:
        raise ConfigError(f"method.peft.num_virtual_tokens={number}: must be a whole number ≥ 1.")
    if config.peft_type == PeftType.PREFIX_TUNING:
        _check_prefix(model, number)
        sizes = _prefix_sizes(model)
    else:
        layers: Any = getattr(model.config, "encoder", model.config)
        encoder: Any = model.get_encoder() if both else model
        sizes = {
            "token_dim": encoder.get_input_embeddings().embedding_dim,
            "num_layers": layers.num_hidden_layers,
            "num_attention_heads": layers.num_attention_heads,
            "num_transformer_submodules": 1,  # the decoder gets no prompt of its own
        }
    for name, size in sizes.items():
        if getattr(config, name) is None:
            setattr(config, name, size)


def _check_prefix(model: PreTrainedModel, number: int) -> None:
    """Raise ConfigError if no prefix can be put into a model, or none so long."""
    kind = model.config.model_type
    if not model.config.is_encoder_decoder:
        if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
            raise ConfigError(
                f"prefix tuning on {kind}: its attention takes no keys and values beside its own. "
                f"Allowed: {', '.join(types_with('encoder_takes_prefix'))}, and encoder-decoders; "
                "or method=prompt_tuning or p_tuning."
            )
        return
    config: Any = getattr(model.config, "decoder", model.config)
    generation: Any = model.generation_config
    positions = getattr(config, "max_position_embeddings", None)
    written = generation.max_new_tokens or 0
    if positions is not None and written + number > positions:
        raise ConfigError(
            f"data.task.max_target_tokens={written} and method.peft.num_virtual_tokens={number}: "
            f"the decoder of {kind} has {positions} positions."
        )


def _prefix_sizes(model: PreTrainedModel) -> dict[str, int]:
    both = model.config.is_encoder_decoder
    config: Any = getattr(model.config, "decoder", model.config)
    heads = getattr(config, "decoder_attention_heads", config.num_attention_heads)
    layers = config.num_hidden_layers
    for name in ("decoder_layers", "num_decoder_layers"):  # of BART's relatives, of T5's
        layers = getattr(config, name, layers)
    return {
        "token_dim": heads * getattr(config, "d_kv", config.hidden_size // heads),
        "num_layers": layers,
        "num_attention_heads": heads,
        "num_transformer_submodules": 2 if both else 1,  # peft's mark of a decoder's cache
    }


def count_virtual_tokens(model: nn.Module) -> int:
    """Return how many positions of the encoder an adapted model takes beside its input."""
    config = _prompt_of(model)
    if config is None:
        return 0
    before_decoder = config.num_transformer_submodules == 2
    return 0 if before_decoder else config.num_virtual_tokens


def install_prompt_hooks(model: Any) -> Any:
    """Make an adapted or loaded model behave as its prompt was trained; return the same model.

    Needed after `PeftModel.from_pretrained`; a model that has it already, or has no prompt, stays
    as it is. Without it peft puts the prompt where a classifier reads, keeps segments from some
    kinds, returns outputs for the prompt too, and gives Marian words of another scale.
    """
    config = _prompt_of(model)
    if config is None or any(
        isinstance(getattr(hook, "__self__", None), PromptHooks)
        for hook in model._forward_pre_hooks.values()
    ):
        return model
    base = model.get_base_model()
    soft = config.peft_type != PeftType.PREFIX_TUNING
    prompt = PromptHooks(config.num_virtual_tokens if soft else 0)
    model.register_forward_pre_hook(prompt.enter, with_kwargs=True)
    if config.peft_type == PeftType.P_TUNING:
        network: Any = model.prompt_encoder[model.active_adapter]
        network.register_forward_pre_hook(prompt.narrow)
        network.register_forward_hook(prompt.widen)
    if base.config.is_encoder_decoder:
        encoder = base.get_encoder()
        if _scale not in encoder._forward_pre_hooks.values():  # of another adapter of this base
            encoder.register_forward_pre_hook(_scale, with_kwargs=True)
        return model
    model.register_forward_hook(prompt.leave, always_call=True)
    base.base_model.register_forward_pre_hook(prompt.place, with_kwargs=True)
    base.base_model.register_forward_hook(prompt.drop)
    return model


class PromptHooks:
    """The hooks of one adapted encoder: a prompt of `size` goes in, none of it comes out.

    [CLS] keeps place 0 and the prompt is behind it. `size` is 0 for a prefix, which is no part of
    the input. During a call the hooks of the encoder know that it is this adapter's.
    """

    def __init__(self, size: int):
        self.size = size
        self.inside = False
        self.types: Tensor | None = None
        self.rows = 1  # of the batch

    def enter(self, model: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Begin a call; hold the segments back, which peft does not hand on for every kind."""
        self.inside, self.types = True, kwargs.pop("token_type_ids", None)
        return args, kwargs

    def leave(self, model: Any, args: Any, outputs: Any) -> None:
        """End a call, failed ones too."""
        self.inside, self.types = False, None

    def narrow(self, network: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        """Make the prompt once for all rows: it rounds as what is saved, and costs less."""
        self.rows = len(args[0])
        return (args[0][:1],)

    def widen(self, network: nn.Module, args: Any, made: Tensor) -> Tensor:
        """Give every row the prompt."""
        return made.expand(self.rows, -1, -1)

    def place(self, encoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Put the prompt, which peft put first, behind the first piece; hand segments on."""
        if not self.inside:
            return None
        if self.size:
            embedded, size = kwargs["inputs_embeds"], self.size
            first, rest = embedded[:, size : size + 1], embedded[:, size + 1 :]
            kwargs["inputs_embeds"] = torch.cat([first, embedded[:, :size], rest], dim=1)
        if self.types is not None:
            first = self.types[:, :1]  # the prompt is of the first text
            kwargs["token_type_ids"] = torch.cat([first.expand(-1, self.size), self.types], dim=1)
        return args, kwargs

    def drop(self, encoder: nn.Module, args: Any, outputs: Any) -> Any:
        """Leave the prompt out of what the encoder says."""
        if self.inside and self.size:
            outputs.last_hidden_state = self._without(outputs.last_hidden_state)
            if outputs.hidden_states is not None:
                outputs.hidden_states = tuple(map(self._without, outputs.hidden_states))
        return outputs

    def _without(self, hidden: Tensor) -> Tensor:
        return torch.cat([hidden[:, :1], hidden[:, self.size + 1 :]], dim=1)


def _scale(encoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Scale embedded words as an encoder scales those that it embeds itself (Marian)."""
    if kwargs.get("inputs_embeds") is not None:
        kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * getattr(encoder, "embed_scale", 1.0)
    return args, kwargs


def _prompt_of(model: nn.Module) -> PromptLearningConfig | None:
    """Return the config of a model's prompt, None if it has none."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return config if isinstance(config, PromptLearningConfig) else None
