"""Correlations against scipy, over any split into batches and two ranks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributed, multiprocessing

from crosstune.errors import RunError
from crosstune.tasks.metrics.correlation import CorrelationReport, pearson, spearman

CLOSE = {"rel": 1e-10, "abs": 1e-12}


def draw_pairs(seed, ties=False):
    """Predictions and gold of 2 to 60 items, more or less related; with ties, of few values."""
    draw = np.random.default_rng(seed)
    golds = draw.normal(size=draw.integers(3, 61)) * 10 ** draw.uniform(-6, 6)
    noise = draw.normal(size=len(golds)) * golds.std() * draw.uniform(0, 3)
    guesses = golds * draw.choice([-2, 1]) + noise + draw.normal() * golds.std() * 100
    if ties:
        guesses, golds = (np.round(column / column.std()) for column in (guesses, golds))
    return guesses.tolist(), golds.tolist()


def score(*batches):
    metric = CorrelationReport()
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_equal_scipy_on_200_random_draws(ties):
    compared = 0
    for seed in range(200):
        guesses, golds = draw_pairs(seed, ties)
        if np.ptp(guesses) == 0 or np.ptp(golds) == 0:
            continue
        compared += 1
        scores = score((guesses, golds))["scores"]
        assert scores["pearson"] == pytest.approx(stats.pearsonr(guesses, golds)[0], **CLOSE), seed
        assert scores["spearman"] == pytest.approx(stats.spearmanr(guesses, golds)[0], **CLOSE), (
            seed
        )
    assert compared > 180


def test_errors_equal_their_definitions():
    guesses, golds = (np.array(column) for column in draw_pairs(5))
    report = score((guesses.tolist(), golds.tolist()))["report"]
    assert report["rmse"] == pytest.approx(np.sqrt(np.mean((guesses - golds) ** 2)), **CLOSE)
    assert report["mae"] == pytest.approx(np.mean(np.abs(guesses - golds)), **CLOSE)
    assert report["items"] == len(golds)


@pytest.mark.parametrize(
    ("guesses", "golds"),
    [([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [0.1, 0.1]), ([1.0], [2.0])],
)
def test_where_one_side_never_varies_the_correlations_are_0(guesses, golds):
    assert score((guesses, golds))["scores"] == {"pearson": 0.0, "spearman": 0.0}


def test_a_reversed_order_scores_minus_1():
    scores = score(([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]))["scores"]
    assert scores == pytest.approx({"pearson": -1.0, "spearman": -1.0})


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_numbers_whose_squares_have_no_float_correlate_all_the_same(factor):
    guesses, golds = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 4.0])
    assert pearson(guesses * factor, golds * factor) == pytest.approx(pearson(guesses, golds))


def test_ties_have_their_mean_rank():
    first, second = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second)[0])
    ordinal = stats.rankdata(first, "ordinal")  # a careless ranking
    assert abs(pearson(ordinal, stats.rankdata(second)) - spearman(first, second)) > 1e-3


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_prediction_that_is_no_number_ends_the_run(odd):
    with pytest.raises(RunError, match="diverged"):
        score(([1.0, odd], [1.0, 2.0]))


@pytest.mark.parametrize("sizes", [[40], [1, 39], [7, 0, 13, 20], [1] * 40], ids=len)
def test_any_batch_split_gives_the_same_result(sizes):
    draw = np.random.default_rng(0)
    guesses, golds = draw.normal(size=(2, 40)).tolist()
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    batches = [(guesses[e - s : e], golds[e - s : e]) for s, e in zip(sizes, ends, strict=True)]
    assert score(*batches) == score((guesses, golds))


def test_the_mean_of_batch_correlations_is_another_score():
    guesses, golds = draw_pairs(2)
    parts = [
        score((guesses[part], golds[part]))["scores"]["spearman"]
        for part in (slice(0, 3), slice(3, None))
    ]
    whole = score((guesses, golds))["scores"]["spearman"]
    assert abs(sum(parts) / 2 - whole) > 1e-3


def test_nothing_counted_gives_no_scores():
    assert score(([], [])) == {"scores": {}, "report": {}}


def test_pairs_stay_in_double_precision_through_half():
    metric = CorrelationReport().half()
    metric.update([1 + 1e-12, 1.0, 1 - 1e-12], [3.0, 2.0, 1.0])
    assert metric.compute()["scores"]["spearman"] == pytest.approx(1.0)


def run_rank(rank: int, folder: str) -> None:
    """Score one rank's shards of 30 and 10 items, then of all and none; write what it computes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    guesses, golds = np.random.default_rng(0).normal(size=(2, 40)).tolist()
    results = []
    for split in (30, 40):
        part = slice(0, split) if rank == 0 else slice(split, 40)
        results.append(score((guesses[part], golds[part])))
    distributed.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(results))


@pytest.mark.slow
def test_each_of_two_ranks_computes_the_result_of_one_process(tmp_path):
    multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    guesses, golds = np.random.default_rng(0).normal(size=(2, 40)).tolist()
    whole = score((guesses, golds))
    for rank in (0, 1):
        for result in json.loads((tmp_path / f"{rank}.json").read_text()):
            assert result["scores"] == pytest.approx(whole["scores"], **CLOSE)
            assert result["report"] == pytest.approx(whole["report"], **CLOSE)
