"""What a tuning method brings besides its weights, and how peft learns of a method of ours.

`TuningMethod` is the interface through which training and inference use a method without naming it.
`register` makes peft save, load and merge a method that it lacks.
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol

from peft import PeftConfig
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method
from pytorch_lightning import Callback
from torch import Tensor

from crosstune.errors import ConfigError

# parameters of peft's (IA)³ and AdaLoRA that scale others: matrices by their shape, scales in use
SCALES = re.compile(r"\.(ia3_l|lora_E)(\.|$)")


class BestScore(Protocol):
    """The part of `training.callbacks.BestWeights` that a method may reset."""

    score: float


class TuningMethod:
    """What a method does besides adding weights to `model`; by default nothing.

    A method that needs more derives a class, says in `fits` which models are its own and overrides
    what it needs; `find_tuning_method` then chooses it.
    """

    virtual_tokens = 0  # positions of the encoder that the method takes besides the input's

    def __init__(self, model: Any):
        self.model = model

    @classmethod
    def fits(cls, model: Any) -> bool:
        """Return whether a model was adapted by this method."""
        return False

    def is_scale(self, name: str) -> bool:
        """Return whether a parameter scales others, so that weight decay would pull it to 0."""
        return SCALES.search(name) is not None

    def penalty(self) -> Tensor | float:
        """Return the term that the method adds to the training loss."""
        return 0.0

    def callbacks(self, best: BestScore) -> list[Callback]:
        """Return the callbacks of one stage of training.

        Setting `best.score` to -inf discards the best checkpoint so far.
        """
        return []

    def activate_language(self, language: str) -> None:
        """Switch the model to a language; called before each batch."""

    def finish(self) -> None:
        """Drop what only training needs; called once the best weights of a stage are restored."""

    def shape(self) -> dict[str, int]:
        """Return the sizes that training changes; a checkpoint stores them."""
        return {}

    def restore_shape(self, shape: Mapping[str, int]) -> None:
        """Resize a newly adapted model to the sizes of a checkpoint, before its weights load."""


def find_tuning_method(model: Any) -> TuningMethod:
    """Return what the method of an adapted, loaded or plain model brings besides its weights."""
    methods = (method for method in TuningMethod.__subclasses__() if method.fits(model))
    return next(methods, TuningMethod)(model)


def register(config: type[PeftConfig], tuner: type[BaseTuner]) -> None:
    """Register a method with peft under the name in its tuner's prefix: "bitfit_" becomes BITFIT.

    Registering the same classes again changes nothing; the same classes of a reloaded module
    replace the earlier ones.

    Raises:
        ConfigError: peft or another package already has a method of that name. Replacing it would
            make its adapter folders load as ours.
    """
    name = tuner.prefix.removesuffix("_")
    if name.upper() in PeftType.__members__:
        member = PeftType[name.upper()]
        holder = PEFT_TYPE_TO_CONFIG_MAPPING.get(member)
        if holder is config:
            return
        if holder is None or _qualified_name(holder) != _qualified_name(config):
            raise ConfigError(
                f"The method name {name} of {_qualified_name(config)} is taken in the installed "
                f"peft{f', by {_qualified_name(holder)}' if holder else ''}. "
                "Install the peft version that crosstune asks for, or leave the other package out."
            )
        del PEFT_TYPE_TO_CONFIG_MAPPING[member]
        del PEFT_TYPE_TO_TUNER_MAPPING[member]
        del PEFT_TYPE_TO_PREFIX_MAPPING[member]
    else:
        add_enum_member(PeftType, name.upper())
    register_peft_method(name=name, config_cls=config, model_cls=tuner)


def _qualified_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def add_enum_member(names: type[PeftType], name: str) -> None:
    """Add a member to a closed enum of strings, as `name = "name"` in its body would.

    >>> from enum import Enum
    >>> class Fruit(str, Enum):
    ...     APPLE = "APPLE"
    >>> add_enum_member(Fruit, "PEAR")
    >>> [fruit.value for fruit in Fruit], Fruit("PEAR") is Fruit["PEAR"], Fruit["PEAR"] == "PEAR"
    (['APPLE', 'PEAR'], True, True)
    """
    member = str.__new__(names, name)
    order = len(names._member_names_)
    vars(member).update(_name_=name, _value_=name, _sort_order_=order, __objclass__=names)
    names._member_names_.append(name)
    names._member_map_[name] = member
    names._value2member_map_[name] = member
    # the enum's metaclass refuses new attributes; Python 3.13 keeps one more list
    type.__setattr__(names, name, member)
    getattr(names, "_hashable_values_", []).append(name)
