"""Configuration files of others are data: they configure no Hydra, and read no environment."""

import subprocess
import sys

import pytest

from crosstune.config.compose import compose_run
from crosstune.config.paths import use_config_folder
from crosstune.errors import ConfigError
from tests.tiny import tiny_overrides

MARKER = "marker"
EVIL = "{_target_: os.system, command: touch marker}"
HYDRA = {
    "callbacks": f"hydra: {{callbacks: {{x: {EVIL}}}}}",
    "job logging": "hydra: {job_logging: {version: 1, handlers: {x: {'()': os.system}}}}",
    "folder": "hydra: {run: {dir: /tmp/elsewhere}}",
    "environment": "hydra: {job: {env_set: {LD_PRELOAD: evil.so}}}",
    "launcher": f"hydra: {{launcher: {EVIL}}}",
    "sweeper": f"hydra: {{sweeper: {EVIL}}}",
    "search path": "hydra: {searchpath: [file:///tmp]}",
    "no dictionary": "hydra: [1]",
    "package": f"# @package hydra.callbacks\nx: {EVIL}",
    "whole package": f"# @package _global_.hydra\ncallbacks: {{x: {EVIL}}}",
    "package of a default": "defaults: [/data/a@hydra.callbacks]",
    "package of a group": "defaults: [{/data@hydra: a}]",
    "overridden group": "defaults: [{override /hydra/job_logging: colorlog}]",
}


@pytest.fixture
def own(tmp_path):
    """Return a function that writes a file of the user's own folder."""
    folder = tmp_path / "conf"

    def write(name: str, text: str) -> None:
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    folder.mkdir()
    use_config_folder(folder)
    yield write
    use_config_folder(None)


@pytest.mark.parametrize("group", ["experiment", "data", "method"])
@pytest.mark.parametrize("text", HYDRA.values(), ids=HYDRA)
def test_a_file_configures_no_hydra(own, group, text):
    body = text if text.startswith("#") else f"# @package _global_\n{text}"
    own(f"{group}/own", body)
    with pytest.raises(ConfigError, match=r"own\.yaml: .*: a file may set hydra\.sweeper\.params"):
        compose_run([*tiny_overrides("o"), f"{group}=own"])


def test_hydra_runs_no_callback_of_a_file(own, tmp_path):
    own("experiment/own", f"# @package _global_\n{HYDRA['callbacks']}")
    words = ["train", "experiment=own", "data=demo_sentiment", "data.language=es"]
    command = [sys.executable, "-P", "-m", "crosstune", *words, "--config-dir", tmp_path / "conf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "own.yaml: hydra.callbacks: a file may set" in done.stderr
    assert not (tmp_path / MARKER).exists()


def test_a_file_in_a_group_of_hydra_is_no_launcher(own):
    own("hydra/launcher/own", EVIL)
    with pytest.raises(ConfigError, match="a file may set hydra"):
        compose_run([*tiny_overrides("o"), "hydra/launcher=own"])


def test_a_file_names_the_runs_of_a_sweep_and_a_launcher(own):
    text = "defaults: [{override /hydra/launcher: pool}]\nhydra: {sweeper: {params: {seed: '1,2'}}}"
    own("experiment/own", f"# @package _global_\n{text}")
    assert compose_run([*tiny_overrides("o"), "experiment=own"]).experiment == "own"


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        '"a ${ oc.env : HOME } b"',
        "${oc.decode:${oc.env:HOME}}",
        '"\\x24\\x7boc.env:HOME}"',
        "${${data.name}:HOME}",
        "${oc.${data.name}:HOME}",
        "${oc.create:'${oc.env:HOME}'}",
        "${hydra:runtime.cwd}",
        "{a: ['${oc.env:HOME}']}",
    ],
)
@pytest.mark.parametrize("group", ["experiment", "data", "logger"])
def test_a_file_reads_no_environment(own, group, value):
    own(f"{group}/own", f"# @package _global_\nlogger:\n  project: {value}")
    with pytest.raises(ConfigError, match=r"own\.yaml: .*are read on the command line only"):
        compose_run([*tiny_overrides("o"), f"{group}=own"])


def test_the_command_line_reads_the_environment(own, monkeypatch):
    monkeypatch.setenv("PROJECT", "mine")
    words = [*tiny_overrides("o"), "logger.project=${oc.env:PROJECT}"]
    assert compose_run(words).logger.project == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n"
        + "".join(
            f"a{n}: &a{n} [*a{n - 1 if n else ''}, *a{n - 1 if n else ''}]\n" for n in range(40)
        ),
        "a: &a [*a]",
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 5000 + "1" + "}" * 5000,
    ],
    ids=["aliases", "a value in itself", "brackets", "depth"],
)
def test_a_file_that_grows_without_end_is_refused(own, text):
    own("data/own", text)
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        compose_run([*tiny_overrides("o"), "data=own"])
