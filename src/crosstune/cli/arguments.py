"""Parses the command line: Hydra's flags and overrides, and KEY=VALUE options of other verbs."""

from pathlib import Path

from crosstune.errors import ConfigError, suggest

_CONFIG_FOLDER = ("--config-dir", "-cd")
_FLAGS_WITH_VALUE = {
    *("--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p"),
}
_EXAMPLES = {"run": "DIR", "input": "FILE", "output": "PATH"}


def split_config_folder(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Return the folder of `--config-dir`, and the arguments without it.

    Raises:
        ConfigError: it is given twice, or without a folder.
    """
    folders: list[str] = []
    others: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag not in _CONFIG_FOLDER:
            others.append(argument)
        else:
            folders.append(value if equals else next(remaining, ""))
    if len(folders) > 1 or not all(folders):
        raise ConfigError("--config-dir takes one folder: --config-dir DIR, once.")
    return (Path(folders[0]) if folders else None), others


def split_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's flags, and the overrides; its parser refuses overrides on both sides."""
    flags: list[str] = []
    overrides: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        (flags if argument.startswith("-") else overrides).append(argument)
        if argument in _FLAGS_WITH_VALUE:
            flags.append(next(remaining, ""))
    return flags, overrides


def parse_options(arguments: list[str], allowed: dict[str, str | None]) -> dict[str, str]:
    """Return the options of a verb from arguments of the form KEY=VALUE.

    Args:
        arguments: what follows the verb.
        allowed: the default of each option; None: required, "": may stay empty.

    Raises:
        ConfigError: an option is unknown, given twice or missing.
    """
    received: dict[str, str] = {}
    for word in arguments:
        key, _, value = word.partition("=")
        if key in received:
            raise ConfigError(f"{key} is given twice: {key}={received[key]} and {word}.")
        received[key] = value
        if key not in allowed:
            raise ConfigError(f"{key}: unknown option. {suggest(key, list(allowed))}")
    options = {**allowed, **received}
    for key, value in options.items():
        if not value and allowed[key] != "":
            raise ConfigError(f"{key} is missing: give {key}={_EXAMPLES.get(key, 'NAME')}.")
    return {key: str(value) for key, value in options.items()}
