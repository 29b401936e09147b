"""Duplicate texts within and across splits: exact, loosely equal and nearly equal."""

import random
from itertools import combinations

import pytest

from crosstune.data.quality.duplicates import (
    count_leakage,
    find_duplicates,
    find_near,
    make_exact_key,
    make_loose_key,
)
from crosstune.data.splits import Split

LONG = "la habitación era amplia y el desayuno estaba muy bueno"


def splits_of(**texts):
    """Return splits from lists of texts, or of tuples of texts, named `train` or `test_zh`."""
    splits = {}
    for name, items in texts.items():
        split, _, language = name.partition("_")
        rows = [
            {"texts": [item] if isinstance(item, str) else list(item), "where": f"{name}:{n}"}
            for n, item in enumerate(items, start=1)
        ]
        splits.setdefault(split, {})[language or "es"] = Split(rows, {})
    return splits


def texts_of(row):
    return row["texts"]


def duplicates(**texts):
    """Return rule, place and message of every duplicate."""
    findings = find_duplicates(splits_of(**texts), texts_of)
    return [(f.rule, f.place, f.message) for f in findings]


# --- when two texts are the same


@pytest.mark.parametrize(
    ("one", "other"),
    [("una  noche ", "una noche"), ("nin\u0303o", "niño"), ("a\u3000b", "a b"), ("a\tb", "a b")],
)
def test_spaces_and_canonical_form_do_not_make_an_exact_difference(one, other):
    assert make_exact_key([one]) == make_exact_key([other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Muy Bueno", "muy bueno"),
        ("ＡＢＣ１２３", "abc123"),
        ("很好！", "很好!"),
        ("很 好", "很好"),
        ("ﬁn", "fin"),
        ("STRASSE", "straße"),
        ("a\u200bb", "ab"),
        ("co\u00adche", "coche"),
    ],
)
def test_case_width_space_and_compatibility_make_an_exact_difference_only(one, other):
    assert make_exact_key([one]) != make_exact_key([other])
    assert make_loose_key([one]) == make_loose_key([other])


@pytest.mark.parametrize(("one", "other"), [("si", "sí"), ("no!", "no"), ("國", "国")])
def test_accents_punctuation_and_script_variants_count(one, other):
    assert make_loose_key([one]) != make_loose_key([other])


def test_texts_of_an_item_do_not_run_together():
    assert make_loose_key(["ab", "c"]) != make_loose_key(["a", "bc"])


# --- where they stand


def test_a_text_that_train_has_is_told_where_it_stands():
    assert duplicates(train=["x", "uno"], test=["uno"]) == [("D102", "test:1", "also at train:2")]


@pytest.mark.parametrize(
    ("texts", "rules"),
    [
        ({"train": ["uno", "uno"]}, ["D101"]),
        ({"train": ["uno"], "test": ["uno"]}, ["D102"]),
        ({"train": ["uno"], "validation": ["uno"]}, ["D103"]),
        ({"validation": ["uno"], "test": ["uno"]}, ["D104"]),
        ({"train": ["uno", "Uno"]}, ["D201"]),
        ({"train": ["uno"], "test": ["Uno"]}, ["D202"]),
        ({"train": ["uno"], "validation": ["Uno"]}, ["D203"]),
        ({"validation": ["uno"], "test": ["Uno"]}, ["D204"]),
        ({"train": [LONG, LONG + "!"]}, ["D301"]),
        ({"train": [LONG], "test": [LONG + "!"]}, ["D302"]),
        ({"train": [LONG], "validation": [LONG + "!"]}, ["D303"]),
        ({"validation": [LONG], "test": [LONG + "!"]}, ["D304"]),
        ({"train": ["uno"], "test_zh": ["uno"]}, ["D402"]),
        ({"test": ["uno"], "test_zh": ["Uno"]}, ["D402"]),
        ({"train": ["uno", "dos"], "validation": ["tres"], "test": ["cuatro"]}, []),
    ],
)
def test_each_kind_of_duplicate_has_its_rule(texts, rules):
    assert [rule for rule, _, _ in duplicates(**texts)] == rules


def test_a_row_that_stands_everywhere_is_told_of_each_split():
    findings = duplicates(train=["uno"], validation=["uno"], test=["uno", "uno"])
    assert [rule for rule, _, _ in findings] == ["D103", "D102", "D104", "D102", "D104", "D101"]


def test_a_pair_is_a_duplicate_only_if_both_texts_are():
    assert duplicates(train=[("a", "b")], test=[("a", "c"), ("b", "a")]) == []
    assert [f[0] for f in duplicates(train=[("a", "b")], test=[("a", "b")])] == ["D102"]


def test_a_shared_context_is_a_note_and_no_duplicate():
    context = LONG * 5
    findings = duplicates(train=[("¿Cómo era?", context)], test=[("¿Quién vino ayer?", context)])
    assert findings == [("D401", "test:1", "shares a text with train:1")]


def test_without_a_text_there_is_no_duplicate():
    assert duplicates(train=["", ""], test=["  "]) == []


def test_short_texts_are_never_nearly_the_same():
    assert duplicates(train=["muy bueno"], test=["muy buenos"]) == []


# --- how many rows train shares


def test_leakage_is_counted_by_split_and_language():
    splits = splits_of(train=["uno", "dos"], validation=["tres"], test=["UNO", "uno", "x"])
    splits["test"] |= splits_of(test_zh=["dos"])["test"]
    assert count_leakage(splits, texts_of) == {"test/es": 2, "test/zh": 1}


def test_without_train_nothing_leaks():
    assert count_leakage(splits_of(test=["uno"]), texts_of) == {}


# --- near duplicates against every pair compared


def similarity(one, other):
    """Return the Jaccard index of the sets of runs of 4 characters."""
    first, second = ({t[i : i + 4] for i in range(len(t) - 3)} for t in (one, other))
    return len(first & second) / len(first | second)


def near_by_brute_force(texts):
    pairs = [(j, i) for i, j in combinations(range(len(texts)), 2)]
    near = [(j, i) for j, i in pairs if similarity(texts[i], texts[j]) >= 0.8]
    return sorted((j, min(i for k, i in near if k == j)) for j in {j for j, _ in near})


@pytest.mark.parametrize("letters", ["abc", "的一是不了人我在有他这中大来上"])
def test_what_is_nearly_the_same_is_found_whole(letters):
    rng = random.Random(7)  # noqa: S311 - not for secrets
    texts = ["".join(rng.choices(letters, k=rng.randint(40, 90))) for _ in range(40)]
    for text in rng.choices(texts, k=60):
        changed = list(text)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.choice(letters)
        texts.append("".join(changed))
    rng.shuffle(texts)
    expected = near_by_brute_force(texts)
    assert 10 < len(expected) < 90
    assert list(find_near([(text,) for text in texts])) == expected


def test_too_short_a_prefix_would_miss_some():
    """What the algorithm rests on: the rarest fifth of the members, and not fewer, are shared."""
    text = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ"
    changed = text[:20] + "_" + text[21:]
    assert similarity(text, changed) >= 0.8
    assert list(find_near([(text,), (changed,)])) == [(1, 0)]
    altered = {changed[i : i + 4] for i in range(len(changed) - 3) if "_" in changed[i : i + 4]}
    assert len(altered) == 4  # the four rarest: a prefix of four holds nothing that both share


def test_every_text_of_a_pair_must_be_near():
    assert list(find_near([(LONG, "¿quién vino?"), (LONG + "!", "¿dónde fue?")])) == []
    assert list(find_near([(LONG, "¿quién vino?"), (LONG + "!", "¿quién vino?")])) == [(1, 0)]


# --- kinds of which not all that makes an item leaks

PAIRS = {
    "train": [("x (a) b", "x a b"), ("x a (b)", "x a b"), ("x (a) b", "x a b")],
    "test": [("x (a) b", "x a b"), ("(x) a b", "x a b"), ("y (a) b", "y a b")],
}


def pairs(**compare):
    """Return rule and place of the duplicates of marked texts."""
    findings = find_duplicates(splits_of(**PAIRS), lambda row: row["texts"][:1], **compare)
    return [(f.rule, f.place) for f in findings]


def leakage_texts(row):
    return row["texts"][1:]


def test_in_a_split_the_whole_item_is_compared_and_across_splits_what_leaks():
    wanted = [("D101", "train:3"), ("D102", "test:1"), ("D102", "test:2")]
    assert pairs(leakage_texts=leakage_texts) == wanted


def test_by_the_whole_item_alone_a_text_in_two_splits_would_be_missed():
    assert pairs() == [("D101", "train:3"), ("D102", "test:1")]


def test_leakage_counts_what_leaks():
    assert count_leakage(splits_of(**PAIRS), leakage_texts) == {"test/es": 2}
