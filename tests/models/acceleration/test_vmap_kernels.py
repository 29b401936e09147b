"""Kernels on mapped tensors say what `vmap`'s own rules say, forwards and backwards."""

import pytest
import torch
from torch.func import vmap
from torch.nn.functional import linear, scaled_dot_product_attention

from crosstune.models.acceleration import vmap_kernels as mapped
from crosstune.sweeps.fused.vmap_folding import VmapFolding

RUNS = 3
pytestmark = pytest.mark.filterwarnings("ignore:.*batching rule")


def made(generator, *shapes):
    return [
        torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes
    ]


def both(function, tensors, dims):
    """Return outputs and gradients with and without the folded kernels."""
    for fold in (True, False):
        with VmapFolding() if fold else torch.enable_grad():
            said = vmap(function, dims, randomness="different")(*tensors)
        learned = [tensor for tensor in tensors if tensor.requires_grad]
        yield [said, *torch.autograd.grad(said.square().sum(), learned)]


def same(function, tensors, dims):
    folded, plain = both(function, tensors, dims)
    return all(torch.allclose(a, b) for a, b in zip(folded, plain, strict=True))


@pytest.mark.parametrize("bias", ["none", "shared", "own"])
@pytest.mark.parametrize("own_weight", [False, True])
@pytest.mark.parametrize("dim", [0, 1])
def test_a_linear_layer_of_mapped_tensors(dim, own_weight, bias):
    shape = [4, 6, 5]
    shape.insert(dim, RUNS)
    weight, shift = (2, 5), (2,)
    shapes = [shape, (RUNS, *weight) if own_weight else weight]
    dims: list[int | None] = [dim, 0 if own_weight else None]
    if bias != "none":
        shapes.append((RUNS, *shift) if bias == "own" else shift)
        dims.append(0 if bias == "own" else None)
    tensors = made(torch.Generator().manual_seed(1), *shapes)
    assert same(linear, tensors, tuple(dims))


@pytest.mark.parametrize("masked", ["none", "shared", "own"])
def test_attention_of_mapped_tensors(masked):
    shapes = [(RUNS, 2, 2, 6, 4)] * 3
    dims: list[int | None] = [0, 0, 0]
    if masked != "none":
        shapes.append((2, 1, 1, 6) if masked == "shared" else (RUNS, 2, 1, 1, 6))
        dims.append(None if masked == "shared" else 0)
    tensors = made(torch.Generator().manual_seed(1), *shapes)
    tensors = [tensor.detach() if tensor.shape[-2] == 1 else tensor for tensor in tensors]  # masks
    assert same(lambda *a: scaled_dot_product_attention(*a, scale=0.3), tensors, tuple(dims))


def test_only_what_is_the_same_for_all_runs_comes_with_one_of_it():
    seen = []

    def keep(*tensors):
        seen.extend(None if t is None else tuple(t.shape) for t in tensors)
        return tensors[0] + tensors[1]

    shared = torch.zeros(5)
    said = vmap(lambda x: mapped.apply_batched(keep, x, shared, None), in_dims=1)(
        torch.ones(5, RUNS)
    )
    assert seen == [(RUNS, 5), (1, 5), None]
    assert torch.equal(said, torch.ones(RUNS, 5))


def test_what_a_kernel_draws_is_drawn_once_for_all_runs():
    def draw(x):
        return mapped.apply_batched(lambda whole: whole * torch.rand(whole.shape), x)

    said = vmap(draw, randomness="different")(torch.ones(RUNS, 5))
    assert said.shape == (RUNS, 5)
    assert len(said.unique()) == RUNS * 5
