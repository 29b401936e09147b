"""Exact match and F1 against a second reading of the official rules, and over ranks."""

import json
import random
import re
import string
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import torch
from nltk.tokenize.destructive import NLTKWordTokenizer
from torch import distributed, multiprocessing

from crosstune.tasks.metrics.answers import (
    NORMALIZERS,
    AnswerReport,
    choose_threshold,
    score_answer,
)

# --- a second reading of the rules: a table of letters and plain loops, nothing shared with ours

ENGLISH = {"a", "an", "the"}
SPANISH = {"un", "una", "unos", "unas", "el", "la", "los", "las"}
CMRC = [*"-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"]


def drop_words(text, words):
    """Return a text whose runs of word characters that are among `words` are spaces."""
    return "".join(" " if part in words else part for part in re.split(r"(\w+)", text))


def squad_words(text, language):
    plain = text.lower().translate({ord(mark): None for mark in string.punctuation})
    return drop_words(plain, ENGLISH).split()


def mlqa_words(text, language):
    marks = [
        c for c in text.lower() if c in string.punctuation or unicodedata.category(c)[0] == "P"
    ]
    plain = text.lower().translate({ord(mark): None for mark in marks})
    words = drop_words(plain, {"en": ENGLISH, "es": SPANISH, "zh": set()}[language]).split()
    if language != "zh":
        return words
    parts = [re.findall("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+", word) for word in words]
    return [part for found in parts for part in found]


@cache
def nltk_words():
    return NLTKWordTokenizer().tokenize


def cmrc_words(text, language):
    plain = "".join(char for char in text.lower().strip() if char not in CMRC)
    parts = re.findall("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+", plain)
    return [word for part in parts for word in nltk_words()(part)]


def common_words(one, other):
    rest, shared = list(other), 0
    for word in one:
        if word in rest:
            rest.remove(word)
            shared += 1
    return shared


def common_run(one, other):
    runs = [tuple(one[i:j]) for i in range(len(one)) for j in range(i + 1, len(one) + 1)]
    there = {tuple(other[i:j]) for i in range(len(other)) for j in range(i + 1, len(other) + 1)}
    return max((len(run) for run in runs if run in there), default=0)


def reference(answer, golds, rule, language, unanswerable):
    """Return exact match and F1 as SQuAD 1.1 (2.0 if unanswerable), MLQA and CMRC 2018 do."""
    words = {"squad": squad_words, "mlqa": mlqa_words, "cmrc": cmrc_words}[rule]
    shared = common_run if rule == "cmrc" else common_words
    empty = float(unanswerable or not golds)  # F1 of two texts without a word
    golds = [gold for gold in golds if words(gold, language) or not unanswerable] or [""]
    exact, f1 = [], []
    for gold in golds:
        mine, its = words(answer, language), words(gold, language)
        same = mine == its
        if rule == "cmrc":
            kept = [[c for c in t.lower().strip() if c not in CMRC] for t in (answer, gold)]
            same = kept[0] == kept[1]
        exact.append(float(same))
        if not mine or not its:
            f1.append(empty * (mine == its))
            continue
        count = shared(mine, its)
        f1.append(2 * count / (len(mine) + len(its)))
    return max(exact), max(f1)


LATIN = ["The", "U.S.A.,", "a", "Málaga", "an", "la", "El", "niño", "1,000", "don't", "—", "¿Qué?"]
HAN = ["北京", "，", "《红楼梦》", "KTV", "2008年", "。", "大学", "…", "A-B", "x, y", "「", "an"]
FIXED = [
    ("", []),
    ("Madrid", []),
    ("", ["Madrid"]),
    ("the", ["Madrid"]),
    ("the", ["a"]),
    ("", ["the", "Madrid"]),
    ("the Madrid", ["Madrid", "el Madrid"]),
    ("Madrid Madrid", ["Madrid"]),
    ("MADRID!", ["¡madrid"]),
    ("a  b\tc\n", ["b c"]),
    ("北京大学", ["北京", "大学", "北大"]),
    ("北京，大学", ["北京大学"]),
    ("大学北京", ["北京大学"]),
    ("KTV大厅", ["ktv 大厅"]),
    ("the 2008年", ["2008 年"]),
    ("…", ["。"]),
    ("，", ["。"]),
    ("U.S.A.", ["usa"]),
]


def dice(seed):
    return random.Random(seed)  # noqa: S311 - draws cases, keeps no secret


def draw(seed, parts, join):
    """Return an answer and up to three gold ones, of few parts, so that many agree."""
    pick = dice(seed)
    texts = [join.join(pick.choices(parts, k=pick.randint(0, 5))) for _ in range(4)]
    return texts[0], texts[1 : pick.randint(1, 4)]


CASES = [
    *FIXED,
    *(draw(seed, LATIN, " ") for seed in range(150)),
    *(draw(seed, HAN, "") for seed in range(150)),
    *(draw(seed, LATIN[:6] + HAN[:6], " ") for seed in range(100)),
]
RULES = [
    ("squad", "en"),
    ("squad", "es"),
    ("mlqa", "en"),
    ("mlqa", "es"),
    ("mlqa", "zh"),
    ("cmrc", "zh"),
]


@pytest.mark.parametrize("unanswerable", [False, True])
@pytest.mark.parametrize(("rule", "language"), RULES)
def test_scores_are_those_of_the_second_reading(rule, language, unanswerable):
    for answer, golds in CASES:
        expected = reference(answer, golds, rule, language, unanswerable)
        found = score_answer(answer, golds, rule, language, unanswerable=unanswerable)
        assert found == pytest.approx(expected, abs=1e-12), (answer, golds)


@pytest.mark.parametrize(
    ("rule", "language", "text"),
    [("squad", "en", "the"), ("mlqa", "es", "¡la!"), ("mlqa", "zh", "…"), ("cmrc", "zh", "。")],
)
def test_an_answer_of_no_word_matches_without_f1_where_every_question_has_an_answer(
    rule, language, text
):
    assert score_answer(text, [text], rule, language) == (1.0, 0.0)
    assert score_answer(text, [text], rule, language, unanswerable=True) == (1.0, 1.0)


def test_the_cases_hold_hits_misses_and_part_hits_of_every_rule():
    for rule, language in RULES:
        found = [score_answer(*case, rule, language) for case in CASES]
        assert {exact for exact, _ in found} == {0.0, 1.0}
        assert sum(0 < f1 < 1 for _, f1 in found) > 50


@pytest.mark.parametrize(
    ("rule", "language", "planted"),
    [
        ("squad", "en", "mlqa"),  # full-width and Spanish marks would be taken away
        ("mlqa", "en", "squad"),
        ("mlqa", "es", "squad"),
        ("mlqa", "zh", "cmrc"),  # a common run is not a bag
        ("cmrc", "zh", "mlqa"),
    ],
)
def test_the_second_reading_tells_the_rules_apart(rule, language, planted):
    assert any(
        score_answer(*case, planted, language)
        != pytest.approx(reference(*case, rule, language, False))
        for case in CASES
    )


@pytest.mark.parametrize(
    ("answer", "gold", "rule", "language", "expected"),
    [
        ("the cat sat", "a cat", "squad", "en", 2 / 3),
        ("la casa", "casa", "squad", "es", 2 / 3),
        ("la casa", "casa", "mlqa", "es", 1.0),
        ("la casa", "casa", "mlqa", "es-x-medical", 1.0),
        ("der Hund", "Hund", "mlqa", "de", 1.0),
        ("el gos", "gos", "mlqa", "ca", 2 / 3),  # no articles known of this language
        ("北京大学", "京北学大", "mlqa", "zh", 1.0),
        ("北京大学", "京北学大", "cmrc", "zh", 0.25),
        ("北京 大学", "北京大学", "mlqa", "zh-Hans-CN", 1.0),
        ("北京大学", "北京", "squad", "zh", 0.0),
    ],
)
def test_a_known_case_has_its_f1(answer, gold, rule, language, expected):
    assert score_answer(answer, [gold], rule, language)[1] == pytest.approx(expected)


# --- the threshold of no answer


def totals(margins, gains):
    """Return the sum of gains that each threshold gives, tried one by one."""
    tried = [*set(margins), max(margins) + 1.0]
    return {t: sum(g for m, g in zip(margins, gains, strict=True) if m >= t) for t in tried}


def test_no_threshold_is_better_than_the_chosen_one():
    for seed in range(200):
        pick = dice(seed)
        size = pick.randint(1, 12)
        margins = [float(pick.randint(-3, 3)) for _ in range(size)]  # many are equal
        gains = [pick.choice([-1.0, 0.0, 0.25, 0.5, 1.0]) for _ in range(size)]
        found = totals(margins, gains)
        assert found[choose_threshold(margins, gains)] == max(found.values())


def test_the_search_of_the_official_script_parts_equal_margins():
    margins, gains = [1.0, 1.0], [1.0, -1.0]
    assert totals(margins, gains)[choose_threshold(margins, gains)] == 0.0
    assert max(sum(gains[:n]) for n in range(3)) == 1.0  # what no threshold reaches


def test_where_no_answer_helps_nothing_is_answered():
    assert choose_threshold([5.0, -5.0], [-1.0, -1.0]) > 5.0


# --- over items, batches and ranks


def many_items(size=60):
    pick = dice(7)
    items = []
    for number in range(size):
        answer, golds = draw(number, LATIN, " ")
        margin = pick.gauss(1.0 if golds else -1.0, 1.5)
        items.append((answer, golds, pick.choice(["en", "es"]), margin))
    return items


def score(items, tune, cuts=()):
    metric = AnswerReport("mlqa", unanswerable=True, tune=tune)
    for start, end in zip([0, *cuts], [*cuts, len(items)], strict=True):
        columns = [list(column) for column in zip(*items[start:end], strict=True)]
        metric.update(*(columns or [[], [], [], []]))
    return metric.compute()


@pytest.mark.parametrize("tune", [False, True])
def test_the_report_says_the_means_over_items(tune):
    items = many_items()
    result = score(items, tune)
    threshold = result["report"].get("best_threshold", -1e9)
    said = [(a if margin >= threshold else "", g, lang) for a, g, lang, margin in items]
    each = [(reference(a, g, "mlqa", lang, True), bool(g)) for a, g, lang in said]
    mean = {
        "em": [em for (em, _), _ in each],
        "f1": [f1 for (_, f1), _ in each],
        "has_answer_f1": [f1 for (_, f1), has in each if has],
        "no_answer_accuracy": [em for (em, _), has in each if not has],
    }
    expected = {name: sum(values) / len(values) for name, values in mean.items()}
    assert result["scores"] == pytest.approx(expected, abs=1e-12)
    assert result["report"]["has_answer"] == sum(has for _, has in each)
    assert result["report"]["items"] == len(items)


def test_the_tuned_f1_is_no_worse_than_answering_always_or_never():
    items = many_items()
    always = score(items, tune=False)["scores"]["f1"]
    never = score([("", *item[1:]) for item in items], tune=False)["scores"]["f1"]
    assert score(items, tune=True)["scores"]["f1"] > max(always, never)


def test_without_questions_that_have_no_answer_their_scores_are_absent():
    items = [item for item in many_items() if item[1]]
    assert set(score(items, tune=False)["scores"]) == {"f1", "em"}


def test_without_items_there_is_no_score():
    assert score([], tune=True) == {"scores": {}, "report": {}}


@pytest.mark.parametrize("tune", [False, True])
def test_any_split_into_batches_and_any_order_give_the_same_numbers(tune):
    items = many_items()
    whole = score(items, tune)
    for seed in range(5):
        pick = dice(seed)
        cuts = sorted(pick.choices(range(len(items) + 1), k=4))
        assert score(pick.sample(items, len(items)), tune, cuts) == whole


def run_rank(rank, folder):
    """Score one rank's shares of 50 and 10 items, then of all and none; write what it computes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    items = many_items()
    shares = [items[:at] if rank == 0 else items[at:] for at in (50, 60)]
    results = [score(share, tune) for share in shares for tune in (False, True)]
    distributed.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(results))


@pytest.mark.slow
def test_each_of_two_ranks_computes_the_result_of_one_process(tmp_path):
    multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    expected = [score(many_items(), tune) for tune in (False, True)] * 2
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected


def test_a_threshold_for_each_rank_would_be_another_score():
    items = many_items()
    parts = [score(part, tune=True) for part in (items[:30], items[30:])]
    mean = sum(part["scores"]["f1"] for part in parts) / 2
    assert mean != pytest.approx(score(items, tune=True)["scores"]["f1"], abs=1e-6)


def test_every_rule_reads_hostile_text():
    for read in NORMALIZERS.values():
        for text in ("\x00", "\u202e\u200b", "a" * 5000, "\ud800", "(((" * 300, "'" * 999):
            assert read(text, "zh")
