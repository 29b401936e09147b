"""What hangs together, what shares a window, what is masked: laws over many draws."""

import numpy as np
import pytest

from crosstune.tasks.masked_lm import MaskedLM, cut_lines, encode_lines, pack_lines
from crosstune.tasks.masking import (
    choose_masked,
    join_words,
    number_words,
    span_length_probabilities,
)

WORDS = np.array([-1, *np.repeat(np.arange(60), [1, 2, 3] * 20), -1])


def draw(masking, words=WORDS, rate=0.15, draws=200):
    return [
        choose_masked(masking, words, rate, np.random.default_rng(seed)) for seed in range(draws)
    ]


def words_are_whole(choices, words=WORDS):
    """The law: of each word all sub-words are chosen, or none."""
    return all(
        set(np.flatnonzero(words == word)) <= set(chosen.positions)
        for chosen in choices
        for word in set(words[chosen.positions])
    )


def lines_of(tokenizer, text, spaced=False):
    """Return the pieces of a text, joined by word."""
    ((ids, numbers),) = encode_lines([{"text": text}], tokenizer, spaced, by_word=True)
    pieces = list(zip(tokenizer.convert_ids_to_tokens(ids), numbers, strict=True))
    return ["".join(p for p, n in pieces if n == word) for word in sorted(set(numbers))]


# --- words


def test_a_word_of_a_spaced_script_is_one_with_all_its_pieces(wordpiece):
    words = lines_of(wordpiece, "El niño come mor")
    assert [word.replace("##", "") for word in words] == ["El", "niño", "come", "mor"]


def test_each_chinese_character_is_a_word(wordpiece):
    assert lines_of(wordpiece, "上海的茶") == ["上", "海", "的", "茶"]


def test_the_bytes_of_a_character_stay_together(byte_bpe):
    offsets = [(0, 1), (0, 1), (0, 1), (1, 2), (1, 2)]
    assert number_words("茶酒", offsets, [0] * 5) == [0, 0, 0, 1, 1]
    assert len(lines_of(byte_bpe, "犬猫")) == 2


def test_a_bare_word_mark_goes_with_its_word(unigram):
    assert lines_of(unigram, "上海 niño")[-1] == "▁niño"
    assert lines_of(unigram, "上海")[0] in ("▁上", "▁")


def test_spaces_of_a_segmented_text_part_words(wordpiece):
    words = lines_of(wordpiece, "张伟 去了 上海 的 银行", spaced=True)
    assert words == ["张伟", "去了", "上海", "的", "银行"]


def test_spaces_of_a_segmented_text_are_no_text():
    task = MaskedLM(words="spaces")
    assert task.row_texts({"text": "张伟 去了 上海"}) == ["张伟去了上海"]


def test_words_that_share_a_piece_are_one():
    assert number_words("去了上海", [(0, 1), (1, 3), (3, 4)], [0] * 3, [0, 2]) == [0, 0, 1]


def test_a_space_between_two_spaced_words_is_kept():
    assert join_words("喝 New York 茶 A") == ("喝New York茶A", [0, 1, 5, 9, 10])


# --- windows


def all_pieces_once(windows, sizes):
    """The law: the parts hold every sub-word of every line, once."""
    seen = sorted((p.line, place) for parts in windows for p in parts for place in range(*p[1:]))
    return seen == [(line, place) for line, size in enumerate(sizes) for place in range(size)]


@pytest.mark.parametrize("room", [3, 7, 20, 1000])
def test_packed_or_not_every_sub_word_is_in_one_window(room):
    rng = np.random.default_rng(room)
    lines = [np.sort(rng.integers(0, 9, size)).tolist() for size in rng.integers(0, 40, 60)]
    sizes = [len(line) for line in lines]
    for windows, between in ((cut_lines(lines, room), 0), (pack_lines(lines, room, 1), 1)):
        assert all_pieces_once(windows, sizes)
        assert all(sum(p.last - p.first + between for p in w) - between <= room for w in windows)


def test_that_law_finds_a_lost_piece():
    assert not all_pieces_once(cut_lines([[0, 1], [0]], 5), [2, 2])


def test_packing_takes_fewer_windows():
    assert len(pack_lines([[0, 1]] * 10, 8, 1)) == 4
    assert len(cut_lines([[0, 1]] * 10, 8)) == 10


def test_windows_that_share_a_line_begin_with_it():
    lines = [[0] * size for size in (2, 30, 1, 1, 25, 3)]
    windows = pack_lines(lines, 10, 1)
    for line in range(len(lines)):
        firsts = {w[0].line for w in windows if any(p.line == line for p in w)}
        assert len(firsts) == 1


def test_no_word_is_cut_that_fits_into_a_window():
    (first, second) = cut_lines([[0, 0, 1, 1, 1, 1]], 4)
    assert (first[0].last, second[0].first) == (2, 2)


# --- what is chosen


@pytest.mark.parametrize("masking", ["subword", "whole_word", "span"])
def test_about_15_in_100_are_chosen_and_nothing_twice(masking):
    budget = round(0.15 * 120)
    for chosen in draw(masking):
        assert budget - 2 <= len(set(chosen.positions)) == len(chosen.positions) <= budget
        assert (WORDS[chosen.positions] >= 0).all()


@pytest.mark.parametrize("masking", ["whole_word", "span"])
def test_words_are_chosen_whole(masking):
    assert words_are_whole(draw(masking))


def test_that_law_finds_single_pieces():
    assert not words_are_whole(draw("subword"))


@pytest.mark.parametrize("masking", ["whole_word", "span"])
def test_every_word_is_chosen_about_as_often(masking):
    words = np.arange(200)
    counts = sum(np.bincount(c.positions, minlength=200) for c in draw(masking, words, draws=1000))
    inside = counts[10:]  # a span cannot begin before the window
    assert inside.min() > 0.6 * inside.mean()
    assert inside.max() < 1.4 * inside.mean()


@pytest.mark.parametrize("masking", ["whole_word", "span"])
def test_a_word_above_the_budget_is_masked_only_where_there_is_no_other(masking):
    long = np.array([0] * 20 + [1, 2])
    assert all(max(c.positions) > 19 for c in draw(masking, long))
    assert [len(c.positions) for c in draw(masking, np.zeros(4), draws=3)] == [4, 4, 4]


def test_span_lengths_are_those_of_spanbert():
    lengths = span_length_probabilities()
    reference = np.array([0.2 * 0.8**k for k in range(10)])
    assert lengths == pytest.approx(reference / reference.sum())


def mean_span(choices):
    """Return the mean length of the runs that share their fate."""
    return np.mean([size for c in choices for size in np.bincount(c.groups)])


def test_spans_have_3_point_8_words_in_the_mean():
    drawn = draw("span", np.arange(2000), 0.02, 100)
    assert mean_span(drawn) == pytest.approx(3.8, rel=0.1)  # the last of a window is cut short


def test_that_law_finds_single_words():
    assert mean_span(draw("whole_word", np.arange(2000), 0.02, 10)) == 1


def test_pieces_of_a_span_share_their_fate_and_those_of_words_do_not():
    (span,) = draw("span", draws=1)
    apart = np.diff(span.positions) != 1
    assert (np.diff(span.groups) == apart).all()
    (word,) = draw("whole_word", draws=1)
    assert len(set(word.groups)) == len(word.positions)


def test_a_span_does_not_run_over_a_separator():
    words = np.array([0, 1, 2, -1, 0, 1, 2])
    for chosen in draw("span", words, 0.5):
        left, right = chosen.positions < 3, chosen.positions > 3
        assert not set(chosen.groups[left]) & set(chosen.groups[right])


def test_the_same_generator_makes_the_same_choice():
    for masking in ("subword", "whole_word", "span"):
        once, again = (
            choose_masked(masking, WORDS, 0.15, np.random.default_rng(7)) for _ in range(2)
        )
        assert once.positions.tolist() == again.positions.tolist()
