"""The quickstart runs as it is written, on the files that it writes, with fewer steps."""

import re
import sys
from pathlib import Path

import pytest

from crosstune.cli.main import main
from tests.docs.pages import ROOT, read_blocks, read_crosstune_commands
from tests.tiny import MODEL, ROWS

QUICKSTARTS = {
    "en": ROOT / "docs" / "quickstart.md",
    "es": ROOT / "docs" / "quickstart.es.md",
    "zh": ROOT / "docs" / "quickstart.zh.md",
}
SHORT = ("trainer=cpu", "trainer.max_steps=2", "data.limit=32", "logger=none")


def say(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Return the exit code of a crosstune command."""
    monkeypatch.setattr(sys, "argv", ["crosstune", *words])
    return main()


@pytest.mark.slow
def test_the_quickstart_runs_from_files_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # in place of `make demo`, which leaves this encoder
    demo = ("train", "experiment=demo_encoder", "data.test=test", ROWS, *MODEL, *SHORT)
    assert say(monkeypatch, *demo) == 0
    (files,) = read_blocks(QUICKSTARTS["en"], "python")
    exec(files, {})  # noqa: S102
    for words in read_crosstune_commands(QUICKSTARTS["en"]):
        if "model=me5_small" not in words:
            assert say(monkeypatch, *words, *(SHORT if words[0] == "train" else ())) == 0, words
    assert len(list(tmp_path.glob("outputs/reviews_en/*/record.json"))) == 6
    assert (tmp_path / "outputs/reviews_en/report/index.html").is_file()
    assert len((tmp_path / "said.jsonl").read_text("utf-8").splitlines()) == 301


@pytest.mark.parametrize("language", ["es", "zh"])
@pytest.mark.parametrize("kind", ["bash", "python"])
def test_a_quickstart_in_another_language_has_the_same_blocks(language: str, kind: str) -> None:
    blocks = read_blocks(QUICKSTARTS[language], kind)
    translated = [
        re.sub(rf"(reviews_|language=\"?){language}(?=_full|\b)", r"\1en", block)
        for block in blocks
    ]
    assert translated == read_blocks(QUICKSTARTS["en"], kind)
