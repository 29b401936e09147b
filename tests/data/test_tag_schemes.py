"""Schemes of span tags: conversions keep the spans, and faults are reported at their word."""

from itertools import pairwise

import numpy as np
import pytest

from crosstune.data.tag_schemes import (
    MARKS,
    convert_scheme,
    detect_scheme,
    find_scheme_faults,
    may_follow,
    read_spans,
)

SCHEMES = tuple(MARKS)
TYPED = {
    "iob1": ["I-A", "B-A", "I-B", "I-B", "O"],
    "iob2": ["B-A", "B-A", "B-B", "I-B", "O"],
    "bioes": ["S-A", "S-A", "B-B", "E-B", "O"],
    "bmes": ["S-A", "S-A", "B-B", "E-B", "O"],
    "bilou": ["U-A", "U-A", "B-B", "L-B", "O"],
}


def draw_spans(seed, kinds=("A", "B", "_")):
    """Return random spans, many of them side by side, and the length of their sentence."""
    rng = np.random.default_rng(seed)
    spans, at = set(), 0
    while at < 20:
        length = int(rng.integers(1, 5))
        if rng.random() < 0.7:
            spans.add((str(rng.choice(kinds)), at, at + length))
        at += length
    return spans, at


def write(spans, length):
    """Return IOB2 tags of spans, written the plain way."""
    tags = ["O"] * length
    for kind, start, end in spans:
        suffix = "" if kind == "_" else f"-{kind}"
        tags[start:end] = ["B" + suffix] + ["I" + suffix] * (end - start - 1)
    return tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_conversion_keeps_every_span(scheme):
    for seed in range(200):
        spans, length = draw_spans(seed)
        assert read_spans(convert_scheme(write(spans, length), scheme)) == spans


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_conversion_writes_breaks_nothing(scheme):
    for seed in range(200):
        tags = convert_scheme(write(*draw_spans(seed)), scheme)
        assert find_scheme_faults(tags, scheme) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("between", SCHEMES)
def test_the_way_through_another_scheme_and_back_changes_nothing(scheme, between):
    for seed in range(50):
        tags = convert_scheme(write(*draw_spans(seed)), scheme)
        assert convert_scheme(convert_scheme(tags, between), scheme) == tags


def test_the_law_of_spans_finds_a_planted_bug():
    """IOB1 that writes no B where spans of one type touch joins them."""
    lost = 0
    for seed in range(20):
        spans, length = draw_spans(seed)
        planted = [tag.replace("B", "I", 1) for tag in convert_scheme(write(spans, length), "iob1")]
        lost += read_spans(planted) != spans
    assert lost


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_spans_in_each_scheme(scheme):
    assert convert_scheme(TYPED["iob2"], scheme) == TYPED[scheme]


def test_an_ill_formed_sequence_comes_out_well_formed_with_its_lenient_spans():
    tags = ["I-A", "O", "E-B", "I-B", "B-A", "M-B"]
    repaired = convert_scheme(tags, "bioes")
    assert repaired == ["S-A", "O", "S-B", "S-B", "S-A", "S-B"]
    assert read_spans(repaired) == read_spans(tags)


def test_no_tags_have_no_spans_and_no_faults():
    assert [convert_scheme([], scheme) for scheme in SCHEMES] == [[]] * len(SCHEMES)
    assert [find_scheme_faults([], scheme) for scheme in SCHEMES] == [[]] * len(SCHEMES)


@pytest.mark.parametrize(
    ("scheme", "tags", "places"),
    [
        ("iob2", ["I-A"], [0]),
        ("iob2", ["B-A", "I-B", "O", "I-A"], [1, 3]),
        ("iob2", ["B-A", "B-A", "I-A"], []),
        ("iob1", ["B-A", "I-A"], [0]),
        ("iob1", ["I-A", "B-A", "B-B"], [2]),
        ("iob1", ["I-A", "I-B"], []),
        ("bioes", ["B-A", "O"], [1]),
        ("bioes", ["B-A"], [0]),
        ("bioes", ["O", "B-A", "I-A"], [2]),
        ("bioes", ["B-A", "E-B", "S-B"], [1]),
        ("bioes", ["S-A", "E-A"], [1]),
        ("bioes", ["E-A", "I-A", "S-A"], [0, 1, 2]),
        ("bmes", ["B", "M", "E", "S", "B", "S"], [5]),
    ],
)
def test_every_breach_is_told_by_its_word(scheme, tags, places):
    assert [index for index, _ in find_scheme_faults(tags, scheme)] == places


@pytest.mark.parametrize(("scheme", "tag"), [("iob2", "S-A"), ("bioes", "M-A"), ("iob1", "NOUN")])
def test_a_tag_of_no_such_scheme_is_told(scheme, tag):
    spans = find_scheme_faults(["O", tag, "O"], scheme)
    assert spans[0] == (1, f"{tag} is no tag of {scheme.upper()}")


def test_a_breach_says_what_stands_there_and_the_rule():
    assert find_scheme_faults(["I-A"], "iob2") == [
        (0, "I-A after the start of the sentence: in IOB2 every span starts with B")
    ]
    assert find_scheme_faults(["B-A"], "bioes") == [
        (
            0,
            "the end of the sentence after B-A: in BIOES a span is S alone, or B, any number of I, "
            "and E, all of one type",
        )
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sequences_are_well_formed_just_where_rewriting_them_changes_nothing(scheme):
    rng = np.random.default_rng(5)
    tags = ["O", *(f"{mark}-{kind}" for mark in MARKS[scheme] for kind in "AB")]
    for _ in range(300):
        drawn = [str(tag) for tag in rng.choice(tags, rng.integers(1, 5))]
        well = not find_scheme_faults(drawn, scheme)
        assert well == (convert_scheme(drawn, scheme) == drawn), drawn
        pairs = pairwise([None, *drawn, None])
        assert well == all(may_follow(before, after, scheme) for before, after in pairs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_corpus_is_of_the_scheme_that_it_was_written_in(scheme):
    corpus = [convert_scheme(write(*draw_spans(seed)), scheme) for seed in range(20)]
    assert detect_scheme(corpus) == scheme


def test_a_few_breaches_do_not_change_what_a_corpus_is():
    corpus = [convert_scheme(write(*draw_spans(seed)), "iob2") for seed in range(20)]
    assert detect_scheme([*corpus, ["I-A"], ["O", "I-B"], ["S-A"]]) == "iob2"


def test_a_corpus_that_fits_more_than_one_scheme_is_the_first_of_them():
    assert detect_scheme([["O", "O"]]) == "iob2"
    assert detect_scheme([["S-A", "O", "B-A", "E-A"]]) == "bioes"
