"""`_target_` nodes to objects: the one place that imports what a configuration names.

A target must lie under the allow-list, both by the name written and by the module that defines
the object found there. `check_target` binds every node's arguments against its signature before
any data or weights load; `instantiate` is the only caller of a target. Neither knows what a run is.
"""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from crosstune.errors import ConfigError, suggest

ALLOWED_PACKAGES = (
    "crosstune.data",
    "crosstune.methods",
    "peft",
    "torch.optim",
    "transformers",
)
KEY = "_target_"


def instantiate(
    node: dict[str, Any], where: str, allow: Sequence[str] = (), **arguments: Any
) -> Any:
    """Return the object that the node describes; its own options go before `arguments`."""
    target, options = _split(node, where, allow)
    options = {**arguments, **options}
    _bind(target, options, where)
    try:
        return target(**options)
    except (TypeError, ValueError) as error:
        message = f"{where}: {node[KEY]} refuses its options {options}: {error}"
        raise ConfigError(message) from error


def check_target(node: Any, where: str, allow: Sequence[str] = ()) -> None:
    """Raise ConfigError if any `_target_` at or below the node could not be built."""
    if isinstance(node, dict):
        if KEY in node:
            target, options = _split(node, where, allow)
            _bind(target, options, where)
        for key, value in node.items():
            check_target(value, f"{where}.{key}", allow)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            check_target(value, f"{where}[{index}]", allow)


def locate_target(path: str, where: str, allow: Sequence[str] = ()) -> Callable[..., Any]:
    """Import the class or function at a dotted path under the allow-list."""
    allowed = (*ALLOWED_PACKAGES, *allow)
    if not _under(path, allowed):
        raise ConfigError(
            f"{where}.{KEY}={path} is outside the packages that may be built. "
            f"{suggest(path, allowed)} Admit a package of your own with allow=[my_package] "
            "on the command line."
        )
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{where}.{KEY}={path}: cannot import {module_name} ({error})."
        ) from error
    found = getattr(module, name, None)
    if not isinstance(found, type | types.FunctionType):
        public = [n for n in dir(module) if not n.startswith("_") and n[0].isupper()]
        public += [n for n in dir(module) if n.startswith("read_")]
        near = suggest(name, public) if len(public) < 40 else _near(name, public)
        raise ConfigError(f"{where}.{KEY}={path}: no class or function of that name. {near}")
    if not _under(found.__module__ + ".", allowed):
        raise ConfigError(
            f"{where}.{KEY}={path} is defined in {found.__module__}, outside the packages that "
            f"may be built: {', '.join(allowed)}."
        )
    return found


def _near(name: str, public: Sequence[str]) -> str:
    hint = suggest(name, public)
    return hint.partition(" Allowed:")[0] if hint.startswith("Did you mean") else ""


def _under(path: str, packages: Sequence[str]) -> bool:
    return any(path.startswith(package + ".") for package in packages)


def _split(
    node: Any, where: str, allow: Sequence[str]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    if not isinstance(node, dict) or not isinstance(node.get(KEY), str):
        raise ConfigError(f"{where} needs a {KEY}: a dotted path to a class or function.")
    options = {key: value for key, value in node.items() if key != KEY}
    odd = [key for key in options if str(key).startswith("_")]
    if odd:
        raise ConfigError(f"{where}.{odd[0]}: only {KEY} may start with an underscore.")
    return locate_target(node[KEY], where, allow), options


def _bind(target: Callable[..., Any], options: dict[str, Any], where: str) -> None:
    signature = inspect.signature(target)
    named = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    open_ended = len(named) < len(signature.parameters)
    for key, value in options.items():
        if key not in named and not open_ended:
            raise ConfigError(f"{where}.{key}: unknown option. {suggest(str(key), named)}")
        if key in named and not _fits(value, _hint(target, key, signature)):
            raise ConfigError(
                f"{where}.{key}={value!r} is a {type(value).__name__}, "
                f"but must be {inspect.formatannotation(signature.parameters[key].annotation)}."
            )


def _hint(target: Callable[..., Any], key: str, signature: inspect.Signature) -> Any:
    annotation = signature.parameters[key].annotation
    if not isinstance(annotation, str):
        return annotation
    # a dataclass inherits fields whose annotations only the module of their own class resolves
    owners = target.__mro__ if isinstance(target, type) else ()
    homes = [c.__module__ for c in owners if key in vars(c).get("__annotations__", {})]
    for home in (*homes, target.__module__):
        alone = types.SimpleNamespace(__annotations__={key: annotation})
        try:
            return typing.get_type_hints(alone, vars(sys.modules[home]))[key]
        except (NameError, TypeError, AttributeError):
            continue
    return Any  # an annotation that no module resolves says nothing


def _fits(value: Any, hint: Any) -> bool:
    """Say whether a plain value can stand where `hint` is annotated; unknown hints accept all."""
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
