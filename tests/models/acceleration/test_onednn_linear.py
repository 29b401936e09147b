"""Linear layers by oneDNN give what torch's own give, forwards and backwards."""

from typing import Any

import pytest
import torch
from torch import nn

from crosstune.models.acceleration import onednn_linear as products
from crosstune.models.acceleration.onednn_linear import (
    OneDnnLinear,
    prefers_onednn,
    use_onednn_linear,
)
from crosstune.training import lightning_module as learner
from crosstune.training.cost import count_flops
from crosstune.training.train import train
from tests.tiny import tiny_run

SHAPES = [(5, 16), (3, 5, 16), (16,), (1, 16), (0, 16)]


@pytest.fixture(autouse=True)
def _quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)


def make_pair(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain, quick = nn.Linear(16, 8, bias), nn.Linear(16, 8, bias)
    quick.load_state_dict(plain.state_dict())
    use_onednn_linear(quick)
    assert type(quick) is OneDnnLinear
    return plain, quick


def differentiate(layer: nn.Linear, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    said = layer(x)
    weights = torch.linspace(-1, 1, said.numel()).view_as(said)
    return [said, *torch.autograd.grad((said * weights).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    plain, quick = make_pair(bias)
    x = torch.randn(shape)
    for one, other in zip(differentiate(plain, x), differentiate(quick, x), strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=0, atol=1e-5)


def test_an_input_that_does_not_lie_in_order_counts_as_it_reads() -> None:
    plain, quick = make_pair()
    for x in (torch.randn(16, 5).t(), torch.randn(5, 3, 16)[:, 0], torch.randn(16).expand(4, 16)):
        for one, other in zip(differentiate(plain, x), differentiate(quick, x), strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-5)


def test_only_gradients_that_are_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, quick = make_pair()
    calls: list[torch.Size] = []
    multiply = products._multiply
    monkeypatch.setattr(
        products, "_multiply", lambda x, *rest: calls.append(x.shape) or multiply(x, *rest)
    )
    quick.weight.requires_grad = False
    quick(torch.randn(5, 16)).sum().backward()
    assert len(calls) == 1
    assert quick.weight.grad is None
    quick(torch.randn(5, 16, requires_grad=True)).sum().backward()
    assert len(calls) == 3


@pytest.mark.parametrize("case", ["evaluation", "double", "autocast", "vmap"])
def test_in_evaluation_in_all_but_fp32_and_for_runs_together_it_is_torchs_own(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, quick = make_pair()
    monkeypatch.setattr(products, "_multiply", None)
    x: Any = torch.randn(4, 5, 16)
    if case == "double":
        plain, quick, x = plain.double(), quick.double(), x.double()
    if case == "vmap":
        assert torch.equal(torch.vmap(quick)(x), torch.vmap(plain)(x))
        return
    with (
        torch.autocast("cpu", enabled=case == "autocast"),
        torch.set_grad_enabled(case != "evaluation"),
    ):
        assert torch.equal(quick(x), plain(x))


def test_its_operations_are_counted() -> None:
    def work(layer: nn.Linear) -> int:
        x = torch.randn(4, 5, 16, requires_grad=True)
        return count_flops(lambda: layer(x).sum().backward(), torch.device("cpu"))

    plain, quick = make_pair()
    assert work(quick) == work(plain) == 3 * 2 * 20 * 16 * 8


def test_layers_of_other_kinds_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    use_onednn_linear(model)
    assert [type(layer) for layer in model] == [Own, nn.LayerNorm, OneDnnLinear]


@pytest.mark.parametrize(
    ("capability", "maker", "quicker"),
    [
        ("AVX512", "AuthenticAMD", True),
        ("AVX512", "GenuineIntel", False),
        ("AVX2", "AuthenticAMD", False),
        ("AVX512", None, False),
    ],
)
def test_it_is_quicker_with_avx512_of_another_make_than_intels(
    capability: str, maker: str | None, quicker: bool, tmp_path: Any, monkeypatch: Any
) -> None:
    path = tmp_path / "cpuinfo"
    if maker:
        path.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
    monkeypatch.setattr(products, "CPUINFO", path)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert prefers_onednn() is quicker


def test_where_it_is_no_quicker_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "prefers_onednn", lambda: False)
    layer = nn.Linear(2, 2)
    use_onednn_linear(layer)
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_a_run_takes_it_for_layers_alone(
    kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of tags sees padding: batches of any size, a kernel for each."""
    quick: list[str] = []
    original = learner.FineTuningModule.on_train_end

    def remember(self: Any) -> None:
        quick.extend(n for n, m in self.model.named_modules() if type(m) is OneDnnLinear)
        original(self)

    monkeypatch.setattr(learner.FineTuningModule, "on_train_end", remember)
    train(tiny_run(tmp_path, kind))
    assert quick
    assert all(name.startswith("bert.encoder.layer.") for name in quick)
