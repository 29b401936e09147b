"""Answers to questions: exact match and F1 by the rules of SQuAD, MLQA and CMRC 2018.

Holds those rules, their means over all ranks, and the choice of the threshold below which no
answer is given. Which text is the answer is decided in `tasks/extraction.py`.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from math import fsum
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

# what the script of MLQA takes away, by language; other languages lose nothing
ARTICLES = {
    "ar": "ال",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
}
SPLIT_AT_IDEOGRAPHS = ("ja", "yue", "zh")  # of these MLQA has only Chinese
# the script of CMRC 2018 lists a doubled ellipsis among single characters, so "…" stays
CMRC_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
IDEOGRAPH = re.compile("[\u4e00-\u9fa5]")  # the range in the scripts of MLQA and CMRC 2018

Form = tuple[str, list[str]]  # what exact match compares, and the tokens of F1


def read_squad_form(text: str, language: str) -> Form:
    """Return a text's normal form and tokens as SQuAD's script has them, whatever the language.

    Lower case, without ASCII punctuation and English articles, one space between words.
    https://aclanthology.org/D16-1264

    >>> read_squad_form("The  U.S.A., a land", "en")
    ('usa land', ['usa', 'land'])
    """
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    tokens = re.sub(ARTICLES["en"], " ", kept).split()
    return " ".join(tokens), tokens


def read_mlqa_form(text: str, language: str) -> Form:
    """Return a text's normal form and tokens as MLQA's script has them.

    Lower case, without any punctuation of Unicode and the language's articles; Chinese is parted
    at every ideograph. https://aclanthology.org/2020.acl-main.653

    >>> read_mlqa_form("¿La casa?", "es"), read_mlqa_form("《KTV》大厅", "zh")[1]
    (('casa', ['casa']), ['ktv', '大', '厅'])
    """
    kept = "".join(char for char in text.lower() if not _is_punctuation(char))
    language = language.partition("-")[0]
    if language in ARTICLES:
        kept = re.sub(ARTICLES[language], " ", kept)
    tokens = (IDEOGRAPH.sub(r" \g<0> ", kept) if language in SPLIT_AT_IDEOGRAPHS else kept).split()
    return " ".join(tokens), tokens


def read_cmrc_form(text: str, language: str) -> Form:
    """Return a text's normal form and tokens as the script of CMRC 2018 has them.

    Lower case, without the punctuation that the script lists; a token is an ideograph, or what
    NLTK's word tokenizer finds between two of them (the script lets NLTK part that into sentences
    first, which needs a model of them). https://aclanthology.org/D19-1600

    >>> read_cmrc_form("《KTV 2》大厅，", "zh")
    ('ktv 2大厅', ['ktv', '2', '大', '厅'])
    """
    lowered = text.lower().strip()
    tokens: list[str] = []
    latin = ""
    for char in lowered + "大":  # the last ideograph closes what is open, and goes again
        if char in CMRC_MARKS:
            continue
        if IDEOGRAPH.match(char):
            tokens += [*(_word_tokenizer()(latin) if latin else []), char]
            latin = ""
        else:
            latin += char
    return "".join(char for char in lowered if char not in CMRC_MARKS), tokens[:-1]


FORMS: dict[str, Callable[[str, str], Form]] = {
    "squad": read_squad_form,
    "mlqa": read_mlqa_form,
    "cmrc": read_cmrc_form,
}


@cache
def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


@cache
def _word_tokenizer() -> Callable[[str], list[str]]:
    from nltk.tokenize.destructive import NLTKWordTokenizer  # seconds, and one rule needs it

    return NLTKWordTokenizer().tokenize


def score_answer(
    answer: str, golds: Sequence[str], rule: str = "mlqa", language: str = "en"
) -> tuple[float, float]:
    """Return exact match and F1 of an answer, each the best over the gold answers.

    No gold answer, or none with anything in its normal form, means that "" is right and all else
    is wrong, as in SQuAD 2.0. CMRC's F1 counts the longest run of tokens that both have, the
    others' every shared token.

    >>> score_answer("in the city of Madrid", ["Madrid", "la ciudad de Madrid"], "squad")
    (0.0, 0.4)
    >>> score_answer("", [])
    (1.0, 1.0)
    """
    form, tokens = FORMS[rule](answer, language)
    forms = [FORMS[rule](gold, language) for gold in golds]
    forms = [gold for gold in forms if gold[0]] or [("", [])]
    shared = _longest_run if rule == "cmrc" else _overlap
    exact = float(any(form == gold for gold, _ in forms))
    if forms == [("", [])] or not form:
        return exact, exact
    return exact, max(_f1(shared(tokens, gold), len(tokens), len(gold)) for _, gold in forms)


def _f1(shared: int, predicted: int, gold: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / predicted, shared / gold
    return 2 * precision * recall / (precision + recall)


def _overlap(one: Sequence[str], other: Sequence[str]) -> int:
    return (Counter(one) & Counter(other)).total()


def _longest_run(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest sequence of neighbours that both have.

    >>> _longest_run("abcd", "zbcxd")
    2
    """
    longest, above = 0, [0] * (len(other) + 1)
    for token in one:
        row = [0]
        row += [above[n] + 1 if token == there else 0 for n, there in enumerate(other)]
        longest, above = max(longest, *row), row
    return longest


def choose_threshold(margins: Sequence[float], gains: Sequence[float]) -> float:
    """Return the threshold t that makes the gains of all items with margin >= t largest together.

    An item's margin says how much better its answer is than none; its gain is its F1 with the
    answer less its F1 without. All margins are tried, and one above them, which answers nothing;
    of equally good ones the highest is taken. This is the search of SQuAD 2.0's script
    (https://aclanthology.org/P18-2124) with equal margins kept together.

    >>> choose_threshold([2.0, 1.0, -3.0], [1.0, -1.0, 0.5])
    2.0
    """
    order = sorted(zip(margins, gains, strict=True), reverse=True)
    best, threshold, taken = 0.0, order[0][0] + 1.0, []
    for place, (margin, gain) in enumerate(order):
        taken.append(gain)
        last = place + 1 == len(order) or order[place + 1][0] != margin
        if last and (total := fsum(taken)) > best:
            best, threshold = total, margin
    return threshold


class AnswerReport(Metric):
    """Keep exact match and F1 of every item; report their means, also by answerability.

    With `tune`, answers whose margin is below the best threshold on these very items count as no
    answer, and the report says the threshold. Every item is kept, because the best threshold is
    no sum; means are rounded once, so no order of the items changes them.

    >>> metric = AnswerReport("squad", tune=True)
    >>> metric.update(["Rome", "Paris"], [["Rome"], []], ["en", "en"], [3.0, -1.0])
    >>> metric.compute()["scores"]["f1"], metric.compute()["report"]["best_threshold"]
    (1.0, 3.0)
    """

    full_state_update = False
    items: list[Tensor]  # (n, 6) float64: exact match, F1, both of "", has an answer, margin

    def __init__(self, rule: str = "mlqa", tune: bool = False) -> None:
        super().__init__()
        self.rule, self.tune = rule, tune
        self.add_state("items", [], dist_reduce_fx="cat")

    def update(
        self,
        answers: Sequence[str],
        golds: Sequence[Sequence[str]],
        languages: Sequence[str],
        margins: Sequence[float],
    ) -> None:
        """Score answers; a rank without any must call this too, or the others wait for it."""
        rows = [
            (
                *score_answer(answer, gold, self.rule, language),
                *score_answer("", gold, self.rule, language),
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
        """Return scores and report over all that was kept."""
        rows = dim_zero_cat(self.items).tolist() if len(self.items) else []
        if not rows:
            return {"scores": {}, "report": {}}
        report: dict[str, Any] = {"items": len(rows)}
        threshold = None
        if self.tune:
            gains = [f1 - f1_without for _, f1, _, f1_without, _, _ in rows]
            threshold = choose_threshold([row[5] for row in rows], gains)
            report["best_threshold"] = threshold
        return _summarise(rows, threshold, report)


def _summarise(
    rows: list[list[float]], threshold: float | None, report: dict[str, Any]
) -> dict[str, Any]:
    """Return the means over rows as in `AnswerReport.items`."""
    found = [
        (row[0], row[1], row[4])
        if threshold is None or row[5] >= threshold
        else (*row[2:4], row[4])
        for row in rows
    ]
    answerable = [f1 for _, f1, has_answer in found if has_answer]
    others = [exact for exact, _, has_answer in found if not has_answer]
    scores = {
        "f1": fsum(f1 for _, f1, _ in found) / len(found),
        "em": fsum(exact for exact, _, _ in found) / len(found),
    }
    if others:
        scores["no_answer_accuracy"] = fsum(others) / len(others)
    if others and answerable:
        scores["has_answer_f1"] = fsum(answerable) / len(answerable)
    report |= {"has_answer": len(answerable), "no_answer": len(others)}
    return {"scores": scores, "report": report}
