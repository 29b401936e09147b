"""The path of `conf/`, without importing Hydra."""

from pathlib import Path


def find_conf() -> Path:
    """Return the folder `conf`: of the installed wheel, else of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
