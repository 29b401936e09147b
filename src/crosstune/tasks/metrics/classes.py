"""Metrics of classification: one class an item, sets of labels, relations.

Each gives accuracy, and precision, recall and F1 per class and in the mean.
"""

import operator
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, distributed
from torchmetrics import Metric

from crosstune.errors import DataError

RATES = ("precision", "recall", "f1")
MEANS = ("macro_f1", "micro_f1", "weighted_f1", "macro_precision", "macro_recall")
MACRO_F1_ALL = "macro_f1_all"  # over all labels, also those that neither gold nor prediction has
DIRECTION = re.compile(r"\((e1,e2|e2,e1)\)$")


def compute_rates(correct: int, predicted: int, gold: int) -> dict[str, float]:
    """Return precision, recall, F1 and support; a rate without a denominator is 0.

    >>> compute_rates(1, 2, 4)
    {'precision': 0.5, 'recall': 0.25, 'f1': 0.3333333333333333, 'support': 4}
    """
    return {
        "precision": correct / predicted if predicted else 0.0,
        "recall": correct / gold if gold else 0.0,
        "f1": 2 * correct / (predicted + gold) if predicted + gold else 0.0,
        "support": gold,
    }


def report_rates(
    names: list[str], correct: list[int], predicted: list[int], gold: list[int]
) -> dict[str, Any]:
    """Return rates per class that occurs, and their micro, macro and weighted means.

    `macro_f1_all` counts an F1 of 0 for each class that does not occur.
    """
    columns = zip(names, correct, predicted, gold, strict=True)
    classes = {name: compute_rates(c, p, g) for name, c, p, g in columns if p or g}
    support = sum(gold)
    macro = {rate: sum(row[rate] for row in classes.values()) for rate in RATES}
    weighted = {rate: sum(row[rate] * row["support"] for row in classes.values()) for rate in RATES}
    f1_of_all = sum(row["f1"] for row in classes.values()) / len(names)
    return {
        "classes": classes,
        MACRO_F1_ALL: f1_of_all,
        "micro": compute_rates(sum(correct), sum(predicted), support),
        "macro": {r: total / max(len(classes), 1) for r, total in macro.items()}
        | {"support": support},
        "weighted": {r: total / max(support, 1) for r, total in weighted.items()}
        | {"support": support},
    }


def check_names(names: Sequence[str], what: str) -> list[str]:
    """Return the names as a list.

    Raises:
        DataError: there is none, or one is repeated.
    """
    if not names or len(set(names)) < len(names):
        rule = "at least one, all different"
        raise DataError([f"The {what} must be {rule}. Received: {list(names)}."])
    return list(names)


def add_unseen(listed: Sequence[str], golds: Iterable[str]) -> list[str]:
    """Return the listed names, then those that only gold has, on any rank, sorted.

    Every rank must call it, even without any gold. A label that train never shows is a class of its
    own, which the model cannot predict.

    >>> add_unseen(["b", "a"], ["c", "a"])
    ['b', 'a', 'c']
    """
    unseen = set(golds) - set(listed)
    if distributed.is_available() and distributed.is_initialized():
        shares: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(shares, unseen)
        unseen = set().union(*shares)
    return [*listed, *sorted(unseen)]


class ClassReport(Metric):
    """Count a confusion matrix; report accuracy, precision, recall, F1 and Matthews correlation.

    Macro and weighted means run over the classes that occur in gold or prediction, as in
    scikit-learn's `classification_report` with `zero_division=0`; other classes are absent.
    "macro_f1_all" runs over all labels. "mcc" lies in [-1, 1], all else in [0, 1].

    >>> metric = ClassReport(["no", "yes", "maybe"])
    >>> metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 0, 1]))
    >>> scores = metric.compute()["scores"]
    >>> scores["accuracy"], round(scores["macro_f1"], 3), round(scores["macro_f1_all"], 3)
    (0.75, 0.733, 0.489)
    """

    full_state_update = False
    confusion: Tensor  # (gold labels, predicted labels)

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = check_names(labels, "labels")
        zeros = torch.zeros((len(self.labels), len(self.labels)), dtype=torch.long)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, gold: Tensor) -> None:
        """Count label indices, both (n,), without padding."""
        size = len(self.labels)
        if prediction.shape != gold.shape:
            raise ValueError(f"prediction {prediction.shape} and gold {gold.shape} differ in shape")
        for name, indices in (("prediction", prediction), ("gold", gold)):
            if ((indices < 0) | (indices >= size)).any():
                raise ValueError(f"{name}: an index outside 0 to {size - 1}: {indices.tolist()}")
        cells = torch.bincount((gold * size + prediction).flatten(), minlength=size * size)
        self.confusion = self.confusion + cells.view(size, size)

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        correct, predicted = self.confusion.diagonal().tolist(), self.confusion.sum(0).tolist()
        gold = self.confusion.sum(1).tolist()
        if not sum(gold):
            return {"scores": {}, "report": {}}
        report = report_rates(self.labels, correct, predicted, gold)
        scores = {MACRO_F1_ALL: report.pop(MACRO_F1_ALL)}
        scores |= {name: report[name.split("_")[0]][name.split("_")[1]] for name in MEANS}
        mcc = _matthews(correct, predicted, gold)
        accuracy = {"accuracy": sum(correct) / sum(gold)}
        return {"scores": accuracy | scores | {"mcc": mcc}, "report": report}


def report_classes(
    labels: Sequence[str], predictions: Sequence[str], golds: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Return the `ClassReport` of classes by name, over all ranks.

    Gold labels that `labels` lack are classes too. Matthews correlation is moved from the scores to
    the report: it may be negative.
    """
    classes = add_unseen(labels, golds)
    index = {label: number for number, label in enumerate(classes)}
    metric = ClassReport(classes).to(device)
    indices = [index[name] for name in predictions], [index[name] for name in golds]
    metric.update(*(torch.tensor(column, dtype=torch.long, device=device) for column in indices))
    result = metric.compute()
    if result["scores"]:
        result["report"]["mcc"] = result["scores"].pop("mcc")
    return result


class CountReport(Metric):
    """Counts per class, from which a subclass reports rates."""

    full_state_update = False
    counts: Tensor  # (3, classes): correct, predicted, gold
    agreement: Tensor  # (2,): items whose prediction equals gold, all items

    def __init__(self, classes: Sequence[str], what: str) -> None:
        super().__init__()
        self.classes = check_names(classes, what)
        zeros = torch.zeros((3, len(self.classes)), dtype=torch.long)
        self.add_state("counts", zeros, dist_reduce_fx="sum")
        self.add_state("agreement", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def _add(self, *columns: Iterable[str], agreeing: int, total: int) -> None:
        """Count the classes of what is correct, predicted and gold."""
        counters = [Counter(names) for names in columns]
        if unlisted := sorted(set().union(*counters) - set(self.classes)):
            raise ValueError(f"classes that are not listed: {unlisted}")
        counts = [[counter[name] for name in self.classes] for counter in counters]
        self.counts = self.counts + torch.tensor(counts, device=self.counts.device)
        self.agreement = self.agreement + torch.tensor([agreeing, total], device=self.counts.device)

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        agreeing, total = self.agreement.tolist()
        if not total:
            return {"scores": {}, "report": {}}
        report = report_rates(self.classes, *self._counts())
        scores = {MACRO_F1_ALL: report.pop(MACRO_F1_ALL)} | self._scores(report, agreeing / total)
        return {"scores": scores, "report": report}

    @abstractmethod
    def _scores(self, report: dict[str, Any], accuracy: float) -> dict[str, float]:
        """Return the scores, given the rates and the share of items that agree."""

    def _counts(self) -> tuple[list[int], list[int], list[int]]:
        correct, predicted, gold = self.counts.tolist()
        return correct, predicted, gold


class LabelSetReport(CountReport):
    """Count sets of labels; report F1 by label and its means, and how well whole sets agree.

    Micro, macro and weighted F1 run over labels, as in `ClassReport` over those that occur;
    "accuracy" is the share of sets that agree wholly. Over items run "samples_f1", the mean of
    2|P & G| / (|P| + |G|), and "jaccard", the mean of |P & G| / |P | G| (the accuracy of
    SemEval-2018 E-c, https://aclanthology.org/S18-1001); two empty sets agree, and count 1 in all
    three.

    >>> metric = LabelSetReport(["anger", "joy"])
    >>> metric.update([["joy"], []], [["anger", "joy"], []])
    >>> scores = metric.compute()["scores"]
    >>> scores["jaccard"], scores["accuracy"]
    (0.75, 0.5)
    """

    sums: Tensor  # (2,): of F1 and of the Jaccard index over items

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels, "labels")
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Sequence[str]], golds: Sequence[Sequence[str]]) -> None:
        """Count sets of labels, one predicted and one gold an item."""
        correct, predicted, gold = [], [], []
        agreeing, f1, jaccard = 0, 0.0, 0.0
        pairs = [(set(p), set(g)) for p, g in zip(predictions, golds, strict=True)]
        for prediction, truth in pairs:
            both = prediction & truth
            correct += both
            predicted += prediction
            gold += truth
            agreeing += prediction == truth
            some = bool(prediction or truth)
            f1 += 2 * len(both) / (len(prediction) + len(truth)) if some else 1.0
            jaccard += len(both) / len(prediction | truth) if some else 1.0
        self._add(correct, predicted, gold, agreeing=agreeing, total=len(pairs))
        sums = torch.tensor([f1, jaccard], dtype=torch.float64, device=self.sums.device)
        self.sums = self.sums + sums

    def _scores(self, report: dict[str, Any], accuracy: float) -> dict[str, float]:
        f1, jaccard = (self.sums / self.agreement[1]).tolist()
        scores = {f"{mean}_f1": report[mean]["f1"] for mean in ("micro", "macro", "weighted")}
        return scores | {"samples_f1": f1, "jaccard": jaccard, "accuracy": accuracy}


class RelationReport(CountReport):
    """Count relations; report precision, recall and F1 over all but `no_relation`.

    By the rule `plain` each label is a class; micro F1 is then that of TACRED
    (https://aclanthology.org/D17-1004). By the rule `semeval`, that of SemEval-2010 Task 8
    (https://aclanthology.org/S10-1006), the two directions of a relation, labels that differ in
    "(e1,e2)" and "(e2,e1)" alone, are one class: a prediction in the wrong direction is wrong, yet
    counts as predicted and as gold of that class, and relations without gold are left out of all
    means. "accuracy" is over all items and labels.

    >>> metric = RelationReport(["R(e1,e2)", "R(e2,e1)", "Other"], "Other", "semeval")
    >>> metric.update(["R(e1,e2)", "R(e2,e1)", "Other"], ["R(e1,e2)", "R(e1,e2)", "Other"])
    >>> metric.compute()["report"]["classes"]
    {'R': {'precision': 0.5, 'recall': 0.5, 'f1': 0.5, 'support': 2}}
    """

    def __init__(self, labels: Sequence[str], no_relation: str | None, rule: str) -> None:
        self.no_relation, self.rule = no_relation, rule
        super().__init__(sorted(set(self._classes_of(labels))), "relations")

    def _classes_of(self, labels: Iterable[str]) -> list[str]:
        related = [label for label in labels if label != self.no_relation]
        return [DIRECTION.sub("", r) for r in related] if self.rule == "semeval" else related

    def update(self, predictions: Sequence[str], golds: Sequence[str]) -> None:
        """Count labels, one predicted and one gold an item."""
        correct = [gold for guess, gold in zip(predictions, golds, strict=True) if guess == gold]
        columns = [self._classes_of(labels) for labels in (correct, predictions, golds)]
        self._add(*columns, agreeing=len(correct), total=len(golds))

    def _counts(self) -> tuple[list[int], list[int], list[int]]:
        correct, predicted, gold = super()._counts()
        if self.rule == "semeval":
            predicted = [p if g else 0 for p, g in zip(predicted, gold, strict=True)]
        return correct, predicted, gold

    def _scores(self, report: dict[str, Any], accuracy: float) -> dict[str, float]:
        scores = {f"{m}_{rate}": report[m][rate] for m in ("macro", "micro") for rate in RATES}
        return scores | {"accuracy": accuracy}


def _matthews(correct: list[int], predicted: list[int], gold: list[int]) -> float:
    """Return the Matthews correlation of several classes, 0 where one side never varies.

    Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006: with n items, c of them
    correct, p and g the predicted and gold counts per class,
    (c n - p.g) / sqrt((n^2 - p.p) (n^2 - g.g)).
    """
    n = sum(gold)
    covariance = sum(correct) * n - sum(map(operator.mul, predicted, gold))
    spread = (n * n - sum(p * p for p in predicted)) * (n * n - sum(g * g for g in gold))
    return covariance / sqrt(spread) if spread else 0.0
