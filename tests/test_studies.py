"""Each command of the table of tasks in README, on the real text it names, but for two steps."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from crosstune.cli import main

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
ROWS = re.findall(
    r"^\| ([^|]+) \| (\w+) \| `(data=[^`]+)` \|$", (ROOT / "README.md").read_text(), re.M
)
SMALL = (
    "trainer=cpu",
    "trainer.max_steps=2",
    "data.limit=64",
    "logger=none",
    "model.vocab_size=600",
)
ENCODER = (
    "model.config.num_hidden_layers=1",
    "model.config.hidden_size=32",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=64",
)
WRITER = (
    "model.config.d_model=32",
    "model.config.encoder_layers=1",
    "model.config.decoder_layers=1",
    "model.config.encoder_ffn_dim=64",
    "model.config.decoder_ffn_dim=64",
    "data.task.beams=1",
    "data.task.max_target_tokens=8",
)


def test_the_table_covers_every_kind_with_public_data_in_every_language():
    found = {(re.findall(r"data=(\w+)", command)[0], language) for _, language, command in ROWS}
    assert {language for _, language in found} == {"es", "zh", "en"}
    kinds = {"classification", "tagging", "pos", "segmentation", "extraction", "regression"}
    kinds |= {"generation", "masked_lm"}
    assert {f"files_{kind}" for kind in kinds} | {"sib200_cloze"} <= {data for data, _ in found}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
@pytest.mark.parametrize(
    ("task", "language", "command"), ROWS, ids=[f"{t}-{n}" for t, n, _ in ROWS]
)
def test_a_command_of_the_table_trains_and_scores(task, language, command, tmp_path, monkeypatch):
    words = shlex.split(command.replace("$D", str(DATA)))
    sizes = WRITER if "model=mini_seq2seq" in words else ENCODER
    monkeypatch.setattr(
        sys, "argv", ["crosstune", "train", *words, *SMALL, *sizes, f"outputs={tmp_path}"]
    )
    assert main() == 0
    (path,) = tmp_path.glob("adhoc/*/record.json")
    record = json.loads(path.read_text())
    assert record["status"] == "finished"
    assert language in record["scores"]["validation"]
