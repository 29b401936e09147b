"""How Hydra reads configuration files: strictly, from `conf/` and the folders of the user."""

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from typing_extensions import override

from crosstune.config.paths import list_own_folders
from crosstune.errors import ConfigError
from crosstune.files import read_yaml


class _StrictFileSource(FileConfigSource):
    """Refuses, at file:line, what Hydra's own source reads wrongly or ends in a traceback for."""

    @override
    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        if not isinstance(content := read_yaml(path), dict | None):
            raise ConfigError(f"{path}: it holds a {type(content).__name__}, not keys with values.")
        return super().load_config(config_path)


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
