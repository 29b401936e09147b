"""A finished run loaded again: whatever is not what the run tested is refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from crosstune.errors import ConfigError, CrosstuneError, RunError
from crosstune.inference.load_run import find_run, load_run
from tests.finished_runs import left_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of tagging with a random field, whose weights stand beside those of transformers."""
    folder = tmp_path_factory.mktemp("left")
    more = ("data.task.crf=true",)
    return {m: left_run(folder, "tagging", f"method={m}", *more) for m in ("full", "lora")}


@pytest.fixture
def copied(study: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the outputs of a run, for a test to spoil.

    The copy's record has no digests, as if whoever spoils it had made them again.
    """

    def copy(method: str) -> Path:
        outputs = study[method].parents[1]
        shutil.copytree(outputs, tmp_path / "outputs")
        folder = tmp_path / "outputs" / study[method].relative_to(outputs)
        record = json.loads((folder / "record.json").read_text("utf-8"))
        del record["files_sha256"], record["record_sha256"]
        (folder / "record.json").write_text(json.dumps(record), "utf-8")
        return folder

    return copy


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_every_stored_weight_is_in_the_loaded_model(method: str, study: dict[str, Path]) -> None:
    saved = load_run(study[method])
    (file,) = (study[method] / "model").glob("*.safetensors")
    stored = load_file(file)
    found = list(saved.model.state_dict().values())
    assert stored
    assert any("crf" in name for name in stored)
    for name, tensor in stored.items():
        same = [t for t in found if t.shape == tensor.shape and torch.equal(t, tensor)]
        assert same, name
    assert not saved.model.training


def test_what_the_task_learned_comes_back(study: dict[str, Path]) -> None:
    task: Any = load_run(study["lora"]).task
    assert task.crf
    assert "O" in task.labels
    assert (task.scheme, task.encoding) == ("spans", "iob2")


def test_a_run_moved_with_its_outputs_is_loaded(
    study: dict[str, Path], copied: Callable[[str], Path]
) -> None:
    folder = copied("lora")
    path = folder / "model" / "adapter_config.json"
    base = json.loads(path.read_text())["base_model_name_or_path"]
    change(path, base_model_name_or_path=base.replace("left", "gone"))
    assert load_run(folder).adapted


def drop_weight(folder: Path) -> None:
    (file,) = (folder / "model").glob("*.safetensors")
    weights = load_file(file)
    del weights[next(name for name in weights if "query" in name)]
    save_file(weights, file, metadata={"format": "pt"})


def empty_base(folder: Path) -> None:
    shutil.rmtree(folder.parents[1] / ".cache" / "bases")
    path = folder / "model" / "adapter_config.json"
    change(path, base_model_name_or_path="nowhere")


def change_base(folder: Path) -> None:
    path = folder / "model" / "adapter_config.json"
    for file in folder.parents[1].glob(".cache/bases/*/model.safetensors"):
        change(path, base_model_name_or_path=f"gone/{file.parent.name}")
        weights = load_file(file)
        next(iter(weights.values())).add_(1)
        save_file(weights, file, metadata={"format": "pt"})


def change_tokenizer(folder: Path) -> None:
    change(folder / "model" / "tokenizer.json", normalizer={"type": "Lowercase"})


def cut_weights(folder: Path) -> None:
    (file,) = (folder / "model").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])


def pickle_weights(folder: Path) -> None:
    for file in (folder / "model").glob("*.safetensors"):
        torch.save(load_file(file), file.with_name("adapter_model.bin"))
        file.unlink()


def ask_environment(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text("utf-8").replace("name: mini", "name: ${oc.env:HOME}"))


def name_kernel(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text("utf-8").replace("attention: sdpa", "attention: evil/kernel"))


SPOILT: list[tuple[str, Callable[[Path], Any], type[CrosstuneError], str]] = [
    ("full", drop_weight, RunError, "1 weights do not fit"),
    ("lora", drop_weight, RunError, "missing adapter keys"),
    ("lora", empty_base, ConfigError, "is gone"),
    ("lora", change_base, ConfigError, "have changed since"),
    ("lora", change_tokenizer, RunError, "its tokenizer is not the one"),
    ("lora", lambda f: change(f / "model/tokenizer.json", model=1), RunError, "tokenizer"),
    ("full", cut_weights, RunError, "model: "),
    ("lora", cut_weights, RunError, "does not fit its base"),
    ("lora", pickle_weights, RunError, "pickled weights are never loaded"),
    ("full", ask_environment, RunError, "a reference"),
    ("full", name_kernel, RunError, "evil/kernel"),
    ("full", lambda f: (f / "task.json").unlink(), ConfigError, "an earlier crosstune"),
    ("full", lambda f: change(f / "task.json", **{"class": "system"}), RunError, "'system'"),
    ("full", lambda f: (f / "task.json").write_text("[]"), RunError, "no JSON object"),
    ("full", lambda f: change(f / "record.json", status="failed"), ConfigError, "'failed'"),
    ("full", lambda f: (f / "record.json").write_text("{"), ConfigError, "'unreadable'"),
    ("full", lambda f: (f / "config.yaml").write_text("seed: [\n"), RunError, "unreadable"),
    ("full", lambda f: (f / "config.yaml").write_text("sneed: 1\n"), RunError, "sneed"),
    ("lora", lambda f: change(f / "model/adapter_config.json", peft_type="MINE"), ConfigError,
     "neither peft nor crosstune has the method"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "spoil", "error", "message"), SPOILT)
def test_a_spoilt_run_is_refused(
    method: str,
    spoil: Callable[[Path], Any],
    error: type[CrosstuneError],
    message: str,
    copied: Callable[[str], Path],
) -> None:
    folder = copied(method)
    load_run(folder)  # it is sound until now
    spoil(folder)
    with pytest.raises(error, match=message):
        load_run(folder)


def test_a_target_in_the_configuration_is_never_imported(copied: Callable[[str], Path]) -> None:
    folder = copied("full")
    path = folder / "config.yaml"
    text = path.read_text("utf-8")
    names = ("transformers.BertConfig", "crosstune.data.readers.read_conll", "torch.optim.AdamW")
    for name in names:
        assert name in text
        text = text.replace(name, "antigravity.boom")
    path.write_text(text)
    load_run(folder)
    assert "antigravity" not in sys.modules


def test_a_study_stands_for_its_only_finished_run(tmp_path: Path) -> None:
    for name, status in (("a", "failed"), ("b", "finished")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps({"status": status}))
    assert find_run(tmp_path) == tmp_path / "b"


def test_a_study_of_several_runs_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text('{"status": "finished"}')
    with pytest.raises(ConfigError, match="2 finished runs in it: a, b"):
        find_run(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        find_run(tmp_path / "nowhere")
