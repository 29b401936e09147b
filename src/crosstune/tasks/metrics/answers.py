"""Metrics of answers to questions: exact match and F1 by the rules of SQuAD, MLQA and CMRC 2018.

Also the choice of the threshold below which no answer is given.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import cache, partial
from math import fsum
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

# what MLQA's script removes, by language; nothing in other languages
ARTICLES = {
    "ar": "ال",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
}
SPLIT_AT_IDEOGRAPHS = ("ja", "yue", "zh")  # of these, MLQA has Chinese only
# CMRC's script lists a doubled ellipsis among single characters, so "…" stays
CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
IDEOGRAPH = re.compile("[\u4e00-\u9fa5]")  # the range in the scripts of MLQA and CMRC 2018

Normalized = tuple[str, list[str]]  # what exact match compares, and the tokens of F1


def normalize_squad(text: str, language: str) -> Normalized:
    """Return a text's normal form and tokens by SQuAD's script, whatever the language.

    Lower case, without ASCII punctuation and English articles, one space between words.
    https://aclanthology.org/D16-1264

    >>> normalize_squad("The  U.S.A., a land", "en")
    ('usa land', ['usa', 'land'])
    """
    letters = "".join(char for char in text.lower() if char not in string.punctuation)
    tokens = re.sub(ARTICLES["en"], " ", letters).split()
    return " ".join(tokens), tokens


def normalize_mlqa(text: str, language: str) -> Normalized:
    """Return a text's normal form and tokens by MLQA's script.

    Lower case, without Unicode punctuation and the language's articles; Chinese is split at every
    ideograph. https://aclanthology.org/2020.acl-main.653

    >>> normalize_mlqa("¿La casa?", "es"), normalize_mlqa("《KTV》大厅", "zh")[1]
    (('casa', ['casa']), ['ktv', '大', '厅'])
    """
    letters = "".join(char for char in text.lower() if not _is_punctuation(char))
    language = language.partition("-")[0]
    if language in ARTICLES:
        letters = re.sub(ARTICLES[language], " ", letters)
    tokens = (
        IDEOGRAPH.sub(r" \g<0> ", letters) if language in SPLIT_AT_IDEOGRAPHS else letters
    ).split()
    return " ".join(tokens), tokens


def normalize_cmrc(text: str, language: str) -> Normalized:
    """Return a text's normal form and tokens by the script of CMRC 2018.

    Lower case, without the punctuation that the script lists; a token is an ideograph, or what
    NLTK's word tokenizer finds between two of them (the script lets NLTK split that into sentences
    first, which needs a trained model). https://aclanthology.org/D19-1600

    >>> normalize_cmrc("《KTV 2》大厅，", "zh")
    ('ktv 2大厅', ['ktv', '2', '大', '厅'])
    """
    letters = "".join(char for char in text.lower().strip() if char not in CMRC_PUNCTUATION)
    tokens: list[str] = []
    # an odd part is an ideograph, an even one the text between two of them
    for number, part in enumerate(re.split(f"({IDEOGRAPH.pattern})", letters)):
        if number % 2:
            tokens.append(part)
        elif part:
            tokens += _word_tokenizer()(part)
    return letters, tokens


NORMALIZERS: dict[str, Callable[[str, str], Normalized]] = {
    "squad": normalize_squad,
    "mlqa": normalize_mlqa,
    "cmrc": normalize_cmrc,
}


@cache
def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


@cache
def _word_tokenizer() -> Callable[[str], list[str]]:
    from nltk.tokenize.destructive import NLTKWordTokenizer  # takes seconds; one rule needs it

    return NLTKWordTokenizer().tokenize


def score_answer(
    answer: str,
    golds: Sequence[str],
    rule: str = "mlqa",
    language: str = "en",
    *,
    unanswerable: bool = False,
) -> tuple[float, float]:
    """Return exact match and F1 of an answer, each the best over the gold answers.

    CMRC's F1 counts the longest run of tokens that both have, the others every shared token. A text
    that is nothing in its normal form ("the", "…") has no token, and so an F1 of 0, in the scripts
    of SQuAD 1.1, MLQA and CMRC. With `unanswerable`, in data that has questions without an answer,
    SQuAD 2.0's script counts: such gold answers are left out, and if none is left, "" is right.

    >>> score_answer("in the city of Madrid", ["Madrid", "la ciudad de Madrid"], "squad")
    (0.0, 0.4)
    >>> score_answer("", []), score_answer("The", ["the"], "squad")
    ((1.0, 1.0), (1.0, 0.0))
    >>> score_answer("The", ["the"], "squad", unanswerable=True)
    (1.0, 1.0)
    """
    form, tokens = NORMALIZERS[rule](answer, language)
    forms = [NORMALIZERS[rule](gold, language) for gold in golds]
    if unanswerable:
        forms = [gold for gold in forms if gold[0]]
    forms = forms or [("", [])]
    count_shared = _longest_run if rule == "cmrc" else _count_overlap
    exact = float(any(form == gold for gold, _ in forms))
    if not golds or (unanswerable and (forms == [("", [])] or not form)):
        return exact, exact
    return exact, max(_f1(count_shared(tokens, gold), len(tokens), len(gold)) for _, gold in forms)


def _f1(shared: int, predicted: int, gold: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / predicted, shared / gold
    return 2 * precision * recall / (precision + recall)


def _count_overlap(tokens: Sequence[str], gold: Sequence[str]) -> int:
    return (Counter(tokens) & Counter(gold)).total()


def _longest_run(tokens: Sequence[str], gold: Sequence[str]) -> int:
    return SequenceMatcher(None, tokens, gold, autojunk=False).find_longest_match().size


def choose_threshold(margins: Sequence[float], gains: Sequence[float]) -> float:
    """Return the threshold t that maximises the sum of the gains of all items with margin >= t.

    An item's margin says how much better its answer is than none; its gain is its F1 with the
    answer less its F1 without. All margins are tried, and one above them, which answers nothing;
    the highest of equally good ones is taken. This is the search of SQuAD 2.0's script
    (https://aclanthology.org/P18-2124) with equal margins taken together.

    >>> choose_threshold([2.0, 1.0, -3.0], [1.0, -1.0, 0.5])
    2.0
    """
    order = sorted(zip(margins, gains, strict=True), reverse=True)
    best, threshold, taken = 0.0, order[0][0] + 1.0, []
    for index, (margin, gain) in enumerate(order):
        taken.append(gain)
        last = index + 1 == len(order) or order[index + 1][0] != margin
        if last and (total := fsum(taken)) > best:
            best, threshold = total, margin
    return threshold


class AnswerReport(Metric):
    """Gather exact match and F1 of every item; report their means, also by answerability.

    `unanswerable` is as in `score_answer`. With `tune`, answers whose margin is below the best
    threshold on these very items count as no answer, and the report has the threshold: it is no
    sum, so every item is gathered. Means are rounded once, so the order of the items does not
    change them.

    >>> metric = AnswerReport("squad", unanswerable=True, tune=True)
    >>> metric.update(["Rome", "Paris"], [["Rome"], []], ["en", "en"], [3.0, -1.0])
    >>> metric.compute()["scores"]["f1"], metric.compute()["report"]["best_threshold"]
    (1.0, 3.0)
    """

    full_state_update = False
    items: list[Tensor]  # (n, 6) float64: exact match, F1, both of "", has an answer, margin

    def __init__(
        self, rule: str = "mlqa", *, unanswerable: bool = False, tune: bool = False
    ) -> None:
        super().__init__()
        self.rule, self.unanswerable, self.tune = rule, unanswerable, tune
        self.add_state("items", [], dist_reduce_fx="cat")

    def update(
        self,
        answers: Sequence[str],
        golds: Sequence[Sequence[str]],
        languages: Sequence[str],
        margins: Sequence[float],
    ) -> None:
        """Score answers; every rank must call this, even without any, or the others wait."""
        score = partial(score_answer, rule=self.rule, unanswerable=self.unanswerable)
        rows = [
            (
                *score(answer, gold, language=language),
                *score("", gold, language=language),
                float(bool(gold)),
                margin,
            )
            for answer, gold, language, margin in zip(
                answers, golds, languages, margins, strict=True
            )
        ]
        items = torch.tensor(rows, dtype=torch.float64, device=self.device)
        self.items.append(items.reshape(-1, 6))

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was gathered."""
        rows = dim_zero_cat(self.items).tolist() if len(self.items) else []
        if not rows:
            return {"scores": {}, "report": {}}
        report: dict[str, Any] = {"items": len(rows)}
        threshold = None
        if self.tune:
            gains = [f1 - f1_without for _, f1, _, f1_without, _, _ in rows]
            threshold = choose_threshold([row[5] for row in rows], gains)
            report["best_threshold"] = threshold
        return _average(rows, threshold, report)


def _average(
    rows: list[list[float]], threshold: float | None, report: dict[str, Any]
) -> dict[str, Any]:
    """Return the means over rows as in `AnswerReport.items`."""
    scored = [
        (row[0], row[1], row[4])
        if threshold is None or row[5] >= threshold
        else (*row[2:4], row[4])
        for row in rows
    ]
    answerable = [f1 for _, f1, has_answer in scored if has_answer]
    unanswerable = [exact for exact, _, has_answer in scored if not has_answer]
    scores = {
        "f1": fsum(f1 for _, f1, _ in scored) / len(scored),
        "em": fsum(exact for exact, _, _ in scored) / len(scored),
    }
    if unanswerable:
        scores["no_answer_accuracy"] = fsum(unanswerable) / len(unanswerable)
    if unanswerable and answerable:
        scores["has_answer_f1"] = fsum(answerable) / len(answerable)
    report |= {"has_answer": len(answerable), "no_answer": len(unanswerable)}
    return {"scores": scores, "report": report}
