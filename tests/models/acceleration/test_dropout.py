"""Cheap dropout has the distribution of torch's own, forward and backward."""

import pytest
import torch
from torch import nn

from crosstune.models.acceleration.dropout import FastDropout, use_fast_dropout

RATES = (0.01, 0.1, 0.3, 0.5, 0.9)


def drop(rate, *shape, seed=0):
    torch.manual_seed(seed)
    return FastDropout(rate)(torch.ones(*shape))


def deviation(rate, count, total):
    """Return by how many standard deviations a count of dropped elements misses its mean."""
    return abs(count - rate * total) / (total * rate * (1 - rate)) ** 0.5


@pytest.mark.parametrize("rate", RATES)
def test_the_share_that_is_dropped_is_the_rate(rate):
    kept = drop(rate, 1000, 1000)
    assert deviation(rate, int((kept == 0).sum()), 1_000_000) < 4


@pytest.mark.parametrize("rate", RATES)
def test_each_of_the_four_elements_of_a_draw_is_dropped_at_the_rate(rate):
    dropped = (drop(rate, 250_000, 4) == 0).sum(0)
    assert all(deviation(rate, int(count), 250_000) < 4.5 for count in dropped)


def test_two_elements_of_a_draw_are_dropped_independently():
    dropped = (drop(0.3, 250_000, 4) == 0).double()
    assert torch.corrcoef(dropped.T).fill_diagonal_(0).abs().max() < 0.01


def test_draws_that_share_bits_are_told():
    dropped = (drop(0.3, 250_000) == 0).double()
    shared = torch.stack([dropped, dropped])
    assert torch.corrcoef(shared).fill_diagonal_(0).abs().max() > 0.01


@pytest.mark.parametrize("rate", RATES)
def test_what_is_kept_is_scaled_so_that_the_mean_stays(rate):
    kept = drop(rate, 1000)
    assert kept[kept > 0].unique().item() == pytest.approx(1 / (1 - rate), rel=1e-4)


def test_a_rate_of_half_scales_by_exactly_two():
    assert set(drop(0.5, 1000).tolist()) == {0.0, 2.0}


def test_the_gradient_passes_where_the_input_did():
    torch.manual_seed(1)
    values = torch.randn(7, 11, requires_grad=True)
    out = FastDropout(0.4)(values)
    out.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(out, values * values.grad)


def test_two_passes_draw_two_masks():
    module = FastDropout(0.5)
    assert not torch.equal(module(torch.ones(100)), module(torch.ones(100)))


def test_the_seed_of_torch_decides_the_mask():
    assert torch.equal(drop(0.5, 101, seed=3), drop(0.5, 101, seed=3))


def test_in_evaluation_nothing_is_dropped():
    values = torch.randn(10)
    assert FastDropout(0.5).eval()(values) is values


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_rates_at_the_ends_are_exact(rate, expected):
    assert drop(rate, 100).unique().tolist() == [expected]


def test_the_type_of_the_input_stays():
    assert FastDropout(0.5)(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_every_dropout_of_a_model_becomes_cheap_and_no_weight_changes_its_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.2)))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    use_fast_dropout(model)
    assert [type(m) for m in model.modules() if hasattr(m, "p")] == [FastDropout] * 2
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
