"""Sets of labels against scikit-learn, relations against the rules of SemEval and scikit-learn."""

import random
from collections import defaultdict

import pytest
import sklearn.metrics as sklearn
from sklearn.preprocessing import MultiLabelBinarizer

from crosstune.errors import DataError
from crosstune.tasks.metrics.classes import LabelSetReport, RelationReport, add_unseen

LABELS = ["anger", "fear", "joy", "trust"]
NAMES = ("Cause-Effect", "Entity-Origin", "Message-Topic")
DIRECTED = [f"{name}{way}" for name in NAMES for way in ("(e1,e2)", "(e2,e1)")]
RELATIONS = [*DIRECTED, "Other"]
UNSEEN = ("awe", "zest")
CLOSE = {"rel": 1e-12, "abs": 1e-12}

# scikit-learn asks for labels when only one class occurs, and it is right to have only one here
pytestmark = pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")


def score(metric, *batches):
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


# ---- sets of labels ------------------------------------------------------------------------------


def draw_sets(seed, labels):
    """Predicted and gold sets of 1 to 25 items, some empty, from some of the labels."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    used = draw.sample(labels, draw.randint(1, len(labels)))
    size = draw.randint(1, 25)
    return [[draw.sample(used, draw.randint(0, len(used))) for _ in range(size)] for _ in "pg"]


def scikit_scores(guesses, golds, labels):
    """Return scikit-learn's scores; only labels that occur have a part in the means over labels."""
    binarizer = MultiLabelBinarizer(classes=labels).fit(golds)
    p, g = binarizer.transform(guesses), binarizer.transform(golds)
    occurring = (p + g).any(0).nonzero()[0].tolist()
    means = {
        f"{mean}_f1": sklearn.f1_score(g, p, labels=occurring, average=mean, zero_division=0)
        if occurring
        else 0.0
        for mean in ("micro", "macro", "weighted")
    }
    samples = {
        "samples_f1": sklearn.f1_score(g, p, average="samples", zero_division=1),
        "jaccard": sklearn.jaccard_score(g, p, average="samples", zero_division=1),
        "accuracy": sklearn.accuracy_score(g, p),
    }
    every = sklearn.f1_score(g, p, average="macro", zero_division=0)
    return means | samples | {"macro_f1_all": every}


@pytest.mark.parametrize("unseen", [False, True])
def test_scores_of_sets_equal_scikit_learn_on_60_random_draws(unseen):
    for seed in range(60):
        guesses, golds = draw_sets(seed, LABELS)
        if unseen:
            golds = [[*g, UNSEEN[n % 2]] if n % 3 == 0 else g for n, g in enumerate(golds)]
        labels = add_unseen(LABELS, (label for gold in golds for label in gold))
        expected = scikit_scores(guesses, golds, labels)
        scores = score(LabelSetReport(labels), (guesses, golds))["scores"]
        assert scores == pytest.approx(expected, **CLOSE), seed


def test_rates_by_label_equal_scikit_learn():
    guesses, golds = draw_sets(3, LABELS)
    binarizer = MultiLabelBinarizer(classes=LABELS).fit(golds)
    reference = sklearn.classification_report(
        binarizer.transform(golds),
        binarizer.transform(guesses),
        target_names=LABELS,
        output_dict=True,
        zero_division=0,
    )
    classes = score(LabelSetReport(LABELS), (guesses, golds))["report"]["classes"]
    assert classes
    for label, row in classes.items():
        assert row["f1"] == pytest.approx(reference[label]["f1-score"], **CLOSE)
        assert row["support"] == reference[label]["support"]


def test_two_empty_sets_agree_and_an_empty_one_with_another_does_not():
    scores = score(LabelSetReport(LABELS), ([[], [], ["joy"]], [[], ["joy"], []]))["scores"]
    assert scores["jaccard"] == scores["samples_f1"] == scores["accuracy"] == 1 / 3
    assert scores["micro_f1"] == 0


def test_a_gold_label_that_is_not_listed_is_never_found():
    result = score(LabelSetReport(add_unseen(["a"], ["b"])), ([["a"]], [["a", "b"]]))
    assert result["report"]["classes"]["b"]["support"] == 1
    assert result["scores"]["micro_f1"] == pytest.approx(2 / 3)


def test_one_wrong_label_makes_a_set_wrong_but_not_its_other_labels():
    scores = score(LabelSetReport(LABELS), ([["anger", "joy"]], [["anger", "fear"]]))["scores"]
    assert (scores["accuracy"], scores["jaccard"]) == (0.0, 1 / 3)


# ---- relations -----------------------------------------------------------------------------------


def draw_relations(seed, labels=RELATIONS):
    """Predicted and gold labels of 1 to 40 items, half of which agree; some labels never occur."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    used = draw.sample(labels, draw.randint(1, len(labels)))
    golds = draw.choices(used, k=draw.randint(1, 40))
    guesses = [gold if draw.random() < 0.5 else draw.choice(labels) for gold in golds]
    return guesses, golds


def official(guesses, golds):
    """Return macro and micro (P, R, F1) as the scorer of SemEval-2010 Task 8 counts them.

    A table of proposed by true relations without their directions, in which a right relation in
    the wrong direction has a row of its own; it is added to the denominator of the precision.
    """
    table = defaultdict(lambda: defaultdict(int))
    for guess, gold in zip(guesses, golds, strict=True):
        proposed, true = guess.split("(")[0], gold.split("(")[0]
        wrong_way = proposed == true and guess != gold
        table["wrong way" if wrong_way else proposed][true] += 1
    rows = []
    for relation in {gold.split("(")[0] for gold in golds} - {"Other"}:
        right = table[relation][relation]
        proposed = sum(table[relation].values()) + table["wrong way"][relation]
        rows.append((right, proposed, sum(row[relation] for row in table.values())))
    each = [rates(*row) for row in rows]
    macro = [sum(column) / len(each) for column in zip(*each, strict=True)] if each else [0] * 3
    return macro, rates(*(map(sum, zip(*rows, strict=True)) if rows else (0, 0, 0)))


def rates(right, proposed, true):
    precision, recall = right / proposed if proposed else 0, right / true if true else 0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0


def means(scores):
    keys = [
        f"{mean}_{rate}" for mean in ("macro", "micro") for rate in ("precision", "recall", "f1")
    ]
    return [scores[key] for key in keys]


def semeval(labels=RELATIONS):
    return RelationReport(labels, "Other", "semeval")


def test_the_semeval_rule_equals_that_of_the_official_scorer_on_300_random_draws():
    for seed in range(300):
        guesses, golds = draw_relations(seed)
        macro, micro = official(guesses, golds)
        scores = score(semeval(), (guesses, golds))["scores"]
        assert means(scores) == pytest.approx([*macro, *micro], **CLOSE), seed


# What the official scorer printed for one system on the whole test set: true relations by proposed
# ones in alphabetical order (Other last), then those in the wrong direction.
PRINTED = """
296 0 0 0 9 1 0 1 2 15 4
2 209 5 3 1 9 13 5 2 32 31
0 4 160 10 2 0 0 1 0 11 4
0 2 10 260 0 0 0 2 1 16 1
2 1 0 12 221 1 0 1 3 16 1
0 4 1 2 2 101 1 3 9 31 2
0 6 0 0 2 3 195 4 2 20 1
1 2 0 2 0 0 3 228 3 19 3
4 4 2 1 9 10 0 5 167 24 5
20 25 25 25 32 20 39 39 26 203 0
"""


def test_the_semeval_rule_gives_what_the_official_scorer_printed():
    names = [*(f"Relation-{letter}" for letter in "ABCDEFGHI"), "Other"]
    guesses, golds = [], []
    for name, line in zip(names, PRINTED.split("\n")[1:-1], strict=True):
        *row, wrong_way = map(int, line.split())
        gold = "Other" if name == "Other" else f"{name}(e1,e2)"
        for proposed, count in zip(names, row, strict=True):
            guess = "Other" if proposed == "Other" else f"{proposed}(e1,e2)"
            guesses += [guess] * count
            golds += [gold] * count
        guesses += [f"{name}(e2,e1)"] * wrong_way
        golds += [gold] * wrong_way
    labels = [f"{name}{way}" for name in names[:-1] for way in ("(e1,e2)", "(e2,e1)")]
    scores = score(semeval([*labels, "Other"]), (guesses, golds))["scores"]
    printed = [77.93, 80.37, 79.05, 78.84, 81.18, 79.99]
    assert [round(100 * value, 2) for value in means(scores)] == printed
    assert round(100 * scores["accuracy"], 2) == 75.08


def test_a_right_relation_in_the_wrong_direction_counts_against_precision_and_recall():
    guesses = ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)"]
    report = score(semeval(), (guesses, ["Cause-Effect(e1,e2)"] * 2))["report"]
    expected = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert report["classes"] == {"Cause-Effect": expected}


def test_ignoring_directions_or_keeping_them_as_classes_is_another_score():
    guesses, golds = draw_relations(11)
    without = [[label.split("(")[0] for label in labels] for labels in (guesses, golds)]
    right = score(semeval(), (guesses, golds))["scores"]["macro_f1"]
    ignoring = score(semeval(), without)["scores"]["macro_f1"]
    plain = score(RelationReport(RELATIONS, "Other", "plain"), (guesses, golds))["scores"]
    assert len({round(value, 6) for value in (right, ignoring, plain["macro_f1"])}) == 3


def test_the_plain_rule_equals_scikit_learn_over_the_labels_that_occur():
    for seed in range(200):
        guesses, golds = draw_relations(seed)
        occurring = sorted({*guesses, *golds} - {"Other"})
        scores = score(RelationReport(RELATIONS, "Other", "plain"), (guesses, golds))["scores"]
        for mean in ("micro", "macro"):
            expected = (0, 0, 0)
            if occurring:
                expected = sklearn.precision_recall_fscore_support(
                    golds, guesses, labels=occurring, average=mean, zero_division=0
                )[:3]
            keys = [f"{mean}_{rate}" for rate in ("precision", "recall", "f1")]
            assert [scores[key] for key in keys] == pytest.approx(expected, **CLOSE), seed
        assert scores["accuracy"] == pytest.approx(sklearn.accuracy_score(golds, guesses))


def test_without_a_label_for_none_every_label_counts():
    for seed in range(50):
        guesses, golds = draw_relations(seed, DIRECTED)
        scores = score(RelationReport(DIRECTED, None, "plain"), (guesses, golds))["scores"]
        expected = sklearn.f1_score(golds, guesses, average="macro", zero_division=0)
        assert scores["macro_f1"] == pytest.approx(expected, **CLOSE)


def test_right_answers_of_no_relation_raise_accuracy_alone():
    some = (["Other", *DIRECTED[:2]], ["Other", DIRECTED[0], DIRECTED[0]])
    more = ([*some[0], *["Other"] * 9], [*some[1], *["Other"] * 9])
    first, second = (score(semeval(), columns)["scores"] for columns in (some, more))
    assert second.pop("accuracy") > first.pop("accuracy")
    assert first == second


def test_a_direction_that_train_never_showed_counts_as_gold_of_its_relation():
    known = [label for label in RELATIONS if label != "Entity-Origin(e2,e1)"]
    golds = ["Entity-Origin(e2,e1)", "Entity-Origin(e1,e2)"]
    report = score(semeval(known), (["Entity-Origin(e1,e2)"] * 2, golds))["report"]
    assert report["classes"]["Entity-Origin"]["support"] == 2
    assert report["classes"]["Entity-Origin"]["f1"] == 0.5


def test_a_relation_that_train_never_showed_is_reported_by_name():
    labels = add_unseen(RELATIONS, ["Use(e1,e2)"])
    report = score(semeval(labels), (["Other"], ["Use(e1,e2)"]))["report"]
    assert report["classes"]["Use"]["support"] == 1


# ---- both ----------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize(
    ("metric", "draw"),
    [
        (LabelSetReport(LABELS), lambda: draw_sets(3, LABELS)),
        (semeval(), lambda: draw_relations(11)),
        (RelationReport(RELATIONS, "Other", "plain"), lambda: draw_relations(11)),
    ],
    ids=["sets", "semeval", "plain"],
)


@BOTH
def test_any_batch_split_gives_the_same_result(metric, draw):
    guesses, golds = draw()
    whole = score(metric.clone(), (guesses, golds))
    for sizes in ([1] * len(golds), [0, 2, 0, len(golds) - 2]):
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        batches = [
            (guesses[end - size : end], golds[end - size : end])
            for size, end in zip(sizes, ends, strict=True)
        ]
        again = score(metric.clone(), *batches)
        assert again["scores"] == pytest.approx(whole["scores"], **CLOSE)
        assert again["report"] == whole["report"]


@BOTH
def test_every_state_is_a_sum_over_ranks(metric, draw):
    guesses, golds = draw()
    parts = [metric.clone() for _ in "ab"]
    parts[0].update(guesses[:3], golds[:3])
    parts[1].update(guesses[3:], golds[3:])
    assert all(reduce.__name__ == "dim_zero_sum" for reduce in metric._reductions.values())
    together = metric.clone()
    together.update([], [])
    for name in metric._defaults:
        setattr(together, name, getattr(parts[0], name) + getattr(parts[1], name))
    scores = score(metric.clone(), (guesses, golds))["scores"]
    assert together.compute()["scores"] == pytest.approx(scores, **CLOSE)


@BOTH
def test_the_mean_of_batch_scores_is_another_score(metric, draw):
    guesses, golds = draw()
    name = "macro_f1"
    halves = [
        score(metric.clone(), (guesses[part], golds[part]))["scores"][name]
        for part in (slice(0, 4), slice(4, None))
    ]
    assert abs(sum(halves) / 2 - score(metric.clone(), (guesses, golds))["scores"][name]) > 1e-3


@BOTH
def test_nothing_counted_gives_no_scores(metric, draw):
    assert score(metric.clone(), ([], [])) == {"scores": {}, "report": {}}


@BOTH
def test_results_are_plain_python_numbers(metric, draw):
    scores = score(metric.clone(), draw())["scores"]
    assert {type(value) for value in scores.values()} <= {int, float}


@BOTH
def test_columns_of_different_lengths_are_refused(metric, draw):
    with pytest.raises(ValueError, match="zip"):
        metric.clone().update([["joy"]], [])


def test_labels_that_are_no_relation_only_are_refused():
    with pytest.raises(DataError, match="relations must be"):
        RelationReport(["Other"], "Other", "plain")
