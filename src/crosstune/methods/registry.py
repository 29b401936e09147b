"""Makes a tuning method of ours a peft method, so that peft saves, loads and merges it.

peft looks a method up by a closed enum of names; `register` adds ours to it. The file of a method
calls `register` once, at its end. What a method does is not known here.
"""

from peft import PeftConfig
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method

from crosstune.errors import ConfigError


def register(config: type[PeftConfig], tuner: type[BaseTuner]) -> None:
    """Register a method under the name in its tuner's prefix: "bitfit_" becomes BITFIT.

    Registering the same classes again changes nothing; the same classes of a reloaded module
    replace the earlier ones.

    Raises:
        ConfigError: peft or another package already has a method of that name. Taking it over would
            read its adapter folders as ours.
    """
    name = tuner.prefix.removesuffix("_")
    if name.upper() in PeftType.__members__:
        member = PeftType[name.upper()]
        holder = PEFT_TYPE_TO_CONFIG_MAPPING.get(member)
        if holder is config:
            return
        if holder is None or _origin(holder) != _origin(config):
            raise ConfigError(
                f"The method name {name} of {_origin(config)} is taken in the installed peft"
                f"{f', by {_origin(holder)}' if holder else ''}. "
                "Install the peft version that crosstune asks for, or leave the other package out."
            )
        del PEFT_TYPE_TO_CONFIG_MAPPING[member]
        del PEFT_TYPE_TO_TUNER_MAPPING[member]
        del PEFT_TYPE_TO_PREFIX_MAPPING[member]
    else:
        add_member(PeftType, name.upper())
    register_peft_method(name=name, config_cls=config, model_cls=tuner)


def _origin(owner: type) -> str:
    """Return where a class was written, which a reload does not change."""
    return f"{owner.__module__}.{owner.__qualname__}"


def add_member(names: type[PeftType], name: str) -> None:
    """Add a member to an enum of strings that is closed, as `name = "name"` in its body would.

    >>> from enum import Enum
    >>> class Fruit(str, Enum):
    ...     APPLE = "APPLE"
    >>> add_member(Fruit, "PEAR")
    >>> [fruit.value for fruit in Fruit], Fruit("PEAR") is Fruit["PEAR"], Fruit["PEAR"] == "PEAR"
    (['APPLE', 'PEAR'], True, True)
    """
    member = str.__new__(names, name)
    order = len(names._member_names_)
    vars(member).update(_name_=name, _value_=name, _sort_order_=order, __objclass__=names)
    names._member_names_.append(name)
    names._member_map_[name] = member
    names._value2member_map_[name] = member
    # the enum's own metaclass refuses new attributes of members; later Pythons keep one more list
    type.__setattr__(names, name, member)
    getattr(names, "_hashable_values_", []).append(name)
