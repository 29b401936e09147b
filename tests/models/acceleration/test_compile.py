"""Compiled layers train as plain ones do, and only train."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from crosstune.errors import ConfigError
from crosstune.models.acceleration.compile import Compiled
from crosstune.training.datamodule import PART_COSTS
from crosstune.training.failures import explain_failure
from crosstune.training.train import train
from tests.models.acceleration.test_unpad import LENGTHS, build, differentiate, make_batch
from tests.tiny import tiny_run

# of torch's compiler, about its own insides
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
STILL = ("+model.config.hidden_dropout_prob=0.0", "+model.config.attention_probs_dropout_prob=0.0")
KINDS = ("bert", "roberta", "distilbert", "deberta-v2", "electra")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let what is compiled be as it was, and say when it is asked."""
    found: list[str] = []

    def compile_plainly(function: Any, dynamic: bool) -> Any:
        assert dynamic  # a graph for each size would take minutes

        def compiled(*args: Any, **options: Any) -> Any:
            found.append(function.__self__.__class__.__name__)
            return function(*args, **options)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_plainly)
    return found


def test_layers_are_compiled_where_gradients_are_asked_for(asked: list[str]) -> None:
    model, batch = build("bert"), make_batch()
    compiled = Compiled(model)
    model(**batch)
    assert asked == ["BertLayer", "BertLayer"]
    with torch.no_grad():
        model(**batch)
    compiled.end()
    model(**batch)
    assert asked == ["BertLayer", "BertLayer"]


def test_a_run_compiles_its_training_and_nothing_else(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(PART_COSTS, "cpu", 8192)  # each batch goes through the model at once
    train(tiny_run(tmp_path, "classification", "trainer.compile=true", "trainer.max_steps=3"))
    assert len(asked) == 3  # steps; the encoder has one layer


def test_a_model_without_known_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="no part of a Linear as a layer"):
        Compiled(nn.Linear(2, 2))


def test_a_machine_without_a_compiler_is_told_so(tmp_path: Path) -> None:
    error = type("BackendCompilerFailed", (RuntimeError,), {})("No working C++ compiler found")
    assert "apt-get install g++" in str(explain_failure(error, tiny_run(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_plain_layers(kind: str) -> None:
    torch.compiler.reset()
    batches = [make_batch(lengths) for lengths in (LENGTHS, LENGTHS[:3], (9, 9), (4,) * 11)]
    plain = [differentiate(build(kind), batch) for batch in batches]
    model = build(kind)
    Compiled(model)
    for batch, expected in zip(batches, plain, strict=True):
        model.zero_grad()
        torch.testing.assert_close(differentiate(model, batch), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_compiled_run_learns_what_a_plain_one_learns(method: str, tmp_path: Path) -> None:
    options = [f"method={method}", *STILL]
    options += ["method.peft.lora_dropout=0.0"] if method == "lora" else []
    torch.compiler.reset()
    weights: list[dict[str, torch.Tensor]] = []
    for compiled in ("true", "false"):
        folder = train(tiny_run(tmp_path, "tagging", *options, f"trainer.compile={compiled}"))
        (path,) = (folder / "model").glob("*.safetensors")
        weights.append(load_file(path))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-5)
