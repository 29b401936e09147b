"""Written text against references: BLEU, chrF and ROUGE, as their reference libraries count them.

BLEU and chrF belong to a corpus, and chrF gives no counts away that would add up: so this is a
function over all texts of a split, and no `Metric`. `tasks/generation.py` gathers the texts of all
ranks, in the order of the file, before it asks.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from crosstune.languages import UNSPACED

ROUGE = ("rouge1", "rouge2", "rougeL")
OVERLAPS = ("bleu", "chrf", *ROUGE)
SINGLE_WORDS = rf"([\u3005-\u3007{UNSPACED}])"  # the marks 々〆〇 stand for ideographs


class UnicodeWords:
    """Words in small letters for ROUGE: rouge-score's own reading knows a to z and digits alone.

    Equal to it on ASCII. Letters, digits and marks of any script make words; ideographs and kana
    stand for themselves.

    >>> UnicodeWords().tokenize("El niño, 2 cafés: 北京 OK")
    ['el', 'niño', '2', 'cafés', '北', '京', 'ok']
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        whole = unicodedata.normalize("NFC", text.lower())
        kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in whole)
        return re.sub(SINGLE_WORDS, r" \1 ", kept).split()


def report_overlap(
    texts: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> dict[str, Any]:
    """Return {"scores": …, "report": …} of texts, each against one reference or more.

    BLEU (Papineni et al. 2002, https://aclanthology.org/P02-1040) and chrF2 (Popović 2015,
    https://aclanthology.org/W15-3049) are sacreBLEU's (Post 2018, https://aclanthology.org/W18-6319)
    over the corpus; BLEU's words are those of its tokenizer `zh` where `language` is zh, else of
    `13a`. ROUGE (Lin 2004, https://aclanthology.org/W04-1013) is rouge-score's F-measure over
    `UnicodeWords`, the best reference counted, averaged over the texts. All are fractions; an empty
    text is worth 0. Without any text both parts are empty.

    >>> report_overlap(["el niño come pan"], [["el niño come pan", "come pan"]], "es")["scores"]
    {'bleu': 1.0, 'chrf': 1.0, 'rouge1': 1.0, 'rouge2': 1.0, 'rougeL': 1.0}
    """
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, and every run this module

    if not texts:
        return {"scores": {}, "report": {}}
    most = max(map(len, references))
    streams: Any = [[of[n] if n < len(of) else None for of in references] for n in range(most)]
    bleu = BLEU(tokenize="zh" if language == "zh" else "13a")
    chrf = CHRF()
    found: Any = bleu.corpus_score(texts, streams)
    scores = {"bleu": found.score, "chrf": chrf.corpus_score(texts, streams).score}
    scorer = RougeScorer(ROUGE, tokenizer=UnicodeWords())
    rouge = [scorer.score_multi(of, text) for text, of in zip(texts, references, strict=True)]
    report = {
        "texts": len(texts),
        "empty_texts": sum(not text for text in texts),
        "words": found.sys_len,
        "reference_words": found.ref_len,
        "brevity_penalty": found.bp,
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }
    # their percentages may exceed 100 by a rounding
    fractions = {name: min(1.0, value / 100) for name, value in scores.items()}
    means = {name: sum(one[name].fmeasure for one in rouge) / len(rouge) for name in ROUGE}
    return {"scores": fractions | means, "report": report}
