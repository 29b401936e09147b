"""Parses the command line: Hydra's flags and overrides, and KEY=VALUE options of other verbs."""

from crosstune.errors import ConfigError, suggest

_FLAGS_WITH_VALUE = {
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
    *("--cfg", "-c", "--package", "-p"),
}
_EXAMPLES = {"run": "DIR", "input": "FILE", "output": "PATH"}


def move_flags_first(arguments: list[str]) -> list[str]:
    """Return Hydra's flags, then the overrides; its parser refuses overrides on both sides."""
    flags: list[str] = []
    overrides: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        (flags if argument.startswith("-") else overrides).append(argument)
        if argument in _FLAGS_WITH_VALUE:
            flags.append(next(remaining, ""))
    return [*flags, *overrides]


def parse_options(arguments: list[str], allowed: dict[str, str | None]) -> dict[str, str]:
    """Return the options of a verb from arguments of the form KEY=VALUE.

    Args:
        arguments: what follows the verb.
        allowed: the default of each option; None: required, "": may stay empty.

    Raises:
        ConfigError: an option is unknown or missing.
    """
    received = {key: value for key, _, value in (word.partition("=") for word in arguments)}
    for key in received:
        if key not in allowed:
            raise ConfigError(f"{key}: unknown option. {suggest(key, list(allowed))}")
    options = {**allowed, **received}
    for key, value in options.items():
        if not value and allowed[key] != "":
            raise ConfigError(f"{key} is missing: give {key}={_EXAMPLES.get(key, 'NAME')}.")
    return {key: str(value) for key, value in options.items()}
