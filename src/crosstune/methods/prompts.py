"""Prompt methods: learned vectors among the words, or before the keys and values of every layer.

peft trains, saves and loads them. This file makes them right for every task type and encoder: their
sizes, the position of the prompt behind the first subword, which classifiers read, and outputs for
the input's subwords alone.
"""

import inspect
from typing import Any

import torch
from peft import PeftModel, PromptLearningConfig
from peft.utils import PeftType, TaskType
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from crosstune.errors import ConfigError
from crosstune.methods.tuning_method import TuningMethod
from crosstune.models.architectures import list_types_supporting


class PromptMethod(TuningMethod):
    """A prompt takes positions of the encoder, unless it stands before a decoder."""

    def __init__(self, model: Any):
        super().__init__(model)
        config: Any = _prompt_config(model)
        before_decoder = config.num_transformer_submodules == 2
        self.virtual_tokens = 0 if before_decoder else config.num_virtual_tokens

    @classmethod
    @override
    def fits(cls, model: Any) -> bool:
        return _prompt_config(model) is not None


def set_prompt_sizes(model: PreTrainedModel, config: PromptLearningConfig) -> None:
    """Set the sizes that a config leaves open to those of the model.

    A prompt of n vectors of the word embeddings' width E has n·E numbers. A prefix has 2·n·L·D: a
    key and a value of width D in each of L layers. They are those of the encoder's attention, or of
    the decoder's self-attention where there is a decoder.

    Raises:
        ConfigError: the method does not fit the model.
    """
    has_decoder, length = model.config.is_encoder_decoder, config.num_virtual_tokens
    if has_decoder and config.task_type != TaskType.SEQ_2_SEQ_LM:
        raise ConfigError(
            f"method.peft: prompts on {model.config.model_type}, an encoder with a decoder, are "
            "for generation only."
        )
    if length < 1:
        raise ConfigError(f"method.peft.num_virtual_tokens={length}: must be a whole number ≥ 1.")
    if config.peft_type == PeftType.PREFIX_TUNING:
        _check_prefix(model, length)
        sizes = _prefix_sizes(model)
    else:
        layers: Any = getattr(model.config, "encoder", model.config)
        encoder: Any = model.get_encoder() if has_decoder else model
        sizes = {
            "token_dim": encoder.get_input_embeddings().embedding_dim,
            "num_layers": layers.num_hidden_layers,
            "num_attention_heads": layers.num_attention_heads,
            "num_transformer_submodules": 1,  # the decoder gets no prompt of its own
        }
    for name, size in sizes.items():
        if getattr(config, name) is None:
            setattr(config, name, size)


def _check_prefix(model: PreTrainedModel, length: int) -> None:
    """Raise ConfigError if the model takes no prefix, or none of this length."""
    model_type = model.config.model_type
    if not model.config.is_encoder_decoder:
        if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
            raise ConfigError(
                f"prefix tuning on {model_type}: its attention takes no keys and values beside its "
                f"own. Allowed: {', '.join(list_types_supporting('encoder_takes_prefix'))}, and "
                "encoder-decoders; or method=prompt_tuning or p_tuning."
            )
        return
    config: Any = getattr(model.config, "decoder", model.config)
    generation: Any = model.generation_config
    positions = getattr(config, "max_position_embeddings", None)
    target_tokens = generation.max_new_tokens or 0
    if positions is not None and target_tokens + length > positions:
        raise ConfigError(
            f"data.task.max_target_tokens={target_tokens} and "
            f"method.peft.num_virtual_tokens={length}: "
            f"the decoder of {model_type} has {positions} positions."
        )


def _prefix_sizes(model: PreTrainedModel) -> dict[str, int]:
    config: Any = getattr(model.config, "decoder", model.config)
    heads = getattr(config, "decoder_attention_heads", config.num_attention_heads)
    layers = config.num_hidden_layers
    for name in ("decoder_layers", "num_decoder_layers"):  # of BART's relatives, of T5's
        layers = getattr(config, name, layers)
    return {
        "token_dim": heads * getattr(config, "d_kv", config.hidden_size // heads),
        "num_layers": layers,
        "num_attention_heads": heads,
        # 2 makes peft build a cache for a decoder
        "num_transformer_submodules": 2 if model.config.is_encoder_decoder else 1,
    }


def install_prompt_hooks(model: Any) -> Any:
    """Make an adapted or loaded model behave as its prompt was trained; return the same model.

    Needed after `PeftModel.from_pretrained`; a model that has the hooks, or no prompt, stays as it
    is. Without them peft puts the prompt where a classifier reads, drops the segments for some task
    types, returns outputs for the prompt too and feeds Marian words of another scale.
    """
    config = _prompt_config(model)
    if config is None or any(
        isinstance(getattr(hook, "__self__", None), PromptHooks)
        for hook in model._forward_pre_hooks.values()
    ):
        return model
    base = model.get_base_model()
    is_soft = config.peft_type != PeftType.PREFIX_TUNING
    hooks = PromptHooks(config.num_virtual_tokens if is_soft else 0)
    model.register_forward_pre_hook(hooks.begin, with_kwargs=True)
    if config.peft_type == PeftType.P_TUNING:
        prompt_encoder: Any = model.prompt_encoder[model.active_adapter]
        prompt_encoder.register_forward_pre_hook(hooks.keep_one_row)
        prompt_encoder.register_forward_hook(hooks.expand_rows)
    if base.config.is_encoder_decoder:
        encoder = base.get_encoder()
        if _scale_embeddings not in encoder._forward_pre_hooks.values():  # of another adapter
            encoder.register_forward_pre_hook(_scale_embeddings, with_kwargs=True)
        return model
    model.register_forward_hook(hooks.end, always_call=True)
    base.base_model.register_forward_pre_hook(hooks.insert_prompt, with_kwargs=True)
    base.base_model.register_forward_hook(hooks.remove_prompt)
    return model


class PromptHooks:
    """The hooks of one adapted encoder: a prompt of `size` goes in, none of it comes out.

    [CLS] keeps position 0 and the prompt follows it. `size` is 0 for a prefix, which is no part of
    the input. Adapters may share an encoder: the hooks act only during a call of their adapter.
    """

    def __init__(self, size: int):
        self.size = size
        self.active = False
        self.token_types: Tensor | None = None
        self.rows = 1  # of the batch

    def begin(self, model: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Begin a call; hold back the segments, which peft does not pass on for every task type."""
        self.active, self.token_types = True, kwargs.pop("token_type_ids", None)
        return args, kwargs

    def end(self, model: Any, args: Any, outputs: Any) -> None:
        """End a call, also one that failed."""
        self.active, self.token_types = False, None

    def keep_one_row(self, network: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        """Compute the prompt once for all rows: it rounds as the saved one, and costs less."""
        self.rows = len(args[0])
        return (args[0][:1],)

    def expand_rows(self, network: nn.Module, args: Any, prompt: Tensor) -> Tensor:
        """Repeat the prompt for every row."""
        return prompt.expand(self.rows, -1, -1)

    def insert_prompt(self, encoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Move the prompt, which peft puts first, behind the first subword; pass the segments."""
        if not self.active:
            return None
        if self.size:
            embedded, size = kwargs["inputs_embeds"], self.size
            first, rest = embedded[:, size : size + 1], embedded[:, size + 1 :]
            kwargs["inputs_embeds"] = torch.cat([first, embedded[:, :size], rest], dim=1)
        if self.token_types is not None:
            first = self.token_types[:, :1]  # the prompt belongs to the first text
            types = [first.expand(-1, self.size), self.token_types]
            kwargs["token_type_ids"] = torch.cat(types, dim=1)
        return args, kwargs

    def remove_prompt(self, encoder: nn.Module, args: Any, outputs: Any) -> Any:
        """Cut the prompt out of the encoder's outputs."""
        if self.active and self.size:
            outputs.last_hidden_state = self._without_prompt(outputs.last_hidden_state)
            if outputs.hidden_states is not None:
                outputs.hidden_states = tuple(map(self._without_prompt, outputs.hidden_states))
        return outputs

    def _without_prompt(self, hidden: Tensor) -> Tensor:
        return torch.cat([hidden[:, :1], hidden[:, self.size + 1 :]], dim=1)


def _scale_embeddings(encoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Scale embedded words as an encoder scales those that it embeds itself (Marian)."""
    if kwargs.get("inputs_embeds") is not None:
        kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * getattr(encoder, "embed_scale", 1.0)
    return args, kwargs


def _prompt_config(model: Any) -> PromptLearningConfig | None:
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return config if isinstance(config, PromptLearningConfig) else None
