"""What the demo's grammars are made of, and how one sentence is drawn from them.

The words and sentence patterns stand in `demo_en`, `demo_es` and `demo_zh`; which sentences go
into which split is decided in `demo`, the only caller.

Every opinion pattern is written once, for either label: `good` and `bad`, `pro` and `con` change
places when the label does. So each pattern and each opinion word occurs as often under one label
as under the other, and only word order, negation and scope tell which one it is.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

Polarity = str  # "good" or "bad"
OPPOSITE: dict[Polarity, Polarity] = {"good": "bad", "bad": "good"}
ENTITY_SLOTS = {"per": "PER", "loc": "LOC", "org": "ORG", "club": "ORG"}

_SHAPES = {"plain": 0.7, "overturned": 0.25, "scoped": 0.05}  # shares of `Opinions` patterns
_NEGATED = 0.12  # share of clauses that deny the opposite ("was not bland" for "was tasty")
_FELT = 0.25  # share of clauses in the first person ("I liked the food")
_OPENED = 0.25  # share of sentences with an opening, where it is not needed for the length
_NAMELESS = 0.2  # share of sentences without an entity
_SHARED = 0.5  # share of names that are a person, a place or an organisation by context alone


@dataclass(frozen=True)
class Aspect:
    """What an opinion can be about; the adjectives agree with it and are parted by blanks."""

    name: str
    agreement: str  # key of `Opinions.agreements`
    good: str
    bad: str


@dataclass(frozen=True)
class Domain:
    """Aspects that go together in one review, and the phrases for the place they belong to."""

    words: Mapping[str, str]
    aspects: tuple[Aspect, ...]


@dataclass(frozen=True)
class Opinions:
    """Patterns of one language whose label follows from their structure."""

    domains: tuple[Domain, ...]
    agreements: Mapping[str, Mapping[str, str]]  # verb forms and pronouns of a noun phrase
    affirmed: tuple[str, ...]  # clauses that say {adjective} of {np}
    negated: tuple[str, ...]  # clauses that deny it
    feelings: Mapping[Polarity, tuple[tuple[str, str], ...]]  # (affirmed, negated)
    fillers: Mapping[str, tuple[str, ...]]
    plain: tuple[str, ...]  # every clause points the same way
    overturned: tuple[str, ...]  # the last opinion wins
    scoped: tuple[str, ...]  # a marker decides which opinion wins, wherever it stands
    opened: str  # the whole text, with an opening
    closed: str  # the whole text, without one
    lengths: tuple[int, int]  # fewest and most words; characters where words are not spaced
    verdicts: Mapping[Polarity, tuple[str, ...]]  # these and the next only in text without labels
    scored: Mapping[Polarity, str]


@dataclass(frozen=True)
class Names:
    """Names that every split may use, and names that the training split never shows."""

    known: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Mentions:
    """Patterns of one language in which the context tells the type of a name."""

    names: Mapping[str, Names]  # one entry per entity slot, and "shared"
    fillers: Mapping[str, tuple[str, ...]]
    patterns: tuple[str, ...]
    nameless: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """Everything the demo can say in one language."""

    opinions: Opinions
    mentions: Mentions
    spaced: bool  # whether blanks part the words

    def cut(self, text: str) -> list[str]:
        """Cut text into the units that lengths and tags count: words, or characters in Chinese."""
        return text.split() if self.spaced else list(text)


def draw_opinion(rng: random.Random, grammar: Grammar, polarity: Polarity) -> tuple[str, str]:
    """Draw an opinion: its sentence without any opening, and the text as it stands in a row."""
    tables = grammar.opinions
    domain = rng.choice(tables.domains)
    aspects = rng.sample(domain.aspects, 3)
    words = {slot: rng.choice(options) for slot, options in tables.fillers.items()}
    words |= {**domain.words, **_describe(rng, tables, aspects[0], polarity)}
    for number, aspect in enumerate(aspects, start=1):
        words[f"pro{number}"] = _draw_clause(rng, tables, aspect, polarity, _FELT)
        words[f"con{number}"] = _draw_clause(rng, tables, aspect, OPPOSITE[polarity], _FELT)
    words["fact"] = _draw_clause(rng, tables, aspects[0], polarity, 0)
    words["lie"] = _draw_clause(rng, tables, aspects[0], OPPOSITE[polarity], 0)
    shape = rng.choices(list(_SHAPES), list(_SHAPES.values()))[0]
    patterns = {"plain": tables.plain, "overturned": tables.overturned, "scoped": tables.scoped}
    body = rng.choice(patterns[shape]).format_map(words)
    closed, opened = (
        _capitalise(whole.format_map(words | {"body": body}))
        for whole in (tables.closed, tables.opened)
    )
    fewest, most = tables.lengths
    wanted = rng.random() < _OPENED and len(grammar.cut(opened)) <= most
    return closed, opened if wanted or len(grammar.cut(closed)) < fewest else closed


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
        both = rng.sample(_adjectives(aspect, polarity), 2)
        words |= dict(zip(("good", "other"), both, strict=True))
        parts.append(tables.scored[polarity].format_map(words))
    return _capitalise((" " if grammar.spaced else "").join(parts))


def draw_mention(
    rng: random.Random, grammar: Grammar, held_out: float
) -> tuple[list[str], list[str]]:
    """Draw a sentence as its words and their IOB2 tags.

    `held_out` is the share of names taken from those that the training split never shows.
    """
    tables = grammar.mentions
    pattern = rng.choice(tables.nameless if rng.random() < _NAMELESS else tables.patterns)
    words: list[str] = []
    tags: list[str] = []
    used: set[tuple[str, str]] = set()
    for piece in re.findall(r"\{\w+\}|[^{}\s]+", pattern):
        slot = piece.strip("{}")
        kind = ENTITY_SLOTS.get(slot) if piece != slot else None
        if kind:
            name = _draw_name(rng, tables, slot, held_out, used)
            used.add((kind, name))
            piece = name
        elif piece != slot:
            piece = rng.choice(tables.fillers[slot])
        units = grammar.cut(piece)
        words += units
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(units) - 1)] if kind else ["O"] * len(units)
    words[0] = words[0][0].upper() + words[0][1:]
    return words, tags


def join_words(words: list[str], grammar: Grammar) -> str:
    """Join the words of a sentence as they are written.

    Punctuation stands close to the word before it; without spaces, everything does.
    """
    text = (" " if grammar.spaced else "").join(words)
    return re.sub(r" ([,.;:?!])", r"\1", text)


def _draw_clause(
    rng: random.Random, tables: Opinions, aspect: Aspect, polarity: Polarity, felt: float
) -> str:
    """Draw a clause that speaks for `polarity`, by saying so or by denying the opposite."""
    negated = rng.random() < _NEGATED
    said = OPPOSITE[polarity] if negated else polarity
    words = _describe(rng, tables, aspect, said)
    if rng.random() < felt:
        return rng.choice(tables.feelings[said])[negated].format_map(words)
    clauses = tables.negated if negated else tables.affirmed
    return rng.choice(clauses).format_map(words | {"adjective": words["good"]})


def _describe(
    rng: random.Random, tables: Opinions, aspect: Aspect, polarity: Polarity
) -> dict[str, str]:
    """Return an aspect's words, with `good` standing for whatever `polarity` asks for."""
    return {
        **tables.agreements[aspect.agreement],
        "np": aspect.name,
        "good": rng.choice(_adjectives(aspect, polarity)),
        "bad": rng.choice(_adjectives(aspect, OPPOSITE[polarity])),
    }


def _adjectives(aspect: Aspect, polarity: Polarity) -> list[str]:
    return (aspect.good if polarity == "good" else aspect.bad).split()


def _draw_name(
    rng: random.Random, tables: Mentions, slot: str, held_out: float, used: set[tuple[str, str]]
) -> str:
    names = tables.names["shared" if rng.random() < _SHARED else slot]
    pool = names.held_out if rng.random() < held_out else names.known
    return rng.choice([name for name in pool if (ENTITY_SLOTS[slot], name) not in used])


def _capitalise(text: str) -> str:
    return re.sub(r"(?:^|(?<=[.!?] ))\w", lambda start: start[0].upper(), text)
