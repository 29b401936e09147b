"""Builds the objects that `_target_` nodes describe, of the kinds that each key admits.

Configuration files come from others, so a target must be of the class that its key takes, and both
its written path and the module that defines it must be in a package that has such classes.
`check_target` checks options against signatures before any data or weights load.
"""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from crosstune.errors import ConfigError, suggest


class Slot(NamedTuple):
    """What a key admits: a class with this base, or a function of ours that returns one."""

    packages: tuple[str, ...]  # where targets are
    base: str


SLOTS = {
    "data.reader": Slot(("crosstune.data",), "crosstune.data.splits.Split"),
    "model.config": Slot(("transformers",), "transformers.configuration_utils.PreTrainedConfig"),
    "method.peft": Slot(("peft", "crosstune.methods"), "peft.config.PeftConfig"),
    "optimizer.algorithm": Slot(("torch.optim", "transformers"), "torch.optim.optimizer.Optimizer"),
}
# options through which libraries load code that an option or a checkpoint names
CODE_OPTIONS = (
    "trust_remote_code",
    "auto_map",
    "auto_mapping",
    "custom_pipelines",
    "attn_implementation",
    "quantization_config",
    "megatron_config",
    "megatron_core",
    "target_",  # KEY: nothing is built below a target
)
_KERNELS = ("eager", "sdpa", "flash_attention_2", "flex_attention")  # of the libraries themselves
KEY = "_target_"
# arguments that crosstune sets at run time -> the option to use in their place
RUN_TIME_ARGUMENTS = {
    "optimizer.algorithm": {
        "lr": "optimizer.learning_rate",
        "weight_decay": "optimizer.weight_decay",
        "params": "",
    },
    "model.config": {
        "vocab_size": "model.vocab_size",
        "pad_token_id": "",
        "id2label": "",
        "label2id": "",
        "num_labels": "",
    },
    "method.peft": {"task_type": "", "modules_to_save": "", "inference_mode": ""},
    "data.reader": {"source": "data.train, data.validation and data.test"},
}


def instantiate(
    node: dict[str, Any], where: str, allow: Sequence[str] = (), **arguments: Any
) -> Any:
    """Return the object that the node describes.

    Raises:
        ConfigError: the node does not fit its target, or names one of `arguments`.
    """
    target, options = _locate_and_split(node, where, allow)
    for key in options.keys() & arguments.keys():
        raise ConfigError(f"{where}.{key}: crosstune sets this argument itself: leave it out.")
    options = {**arguments, **options}
    _check_options(target, options, where)
    try:
        return target(**options)
    except (TypeError, ValueError) as error:
        message = f"{where}: {node[KEY]} refuses its options {options}: {error}"
        raise ConfigError(message) from error


def takes_argument(node: dict[str, Any], name: str, where: str, allow: Sequence[str]) -> bool:
    """Return whether the target of the node has a parameter of that name."""
    target, _ = _locate_and_split(node, where, allow)
    return name in inspect.signature(target).parameters


def check_target(node: Any, where: str, allow: Sequence[str] = ()) -> None:
    """Raise ConfigError if a node with a `_target_` cannot be built."""
    if isinstance(node, dict) and KEY in node:
        target, options = _locate_and_split(node, where, allow)
        _check_options(target, options, where)


def locate_target(path: str, where: str, allow: Sequence[str] = ()) -> Callable[..., Any]:
    """Import the class or function at a dotted path that the key `where` admits.

    Classes and functions of the packages in `allow` are the user's own, and not looked at.
    """
    slot = SLOTS[where]
    allowed = (*slot.packages, *allow)
    if not _is_in(path, allowed):
        raise ConfigError(
            f"{where}.{KEY}={path} is outside the allowed packages. {suggest(path, allowed)} Allow "
            "a package of your own with allow=[my_package] on the command line."
        )
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{where}.{KEY}={path}: cannot import {module_name} ({error})."
        ) from error
    target = getattr(module, name, None)
    if not isinstance(target, type | types.FunctionType):
        public = [n for n in dir(module) if _is_admitted(getattr(module, n, None), slot)]
        hint = suggest(name, public)
        if len(public) >= 40:
            hint = hint.partition("Allowed:")[0].rstrip()
        raise ConfigError(f"{where}.{KEY}={path}: no class or function of that name. {hint}")
    home = target.__module__ + "."
    if not _is_in(home, allowed):
        raise ConfigError(
            f"{where}.{KEY}={path} is defined in {target.__module__}, outside the allowed "
            f"packages: {', '.join(allowed)}."
        )
    if not _is_in(home, allow) and not _is_admitted(target, slot):
        kind = slot.base.rpartition(".")[2]
        raise ConfigError(
            f"{where}.{KEY}={path} is no {kind}: this key takes a class of that kind, or a "
            "function of crosstune that returns one."
        )
    return target


def _is_admitted(target: Any, slot: Slot) -> bool:
    if isinstance(target, types.FunctionType):
        if not target.__module__.startswith("crosstune."):
            return False
        target = target.__annotations__.get("return")
    classes = target.__mro__ if isinstance(target, type) else ()
    return any(f"{c.__module__}.{c.__qualname__}" == slot.base for c in classes)


def find_code_option(value: Any, path: str = "", ignored: Sequence[str] = ()) -> str | None:
    """Return the path of the first key, at any depth, that names something to build or to load."""
    if isinstance(value, dict):
        for key, item in value.items():
            where, name = f"{path}.{key}" if path else str(key), str(key).lstrip("_")
            harmless = item in (None, False) or name in ignored
            if name in CODE_OPTIONS and not harmless and item not in _KERNELS:
                return where
            if inner := find_code_option(item, where, ignored):
                return inner
    if isinstance(value, list):
        items = (find_code_option(item, f"{path}[{n}]", ignored) for n, item in enumerate(value))
        return next(filter(None, items), None)
    return None


def _is_in(path: str, packages: Sequence[str]) -> bool:
    return any(path.startswith(package + ".") for package in packages)


def _locate_and_split(
    node: Any, where: str, allow: Sequence[str]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    if not isinstance(node, dict) or not isinstance(node.get(KEY), str):
        raise ConfigError(f"{where} needs a {KEY}: a dotted path to a class or function.")
    options = {key: value for key, value in node.items() if key != KEY}
    if code := find_code_option(options):
        raise ConfigError(
            f"{where}.{code}: this option names something to build, or code that a library would "
            "load. Leave it out: crosstune runs no code from data, configurations or checkpoints."
        )
    private = [key for key in options if str(key).startswith("_")]
    if private:
        raise ConfigError(f"{where}.{private[0]}: only {KEY} may start with an underscore.")
    for key, use in RUN_TIME_ARGUMENTS.get(where, {}).items():
        if key in options:
            hint = f"give {use}" if use else "leave it out"
            raise ConfigError(f"{where}.{key}: crosstune sets this argument itself: {hint}.")
    return locate_target(node[KEY], where, allow), options


def _check_options(target: Callable[..., Any], options: dict[str, Any], where: str) -> None:
    signature = inspect.signature(target)
    named = {name: p.annotation for name, p in signature.parameters.items()}
    open_ended = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            (typed,) = typing.get_args(named.pop(name)) or (None,)
            named |= typing.get_type_hints(typed) if typed else {}  # **options: Unpack[TypedDict]
            open_ended = typed is None
    for key, value in options.items():
        if key not in named and not open_ended:
            allowed = [name for name in named if name not in RUN_TIME_ARGUMENTS.get(where, {})]
            raise ConfigError(f"{where}.{key}: unknown option. {suggest(str(key), allowed)}")
        if key in named and not _fits(value, _find_hint(target, key, named[key])):
            raise ConfigError(
                f"{where}.{key}={value!r} is a {type(value).__name__}, "
                f"but must be {inspect.formatannotation(named[key])}."
            )


def _find_hint(target: Callable[..., Any], key: str, annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    # the annotation of an inherited dataclass field resolves only in the module of its own class
    classes = target.__mro__ if isinstance(target, type) else ()
    modules = [c.__module__ for c in classes if key in vars(c).get("__annotations__", {})]
    for module in (*modules, target.__module__):
        holder = types.SimpleNamespace(__annotations__={key: annotation})
        try:
            return typing.get_type_hints(holder, vars(sys.modules[module]))[key]
        except (NameError, TypeError, AttributeError):
            continue
    return Any  # no module resolves the annotation


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value fits a type hint; unknown hints accept everything."""
    scalars: dict[Any, Any] = {
        int: int, float: (int, float), str: str, bool: bool, types.NoneType: types.NoneType
    }  # fmt: skip
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if hint in scalars:
        if isinstance(value, bool) and hint is not bool:
            return False
        return isinstance(value, scalars[hint])
    return True
