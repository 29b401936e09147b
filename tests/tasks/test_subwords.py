"""Words as sub-words, and windows over them: no word lost, none twice, none too long."""

from itertools import islice

import numpy as np
import pytest

from crosstune.tasks.subwords import (
    WordWindow,
    find_bare_marks,
    find_special_tokens,
    find_tagged_subword,
    make_word_windows,
    split_words,
)

CASES = 400


def draw_case(seed):
    """Return sizes of words, none above half the room, and the room."""
    rng = np.random.default_rng(seed)
    room = int(rng.integers(2, 41))
    largest = rng.integers(1, room // 2, endpoint=True)
    return rng.integers(1, largest, rng.integers(1, 121), endpoint=True).tolist(), room


def faults_of(cut, sizes, room):
    """The law of windows: what a way of cutting breaks of it."""
    found = list(islice(cut(sizes, room), len(sizes) + 1))
    cores = [word for w in found for word in range(w.core_first, w.core_last)]
    faults = []
    if len(found) > len(sizes):
        faults.append("no end")
    if cores != list(range(len(sizes))):
        faults.append("not every word in exactly one core")
    if any(sum(sizes[w.first : w.last]) > room for w in found):
        faults.append("above the room")
    if any(not w.first <= w.core_first < w.core_last <= w.last <= len(sizes) for w in found):
        faults.append("a core that is empty or outside of its window")
    return faults


@pytest.mark.parametrize("start", range(0, CASES, 100))
def test_each_word_is_in_one_core_of_a_window_that_fits(start):
    for seed in range(start, start + 100):
        assert faults_of(make_word_windows, *draw_case(seed)) == [], seed


def forgets_the_last_word(sizes, room):
    for window in make_word_windows(sizes, room):
        yield window._replace(core_last=window.core_last - (window.last == len(sizes)))


def tags_the_context_too(sizes, room):
    for window in make_word_windows(sizes, room):
        yield window._replace(core_first=window.first)


def reads_one_word_more(sizes, room):
    for window in make_word_windows(sizes, room):
        yield window._replace(last=min(window.last + 1, len(sizes)))


def never_moves_on(sizes, room):
    while True:
        yield WordWindow(0, 0, 1, 1)


@pytest.mark.parametrize(
    "planted", [forgets_the_last_word, tags_the_context_too, reads_one_word_more, never_moves_on]
)
def test_that_law_finds_a_planted_bug(planted):
    assert any(faults_of(planted, *draw_case(seed)) for seed in range(20))


def test_what_fits_is_one_window():
    assert list(make_word_windows([1] * 8, room=8)) == [WordWindow(0, 0, 8, 8)]


def test_words_of_inner_windows_have_context_on_both_sides():
    inner = list(make_word_windows([1] * 100, room=16))[1:-1]
    assert inner
    for window in inner:
        assert window.core_first - window.first == 4
        assert window.last - window.core_last == 4


def test_a_tokenizers_special_pieces_are_found(tokenizer):
    names = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    assert find_special_tokens(tokenizer) == names


WORDS = ["El", "niño", "北京", "10\xa0000", "\x01", "\ufffd", "New", "a\u200bb", "小明", "Málaga"]


def test_every_word_has_a_piece_of_its_own(tokenizer):
    (found,) = split_words([{"words": WORDS}], tokenizer)
    assert len(found) == len(WORDS)
    assert all(found)


def test_a_word_has_the_same_pieces_wherever_it_stands(tokenizer):
    (together,) = split_words([{"words": WORDS}], tokenizer)
    alone = [pieces for (pieces,) in split_words([{"words": [w]} for w in WORDS], tokenizer)]
    assert together == alone


def test_rows_stay_apart(tokenizer):
    rows = [{"words": WORDS[:3]}, {"words": WORDS[3:]}]
    (whole,) = split_words([{"words": WORDS}], tokenizer)
    first, second = split_words(rows, tokenizer)
    assert first + second == whole


def test_no_rows_have_no_words(tokenizer):
    assert list(split_words([], tokenizer)) == []


def test_a_word_that_the_tokenizer_drops_is_one_unknown_piece(wordpiece):
    ((pieces,),) = split_words([{"words": ["\x01"]}], wordpiece)
    assert pieces == [wordpiece.unk_token_id]


def test_a_bare_word_mark_does_not_carry(unigram):
    ((pieces,),) = split_words([{"words": ["北京"]}], unigram)
    assert unigram.convert_ids_to_tokens(pieces) == ["▁", "北", "京"]
    assert find_tagged_subword(pieces, find_bare_marks(unigram)) == 1


def test_a_word_mark_with_letters_carries(unigram):
    ((pieces,),) = split_words([{"words": ["niño"]}], unigram)
    assert unigram.convert_ids_to_tokens(pieces) == ["▁niñ", "o"]
    assert find_tagged_subword(pieces, find_bare_marks(unigram)) == 0


@pytest.mark.parametrize("word", ["\ufffd", " ", "\u3000", "▁"])
def test_a_word_that_is_nothing_but_marks_is_one_unknown_piece(unigram, word):
    ((pieces, _),) = split_words([{"words": [word, "a"]}], unigram)
    assert pieces == [unigram.unk_token_id]


def test_chinese_characters_given_one_by_one_have_a_bare_mark_each(unigram):
    (words,) = split_words([{"words": list("北京")}], unigram)
    assert [unigram.convert_ids_to_tokens(pieces) for pieces in words] == [["▁", "北"], ["▁", "京"]]


def test_the_bare_mark_is_the_tokenizers_own(unigram, byte_bpe, wordpiece):
    marks = [
        t.convert_ids_to_tokens(list(find_bare_marks(t))) for t in (unigram, byte_bpe, wordpiece)
    ]
    assert marks == [["▁"], ["Ġ"], []]


def test_a_maltese_letter_is_no_mark_beside_that_of_sentencepiece():
    both = Vocabulary({"▁": 3, "Ġ": 4})
    assert find_bare_marks(both) == {3}
    assert find_bare_marks(Vocabulary({"Ġ": 4})) == {4}


class Vocabulary:
    """What `bare_marks` reads of a tokenizer."""

    def __init__(self, pieces):
        self.pieces = pieces

    def get_vocab(self):
        return self.pieces
