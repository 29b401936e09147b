"""Precision, recall and F1 from counts per class: what every report of classes shares."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from crosstune.errors import DataError

UNSEEN = "<unseen>"
RATES = ("precision", "recall", "f1")


def check_names(names: Sequence[str], what: str) -> list[str]:
    """Return the names as a list, or refuse them."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if not names or repeated or UNSEEN in names:
        rule = f"at least one, all different, and none the reserved {UNSEEN!r}"
        raise DataError([f"The {what} must be {rule}. Received: {list(names)}."])
    return list(names)


def rates(correct: int, predicted: int, gold: int) -> dict[str, float]:
    """Return precision, recall, F1 and support; a rate without a denominator is 0.

    >>> rates(1, 2, 4)
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
) -> dict[str, dict[str, Any]]:
    """Return rates per class that occurs, and their micro, macro and weighted means."""
    columns = zip(names, correct, predicted, gold, strict=True)
    classes = {name: rates(c, p, g) for name, c, p, g in columns if p or g}
    support = sum(gold)
    macro = {
        rate: sum(row[rate] for row in classes.values()) / max(len(classes), 1) for rate in RATES
    }
    weighted = {
        rate: sum(row[rate] * row["support"] for row in classes.values()) / max(support, 1)
        for rate in RATES
    }
    return {
        "classes": classes,
        "micro": rates(sum(correct), sum(predicted), support),
        "macro": macro | {"support": support},
        "weighted": weighted | {"support": support},
    }
