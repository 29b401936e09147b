"""BLEU, chrF and ROUGE against their own libraries, where these can be asked directly."""

import string

import numpy
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf, sentence_bleu

from crosstune.tasks.metrics.overlap import (
    OVERLAPS,
    ROUGE,
    UnicodeWords,
    choose_tokenizer,
    report_overlap,
)

TEXTS = {
    "en": "the cat sat on a mat , and it's 3.5 metres from U.S. dogs !",
    "es": "el niño ¿ comió la manzana , en Málaga . camión 3,5",
    "zh": "小明 住在 北京 ， 他 喜欢 喝 茶 。 2018 年 我们 去 看 火车",
}
CLOSE = {"rel": 1e-12, "abs": 1e-12}


def draw_corpus(seed, language, most=3):
    """Return 1 to 8 texts, some empty, against 1 to `most` references each."""
    draw = numpy.random.default_rng(seed)
    space = "" if language == "zh" else " "

    def text():
        return space.join(draw.choice(TEXTS[language].split(), draw.integers(1, 10)))

    texts = ["" if draw.random() < 0.15 else text() for _ in range(draw.integers(1, 9))]
    return texts, [[text() for _ in range(draw.integers(1, most + 1))] for _ in texts]


def streams_of(references):
    most = max(map(len, references))
    return [[of[n] if n < len(of) else None for of in references] for n in range(most)]


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [
        *((code, "zh") for code in ("zh", "zh-Hans", "zh-Hant", "zh-x-news", "zh-Hant-TW", "yue")),
        *((code, "char") for code in ("ja", "ja-x-news", "ko", "th", "km")),
        *((code, "13a") for code in ("es", "en", "es-x-medical", "ru", "vi", "zh-Latn")),
    ],
)
def test_the_tokenizer_of_bleu_is_that_of_the_script(language, tokenizer):
    assert choose_tokenizer(language) == tokenizer
    report = report_overlap(["我喜欢北京的茶 ok"], [["我喜欢北京的水 ok"]], language)["report"]
    assert f"tok:{tokenizer}|" in report["bleu_signature"]


def test_text_without_spaces_is_not_one_word_for_rouge():
    scores = report_overlap(["ฉันชอบชา"], [["ฉันชอบน้ำ"]], "th")["scores"]
    assert 0 < scores["rouge1"] < 1


@pytest.mark.parametrize("language", ["en", "es", "zh"])
@pytest.mark.parametrize("seed", range(12))
def test_bleu_and_chrf_are_those_of_sacrebleu(seed, language):
    texts, references = draw_corpus(seed, language)
    scores = report_overlap(texts, references, language)["scores"]
    words = choose_tokenizer(language)
    bleu = corpus_bleu(texts, streams_of(references), tokenize=words).score
    chrf = corpus_chrf(texts, streams_of(references)).score
    assert scores["bleu"] == pytest.approx(bleu / 100, **CLOSE)
    assert scores["chrf"] == pytest.approx(chrf / 100, **CLOSE)


def rouge_of(texts, references):
    """Return mean F-measures of rouge-score as it comes: best reference, means over texts."""
    scorer = RougeScorer(list(ROUGE))
    found = [
        {name: max(scorer.score(one, text)[name].fmeasure for one in of) for name in ROUGE}
        for text, of in zip(texts, references, strict=True)
    ]
    return {name: sum(one[name] for one in found) / len(found) for name in ROUGE}


@pytest.mark.parametrize("seed", range(12))
def test_rouge_is_that_of_rouge_score_on_english(seed):
    texts, references = draw_corpus(seed, "en")
    scores = report_overlap(texts, references, "en")["scores"]
    for name, expected in rouge_of(texts, references).items():
        assert scores[name] == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("seed", range(12))
def test_words_are_those_of_rouge_score_on_ascii(seed):
    text = "".join(numpy.random.default_rng(seed).choice(list(string.printable), 200))
    default = RougeScorer(["rouge1"])._tokenizer.tokenize(text)
    assert UnicodeWords().tokenize(text) == default


def test_rouge_sees_chinese_and_accents_which_rouge_score_alone_does_not():
    chinese, spanish = (["北京很冷"], [["北京很热"]]), (["ñandú año"], [["ñandú añil"]])
    assert report_overlap(*chinese, "zh")["scores"]["rouge1"] == pytest.approx(3 / 4)
    assert report_overlap(*spanish, "es")["scores"]["rouge1"] == pytest.approx(1 / 2)
    # the trap itself: nothing is left of Chinese, and half-words are left of Spanish
    assert rouge_of(*chinese)["rouge1"] == 0
    assert rouge_of(*spanish)["rouge1"] > 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cafe\u0301 Ñu", ["café", "ñu"]),
        ("你好,world你", ["你", "好", "world", "你"]),
        ("𠮷野家カレー", list("𠮷野家カレー")),
        ("हिन्दी", ["हिन्दी"]),
        ("한국어 사람", ["한국어", "사람"]),
        ("snake_case a-b", ["snake", "case", "a", "b"]),
        ("… ¡!", []),
    ],
)
def test_letters_of_every_script_make_words(text, words):
    assert UnicodeWords().tokenize(text) == words


def test_bleu_parts_chinese_into_characters_only_for_chinese():
    texts, references = ["今天天气很好"], [["今天天气很坏"]]
    assert report_overlap(texts, references, "zh")["scores"]["bleu"] > 0.5
    assert report_overlap(texts, references, "es")["scores"]["bleu"] == 0


def test_bleu_is_of_the_corpus_and_no_mean_of_sentences():
    texts, references = ["a b c d e", "x"], [["a b c d e"], ["y z"]]
    mean = sum(sentence_bleu(t, r).score for t, r in zip(texts, references, strict=True)) / 200
    assert abs(report_overlap(texts, references, "en")["scores"]["bleu"] - mean) > 0.1


def test_the_best_of_several_references_counts():
    alone = report_overlap(["el gato come"], [["un perro"]], "es")["scores"]
    both = report_overlap(["el gato come"], [["un perro", "el gato come"]], "es")["scores"]
    assert alone["rougeL"] == 0
    assert both["rougeL"] == both["chrf"] == 1


def test_the_order_of_the_texts_is_of_no_account():
    texts, references = draw_corpus(5, "es")
    once = report_overlap(texts, references, "es")["scores"]
    again = report_overlap(texts[::-1], references[::-1], "es")["scores"]
    assert once == pytest.approx(again, **CLOSE)


def test_texts_that_are_all_empty_are_worth_nothing():
    result = report_overlap(["", ""], [["uno"], ["dos", "tres"]], "es")
    assert result["scores"] == dict.fromkeys(OVERLAPS, 0.0)
    assert result["report"]["empty_texts"] == 2


def test_without_texts_nothing_was_measured():
    assert report_overlap([], [], "es") == {"scores": {}, "report": {}}


def test_no_score_exceeds_one_by_a_rounding():
    text = "uno dos tres cuatro cinco seis siete"
    assert corpus_bleu([text], [[text]]).score > 100, "the rounding is real"
    assert max(report_overlap([text], [[text]], "es")["scores"].values()) == 1


def test_the_report_says_how_it_was_measured_and_how_long_the_texts_are():
    report = report_overlap(["a b", "c"], [["a b c"], ["d", "e f"]], "en")["report"]
    assert report["bleu_signature"].startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|")
    assert report["chrf_signature"].startswith("nrefs:var|case:mixed|eff:yes|nc:6|nw:0|")
    assert (report["words"], report["reference_words"], report["texts"]) == (3, 4, 2)
