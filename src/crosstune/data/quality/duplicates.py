"""Which texts are the same: to the letter, but for how they are written, or nearly.

An item's texts are those that its task kind names: all of them make the item, so a question is no
duplicate because its context is. Of some kinds fewer of them leak from split to split: a sentence
with two relations is two items, but must not stand in both train and test. Nothing here is random
and nothing is sampled. `examine.py` asks for every duplicate, `prepare.py` for the number of rows
that other splits share with train.
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
TextsOf = Callable[[Row], list[str]]
Key = tuple[str, ...]  # the texts of an item; equal keys are duplicates

NEAR = 0.8  # share of common shingles from which two texts are nearly the same
_SHINGLE = 4  # characters
_SHORTEST = 24  # characters below which "nearly" means nothing and a shared text is chance
_COMPARED = {  # with which splits a row is compared, and the last digits of the rule
    "train": {"train": "01"},
    "validation": {"train": "03", "validation": "01"},
    "test": {"train": "02", "validation": "04", "test": "01"},
}
_INVISIBLE = re.compile(rf"[\s\u2065\ufeff{ZERO_WIDTH}{BIDI_CONTROLS}]+")


def exact_key(texts: Sequence[str]) -> Key:
    """Return the texts in canonical Unicode form (NFC) with runs of space as one space.

    >>> exact_key(["así  es "]) == exact_key(["asi\u0301 es"])
    True
    """
    return tuple(" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)


def loose_key(texts: Sequence[str]) -> Key:
    """Return the texts without what depends on how they are written: case, space, width, form.

    >>> loose_key(["ＡＢＣ  Straße"])
    ('abcstrasse',)
    """
    return tuple(
        _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()) for text in texts
    )


def count_leakage(splits: Splits, leakage_texts: TextsOf) -> dict[str, int]:
    """Return, for each `split/language`, the rows whose texts train holds too, by `loose_key`.

    Splits that share nothing with train are left out.
    """
    seen = {
        loose_key(leakage_texts(row))
        for split in splits.get("train", {}).values()
        for row in split.rows
    }
    counts = {
        f"{name}/{language}": sum(loose_key(leakage_texts(row)) in seen for row in split.rows)
        for name, languages in splits.items()
        if name != "train"
        for language, split in languages.items()
    }
    return {name: count for name, count in counts.items() if count}


def check_duplicates(
    splits: Splits, texts_of: TextsOf, leakage_texts: TextsOf | None = None
) -> Iterator[Finding]:
    """Yield items that stand twice, in a split or across splits: exactly, loosely or nearly.

    Splits are compared by `leakage_texts`, and near items found by it, where it is not `texts_of`.
    """
    leakage_texts = leakage_texts or texts_of
    first: dict[tuple[str, str, str, Key], str] = {}  # where a key of a kind first stands
    spoken: dict[Key, dict[str, str]] = {}  # loose key -> language -> where
    for name, language, row in iterate_rows(splits):
        texts, leaks, where = texts_of(row), leakage_texts(row), row["where"]
        keys = {"1": exact_key(leaks), "2": loose_key(leaks)}
        core = keys["2"]
        if not any(core):
            continue
        own = {"own 1": exact_key(texts), "own 2": loose_key(texts)}
        for others, rule in _COMPARED[name].items():
            for level, key in (own if others == name else keys).items():
                if place := first.get((level, others, language, key)):
                    yield make_finding(
                        f"D{level[-1]}{rule}", where, f"also at {place}", " ".join(texts)
                    )
                    break
        if name != "train" and ("2", "train", language, core) not in first:
            for part in _long_parts(core):
                if place := first.get(("part", "train", language, part)):
                    yield make_finding("D401", where, f"shares a text with {place}", " ".join(part))
                    break
        for other, place in spoken.setdefault(core, {}).items():
            if other != language:
                yield make_finding("D402", where, f"in {other} at {place}", " ".join(texts))
        spoken[core].setdefault(language, where)
        parts = (("part", part) for part in _long_parts(core))
        for kind, key in [*keys.items(), *own.items(), *parts]:
            first.setdefault((kind, name, language, key), where)
    yield from _check_near(splits, leakage_texts)


def _check_near(splits: Splits, texts_of: TextsOf) -> Iterator[Finding]:
    by_language: dict[str, dict[Key, tuple[str, Row]]] = {}
    for name, language, row in iterate_rows(splits):
        by_language.setdefault(language, {}).setdefault(loose_key(texts_of(row)), (name, row))
    for items in by_language.values():
        places = list(items.values())
        for later, earlier in find_near(list(items)):
            (name, row), (others, other) = places[later], places[earlier]
            rule = f"D3{_COMPARED[name][others]}"
            yield make_finding(
                rule, row["where"], f"nearly {other['where']}", " ".join(texts_of(row))
            )


def _long_parts(key: Key) -> list[Key]:
    """Return the texts of an item of several, each as a key, but those that say too little."""
    return [(part,) for part in key if len(key) > 1 and len(part) >= _SHORTEST]


def find_near(keys: Sequence[Key]) -> Iterator[tuple[int, int]]:
    """Yield (place, first earlier place) of keys whose every text is nearly that of the other.

    Nearly: the sets of their runs of 4 characters have a Jaccard index of at least 0.8. Exact,
    by prefix filtering (Bayardo et al. 2007, https://doi.org/10.1145/1242572.1242591): two such
    sets share one of the rarest fifth of their members, so only those are looked up. The order of
    members of equal frequency changes what is looked up, but never what is found.

    >>> text = "el hotel era muy limpio y el personal muy amable con nosotros"
    >>> list(find_near([(text,), ("otra cosa que no se parece en nada",), (text + "!",)]))
    [(2, 0)]
    """
    shingled = [_shingles(key) for key in keys]
    frequency = Counter(shingle for shingles in shingled for shingle in shingles)
    ranks = {s: n for n, s in enumerate(sorted(frequency, key=frequency.__getitem__))}
    sets = [frozenset(ranks[shingle] for shingle in shingles) for shingles in shingled]
    lookup: dict[int, list[int]] = {}
    for place, members in enumerate(sets):
        size = len(members)
        prefix = sorted(members)[: size - ceil(NEAR * size) + 1] if size else []
        candidates = {other for member in prefix for other in lookup.get(member, ())}
        for other in sorted(candidates):
            if _is_near(members, sets[other]) and _all_near(keys[place], keys[other]):
                yield place, other
                break
        for member in prefix:
            lookup.setdefault(member, []).append(place)


def _shingles(key: Key) -> set[tuple[int, str]]:
    if sum(map(len, key)) < _SHORTEST:
        return set()
    return {(number, shingle) for number, text in enumerate(key) for shingle in _runs(text)}


def _runs(text: str) -> set[str]:
    return {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}


def _is_near(one: frozenset[Any], other: frozenset[Any]) -> bool:
    if min(len(one), len(other)) < NEAR * max(len(one), len(other)):
        return False
    common = len(one & other)
    return common >= NEAR * (len(one) + len(other) - common)


def _all_near(one: Key, other: Key) -> bool:
    """Say whether each text is near its counterpart: a shared context must not hide a question."""
    if len(one) != len(other):
        return False
    return len(one) == 1 or all(
        _is_near(frozenset(_runs(a)), frozenset(_runs(b))) for a, b in zip(one, other, strict=True)
    )
