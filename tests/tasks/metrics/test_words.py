"""Segmented words: the rates of the SIGHAN bakeoffs, against an independent reading of the rule."""

from itertools import pairwise

import numpy as np
import pytest

from crosstune.errors import DataError
from crosstune.tasks.metrics.spans import WordReport

GOLD = [["小明", "喜歡", "茶"], ["他", "不", "喝", "咖啡"], ["好"]]
GUESS = [["小", "明", "喜歡", "茶"], ["他", "不喝", "咖啡"], ["好"]]
KNOWN = {"喜歡", "茶", "他", "不", "喝"}


def scores(known, guesses, golds, batches=1):
    metric = WordReport(known)
    for part in np.array_split(range(len(golds)), batches):
        metric.update([guesses[n] for n in part], [golds[n] for n in part])
    return metric.compute()["scores"]


def reference(known, guesses, golds, whole=True):
    """The rule, read anew: a gold word is found if both its boundaries and none inside are guessed.

    A boundary is the number of characters to its left.
    """
    found, new_found, new, total, predicted = 0, 0, 0, 0, 0
    for guess, gold in zip(guesses, golds, strict=True):
        cuts = {sum(len(w) for w in guess[:n]) for n in range(len(guess) + 1)}
        predicted += len(cuts) - 1
        at = 0
        for word in gold:
            inside = any(at + k in cuts for k in range(1, len(word)))
            right = at in cuts and (not whole or (at + len(word) in cuts and not inside))
            at += len(word)
            total += 1
            found += right
            new += word not in known
            new_found += right and word not in known
    result = {"precision": found / predicted, "recall": found / total}
    result["f1"] = 2 * found / (predicted + total)
    if new:
        result["oov_recall"] = new_found / new
    if total > new:
        result["iv_recall"] = (found - new_found) / (total - new)
    return result


def test_a_case_counted_by_hand():
    # found: 喜歡 茶 他 咖啡 好, of 8 gold and 8 guessed; new: 小明 咖啡 好, two of them found
    assert scores(KNOWN, GUESS, GOLD) == {
        "precision": 5 / 8,
        "recall": 5 / 8,
        "f1": 5 / 8,
        "oov_recall": 2 / 3,
        "iv_recall": 3 / 5,
    }


def part(rng, text):
    cuts = [0, *sorted(set(rng.integers(1, len(text) + 1, 4))), len(text)]
    return [text[a:b] for a, b in pairwise(cuts) if b > a]


def random_case(seed):
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("天地人"), rng.integers(1, 12))) for _ in range(9)]
    golds, guesses = ([part(rng, text) for text in texts] for _ in range(2))
    known = {word for words in golds[:4] for word in words}
    return known, guesses, golds


@pytest.mark.parametrize("seed", range(30))
def test_the_rates_are_those_of_the_rule(seed):
    case = random_case(seed)
    assert scores(*case) == pytest.approx(reference(*case))


@pytest.mark.parametrize("batches", [2, 3, 9])
def test_the_rates_do_not_depend_on_the_batches(batches):
    case = random_case(1)
    assert scores(*case, batches=batches) == scores(*case)


def test_the_rule_is_told_from_one_that_looks_at_the_starts_of_words_alone():
    cases = [random_case(seed) for seed in range(5)]
    assert all(scores(*case)["f1"] < reference(*case, whole=False)["f1"] for case in cases)


def test_the_same_word_at_another_place_is_not_found():
    assert scores(set(), [["天", "天天"]], [["天天", "天"]])["f1"] == 0.0


def test_without_new_words_their_recall_is_absent():
    found = scores({"天", "地"}, [["天", "地"]], [["天", "地"]])
    assert (found["iv_recall"], "oov_recall" in found) == (1.0, False)


def test_without_known_words_their_recall_is_absent():
    found = scores(set(), [["天", "地"]], [["天", "地"]])
    assert (found["oov_recall"], "iv_recall" in found) == (1.0, False)


def test_without_words_there_are_no_scores():
    metric = WordReport({"天"})
    metric.update([], [])
    assert metric.compute() == {"scores": {}, "report": {}}


def test_the_report_counts_gold_words_and_the_new_ones_among_them():
    metric = WordReport(KNOWN)
    metric.update(GUESS, GOLD)
    report = metric.compute()["report"]
    assert (report["words"]["support"], report["oov_words"]) == (8, 3)


def test_words_that_spell_another_text_are_refused():
    with pytest.raises(DataError, match="Sentence 1 of the batch: the words spell other texts"):
        WordReport(set()).update([["天"], ["地"]], [["天"], ["天"]])


def test_every_state_is_a_sum():
    metric = WordReport(set())
    assert {name: reduce.__name__ for name, reduce in metric._reductions.items()} == {
        "counts": "dim_zero_sum"
    }
