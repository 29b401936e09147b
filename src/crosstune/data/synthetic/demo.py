"""Readers of the demo data: text generated from small grammars, without any file.

The same options yield the same rows on every machine, and a smaller row count yields the first
rows of a larger one. The readers are targets of `conf/data/demo_*.yaml`.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from crosstune.data.splits import Split
from crosstune.data.synthetic.grammar import (
    Grammar,
    draw_mention,
    draw_opinion,
    draw_review,
    draw_verdict,
    join_sentence,
    load_grammar,
)
from crosstune.errors import ConfigError, suggest

LABELS = {"good": "positive", "bad": "negative"}
LANGUAGES = ("es", "zh", "en")
MAX_ROWS = 10_000  # per source and language

_MULTILINGUAL = "mul"  # ISO 639-2 for "multiple languages"
_LABELLED_ROWS = {"train": 600, "validation": 150, "test": 301}  # odd: the last batch is not full
_TEXT_ROWS = {"train": 2000, "validation": 200, "test": 200}
_HELD_OUT = {"train": 0.0, "validation": 0.3, "test": 0.3}  # share of names never in train
_TENTHS = {"train": range(6), "validation": range(6, 8), "test": range(8, 10)}
_OPINIONS = 0.7  # share of opinions in the text without labels; the rest are mentions
_REVIEWS = 0.6  # share of those opinions that are reviews of scored aspects
_VERDICTS = 0.8  # share of the other opinions that a verdict precedes or follows
_MAX_MISSES = 2000  # consecutive draws without a new row before the grammar counts as exhausted

# maps a random generator and the number of rows so far to the sentence that must be new, and a row
DrawRow = Callable[[random.Random, int], tuple[str, dict[str, Any]]]


def read_demo_sentiment(source: str, *, language: str, rows: dict[str, int] | None = None) -> Split:
    """Generate opinions labelled "positive" or "negative", one of each in every two rows.

    Negation, concession, contrast, reported speech and comparison decide the label: the words
    alone do not (`grammar.py` says why). `rows` replaces the default row counts by source.

    >>> read_demo_sentiment("test", language="en").rows[0]["label"] in ("positive", "negative")
    True
    """
    count = _count_rows(source, rows, _LABELLED_ROWS)
    _check_demo_language(language, LANGUAGES)
    return _generate(_draw_sentiment, f"demo_sentiment/{language}/{source}", count)


def read_demo_entities(source: str, *, language: str, rows: dict[str, int] | None = None) -> Split:
    """Generate sentences with persons, locations and organisations in IOB2 tags.

    Half of the names can be any of the three, so that the context decides; about three in ten in
    validation and test never occur in train. A Chinese word is one character.
    `rows` replaces the default row counts by source.

    >>> row = read_demo_entities("train", language="zh", rows={"train": 1}).rows[0]
    >>> len(row["words"]) == len(row["tags"])
    True
    """
    count = _count_rows(source, rows, _LABELLED_ROWS)
    _check_demo_language(language, LANGUAGES)
    return _generate(_draw_entities, f"demo_entities/{language}/{source}", count)


def read_demo_text(source: str, *, language: str, rows: dict[str, int] | None = None) -> Split:
    """Generate text without labels from the same grammars, for masked language modelling.

    Some opinions come with a verdict that agrees with them ("Rating: 1/5."), and some are reviews
    with a score for each aspect; labelled opinions have neither. Language "mul" interleaves
    Spanish, Chinese and English, with as many rows of each as `rows` asks for.

    >>> [row["where"] for row in read_demo_text("test", language="mul").rows[:2]]
    ['demo_text/es/test:1', 'demo_text/zh/test:1']
    """
    count = _count_rows(source, rows, _TEXT_ROWS)
    _check_demo_language(language, (*LANGUAGES, _MULTILINGUAL))
    languages = LANGUAGES if language == _MULTILINGUAL else (language,)
    splits = [_generate(_draw_text, f"demo_text/{code}/{source}", count) for code in languages]
    interleaved = [row for turn in zip(*(s.rows for s in splits), strict=True) for row in turn]
    return Split(interleaved, {name: d for s in splits for name, d in s.digests.items()})


def _draw_sentiment(grammar: Grammar, name: str) -> DrawRow:
    label_rng = random.Random(f"{name}/labels")  # noqa: S311  # separate, so that labels alternate
    polarities: list[str] = []

    def draw(rng: random.Random, count: int) -> tuple[str, dict[str, Any]]:
        if count == len(polarities):
            polarities.extend(label_rng.sample(list(LABELS), 2))
        sentence, text = draw_opinion(rng, grammar, polarities[count])
        return sentence, {"text": text, "label": LABELS[polarities[count]]}

    return draw


def _draw_entities(grammar: Grammar, name: str) -> DrawRow:
    held_out = _HELD_OUT[name.rpartition("/")[2]]

    def draw(rng: random.Random, count: int) -> tuple[str, dict[str, Any]]:
        words, tags = draw_mention(rng, grammar, held_out)
        return join_sentence(words, grammar), {"words": words, "tags": tags}

    return draw


def _draw_text(grammar: Grammar, name: str) -> DrawRow:
    held_out = _HELD_OUT[name.rpartition("/")[2]]

    def draw(rng: random.Random, count: int) -> tuple[str, dict[str, Any]]:
        if rng.random() >= _OPINIONS:
            words, _ = draw_mention(rng, grammar, held_out)
            text = join_sentence(words, grammar)
            return text, {"text": text}
        polarity = rng.choice(list(LABELS))
        if rng.random() < _REVIEWS:
            text = draw_review(rng, grammar)
            return text, {"text": text}
        sentence, text = draw_opinion(rng, grammar, polarity)
        if rng.random() < _VERDICTS:
            sentences = [text, draw_verdict(rng, grammar, polarity)]
            rng.shuffle(sentences)
            text = (" " if grammar.spaced else "").join(sentences)
        return sentence, {"text": text}

    return draw


@lru_cache  # the runs of a study read the same rows
def _generate(make_draw: Callable[[Grammar, str], DrawRow], name: str, count: int) -> Split:
    grammar = load_grammar(name.split("/")[1])
    rows = _draw_rows(name, count, make_draw(grammar, name))
    content = json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Split(rows, {name: _sha256(content)})


def _draw_rows(name: str, count: int, draw: DrawRow) -> list[dict[str, Any]]:
    """Draw until there are `count` distinct rows of the source that `name` ends in.

    The hash of a sentence decides its source, so the sources of a language share no sentence,
    whatever the order and number in which they are generated.
    """
    tenths = _TENTHS[name.rpartition("/")[2]]
    rng = random.Random(name)  # noqa: S311  # not for secrets: the same rows every time
    rows: dict[str, dict[str, Any]] = {}
    misses = 0
    while len(rows) < count:
        sentence, columns = draw(rng, len(rows))
        if sentence in rows or int(_sha256(sentence)[:8], 16) % 10 not in tenths:
            misses += 1
            if misses > _MAX_MISSES:
                raise ConfigError(
                    f"{name}: {count} rows requested, but the grammar repeats itself after "
                    f"{len(rows)}. Allowed: up to {len(rows)}."
                )
            continue
        misses = 0
        number = len(rows) + 1
        row_id = f"{name.replace('/', '-')}-{number}"
        rows[sentence] = {"id": row_id, **columns, "where": f"{name}:{number}"}
    return list(rows.values())


def _count_rows(source: str, rows: Mapping[str, int] | None, defaults: dict[str, int]) -> int:
    counts = defaults | dict(rows or {})
    for name in (source, *counts):
        if name not in defaults:
            raise ConfigError(f"The demo has no source {name!r}. {suggest(name, list(defaults))}")
    count = counts[source]
    if not 1 <= count <= MAX_ROWS:
        raise ConfigError(
            f"The demo has 1 to {MAX_ROWS:,} rows per source, not {count} ({source})."
        )
    return count


def _check_demo_language(language: str, allowed: tuple[str, ...]) -> None:
    if language not in allowed:
        raise ConfigError(f"The demo has no language {language!r}. {suggest(language, allowed)}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
