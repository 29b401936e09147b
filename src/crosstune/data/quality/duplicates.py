"""Duplicate texts: exact, equal but for how they are written, or nearly equal.

All texts of an item together must match: a question is no duplicate because its context is one.
Splits are compared by a task's leakage texts, which can be fewer: two relations of one sentence are
two items, but the sentence must not be in both train and test. Nothing is random or sampled.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any

from crosstune.data.quality.rules import Finding, make_finding
from crosstune.data.splits import Splits, iterate_rows
from crosstune.languages import BIDI_CONTROLS, ZERO_WIDTH

Row = dict[str, Any]
RowToStrings = Callable[[Row], list[str]]
Key = tuple[str, ...]  # the texts of an item; equal keys are duplicates

NEAR = 0.8  # Jaccard index of the shingles from which two texts are nearly equal
_SHINGLE = 4  # characters
_MIN_LENGTH = 24  # characters; shorter texts are nearly equal, or shared, by chance
_COMPARED = {  # by split: the splits that a row is compared with, and the end of the rule's id
    "train": {"train": "01"},
    "validation": {"train": "03", "validation": "01"},
    "test": {"train": "02", "validation": "04", "test": "01"},
}
_INVISIBLE = re.compile(rf"[\s\u2065\ufeff{ZERO_WIDTH}{BIDI_CONTROLS}]+")


def make_exact_key(texts: Sequence[str]) -> Key:
    """Return the texts in canonical Unicode form (NFC), with each run of whitespace as one space.

    >>> make_exact_key(["así  es "]) == make_exact_key(["asi\u0301 es"])
    True
    """
    return tuple(" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)


def make_loose_key(texts: Sequence[str]) -> Key:
    """Return the texts without differences of case, whitespace, width and Unicode form.

    >>> make_loose_key(["ＡＢＣ  Straße"])
    ('abcstrasse',)
    """
    return tuple(
        _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()) for text in texts
    )


def count_leakage(splits: Splits, leakage_texts: RowToStrings) -> dict[str, int]:
    """Count the rows of each `split/language` whose texts also occur in train, by `make_loose_key`.

    Splits that share nothing with train are left out.
    """
    seen = {
        make_loose_key(leakage_texts(row))
        for split in splits.get("train", {}).values()
        for row in split.rows
    }
    counts = {
        f"{name}/{language}": sum(make_loose_key(leakage_texts(row)) in seen for row in split.rows)
        for name, languages in splits.items()
        if name != "train"
        for language, split in languages.items()
    }
    return {name: count for name, count in counts.items() if count}


def find_duplicates(
    splits: Splits, texts_of: RowToStrings, leakage_texts: RowToStrings | None = None
) -> Iterator[Finding]:
    """Yield items that repeat an earlier one, in a split or across splits: exactly or nearly.

    Splits are compared, and nearly equal items found, by `leakage_texts` instead of `texts_of`.
    """
    leakage_texts = leakage_texts or texts_of
    first: dict[tuple[str, str, str, Key], str] = {}  # level, split, language, key -> where
    languages: dict[Key, dict[str, str]] = {}  # loose key -> language -> where
    for name, language, row in iterate_rows(splits):
        texts, where = texts_of(row), row["where"]
        shared = leakage_texts(row)
        across = {"1": make_exact_key(shared), "2": make_loose_key(shared)}
        within = {"item 1": make_exact_key(texts), "item 2": make_loose_key(texts)}
        loose = across["2"]
        if not any(loose):
            continue
        for split, rule in _COMPARED[name].items():
            for level, key in (within if split == name else across).items():
                if earlier := first.get((level, split, language, key)):
                    rule_id, text = f"D{level[-1]}{rule}", " ".join(texts)
                    yield make_finding(rule_id, where, f"also at {earlier}", text)
                    break
        parts = _split_parts(loose)
        if name != "train" and ("2", "train", language, loose) not in first:
            for part in parts:
                if earlier := first.get(("part", "train", language, part)):
                    text = " ".join(part)
                    yield make_finding("D401", where, f"shares a text with {earlier}", text)
                    break
        for other_language, earlier in languages.setdefault(loose, {}).items():
            if other_language != language:
                message = f"in {other_language} at {earlier}"
                yield make_finding("D402", where, message, " ".join(texts))
        languages[loose].setdefault(language, where)
        for level, key in [*across.items(), *within.items(), *(("part", part) for part in parts)]:
            first.setdefault((level, name, language, key), where)
    yield from _find_near_duplicates(splits, leakage_texts)


def _find_near_duplicates(splits: Splits, texts_of: RowToStrings) -> Iterator[Finding]:
    by_language: dict[str, dict[Key, tuple[str, Row]]] = {}
    for name, language, row in iterate_rows(splits):
        by_language.setdefault(language, {}).setdefault(make_loose_key(texts_of(row)), (name, row))
    for items in by_language.values():
        distinct = list(items.values())
        for later, earlier in find_near(list(items)):
            (name, row), (earlier_name, earlier_row) = distinct[later], distinct[earlier]
            rule = f"D3{_COMPARED[name][earlier_name]}"
            message = f"nearly {earlier_row['where']}"
            yield make_finding(rule, row["where"], message, " ".join(texts_of(row)))


def _split_parts(key: Key) -> list[Key]:
    """Return the single texts of an item of several, each as a key, without the short ones."""
    return [(part,) for part in key if len(key) > 1 and len(part) >= _MIN_LENGTH]


def find_near(keys: Sequence[Key]) -> Iterator[tuple[int, int]]:
    """Yield (index, first earlier index) of keys whose texts are all nearly equal.

    Two texts are nearly equal if their sets of 4-character shingles have a Jaccard index of at
    least 0.8. The search is exact, by prefix filtering (Bayardo et al. 2007,
    https://doi.org/10.1145/1242572.1242591): two such sets share one of the rarest fifth of their
    shingles, so only those are looked up. The order of equally frequent shingles changes which
    candidates are looked up, but not the result.

    >>> text = "el hotel era muy limpio y el personal muy amable con nosotros"
    >>> list(find_near([(text,), ("otra cosa que no se parece en nada",), (text + "!",)]))
    [(2, 0)]
    """
    shingled = [_make_shingles(key) for key in keys]
    frequency = Counter(shingle for shingles in shingled for shingle in shingles)
    ranks = {s: n for n, s in enumerate(sorted(frequency, key=frequency.__getitem__))}
    sets = [frozenset(ranks[shingle] for shingle in shingles) for shingles in shingled]
    lookup: dict[int, list[int]] = {}
    for index, members in enumerate(sets):
        size = len(members)
        prefix = sorted(members)[: size - ceil(NEAR * size) + 1] if size else []
        candidates = {earlier for member in prefix for earlier in lookup.get(member, ())}
        for earlier in sorted(candidates):
            if _is_near(members, sets[earlier]) and _all_near(keys[index], keys[earlier]):
                yield index, earlier
                break
        for member in prefix:
            lookup.setdefault(member, []).append(index)


def _make_shingles(key: Key) -> set[tuple[int, str]]:
    if sum(map(len, key)) < _MIN_LENGTH:
        return set()
    return {(n, shingle) for n, text in enumerate(key) for shingle in _shingle_text(text)}


def _shingle_text(text: str) -> frozenset[str]:
    starts = range(max(1, len(text) - _SHINGLE + 1))
    return frozenset(text[start : start + _SHINGLE] for start in starts)


def _is_near(one: frozenset[Any], other: frozenset[Any]) -> bool:
    if min(len(one), len(other)) < NEAR * max(len(one), len(other)):
        return False
    common = len(one & other)
    return common >= NEAR * (len(one) + len(other) - common)


def _all_near(one: Key, other: Key) -> bool:
    """Return whether each text is near its counterpart: a long context must not hide a question."""
    if len(one) != len(other):
        return False
    pairs = zip(one, other, strict=True)
    return len(one) == 1 or all(_is_near(_shingle_text(a), _shingle_text(b)) for a, b in pairs)
