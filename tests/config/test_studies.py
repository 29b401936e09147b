"""Each command of `docs/tasks.md`, on the real text it names, but for two steps."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from crosstune.cli.main import main

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
CELLS = re.findall(
    r"^\| ([^|]+) \| (\w+) \| (`data=.+`) \|$", (ROOT / "docs" / "tasks.md").read_text(), re.M
)
# one command, or several of which the later ones read what the earlier ones left in outputs/
ROWS = [(task, language, re.findall("`([^`]+)`", cell)) for task, language, cell in CELLS]
SMALL = (
    "trainer=cpu",
    "trainer.max_steps=2",
    "data.limit=64",
    "logger=none",
)
ENCODER = (
    "model.vocab_size=600",
    "model.config.num_hidden_layers=1",
    "model.config.hidden_size=32",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=64",
)
WRITER = (
    "model.vocab_size=600",
    "model.config.d_model=32",
    "model.config.encoder_layers=1",
    "model.config.decoder_layers=1",
    "model.config.encoder_ffn_dim=64",
    "model.config.decoder_ffn_dim=64",
    "data.task.beams=1",
    "data.task.max_target_tokens=8",
)


def sizes_of(words):
    """Return overrides that make a run small; a model that was trained before is small already."""
    if "model=local" in words:
        return SMALL
    sizes = WRITER if "model=mini_seq2seq" in words else ENCODER
    return [*SMALL, *sizes]


def experiment_of(words):
    """Return the study that a command belongs to."""
    return next((word.partition("=")[2] for word in words if "experiment=" in word), "adhoc")


def test_the_table_covers_every_kind_with_public_data_in_every_language():
    found = {
        (shlex.split(command)[0], language)
        for _, language, commands in ROWS
        for command in commands
    }
    kinds = {"classification", "multilabel", "entailment", "extraction", "regression"}
    kinds |= {"generation", "masked_lm"}
    wanted = {f"data=files_{kind}" for kind in kinds} | {"data=sib200_cloze"}
    assert found >= {(data, language) for data in wanted for language in ("es", "zh", "en")}
    assert {"data=files_tagging", "data=files_pos", "data=files_segmentation"} <= dict(found).keys()


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
@pytest.mark.parametrize(
    ("task", "language", "commands"), ROWS, ids=[f"{t}-{n}" for t, n, _ in ROWS]
)
def test_a_command_of_the_table_trains_and_scores(task, language, commands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command.replace("$D", str(DATA)))
        monkeypatch.setattr(sys, "argv", ["crosstune", "train", *words, *sizes_of(words)])
        assert main() == 0
        (path,) = tmp_path.glob(f"outputs/{experiment_of(words)}/*/record.json")
        record = json.loads(path.read_text())
        assert record["status"] == "finished"
        assert language in record["scores"]["validation"]
