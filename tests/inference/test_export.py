"""Export: what is written loads where crosstune is not, and says the same."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from crosstune.errors import ConfigError, RunError
from crosstune.inference.export import export
from crosstune.inference.load_run import load_run
from crosstune.methods.bitfit import BitFitLayer
from crosstune.runs.record import write_record
from tests.finished_runs import KINDS, left_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
TEXT = "Ana vive en Lima [SEP] 你好"
# what the card says, in a process that cannot import crosstune
OUTSIDE = """
import json, os, pathlib, sys, warnings
sys.modules["crosstune"] = None
warnings.simplefilter("ignore")
import torch
found = []
for folder in json.loads(sys.argv[1]):
    card = pathlib.Path(folder, "README.md").read_text("utf-8")
    code = card.split("```python\\n")[1].split("```")[0]
    os.chdir(folder)
    exec(code)
    inputs = tokenizer(TEXT, return_tensors="pt")
    with torch.inference_mode():
        said = model(**inputs)
    name = [key for key in said if key.endswith("logits")][0]
    labels = model.config.id2label
    found.append([inputs["input_ids"].tolist(), said[name].tolist(), list(labels.values())])
print(json.dumps(found))
""".replace("TEXT", repr(TEXT))
CASES = [("classification", name) for name in ("full", "lora", "bitfit", "head_only")]
CASES += [(kind, name) for kind in KINDS if kind != "classification" for name in ("full", "lora")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("left")


@pytest.fixture(scope="module")
def exported(study: Path) -> dict[tuple[str, str], tuple[Path, Path]]:
    """Run and export of each case."""
    found = {}
    for kind, method in CASES:
        run, target = left_run(study, kind, f"method={method}"), study / f"{kind}-{method}"
        export(run, target)
        found[kind, method] = run, target
    return found


@pytest.fixture(scope="module")
def outside(exported: dict[tuple[str, str], tuple[Path, Path]]) -> dict[tuple[str, str], Any]:
    """What each export says of a text, loaded as its card says, where crosstune is not."""
    folders = json.dumps([str(target) for _, target in exported.values()])
    command = [sys.executable, "-c", OUTSIDE, folders]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(exported, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_it_loads_without_crosstune_and_says_the_same(
    kind: str, method: str, exported: Any, outside: Any
) -> None:
    saved = load_run(exported[kind, method][0])
    inputs: Any = saved.tokenizer(TEXT, return_tensors="pt")
    with torch.inference_mode():
        said = saved.model(**inputs)
    ours = said[next(name for name in said if name.endswith("logits"))]
    ids, theirs, labels = outside[kind, method]
    assert ids == inputs["input_ids"].tolist()
    assert labels == saved.task.labels
    tolerance = 1e-5 if method == "bitfit" else 0.0
    assert torch.allclose(torch.tensor(theirs), ours, rtol=0, atol=tolerance)


def test_the_check_tells_another_seed(study: Path, exported: Any, outside: Any) -> None:
    saved = load_run(left_run(study, "classification", "method=lora", "seed=2"))
    inputs: Any = saved.tokenizer(TEXT, return_tensors="pt")
    with torch.inference_mode():
        ours = saved.model(**inputs).logits
    theirs = torch.tensor(outside["classification", "lora"][1])
    assert not torch.allclose(theirs, ours, rtol=0, atol=1e-5)


def test_only_what_peft_knows_stays_an_adapter(exported: Any) -> None:
    for (_, method), (_, target) in exported.items():
        names = {path.name for path in target.iterdir()}
        assert ("adapter_config.json" in names) == (method in ("lora", "head_only"))
        assert ("base" in names) == (method in ("lora", "head_only"))
        assert {"README.md", "tokenizer.json"} <= names


def test_no_folder_of_this_machine_is_told(study: Path, exported: Any) -> None:
    for _, target in exported.values():
        for path in target.rglob("*"):
            if path.is_file():
                assert str(study.parent).encode() not in path.read_bytes(), path
                assert str(Path.home()).encode() + b"/" not in path.read_bytes(), path


def front_of(target: Path) -> dict[str, Any]:
    return yaml.safe_load((target / "README.md").read_text("utf-8").split("---\n")[1])


def test_the_cards_front_matter_says_what_the_record_says(exported: Any) -> None:
    front = front_of(exported["tagging", "lora"][1])
    del front["model-index"]
    assert front == {
        "language": ["es"],
        "license": "unknown",
        "library_name": "peft",
        "pipeline_tag": "token-classification",
        "metrics": ["f1"],
        "tags": ["crosstune", "lora", "tagging"],
    }
    assert front_of(exported["classification", "bitfit"][1])["library_name"] == "transformers"


def test_the_metadata_hold_every_score_of_the_record_as_a_model_index(exported: Any) -> None:
    run, target = exported["classification", "lora"]
    record = json.loads((run / "record.json").read_text())
    card = ModelCard.load(target / "README.md")
    assert card.data.model_name == "lora · mini · files_classification"
    found = {
        (r.dataset_name, r.task_type, r.dataset_split, r.dataset_config, r.metric_type): (
            r.metric_value
        )
        for r in card.data.eval_results or ()
    }
    assert found == {
        ("files_classification", "text-classification", split, language, metric): value
        for split, languages in record["scores"].items()
        for language, scores in languages.items()
        for metric, value in scores.items()
    }


def test_the_card_of_a_rehearsal_says_so_and_publishes_no_result(tmp_path: Path) -> None:
    run = left_run(tmp_path, "classification", "method=full")
    record = json.loads((run / "record.json").read_text())
    record["config"]["trainer"]["stand_in"] = True
    write_record(run, record)
    export(run, tmp_path / "out")
    assert "A rehearsal on generated stand-in data" in (tmp_path / "out/README.md").read_text()
    assert not {"model-index", "model_name"} & front_of(tmp_path / "out").keys()


def test_the_card_tells_scores_costs_digests_versions_and_the_command(exported: Any) -> None:
    run, target = exported["classification", "full"]
    record = json.loads((run / "record.json").read_text())
    card = (target / "README.md").read_text("utf-8")
    score = record["scores"]["test"]["es"]["accuracy"]
    assert f"| test | es | accuracy | {score:.4f} |" in card
    assert f"| trainable_parameters | {record['cost']['trainable_parameters']:,} |" in card
    for file, digest in record["data_sha256"].items():
        assert f"| {Path(file).name} | {digest} |" in card
    assert f"| torch | {record['environment']['torch']} |" in card
    assert "crosstune train data=files_classification model=mini method=full seed=1" in card


def test_the_card_averages_the_seeds_of_its_own_arm_alone(tmp_path: Path) -> None:
    runs = [
        left_run(tmp_path, "classification", "method=full", more)
        for more in ("seed=1", "seed=2", "data.limit=20")
    ]
    changed = json.loads((runs[1] / "record.json").read_text())
    # what cannot change a result: trained again after a failure, elsewhere
    changed["config"] |= {"retry": True, "outputs": "elsewhere", "tuned": True}
    changed["config"]["data"]["root"] = "elsewhere"
    changed["config"]["trainer"] |= {"devices": 2, "checkpoint_every_seconds": 5}
    write_record(runs[1], changed)
    export(runs[0], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    records = [json.loads((run / "record.json").read_text()) for run in runs]
    values = [record["scores"]["test"]["es"]["accuracy"] for record in records]
    mean = sum(values[:2]) / 2
    std = abs(values[0] - values[1]) / 2**0.5
    row = f"| test | es | accuracy | {values[0]:.4f} | {mean:.4f} | {std:.4f} | 2 |"
    assert row in card
    assert "in the seed alone: 1, 2." in card


def test_names_out_of_the_data_are_no_markup(tmp_path: Path) -> None:
    hostile = "![x](http://evil/)|<img src=x>`"
    file = tmp_path / "a.tsv"
    file.write_text(f"text\tlabel\nbueno\t{hostile}\nmalo\tno\n")
    splits = [f"data.{split}={file}" for split in ("train", "validation", "test")]
    run = left_run(tmp_path, "classification", *splits)
    export(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "evil" in card
    assert "![x](" not in card
    assert "<img" not in card.replace("\\<", "")


def test_a_folder_that_exists_is_not_written_to(exported: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        export(exported["classification", "full"][0], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_random_field_is_refused_because_transformers_has_none(
    method: str, study: Path, tmp_path: Path
) -> None:
    run = left_run(study, "tagging", f"method={method}", "data.task.crf=true")
    with pytest.raises(ConfigError, match="module crf"):
        export(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_is_refused_because_plain_peft_puts_it_elsewhere(
    study: Path, tmp_path: Path
) -> None:
    run = left_run(study, "classification", "method=prompt_tuning")
    with pytest.raises(ConfigError, match="gives other logits without crosstune"):
        export(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@dataclass
class Spoil:
    """Makes merging fail, or go wrong."""

    wrong: bool

    def __call__(self, layer: Any, *_: Any, **__: Any) -> None:
        if not self.wrong:
            raise RunError("not linear")
        layer.bias.data.add_(1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(False, "not linear Use"), (True, "gives other logits without crosstune")],
)
def test_a_method_of_ours_that_cannot_be_merged_is_refused(
    wrong: bool, message: str, exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil = Spoil(wrong)
    monkeypatch.setattr(BitFitLayer, "merge", lambda layer, *a, **k: spoil(layer))
    with pytest.raises(ConfigError, match=message):
        export(exported["classification", "bitfit"][0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
