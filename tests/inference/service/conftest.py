"""Finished runs of several kinds and methods on one encoder, and a service of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crosstune.config.compose import compose_run
from crosstune.inference.service.service import Service
from crosstune.inference.service.shared_base import load_shared
from crosstune.training.train import train
from tests.finished_runs import left_overrides
from tests.inference.service.asking import Asking, serving
from tests.tiny import tiny_run

KINDS = {"classification": "lora", "tagging": "bitfit", "extraction": "prompt_tuning"}


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("left")


@pytest.fixture(scope="session")
def encoder(study: Path) -> Path:
    return train(tiny_run(study, "masked_lm", "method=full", "trainer.max_steps=1"))


@pytest.fixture(scope="session")
def runs(study: Path, encoder: Path) -> dict[str, Path]:
    """Runs of several kinds and methods, and another seed, on one pretrained encoder."""
    found: dict[str, Path] = {}
    wanted = [*((kind, kind, method, 1) for kind, method in KINDS.items())]
    for name, kind, method, seed in [*wanted, ("second", "classification", "lora", 2)]:
        mini = left_overrides(study, kind, f"method={method}", f"seed={seed}")
        own = [word for word in mini if not word.startswith("model")]
        found[name] = train(compose_run([*own, "model=local", f"model.path={encoder}"]))
    return found


@pytest.fixture(scope="session")
def asking(runs: dict[str, Path]) -> Iterator[Asking]:
    with serving(Service(load_shared(runs.values()))) as found:
        yield found
