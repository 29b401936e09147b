"""What a planned run needs and this machine lacks."""

import os
import sys

import pytest

from crosstune.sweeps.availability import (
    explain_data_fault,
    find_missing_weights,
    force_offline,
    read_origin,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a function that puts an empty file of a checkpoint into the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def put(file):
        folder = tmp_path / "models--owner--name" / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        (folder / file).touch()

    return put


def test_weights_in_the_cache_are_available(cache):
    cache("model.safetensors")
    assert find_missing_weights(f"owner/name@{COMMIT}", "beto") is None


def test_missing_weights_come_with_what_to_do(cache):
    hint = find_missing_weights(f"owner/name@{COMMIT}", "beto")
    assert hint == (
        "owner/name is not in the hub's cache at 01234567: the first run fetches it. Without "
        "the hub: model=local model.path=DIR model.name=beto"
    )


def test_pickled_weights_alone_are_not_available(cache):
    cache("pytorch_model.bin")
    hint = find_missing_weights(f"owner/name@{COMMIT}", "beto")
    assert hint == "owner/name has pickled weights alone: conf/model/beto.yaml says what to do"


def test_the_head_of_a_yaml_says_where_its_files_are_and_the_licence(write, tmp_path):
    write("a.yaml", "# Purpose.\n# Files: at\n# a place. Licence: free. Citation: none.\nname: a\n")
    assert read_origin(tmp_path / "a.yaml") == "Files: at a place. Licence: free."


def test_a_data_set_of_the_hub_is_fetched_by_the_first_run():
    fault = "facebook/xnli (es, train): cannot be loaded: Couldn't reach 'facebook/xnli' on the Hub"
    assert explain_data_fault("xnli", fault) == (
        "facebook/xnli is not in the hub's cache: the first run fetches it. Licence: CC BY-NC 4.0."
    )


def test_faults_of_files_are_repeated():
    assert explain_data_fault("of_a_user", "a.tsv: no such file;\n b.tsv: no such file") == (
        "a.tsv: no such file; b.tsv: no such file"
    )


def test_the_hub_is_offline_within_the_context_only(monkeypatch):
    for name in ("datasets", "huggingface_hub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    with force_offline():
        assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_DATASETS_OFFLINE"] == "1"
    assert (os.environ["HF_HUB_OFFLINE"], os.environ.get("HF_DATASETS_OFFLINE")) == ("0", None)
