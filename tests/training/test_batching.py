"""Who gets which windows: each training order is whole, each evaluation counts every item once."""

from itertools import islice

import numpy as np
import pytest

from crosstune.data.windows import IGNORE, concatenate
from crosstune.tasks.classification import Classification
from crosstune.training.batching import (
    BatchDataset,
    EvaluationSampler,
    LanguageMixture,
    RankBatch,
    TokenBudgetSampler,
    TrainingSampler,
)

WORLDS = (1, 2, 3, 4)
SIZES = (1, 2, 3, 7, 8, 9, 37)


def encode(items):
    """Return windows of many lengths; `items` says to which row each belongs."""
    lengths = np.random.default_rng(len(items)).integers(1, 9, len(items))
    ids = [[number] * int(length) for number, length in enumerate(lengths)]
    types = [[0] * len(window) for window in ids]
    return concatenate(ids, types, items, [0] * len(items), cut=0)


# --- training


def at_epoch(order, epoch):
    order.set_epoch(epoch)
    return list(order)


@pytest.mark.parametrize("windows", SIZES)
def test_an_epoch_is_a_permutation_of_all_windows(windows):
    shares = list(TrainingSampler(windows, 4, seed=1))
    assert sorted(window for share in shares for window in share.windows) == list(range(windows))


def test_an_order_knows_its_number_of_batches():
    for windows in SIZES:
        order = TrainingSampler(windows, 4, seed=1)
        assert len(order) == len(list(order))


def test_the_same_seed_and_epoch_give_the_same_order_whatever_came_before():
    walked = TrainingSampler(37, 4, seed=1)
    for epoch in range(3):
        at_epoch(walked, epoch)
    np.random.default_rng().random(5)
    assert at_epoch(walked, 1) == at_epoch(TrainingSampler(37, 4, seed=1), 1)


@pytest.mark.parametrize("other", [(1, 1), (2, 0)])
def test_another_seed_or_epoch_gives_another_order(other):
    seed, epoch = other
    changed = [share.windows for share in at_epoch(TrainingSampler(37, 4, seed), epoch)]
    assert changed != [share.windows for share in at_epoch(TrainingSampler(37, 4, 1), 0)]


def test_a_share_carries_its_epoch():
    assert {share.epoch for share in at_epoch(TrainingSampler(9, 4, seed=1), 5)} == {5}


def makes_up_the_batches(order_of, windows, batch_size, world):
    """The law: at each step the ranks' counted windows are the batch of one rank, each once."""
    whole = [sorted(share.windows) for share in order_of(windows, batch_size, 1, 0, 1)]
    ranks = [list(order_of(windows, batch_size, 1, rank, world)) for rank in range(world)]
    if {len(shares) for shares in ranks} != {len(whole)}:
        return False
    steps = zip(*ranks, strict=True)
    return whole == [sorted(w for s in step if s.counted for w in s.windows) for step in steps]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("windows", SIZES)
def test_the_shares_of_all_ranks_make_up_each_batch_exactly(windows, world):
    assert makes_up_the_batches(TrainingSampler, windows, 12, world)


class OwnSeeds(TrainingSampler):
    """A planted bug: each rank draws an order of its own."""

    def __init__(self, windows, batch_size, seed, rank, world):
        super().__init__(windows, batch_size, seed + rank, rank, world)


class Repeating(TrainingSampler):
    """A planted bug: a rank without a part counts a repeated window."""

    def __iter__(self):
        return (share._replace(counted=True) for share in super().__iter__())


@pytest.mark.parametrize("order", [OwnSeeds, Repeating])
def test_that_law_finds_a_planted_bug(order):
    assert not makes_up_the_batches(order, 37, 12, 3)


def test_shares_of_a_full_batch_are_equal():
    for rank in range(4):
        share = next(iter(TrainingSampler(37, 12, 1, rank, 4)))
        assert len(share.windows) == 3


def test_a_rank_without_a_part_gets_a_stand_in_that_is_not_counted():
    last = list(TrainingSampler(13, 4, 1, rank=3, world=4))[-1]
    assert (len(last.windows), last.counted) == (1, False)


# --- joint training

LARGE, SMALL = np.arange(900), np.arange(900, 1000)


@pytest.mark.parametrize(("temperature", "small"), [(1.0, 100), (2.0, 250), (1e9, 500)])
def test_a_language_is_drawn_in_proportion_to_a_root_of_its_size(temperature, small):
    drawn = LanguageMixture([LARGE, SMALL], temperature).draw(np.random.default_rng(1))
    assert len(drawn) == 1000
    assert (drawn >= 900).sum() == small


def test_no_window_comes_again_before_all_of_its_language_came():
    drawn = LanguageMixture([LARGE, SMALL], 2.0).draw(np.random.default_rng(1))
    counts = np.bincount(drawn, minlength=1000)
    assert counts[:900].max() == 1
    assert set(counts[900:]) == {2, 3}


def test_the_order_of_a_mixture_is_that_of_its_seed_and_epoch():
    mixture = LanguageMixture([LARGE, SMALL], 5.0)
    first, again = (TrainingSampler(1000, 8, 1, mixture=mixture) for _ in range(2))
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)


LENGTHS = np.random.default_rng(0).integers(1, 200, 1000)


# --- batches of about so many sub-words


def holds_its_budget(order, tokens):
    """The law: every batch is at most the longest text off an equal share of about the budget."""
    held = [LENGTHS[share.windows].sum() for share in order]
    share = LENGTHS[: order.windows].sum() / len(held)
    within = all(abs(own - share) <= LENGTHS.max() for own in held)
    return within and len(held) == max(1, round(LENGTHS[: order.windows].sum() / tokens))


@pytest.mark.parametrize("tokens", [200, 333, 2000, 10**6])
@pytest.mark.parametrize("windows", [*SIZES, 1000])
def test_a_batch_holds_about_so_many_sub_words(windows, tokens):
    order = TokenBudgetSampler(LENGTHS[:windows], tokens, seed=1)
    assert holds_its_budget(order, tokens)
    assert [len(at_epoch(order, epoch)) for epoch in range(3)] == [len(order)] * 3
    shares = at_epoch(order, 2)
    assert sorted(window for share in shares for window in share.windows) == list(range(windows))


class Counting(TokenBudgetSampler):
    """A planted bug: batches of as many texts, however long these are."""

    def cut(self, drawn):
        return TrainingSampler.cut(self, drawn)


def test_that_law_finds_batches_of_equally_many_texts():
    assert not holds_its_budget(Counting(LENGTHS, 2000, seed=1), 2000)


@pytest.mark.parametrize("tokens", [1, 50, 200])
def test_no_batch_is_empty_where_texts_are_longer_than_the_budget(tokens):
    lengths = np.array([1, 1, 1, 199, 1, 1, 1])
    for seed in range(20):
        held = [share.windows for share in TokenBudgetSampler(lengths, tokens, seed=seed)]
        assert all(held)
        assert sorted(window for batch in held for window in batch) == list(range(7))


def test_ranks_share_out_a_budget():
    def order_of(windows, batch_size, seed, rank, world):
        return TokenBudgetSampler(
            LENGTHS[:windows], 100 * batch_size, seed=seed, rank=rank, world=world
        )

    assert makes_up_the_batches(order_of, 37, 12, 3)


def test_a_mixture_keeps_the_number_of_batches():
    lengths = np.concatenate([np.full(900, 20), np.full(100, 120)])
    order = TokenBudgetSampler(lengths, 1000, seed=1, mixture=LanguageMixture([LARGE, SMALL], 5.0))
    assert [len(at_epoch(order, epoch)) for epoch in range(3)] == [30] * 3


# --- evaluation


def covers_each_item_once(order_of, items, world):
    """The law: every window is counted on exactly one rank, an item's windows all on the same."""
    encoded = encode(items)
    home = {}
    counted = []
    for rank in range(world):
        for share in order_of(encoded, 4, rank, world):
            if share.counted:
                counted += share.windows
                home.update({(items[window], rank): None for window in share.windows})
    return sorted(counted) == list(range(len(items))) and len(home) == len(set(items))


ITEMS = {
    "one window an item": list(range(37)),
    "several windows an item": [0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5],
    "fewer items than ranks": [0, 0, 1],
    "one item": [0],
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
def test_every_item_is_counted_once_on_one_rank(items, world):
    assert covers_each_item_once(EvaluationSampler, items, world)


class Padded(EvaluationSampler):
    """A planted bug: ranks get equally many windows, as Lightning's own sampler does it."""

    def __init__(self, encoded, batch_size, rank, world):
        windows = list(range(len(encoded)))
        even = windows + windows[: -len(windows) % world]
        self.shares = [RankBatch(even[rank::world], 0, counted=True)]


class ByWindow(EvaluationSampler):
    """A planted bug: windows are dealt out, not items."""

    def __init__(self, encoded, batch_size, rank, world):
        self.shares = [RankBatch(list(range(len(encoded)))[rank::world], 0, counted=True)]


@pytest.mark.parametrize(
    ("order", "items"),
    [(Padded, "one window an item"), (ByWindow, "several windows an item")],
)
def test_that_law_finds_a_planted_bug_of_evaluation(order, items):
    assert covers_each_item_once(order, ITEMS[items], 1)
    assert not covers_each_item_once(order, ITEMS[items], 2)


def test_windows_of_like_length_are_evaluated_together():
    encoded = encode(list(range(37)))
    lengths = [int(encoded.lengths[w]) for s in EvaluationSampler(encoded, 4) for w in s.windows]
    assert lengths == sorted(lengths, reverse=True)


def test_an_evaluation_knows_its_number_of_batches():
    order = EvaluationSampler(encode(list(range(37))), 4, rank=1, world=2)
    assert len(order) == len(list(islice(order, 100)))


# --- the batch itself


@pytest.fixture
def batches(byte_bpe):
    return BatchDataset(encode([0, 1, 2]), Classification(["a", "b"]), byte_bpe, seed=1)


def test_a_batch_says_its_windows_and_counts_their_sub_words(batches):
    batch = batches[RankBatch([2, 0], 0, counted=True)]
    assert batch["windows"] == [2, 0]
    assert batch["tokens"] == int(batch["inputs"]["attention_mask"].sum())


def test_a_stand_in_has_inputs_but_nothing_that_counts(batches):
    batch = batches[RankBatch([1], 0, counted=False)]
    assert batch["inputs"]["input_ids"].tolist() == [[1] * batches.encoded.lengths[1]]
    assert (batch["labels"].tolist(), batch["windows"], batch["tokens"]) == ([IGNORE], [], 0)


def test_only_an_encoder_that_knows_segments_gets_them(batches, unigram):
    share = RankBatch([0], 0, counted=True)
    without = BatchDataset(batches.encoded, batches.task, unigram, seed=1)
    assert "token_type_ids" in batches[share]["inputs"]
    assert "token_type_ids" not in without[share]["inputs"]
