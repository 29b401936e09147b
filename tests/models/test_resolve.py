import json
from pathlib import Path

import pytest

from crosstune.config.schema import Logger, Model, ModelOrigin, Precision, Tracker, Trainer
from crosstune.errors import ConfigError
from crosstune.models.resolve import resolve_defaults, resolve_model


def test_a_folder_of_transformers_is_found_as_it_is(make_local_run):
    model = make_local_run("a").model
    assert resolve_model(model) == model


def test_a_runs_folder_leads_to_its_model(make_local_run, tmp_path):
    make_local_run("a")
    (tmp_path / "a" / "encoder").rename(tmp_path / "a" / "model")
    found = resolve_model(Model("local", ModelOrigin.local, path=str(tmp_path / "a")))
    assert found.path == (tmp_path / "a" / "model").as_posix()


def finish(make_local_run, tmp_path, name, status="finished"):
    make_local_run(f"study/{name}")
    (tmp_path / "study" / name / "encoder").rename(tmp_path / "study" / name / "model")
    (tmp_path / "study" / name / "record.json").write_text(json.dumps({"status": status}))


def test_a_study_with_one_finished_run_leads_to_its_model(make_local_run, tmp_path):
    finish(make_local_run, tmp_path, "one")
    finish(make_local_run, tmp_path, "two", status="failed")
    found = resolve_model(Model("local", ModelOrigin.local, path=str(tmp_path / "study")))
    assert found.path == (tmp_path / "study" / "one" / "model").as_posix()


def test_a_study_with_two_finished_runs_leaves_a_doubt_and_is_refused(make_local_run, tmp_path):
    finish(make_local_run, tmp_path, "one")
    finish(make_local_run, tmp_path, "two")
    with pytest.raises(ConfigError, match="2 models found in it"):
        resolve_model(Model("local", ModelOrigin.local, path=str(tmp_path / "study")))


def test_a_folder_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.path=.*nowhere: no such folder"):
        resolve_model(Model("local", ModelOrigin.local, path=str(tmp_path / "nowhere")))


def test_a_local_model_without_a_path_is_refused():
    with pytest.raises(ConfigError, match=r"model\.path is missing: give model\.path=DIR"):
        resolve_model(Model("local", ModelOrigin.local))


def test_pickled_weights_are_refused(make_local_run):
    model = make_local_run("a").model
    (Path(model.path) / "model.safetensors").rename(Path(model.path) / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="Pickled weights are never loaded"):
        resolve_model(model)


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "a" * 39, "A" * 40, "refs/pr/x"])
def test_a_checkpoint_of_the_hub_without_a_commit_is_refused(revision):
    with pytest.raises(ConfigError, match=f"model.revision={revision}: name the 40-digit commit"):
        resolve_model(Model("beto", ModelOrigin.hub, hub_id="a/b", revision=revision))


@pytest.mark.parametrize("revision", ["0123456789" * 4, "refs/pr/12"])
def test_a_checkpoint_of_the_hub_with_a_commit_is_taken(revision):
    model = Model("beto", ModelOrigin.hub, hub_id="a/b", revision=revision)
    assert resolve_model(model) == model


def test_a_resolved_precision_is_a_named_one(make_local_run):
    run = make_local_run(
        "a", trainer=Trainer(precision=Precision.auto), logger=Logger(Tracker.none)
    )
    assert resolve_defaults(run).trainer.precision in (Precision.fp32, Precision.bf16)


def test_a_precision_that_was_chosen_stays(make_local_run):
    run = make_local_run("a", trainer=Trainer(precision=Precision.bf16))
    assert resolve_defaults(run).trainer.precision is Precision.bf16
