"""How Hydra reads configuration files: strictly, from `conf/` and the folders of the user.

Files come with data sets and from others. So only the command line configures Hydra itself (it
builds classes, sets the environment and chooses folders), and only it reads environment variables.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from typing_extensions import override

from crosstune.config.paths import find_conf, list_own_folders
from crosstune.errors import ConfigError
from crosstune.files import read_yaml

_PACKAGE = re.compile(r"(?:_global_\.)?hydra(?:\.|$)")
# `${key}`, or `${resolver:…}` with one of these; the name may not be put together by another
_REFERENCE = re.compile(
    r"\$\{\s*(?:(?:by|scale|oc\.select)\s*:|hydra\s*:\s*runtime\.choices|[\w.@/\[\]-]+\s*\})"
)


class _StrictFileSource(FileConfigSource):
    """Refuses, at the file, what Hydra's own source reads wrongly or what could run code."""

    @override
    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        if not isinstance(content := read_yaml(path), dict | None):
            raise ConfigError(f"{path}: it holds a {type(content).__name__}, not keys with values.")
        result = super().load_config(config_path)
        if path.parent != find_conf():  # train.yaml is ours
            package = result.header.get("package") or config_path.replace("/", ".")
            check_config_file(path, content or {}, package)
        return result


def check_config_file(path: Path, content: dict[str, Any], package: str) -> None:
    """Check that a configuration file is data.

    Raises:
        ConfigError: it configures Hydra, beyond the runs of a sweep and installed plugins, or it
            holds an interpolation that reads the environment.
    """
    node = content.get("hydra")
    keys = [f"hydra.{key}" for key in (node if isinstance(node, dict) else {}) if key != "sweeper"]
    sweeper = node.get("sweeper") if isinstance(node, dict) else None
    keys += [
        f"hydra.sweeper.{key}"
        for key in (sweeper if isinstance(sweeper, dict) else {})
        if key != "params"
    ]
    if _PACKAGE.match(package):
        keys.append(f"@package {package}")
    if node is not None and not isinstance(node, dict):
        keys.append("hydra")
    keys += [entry for entry in _list_defaults(content) if _configures_hydra(entry)]
    if keys:
        raise ConfigError(
            f"{path}: {keys[0]}: a file may set hydra.sweeper.params, the runs of a sweep, and "
            "choose a launcher or sweeper by name; give other options of Hydra on the command line."
        )
    for text in _iterate_texts(content):
        references = len(re.findall(r"\$\{", text))
        if references != len(_REFERENCE.findall(text)):
            raise ConfigError(
                f"{path}: {text!a:.200}: a file may refer to other keys, as in ${{data.name}}; "
                "variables of the environment are read on the command line only."
            )


def _list_defaults(content: dict[str, Any]) -> Iterator[str]:
    """Yield the entries of a defaults list: a group, with the package it goes to, if any."""
    defaults = content.get("defaults")
    for entry in defaults if isinstance(defaults, list) else []:
        yield from map(str, entry) if isinstance(entry, dict) else [str(entry)]


def _configures_hydra(entry: str) -> bool:
    group, _, package = entry.removeprefix("override ").removeprefix("optional ").partition("@")
    return bool(_PACKAGE.match(package.strip())) or bool(
        re.search(r"(?:^|/)hydra/(?!launcher$|sweeper$)", group.strip())
    )


def _iterate_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        for item in items:
            yield from _iterate_texts(item)


class _OwnFolders(SearchPathPlugin):
    """Adds the folders of `--config-dir`."""

    @override
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in list_own_folders():
            search_path.append("command-line", f"file://{folder}")


def register_search_path() -> None:
    """Make Hydra use the two classes."""
    Plugins.instance().register(_OwnFolders)
    SourcesRegistry.instance().types["file"] = _StrictFileSource
