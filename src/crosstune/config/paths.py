"""The folders of configuration files: `conf/` and the user's own, without importing Hydra."""

from pathlib import Path

from crosstune.errors import ConfigError

_own_folders: list[Path] = []


def find_conf() -> Path:
    """Return the folder `conf`: of the installed wheel, else of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def use_config_folder(folder: Path | None) -> None:
    """Add a folder of the user's (`--config-dir`) for all that this process composes; None: none.

    Raises:
        ConfigError: there is no such folder.
    """
    _own_folders.clear()
    if folder is None:
        return
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder.")
    _own_folders.append(folder.resolve())


def list_own_folders() -> list[Path]:
    """Return the folders that the user added."""
    return list(_own_folders)


def find_config_files(group: str) -> dict[str, Path]:
    """Return name -> file of a group; as for Hydra, a file of `conf` hides one of the user's."""
    folders = [*reversed(_own_folders), find_conf()]
    return {path.stem: path for f in folders for path in sorted((f / group).glob("*.yaml"))}
