import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from seqeval.metrics import f1_score
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from crosstune.data.synthetic import demo, grammar
from crosstune.data.synthetic.demo import read_demo_entities, read_demo_sentiment, read_demo_text
from crosstune.errors import ConfigError

LANGUAGES = ("es", "zh", "en")
SOURCES = ("train", "validation", "test")
ENDS = ("train", "test")
READERS = (read_demo_sentiment, read_demo_entities, read_demo_text)
MANY = dict.fromkeys(SOURCES, 1000)

each_language = pytest.mark.parametrize("language", LANGUAGES)
each_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)


@pytest.fixture
def patch(monkeypatch):
    """Return a monkeypatch of the grammars: neither what they drew before nor after it is kept."""
    forget_draws()
    yield monkeypatch
    forget_draws()


def forget_draws():
    demo._generate.cache_clear()


def content(row):
    return row["text"] if "text" in row else " ".join(row["words"])


def read_all(reader, language, sources=SOURCES, rows=None):
    return [reader(source, language=language, rows=rows).rows for source in sources]


def spans(row):
    entities = []
    for word, tag in zip(row["words"], row["tags"], strict=True):
        if tag.startswith("B-"):
            entities.append((tag[2:], word))
        elif tag.startswith("I-"):
            entities[-1] = (entities[-1][0], f"{entities[-1][1]} {word}")
    return entities


def broken_tags(tags):
    """Return the tags that IOB2 does not allow where they stand."""
    return [b for a, b in pairwise(["O", *tags]) if b[0] == "I" and a[2:] != b[2:]]


def order_free_accuracy(train, test, language):
    """Return the test accuracy of a logistic regression on bags of words (Chinese: letters)."""
    bag = CountVectorizer(analyzer="char" if language == "zh" else "word")
    model = make_pipeline(bag, LogisticRegression(max_iter=2000))
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    return model.score([row["text"] for row in test], [row["label"] for row in test])


def lookup_f1(train, test):
    counts = defaultdict(Counter)
    for row in train:
        for word, tag in zip(row["words"], row["tags"], strict=True):
            counts[word][tag] += 1
    usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    predicted = [[usual.get(word, "O") for word in row["words"]] for row in test]
    return f1_score([row["tags"] for row in test], predicted)


@each_reader
def test_rows_have_the_canonical_columns_and_say_where_they_come_from(reader):
    row = reader("test", language="es").rows[16]
    columns = {"sentiment": {"text", "label"}, "entities": {"words", "tags"}, "text": {"text"}}
    kind = reader.__name__.removeprefix("read_demo_")
    assert set(row) == {"id", "where", *columns[kind]}
    assert row["where"] == f"demo_{kind}/es/test:17"


@each_reader
def test_ids_are_unique_across_sources(reader):
    ids = [row["id"] for rows in read_all(reader, "es") for row in rows]
    assert len(ids) == len(set(ids))


def test_the_default_row_counts_are_those_of_the_demo():
    counts = [len(rows) for reader in READERS for rows in read_all(reader, "zh")]
    assert counts == [600, 150, 301, 600, 150, 301, 2000, 200, 200]


def test_rows_replaces_the_count_of_the_sources_it_names_only():
    train, test = read_all(read_demo_sentiment, "en", ENDS, {"train": 7})
    assert (len(train), len(test)) == (7, 301)


@each_reader
def test_fewer_rows_are_the_first_of_more_rows(reader):
    few = reader("train", language="zh", rows={"train": 50}).rows
    assert few == reader("train", language="zh").rows[:50]


@each_reader
@each_language
def test_no_sentence_occurs_twice_within_or_across_sources(reader, language):
    sentences = [content(row) for rows in read_all(reader, language) for row in rows]
    assert len(sentences) == len(set(sentences))


def shared_sentences(language):
    train, test = read_all(read_demo_sentiment, language, ENDS, MANY)
    return {content(row) for row in train} & {content(row) for row in test}


@each_language
def test_sources_share_no_sentence_however_many_rows_are_asked_for(language):
    assert not shared_sentences(language)


def test_sources_that_draw_from_all_sentences_would_share_some(patch):
    patch.setattr(demo, "_TENTHS", dict.fromkeys(SOURCES, range(10)))
    assert shared_sentences("en")


@each_language
def test_text_for_pretraining_holds_no_labelled_test_sentence(language):
    test = {row["text"] for row in read_demo_sentiment("test", language=language).rows}
    text = [row["text"] for row in read_demo_text("train", language=language).rows]
    assert not [row for row in text for sentence in test if sentence in row]


GENERATE = """
from crosstune.data.synthetic.demo import *
for read in (read_demo_sentiment, read_demo_entities, read_demo_text):
    print(*read('train', language='zh').digests.values())
"""
SEED_BY_HASH = """
import random
random.Random = lambda name, seeded=random.Random: seeded(hash(name))
"""


def digests_of_another_process(code, hash_seed):
    paths = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    command, env = [sys.executable, "-c", code], os.environ | paths
    return subprocess.check_output(command, env=env, text=True).split()


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_every_process_generates_the_same_rows(hash_seed):
    here = [reader("train", language="zh").digests for reader in READERS]
    expected = [digest for digests in here for digest in digests.values()]
    assert digests_of_another_process(GENERATE, hash_seed) == expected


def test_a_seed_that_depends_on_the_process_is_seen():
    one, other = (digests_of_another_process(SEED_BY_HASH + GENERATE, seed) for seed in "12")
    assert one != other


def test_the_digest_names_the_source_and_follows_its_content():
    whole = read_demo_sentiment("test", language="es").digests
    fewer = read_demo_sentiment("test", language="es", rows={"test": 300}).digests
    assert list(whole) == list(fewer) == ["demo_sentiment/es/test"]
    assert whole != fewer


@each_language
def test_the_labels_are_balanced_within_one_row(language):
    for rows in read_all(read_demo_sentiment, language):
        counts = Counter(row["label"] for row in rows)
        assert {counts["negative"], counts["positive"]} <= {len(rows) // 2, (len(rows) + 1) // 2}


@each_language
def test_opinions_have_8_to_25_words_or_10_to_40_characters(language):
    rows = read_demo_sentiment("train", language=language, rows=MANY).rows
    lengths = {len(row["text"] if language == "zh" else row["text"].split()) for row in rows}
    assert lengths <= set(range(10, 41) if language == "zh" else range(8, 26))


@each_language
def test_sentences_start_with_a_capital_and_leave_no_slot_open(language):
    texts = [row["text"] for row in read_demo_text("train", language=language).rows]
    assert not [text for text in texts if re.search(r"[{}]|  | [,.;:?]", text)]
    assert not [text for text in texts if re.search(r"(?:^|[.!?] )[a-záéíóúñ]", text)]


def test_spanish_contracts_its_articles_and_softens_y_before_i():
    texts = [row["text"] for row in read_demo_text("train", language="es").rows]
    assert not [text for text in texts if re.search(r"\b(?:[Dd]e|[Aa]) el\b|\by h?[ií]", text)]


@pytest.mark.slow
@each_language
def test_bags_of_words_do_not_solve_the_sentiment(language):
    train, test = read_all(read_demo_sentiment, language, ENDS, {"test": 2001})
    assert order_free_accuracy(train, test, language) <= 0.8


@each_language
def test_bags_of_words_solve_opinions_without_structure(language, patch):
    patch.setattr(grammar, "_SHAPES", {"plain": 1})
    patch.setattr(grammar, "_NEGATED", 0)
    train, test = read_all(read_demo_sentiment, language, ENDS)
    assert order_free_accuracy(train, test, language) > 0.9


@each_language
def test_looking_names_up_does_not_solve_the_entities(language):
    train, test = read_all(read_demo_entities, language, ENDS)
    assert lookup_f1(train, test) <= 0.5


@each_language
def test_looking_names_up_solves_names_of_one_type_each(language, patch):
    names = {"per": "甲乙", "loc": "丙丁", "org": "戊己", "club": "庚辛"}
    patch.setattr(grammar, "_draw_name", lambda rng, tables, slot, *_: names[slot])
    train, test = read_all(read_demo_entities, language, ENDS, {"train": 200, "test": 60})
    assert lookup_f1(train, test) > 0.95


@each_language
def test_tags_are_valid_iob2_and_one_per_word(language):
    rows = [row for rows in read_all(read_demo_entities, language) for row in rows]
    assert all(len(row["words"]) == len(row["tags"]) for row in rows)
    assert not [row["where"] for row in rows if broken_tags(row["tags"])]


@pytest.mark.parametrize("tags", ["I-PER", "O I-LOC", "B-PER I-LOC", "B-ORG O I-ORG"])
def test_broken_iob2_is_seen(tags):
    assert broken_tags(tags.split())


@each_language
def test_every_source_has_the_same_tags(language):
    kinds = ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"]
    for rows in read_all(read_demo_entities, language):
        assert sorted({tag for row in rows for tag in row["tags"]}) == kinds


@each_language
def test_the_same_name_is_a_person_a_place_and_an_organisation(language):
    kinds = defaultdict(set)
    for row in read_demo_entities("train", language=language).rows:
        for kind, name in spans(row):
            kinds[name].add(kind)
    assert sum(entities == {"PER", "LOC", "ORG"} for entities in kinds.values()) >= 10


@each_language
def test_about_three_in_ten_test_entities_never_occur_in_train(language):
    train, test = read_all(read_demo_entities, language, ENDS)
    seen = {name for row in train for _, name in spans(row)}
    unseen = [name not in seen for row in test for _, name in spans(row)]
    assert 0.25 <= sum(unseen) / len(unseen) <= 0.36


@each_language
def test_about_one_sentence_in_seven_names_nobody(language):
    rows = read_demo_entities("train", language=language).rows
    assert 0.1 <= sum(set(row["tags"]) == {"O"} for row in rows) / len(rows) <= 0.2


def test_a_chinese_word_is_one_character():
    rows = read_demo_entities("test", language="zh").rows
    assert {len(word) for row in rows for word in row["words"]} == {1}


def test_text_in_several_languages_interleaves_spanish_chinese_and_english():
    mixed = read_demo_text("validation", language="mul")
    parts = [read_demo_text("validation", language=language) for language in LANGUAGES]
    assert [mixed.rows[turn::3] for turn in range(3)] == [part.rows for part in parts]
    assert mixed.digests == {name: d for part in parts for name, d in part.digests.items()}


@each_reader
@pytest.mark.parametrize(
    ("source", "language", "rows", "message"),
    [
        ("dev", "es", None, "no source 'dev'.*Allowed: test, train, validation"),
        ("test", "es", {"tset": 5}, "no source 'tset'.*mean test"),
        ("test", "fr", None, "no language 'fr'.*Allowed: en, es,"),
    ],
)
def test_what_the_demo_does_not_have_is_refused(reader, source, language, rows, message):
    with pytest.raises(ConfigError, match=message):
        reader(source, language=language, rows=rows)


def test_only_text_comes_in_several_languages():
    with pytest.raises(ConfigError, match="no language 'mul'"):
        read_demo_entities("test", language="mul")


@pytest.mark.parametrize("count", [0, -1, 10**9])
def test_a_row_count_out_of_range_is_refused(count):
    with pytest.raises(ConfigError, match=f"rows per source, not {count}"):
        read_demo_sentiment("test", language="es", rows={"test": count})


def test_a_grammar_that_repeats_itself_ends_in_an_error_that_says_how_far_it_goes():
    with pytest.raises(ConfigError, match=r"repeats itself after \d+\. Allowed: up to \d+"):
        demo._draw_rows("demo_text/es/train", 27, lambda rng, done: (rng.choice("abcdef"), {}))
