"""Compare one item's gold with its prediction: the outcomes, and both as text.

Pure functions over labels, tags, spans, words and answers.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

from crosstune.data.tag_schemes import SPAN_TAG, Span, read_spans
from crosstune.errors import DataError
from crosstune.languages import UNSPACED
from crosstune.reporting.statistics import count_outcomes

Outcome = tuple[str, str]  # gold label or type, and its outcome

SPAN_OUTCOMES = ("correct", "boundary", "type", "boundary and type", "missed", "spurious")
SET_OUTCOMES = ("correct", "missed", "spurious")
ANSWER_OUTCOMES = (
    "exact",
    "rightly empty",
    "overlap",
    "disjoint",
    "should have been empty",
    "should not have been empty",
)
# Chinese and Japanese write no spaces, so there a character stands for a word.
_UNIT = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def are_span_tags(tags: Iterable[str]) -> bool:
    """Return whether all tags are tags of spans.

    >>> are_span_tags(["O", "B-PER"]), are_span_tags(["NOUN", "O"])
    (True, False)
    """
    return all(SPAN_TAG.fullmatch(tag) for tag in tags)


def judge(form: str, gold: Any, prediction: Any) -> tuple[list[Outcome], bool]:
    """Return the outcomes within one item, and whether all of it is right.

    `form` is the form of an item: a label, a set of labels, tags, spans as tags, the words of a
    segmented text, an answer or a number. A number has no outcome and is never right.

    Raises:
        DataError: an item has not as many predicted tags as gold ones, or not the same text.

    >>> judge("tags", ("DET", "NOUN"), ("DET", "VERB"))
    ([('DET', 'DET'), ('NOUN', 'VERB')], False)
    """
    if form == "numbers":
        return [], False
    if form == "labels":
        return [(gold, prediction)], gold == prediction
    if form == "answers":
        outcome = compare_answers(gold, prediction)
        return [("", outcome)], outcome in ("exact", "rightly empty")
    if form == "sets":
        return _compare_sets(set(gold), set(prediction)), set(gold) == set(prediction)
    if form == "words":
        if "".join(gold) != "".join(prediction):
            raise DataError(["an item's predicted words are not those of its text"])
        true, guessed = _read_words(gold), _read_words(prediction)
        return compare_spans(true, guessed), true == guessed
    if len(gold) != len(prediction):
        raise DataError([f"an item has {len(gold)} gold tags, but {len(prediction)} predicted"])
    if form == "tags":
        return list(zip(gold, prediction, strict=True)), gold == prediction
    true, guessed = _cached_spans(gold), _cached_spans(prediction)
    return compare_spans(true, guessed), true == guessed


def count_item(
    form: str, outcomes: Sequence[Outcome], right: bool, codes: dict[str, int]
) -> tuple[int, ...]:
    """Return the counts of one judged item, from which scores over items can be computed.

    Labels: the codes of gold and prediction, which are added to `codes`; tags and answers:
    (right, all); spans, words and sets: (tp, fp, fn); numbers: nothing.

    >>> count_item("tags", [("DET", "DET"), ("NOUN", "VERB")], False, {})
    (1, 2)
    """
    if form == "labels":
        ((gold, guess),) = outcomes
        return codes.setdefault(gold, len(codes)), codes.setdefault(guess, len(codes))
    if form == "tags":
        return sum(gold == guess for gold, guess in outcomes), len(outcomes)
    if form == "answers":
        return int(right), 1
    return count_outcomes(outcomes) if form != "numbers" else ()


def _compare_sets(gold: set[str], guessed: set[str]) -> list[Outcome]:
    outcomes = [(label, "correct" if label in guessed else "missed") for label in gold]
    return outcomes + [(label, "spurious") for label in guessed - gold]


@lru_cache(maxsize=2**15)
def _read_words(words: tuple[str, ...]) -> frozenset[Span]:
    ends = list(accumulate(map(len, words)))
    return frozenset(("word", a, b) for a, b in zip([0, *ends], ends, strict=False))


@lru_cache(maxsize=2**15)  # every run has the same gold, and most of the same predictions
def _cached_spans(tags: tuple[str, ...]) -> frozenset[Span]:
    return frozenset(read_spans(tags))


def compare_spans(gold: frozenset[Span], guessed: frozenset[Span]) -> list[Outcome]:
    """Return (type, outcome) for each gold span and for each spurious predicted span.

    Spans are paired one to one: equal ones are "correct"; then those with the same ends ("type");
    then those that overlap, first of the same type ("boundary"), then of another ("boundary and
    type"), the widest overlap first. Unpaired spans are "missed" or "spurious".

    >>> compare_spans(frozenset([("PER", 0, 2), ("LOC", 5, 6)]), frozenset([("PER", 0, 3)]))
    [('PER', 'boundary'), ('LOC', 'missed')]
    """
    same = gold & guessed
    outcomes = [(kind, "correct") for kind, _, _ in same]
    if len(same) == len(gold) == len(guessed):
        return outcomes
    left, right = gold - same, guessed - same
    pairs = []
    for true, guess in _overlapping(left, right):
        shared = min(true[2], guess[2]) - max(true[1], guess[1])
        bounds = true[1:] != guess[1:]
        pairs.append((bounds, true[0] != guess[0], -shared, true[1], guess[1], true, guess))
    paired: set[tuple[int, Span]] = set()
    for bounds, kinds, *_, true, guess in sorted(pairs):
        if (0, true) not in paired and (1, guess) not in paired:
            paired |= {(0, true), (1, guess)}
            both = "boundary and type" if kinds else "boundary"
            outcomes.append((true[0], both if bounds else "type"))
    outcomes += [(kind, "missed") for kind, *ends in left if (0, (kind, *ends)) not in paired]
    outcomes += [(kind, "spurious") for kind, *ends in right if (1, (kind, *ends)) not in paired]
    return outcomes


def _overlapping(left: Iterable[Span], right: Iterable[Span]) -> Iterable[tuple[Span, Span]]:
    """Yield the pairs that share a word; the spans of one side must not overlap each other."""
    ours = sorted(left, key=lambda span: span[1])
    theirs = sorted(right, key=lambda span: span[1])
    i = j = 0
    while i < len(ours) and j < len(theirs):
        if max(ours[i][1], theirs[j][1]) < min(ours[i][2], theirs[j][2]):
            yield ours[i], theirs[j]
        if ours[i][2] <= theirs[j][2]:
            i += 1
        else:
            j += 1


def compare_answers(accepted: Sequence[str], prediction: str) -> str:
    """Return how an extracted answer relates to the accepted ones, which may be none.

    "exact" is equal to one of them but for case, punctuation and spaces; "overlap" shares a word
    with one (a character in Chinese and Japanese), "disjoint" with none.

    >>> compare_answers(["the Nile"], "Nile."), compare_answers(["尼罗河"], "河流")
    ('overlap', 'overlap')
    >>> compare_answers([], "Nile"), compare_answers([], ""), compare_answers(["Nile"], "NILE")
    ('should have been empty', 'rightly empty', 'exact')
    """
    texts = [text for text in accepted if text.strip()]
    if not prediction.strip():
        missing = texts and len(texts) == len(accepted)
        return "should not have been empty" if missing else "rightly empty"
    if not texts:
        return "should have been empty"
    guess = _split_units(prediction)
    truths = [_split_units(text) for text in texts]
    if any("".join(guess) == "".join(truth) for truth in truths):
        return "exact"
    return "overlap" if any(set(guess) & set(truth) for truth in truths) else "disjoint"


@lru_cache(maxsize=2**15)
def _split_units(text: str) -> tuple[str, ...]:
    """Return the words of a text without case and punctuation; of bare punctuation, the text."""
    folded = (" " if unicodedata.category(char)[0] in "PSZC" else char for char in text.casefold())
    return tuple(_UNIT.findall("".join(folded))) or (text.strip(),)


def describe_gold(form: str, gold: Any) -> str:
    """Return the gold of an item as text.

    >>> describe_gold("spans", ("B-PER", "I-PER", "O", "B-LOC"))
    'PER 1–2, LOC 4'
    """
    if form == "spans":
        return _describe_spans(gold)
    if form in ("tags", "words"):
        return " ".join(gold)
    if form == "sets":
        return ", ".join(sorted(set(gold))) or "(none)"
    if form == "answers":
        return " | ".join(text for text in gold if text.strip()) or "(empty)"
    return gold if form == "labels" else f"{gold:g}"


def describe_predictions(form: str, gold: Any, predictions: Iterable[Any]) -> str:
    """Return what the runs predicted for an item, the most frequent first.

    >>> describe_predictions("tags", ("DET", "NOUN"), [("DET", "VERB"), ("DET", "VERB")])
    'word 2 NOUN→VERB ×2'
    """
    if form == "numbers":
        return ", ".join(f"{number:g}" for number in predictions)
    counts = Counter(_describe(form, gold, prediction) for prediction in predictions)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{text} ×{count}" if count > 1 else text for text, count in ordered[:3]]
    return "; ".join(shown) + (f"; {len(ordered) - 3} others" if len(ordered) > 3 else "")


def _describe(form: str, gold: Any, prediction: Any) -> str:
    if form in ("spans", "sets", "words"):
        return describe_gold(form, prediction)
    if form == "tags":
        pairs = enumerate(zip(gold, prediction, strict=True), 1)
        wrong = (f"{index} {true}→{guess}" for index, (true, guess) in pairs if true != guess)
        return f"word {', '.join(wrong)}"
    return prediction if form == "labels" else prediction.strip() or "(empty)"


def _describe_spans(tags: Sequence[str]) -> str:
    spans = sorted(read_spans(tags), key=lambda span: span[1])
    shown = (f"{kind} {a + 1}–{b}" if b > a + 1 else f"{kind} {b}" for kind, a, b in spans)
    return ", ".join(shown) or "no span"
