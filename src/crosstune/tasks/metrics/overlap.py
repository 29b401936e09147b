"""Metrics of generated text against references: BLEU, chrF and ROUGE, by their own libraries.

BLEU and chrF are scores of a corpus, and chrF exposes no counts that could be summed: this is a
function over all texts of a split, gathered from all ranks, and no `Metric`.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from crosstune.languages import SPACELESS_SCRIPTS, UNSPACED, script_of

ROUGE = ("rouge1", "rouge2", "rougeL")
OVERLAPS = ("bleu", "chrf", *ROUGE)
CHINESE_SCRIPTS = ("Hans", "Hant", "Hani")
# 々〆〇 stand for ideographs; Thai, Lao, Tibetan, Burmese and Khmer write no spaces either
SINGLE_WORDS = rf"([\u3005-\u3007{UNSPACED}\u0e00-\u109f\u1780-\u17ff])"


class UnicodeWords:
    """A tokenizer for ROUGE: lower-cased words of any script.

    Equal on ASCII to rouge-score's own, which knows only a to z and digits. In scripts without
    spaces each character is a word.

    >>> UnicodeWords().tokenize("El niño, 2 cafés: 北京 OK")
    ['el', 'niño', '2', 'cafés', '北', '京', 'ok']
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        lowered = unicodedata.normalize("NFC", text.lower())
        letters = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in lowered)
        return re.sub(SINGLE_WORDS, r" \1 ", letters).split()


def choose_tokenizer(language: str) -> str:
    """Return sacreBLEU's tokenizer for a language: `zh`, `char`, or `13a`, that of WMT.

    `zh` is for every code that is written in Chinese characters. `char`, every character a word, is
    for the other scripts without spaces and for Korean (WMT takes the words of MeCab there, which
    needs a dictionary). The signature in the report says which it is.

    >>> [choose_tokenizer(code) for code in ("zh-Hant", "yue", "zh-x-news", "ja", "ko", "th", "es")]
    ['zh', 'zh', 'zh', 'char', 'char', 'char', '13a']
    """
    script = script_of(language)
    if script in CHINESE_SCRIPTS:
        return "zh"
    return "char" if script in SPACELESS_SCRIPTS or script == "Kore" else "13a"


def report_overlap(
    texts: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> dict[str, Any]:
    """Return {"scores": …, "report": …} of texts, each against one reference or more.

    BLEU (Papineni et al. 2002, https://aclanthology.org/P02-1040) and chrF2 (Popović 2015,
    https://aclanthology.org/W15-3049) are sacreBLEU's (Post 2018, https://aclanthology.org/W18-6319)
    over the corpus, with the words of `choose_tokenizer`. ROUGE (Lin 2004,
    https://aclanthology.org/W04-1013) is rouge-score's F-measure over `UnicodeWords` with the best
    reference, averaged over the texts. All are fractions; an empty
    text scores 0. Without any text both parts are empty.

    >>> report_overlap(["el niño come pan"], [["el niño come pan", "come pan"]], "es")["scores"]
    {'bleu': 1.0, 'chrf': 1.0, 'rouge1': 1.0, 'rouge2': 1.0, 'rougeL': 1.0}
    """
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk: slow, so not in every run

    if not texts:
        return {"scores": {}, "report": {}}
    most = max(map(len, references))
    streams: Any = [[of[n] if n < len(of) else None for of in references] for n in range(most)]
    bleu = BLEU(tokenize=choose_tokenizer(language))
    chrf = CHRF()
    bleu_score: Any = bleu.corpus_score(texts, streams)
    scores = {"bleu": bleu_score.score, "chrf": chrf.corpus_score(texts, streams).score}
    scorer = RougeScorer(ROUGE, tokenizer=UnicodeWords())
    rouge = [scorer.score_multi(of, text) for text, of in zip(texts, references, strict=True)]
    report = {
        "texts": len(texts),
        "empty_texts": sum(not text for text in texts),
        "words": bleu_score.sys_len,
        "reference_words": bleu_score.ref_len,
        "brevity_penalty": bleu_score.bp,
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }
    # rounding may take the percentages above 100
    fractions = {name: min(1.0, value / 100) for name, value in scores.items()}
    means = {name: sum(one[name].fmeasure for one in rouge) / len(rouge) for name in ROUGE}
    return {"scores": fractions | means, "report": report}
