"""The text that the demo trains and tests on, generated from small grammars and free of any file.

Decides which sentence belongs to which split; the words and patterns stand in `demo_en`,
`demo_es` and `demo_zh`. The readers are named in `conf/data/demo_*.yaml`. The same options give
the same rows on every machine, and a smaller row count gives the first rows of a larger one.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from crosstune.data.split import Split
from crosstune.data.synthetic import words_en as demo_en
from crosstune.data.synthetic import words_es as demo_es
from crosstune.data.synthetic import words_zh as demo_zh
from crosstune.data.synthetic.grammar import (
    draw_mention,
    draw_opinion,
    draw_review,
    draw_verdict,
    join_words,
)
from crosstune.errors import ConfigError, suggest

LABELS = {"good": "positive", "bad": "negative"}
MOST_ROWS = 10_000  # per source and language

_GRAMMARS = {"en": demo_en.GRAMMAR, "es": demo_es.GRAMMAR, "zh": demo_zh.GRAMMAR}
_MIXED = "mul"  # ISO 639-2 for "multiple languages"
_MIXTURE = ("es", "zh", "en")
_LABELLED_ROWS = {"train": 600, "validation": 150, "test": 301}  # odd: it fills no batch evenly
_TEXT_ROWS = {"train": 2000, "validation": 200, "test": 200}
_HELD_OUT = {"train": 0.0, "validation": 0.3, "test": 0.3}  # share of names never in train
_TENTHS = {"train": range(6), "validation": range(6, 8), "test": range(8, 10)}
_OPINIONS = 0.7  # share of opinions in the text without labels; the rest are mentions
_REVIEWS = 0.6  # share of those opinions that are reviews of scored aspects
_VERDICTS = 0.8  # share of the other opinions that a verdict precedes or follows
_PATIENCE = 2000  # draws in a row that bring nothing new, before the grammar counts as exhausted


def read_demo_sentiment(source: str, *, language: str, rows: dict[str, int] | None = None) -> Split:
    """Generate opinions labelled "positive" or "negative", one of each in every two rows.

    Negation, concession, contrast, reported speech and comparison decide the label: the words
    alone do not (`demo_grammars` says why). `rows` replaces the default row counts by source.

    >>> read_demo_sentiment("test", language="en").rows[0]["label"] in ("positive", "negative")
    True
    """
    count = _count_rows(source, rows, _LABELLED_ROWS)
    _check_demo_language(language, list(_GRAMMARS))
    return _draw_sentiment(source, language, count)


@lru_cache  # a study asks for the same rows once a run
def _draw_sentiment(source: str, language: str, count: int) -> Split:
    grammar = _GRAMMARS[language]
    name = f"demo_sentiment/{language}/{source}"
    coin = random.Random(f"{name}/labels")  # noqa: S311  # apart, so that it stays in step
    polarities: list[str] = []

    def draw(rng: random.Random, done: int) -> tuple[str, dict[str, Any]]:
        if done == len(polarities):
            polarities.extend(coin.sample(list(LABELS), 2))
        key, text = draw_opinion(rng, grammar, polarities[done])
        return key, {"text": text, "label": LABELS[polarities[done]]}

    return _as_split({name: _draw_rows(name, count, draw)})


def read_demo_entities(source: str, *, language: str, rows: dict[str, int] | None = None) -> Split:
    """Generate sentences with persons, places and organisations in IOB2 tags.

    Half of the names can be any of the three, so that the context decides; about three in ten in
    validation and test never occur in train. A Chinese word is one character.
    `rows` replaces the default row counts by source.

    >>> row = read_demo_entities("train", language="zh", rows={"train": 1}).rows[0]
    >>> len(row["words"]) == len(row["tags"])
    True
    """
    count = _count_rows(source, rows, _LABELLED_ROWS)
    _check_demo_language(language, list(_GRAMMARS))
    return _draw_entities(source, language, count)


@lru_cache
def _draw_entities(source: str, language: str, count: int) -> Split:
    grammar = _GRAMMARS[language]
    name = f"demo_entities/{language}/{source}"

    def draw(rng: random.Random, done: int) -> tuple[str, dict[str, Any]]:
        words, tags = draw_mention(rng, grammar, _HELD_OUT[source])
        return join_words(words, grammar), {"words": words, "tags": tags}

    return _as_split({name: _draw_rows(name, count, draw)})


def read_demo_text(source: str, *, language: str, rows: dict[str, int] | None = None) -> Split:
    """Generate text without labels from the same grammars, for masked language modelling.

    Some opinions carry a verdict that agrees with them ("Rating: 1/5.") and some are reviews with
    a score for each aspect, as people write them; labelled opinions have neither. Language "mul"
    interleaves Spanish, Chinese and English, with as many rows of each as `rows` asks for.

    >>> [row["where"] for row in read_demo_text("test", language="mul").rows[:2]]
    ['demo_text/es/test:1', 'demo_text/zh/test:1']
    """
    count = _count_rows(source, rows, _TEXT_ROWS)
    _check_demo_language(language, [*_GRAMMARS, _MIXED])
    parts = _MIXTURE if language == _MIXED else (language,)
    return _as_split(dict(_draw_text(source, part, count) for part in parts))


def _draw_text(source: str, language: str, count: int) -> tuple[str, list[dict[str, Any]]]:
    grammar = _GRAMMARS[language]
    name = f"demo_text/{language}/{source}"

    def draw(rng: random.Random, done: int) -> tuple[str, dict[str, Any]]:
        if rng.random() >= _OPINIONS:
            words, _ = draw_mention(rng, grammar, _HELD_OUT[source])
            text = join_words(words, grammar)
            return text, {"text": text}
        polarity = rng.choice(list(LABELS))
        if rng.random() < _REVIEWS:
            text = draw_review(rng, grammar)
            return text, {"text": text}
        key, text = draw_opinion(rng, grammar, polarity)
        if rng.random() < _VERDICTS:
            sentences = [text, draw_verdict(rng, grammar, polarity)]
            rng.shuffle(sentences)
            text = (" " if grammar.spaced else "").join(sentences)
        return key, {"text": text}

    return name, _draw_rows(name, count, draw)


def _draw_rows(
    name: str, count: int, draw: Callable[[random.Random, int], tuple[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Draw rows until `count` of them are distinct and belong to the source that `name` ends in.

    A sentence belongs to one source by its hash, so no two sources of a language share one, in
    whatever order and number they are generated.
    """
    tenths = _TENTHS[name.rpartition("/")[2]]
    rng = random.Random(name)  # noqa: S311  # not for secrets: the same rows every time
    drawn: dict[str, dict[str, Any]] = {}
    misses = 0
    while len(drawn) < count:
        key, columns = draw(rng, len(drawn))
        if key in drawn or int(_sha256(key)[:8], 16) % 10 not in tenths:
            misses += 1
            if misses > _PATIENCE:
                raise ConfigError(
                    f"{name}: {count} rows were asked for, but the grammar repeats itself after "
                    f"{len(drawn)}. Allowed: up to {len(drawn)}."
                )
            continue
        misses = 0
        number = len(drawn) + 1
        row_id = f"{name.replace('/', '-')}-{number}"
        drawn[key] = {"id": row_id, **columns, "where": f"{name}:{number}"}
    return list(drawn.values())


def _as_split(parts: dict[str, list[dict[str, Any]]]) -> Split:
    """Interleave parts of the same length, each with the digest of its rows."""
    digests = {
        name: _sha256(json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(",", ":")))
        for name, rows in parts.items()
    }
    return Split([row for turn in zip(*parts.values(), strict=True) for row in turn], digests)


def _count_rows(source: str, rows: Mapping[str, int] | None, defaults: dict[str, int]) -> int:
    counts = defaults | dict(rows or {})
    for name in (source, *counts):
        if name not in defaults:
            raise ConfigError(f"The demo has no source {name!r}. {suggest(name, list(defaults))}")
    count = counts[source]
    if not 1 <= count <= MOST_ROWS:
        raise ConfigError(
            f"The demo has 1 to {MOST_ROWS:,} rows per source, not {count} ({source})."
        )
    return count


def _check_demo_language(language: str, allowed: list[str]) -> None:
    if language not in allowed:
        raise ConfigError(f"The demo has no language {language!r}. {suggest(language, allowed)}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
