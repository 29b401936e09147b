"""Generates the demo's sentences from the templates in `grammars/*.json`.

Opinions serve sentiment classification, sentences with named entities serve tagging. Each opinion
template is used for both labels, so that counting words does not give the label away; word order,
negation and scope do.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Polarity = str  # "good" or "bad"
OPPOSITE: dict[Polarity, Polarity] = {"good": "bad", "bad": "good"}
ENTITY_TYPES = {"per": "PER", "loc": "LOC", "org": "ORG", "club": "ORG"}  # of the slots

_SHAPES = {"plain": 0.7, "overturned": 0.25, "scoped": 0.05}  # probability of each pattern list
_NEGATED = 0.12  # share of clauses that negate the opposite ("was not bland" for "was tasty")
_FIRST_PERSON = 0.25  # share of clauses in the first person ("I liked the food")
_OPENED = 0.25  # share of sentences with an opening that their length does not require
_NAMELESS = 0.2  # share of sentences without an entity
_SHARED = 0.5  # share of names that only the context marks as person, location or organisation
_GRAMMARS = Path(__file__).parent / "grammars"


@dataclass(frozen=True)
class Aspect:
    """A noun phrase that an opinion can be about, with the adjectives that agree with it."""

    name: str
    agreement: str  # key of `Opinions.agreements`
    adjectives: Mapping[Polarity, Sequence[str]]


@dataclass(frozen=True)
class Domain:
    """Aspects that can appear in one review, and the phrases that name what is reviewed."""

    words: Mapping[str, str]
    aspects: Sequence[Aspect]


@dataclass(frozen=True)
class Opinions:
    """Patterns of one language whose label follows from their structure."""

    domains: Sequence[Domain]
    agreements: Mapping[str, Mapping[str, str]]  # verb forms and pronouns of a noun phrase
    affirmed: Sequence[str]  # clauses that state {adjective} of {np}
    negated: Sequence[str]  # clauses that negate it
    feelings: Mapping[Polarity, Sequence[Sequence[str]]]  # pairs: affirmed, negated
    fillers: Mapping[str, Sequence[str]]
    plain: Sequence[str]  # every clause has the same polarity
    overturned: Sequence[str]  # the last opinion decides
    scoped: Sequence[str]  # a marker decides which opinion counts, whatever the order
    opened: str  # the whole text, with an opening
    closed: str  # the whole text, without one
    lengths: tuple[int, int]  # minimum and maximum, in units of `Grammar.split_units`
    verdicts: Mapping[Polarity, Sequence[str]]  # `verdicts` and `scored`: unlabelled text only
    scored: Mapping[Polarity, str]


@dataclass(frozen=True)
class Mentions:
    """Patterns of one language in which the context decides the type of a name."""

    names: Mapping[str, Mapping[str, Sequence[str]]]  # slot or "shared" -> "known", "held_out"
    fillers: Mapping[str, Sequence[str]]
    patterns: Sequence[str]
    nameless: Sequence[str]


@dataclass(frozen=True)
class Grammar:
    """The vocabulary and patterns of one language."""

    opinions: Opinions
    mentions: Mentions
    spaced: bool  # whether the language separates words by spaces

    def split_units(self, text: str) -> list[str]:
        """Split a text into the units that are counted and tagged: words, or Chinese characters."""
        return text.split() if self.spaced else list(text)


@cache
def load_grammar(language: str) -> Grammar:
    """Load the grammar of a language; there must be a file for it."""
    tables = json.loads((_GRAMMARS / f"{language}.json").read_text("utf-8"))
    opinions = tables["opinions"]
    adjectives = opinions.pop("adjectives")
    opinions["domains"] = [
        Domain(domain["words"], [_make_aspect(aspect, adjectives) for aspect in domain["aspects"]])
        for domain in opinions["domains"]
    ]
    return Grammar(Opinions(**opinions), Mentions(**tables["mentions"]), tables["spaced"])


def _make_aspect(aspect: dict[str, str], general: dict[str, Any]) -> Aspect:
    """Return an aspect with its own adjectives after those that fit every aspect."""
    agreement = aspect["agreement"]
    adjectives = {p: [*general[agreement][p], aspect[p]] for p in OPPOSITE}
    return Aspect(aspect["name"], agreement, adjectives)


def draw_opinion(rng: random.Random, grammar: Grammar, polarity: Polarity) -> tuple[str, str]:
    """Draw an opinion; return the sentence without any opening, and the text of the row."""
    tables = grammar.opinions
    domain = rng.choice(tables.domains)
    aspects = rng.sample(domain.aspects, 3)
    words = {slot: rng.choice(options) for slot, options in tables.fillers.items()}
    words |= {**domain.words, **_describe(rng, tables, aspects[0], polarity)}
    for number, aspect in enumerate(aspects, start=1):
        words[f"pro{number}"] = _draw_clause(rng, tables, aspect, polarity, _FIRST_PERSON)
        words[f"con{number}"] = _draw_clause(rng, tables, aspect, OPPOSITE[polarity], _FIRST_PERSON)
    words["fact"] = _draw_clause(rng, tables, aspects[0], polarity, 0)
    words["lie"] = _draw_clause(rng, tables, aspects[0], OPPOSITE[polarity], 0)
    shape = rng.choices(list(_SHAPES), list(_SHAPES.values()))[0]
    words["body"] = rng.choice(getattr(tables, shape)).format_map(words)
    closed = _capitalise(tables.closed.format_map(words))
    opened = _capitalise(tables.opened.format_map(words))
    minimum, maximum = tables.lengths
    open_anyway = rng.random() < _OPENED and len(grammar.split_units(opened)) <= maximum
    too_short = len(grammar.split_units(closed)) < minimum
    return closed, opened if open_anyway or too_short else closed


def draw_verdict(rng: random.Random, grammar: Grammar, polarity: Polarity) -> str:
    """Draw a closing sentence that agrees with an opinion of this polarity."""
    return rng.choice(grammar.opinions.verdicts[polarity])


def draw_review(rng: random.Random, grammar: Grammar) -> str:
    """Draw a review of three aspects, each with two adjectives and a score that fits them."""
    tables = grammar.opinions
    parts = []
    for aspect in rng.sample(rng.choice(tables.domains).aspects, 3):
        polarity = rng.choice(list(OPPOSITE))
        words = _describe(rng, tables, aspect, polarity)
        words["good"], words["other"] = rng.sample(aspect.adjectives[polarity], 2)
        parts.append(tables.scored[polarity].format_map(words))
    return _capitalise((" " if grammar.spaced else "").join(parts))


def draw_mention(
    rng: random.Random, grammar: Grammar, held_out: float
) -> tuple[list[str], list[str]]:
    """Draw a sentence with named entities; return its words and their IOB2 tags.

    `held_out` is the share of names drawn from those that never occur in the training split.
    """
    tables = grammar.mentions
    pattern = rng.choice(tables.nameless if rng.random() < _NAMELESS else tables.patterns)
    words: list[str] = []
    tags: list[str] = []
    used: set[tuple[str, str]] = set()
    for slot, text in re.findall(r"\{(\w+)\}|([^{}\s]+)", pattern):
        entity = ENTITY_TYPES.get(slot)
        if entity:
            text = _draw_name(rng, tables, slot, held_out, used)
            used.add((entity, text))
        elif slot:
            text = rng.choice(tables.fillers[slot])
        units = grammar.split_units(text)
        words += units
        inside = [f"I-{entity}"] * (len(units) - 1)
        tags += [f"B-{entity}", *inside] if entity else ["O"] * len(units)
    words[0] = words[0][0].upper() + words[0][1:]
    return words, tags


def join_sentence(words: list[str], grammar: Grammar) -> str:
    """Join words into a sentence, without a space before punctuation."""
    text = (" " if grammar.spaced else "").join(words)
    return re.sub(r" ([,.;:?!])", r"\1", text)


def _draw_clause(
    rng: random.Random, tables: Opinions, aspect: Aspect, polarity: Polarity, first_person: float
) -> str:
    """Draw a clause of a polarity, stated directly or as the negation of the opposite."""
    negated = rng.random() < _NEGATED
    stated = OPPOSITE[polarity] if negated else polarity
    words = _describe(rng, tables, aspect, stated)
    if rng.random() < first_person:
        return rng.choice(tables.feelings[stated])[negated].format_map(words)
    clauses = tables.negated if negated else tables.affirmed
    return rng.choice(clauses).format_map(words | {"adjective": words["good"]})


def _describe(
    rng: random.Random, tables: Opinions, aspect: Aspect, polarity: Polarity
) -> dict[str, str]:
    """Return an aspect's words; `good` is an adjective of `polarity`, `bad` one of the opposite."""
    return {
        **tables.agreements[aspect.agreement],
        "np": aspect.name,
        "good": rng.choice(aspect.adjectives[polarity]),
        "bad": rng.choice(aspect.adjectives[OPPOSITE[polarity]]),
    }


def _draw_name(
    rng: random.Random, tables: Mentions, slot: str, held_out: float, used: set[tuple[str, str]]
) -> str:
    names = tables.names["shared" if rng.random() < _SHARED else slot]
    pool = names["held_out" if rng.random() < held_out else "known"]
    return rng.choice([name for name in pool if (ENTITY_TYPES[slot], name) not in used])


def _capitalise(text: str) -> str:
    return re.sub(r"(?:^|(?<=[.!?] ))\w", lambda start: start[0].upper(), text)
