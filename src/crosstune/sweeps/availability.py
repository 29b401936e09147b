"""Which data and weights a planned run needs and this machine lacks.

Looks into the hub's cache and the comments of `conf/data`; downloads nothing.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosstune.config.paths import find_config_files

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@contextmanager
def force_offline() -> Iterator[None]:
    """Restrict the hub's clients to their cache, unless they are imported already."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    if not {"datasets", "huggingface_hub"} & set(sys.modules):
        os.environ |= dict.fromkeys(names, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {name: value} if value is not None else {}


def find_missing_weights(weights: str, name: str) -> str | None:
    """Return what to do about weights, `owner/name@revision`, that the hub's cache lacks."""
    from huggingface_hub import try_to_load_from_cache

    hub_id, _, revision = weights.rpartition("@")

    def is_cached(file: str) -> bool:
        return isinstance(try_to_load_from_cache(hub_id, file, revision=revision), str)

    if any(is_cached(file) for file in WEIGHTS):
        return None
    if is_cached("pytorch_model.bin"):
        return f"{hub_id} has pickled weights alone: conf/model/{name}.yaml says what to do"
    return (
        f"{hub_id} is not in the hub's cache at {revision[:8]}: the first run fetches it. Without "
        f"the hub: model=local model.path=DIR model.name={name}"
    )


def explain_data_fault(name: str, fault: str) -> str:
    """Return why a data set cannot be read, with the files and licence that its YAML names."""
    path = find_config_files("data").get(name)
    unreachable = re.match(r"(\S+) \(.*cannot be loaded: Couldn't reach", fault)
    if unreachable:
        fault = f"{unreachable[1]} is not in the hub's cache: the first run fetches it."
    return " ".join([*fault.split(), read_origin(path) if path else ""]).rstrip()


def read_origin(path: Path) -> str:
    """Return the "Files:" and "Licence:" parts of the comment at the head of a YAML file."""
    lines = path.read_text("utf-8").splitlines()
    head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    parts = re.search(r"(Files: .*?)?(Licence: .*?)(?= Citation:|$)", head)
    return " ".join(part.strip() for part in parts.groups("") if part) if parts else ""
