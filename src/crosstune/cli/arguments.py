"""The words of a command line: Hydra's flags and overrides, and the options of the other verbs."""

from crosstune.errors import ConfigError, suggest


def flags_first(arguments: list[str]) -> list[str]:
    """Return Hydra's flags before the overrides: its parser refuses overrides on both sides."""
    valued = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"}
    valued |= {"--cfg", "-c", "--package", "-p"}
    flags: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        (flags if word.startswith("-") else rest).append(word)
        if word in valued:
            flags.extend([next(words, "")])
    return [*flags, *rest]


def parse_options(arguments: list[str], allowed: dict[str, str | None]) -> dict[str, str]:
    """Return the options of a verb from words KEY=VALUE.

    `allowed` has the default of each; None must be given, "" may stay empty.

    Raises:
        ConfigError: an option is unknown or missing.
    """
    given = {key: value for key, _, value in (word.partition("=") for word in arguments)}
    for key in given:
        if key not in allowed:
            raise ConfigError(f"{key}: unknown option. {suggest(key, list(allowed))}")
    options = {**allowed, **given}
    for key, value in options.items():
        if not value and allowed[key] != "":
            example = {"run": "DIR", "input": "FILE", "output": "PATH"}.get(key, "NAME")
            raise ConfigError(f"{key} is missing: give {key}={example}.")
    return {key: str(value) for key, value in options.items()}
