"""What a planned run needs and this machine lacks: files of data, weights of the hub, in words.

Looks into the hub's cache and at the comments of `conf/data`; fetches nothing. Called by `sweep.py`
for `crosstune status`.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosstune.config.paths import find_conf

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@contextmanager
def force_offline() -> Iterator[None]:
    """Keep the hub's clients, if they are not imported yet, to what lies in their cache."""
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
    """Return what to do about weights, `owner/name@revision`, that are not in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    hub_id, _, revision = weights.rpartition("@")

    def has(file: str) -> bool:
        return isinstance(try_to_load_from_cache(hub_id, file, revision=revision), str)

    if any(has(file) for file in WEIGHTS):
        return None
    if has("pytorch_model.bin"):
        return f"{hub_id} has pickled weights alone: conf/model/{name}.yaml says what to do"
    return (
        f"{hub_id} is not in the hub's cache at {revision[:8]}: the first run fetches it. Without "
        f"the hub: model=local model.path=DIR model.name={name}"
    )


def describe_data(name: str, fault: str) -> str:
    """Return why a data set cannot be read, and what the head of its YAML says of its files."""
    path = find_conf() / "data" / f"{name}.yaml"
    unreached = re.match(r"(\S+) \(.*cannot be loaded: Couldn't reach", fault)
    if unreached:
        fault = f"{unreached[1]} is not in the hub's cache: the first run fetches it."
    return " ".join([*fault.split(), read_source(path) if path.is_file() else ""]).rstrip()


def read_source(path: Path) -> str:
    """Return what follows "Files:" and "Licence:" in the comment that a YAML begins with."""
    lines = path.read_text("utf-8").splitlines()
    head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    found = re.search(r"(Files: .*?)?(Licence: .*?)(?= Citation:|$)", head)
    return " ".join(part.strip() for part in found.groups("") if part) if found else ""
