"""Where the packaged configuration lies; `report` asks for it without importing Hydra."""

from pathlib import Path


def find_conf() -> Path:
    """Return the folder of the packaged configuration: in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
