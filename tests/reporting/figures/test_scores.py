import re

import pytest

from crosstune.reporting.figures.scores import draw_scores
from crosstune.reporting.figures.style import escape_missing_glyphs


def texts(svg):
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg)]


def test_a_figure_has_a_dot_for_every_seed_and_a_stroke_for_every_mean(study):
    for seed in (1, 2, 3):
        study.add(seed=seed, score=seed / 10)
    study.add(method="full")
    svg = draw_scores(study.table()).svg
    marks = re.findall(r'<use xlink:href="#m\w+" x="[\d.]+" y="[\d.]+"', svg)
    assert len(marks) == 4 + 2


def test_an_arm_without_a_finished_run_is_labelled_with_what_became_of_it(study):
    study.add()
    study.fail(method="full")
    assert "failed (1)" in texts(draw_scores(study.table()).svg)


def test_the_png_is_a_png(study):
    study.add()
    assert draw_scores(study.table()).png.startswith(b"\x89PNG")


def test_the_same_table_gives_the_same_bytes(study):
    study.add()
    assert draw_scores(study.table()) == draw_scores(study.table())


def test_a_figure_holds_no_date(study):
    study.add()
    assert "dc:date" not in draw_scores(study.table()).svg


@pytest.mark.parametrize(
    "text",
    [
        "$\\frac{1}{$",
        "任务 标签",
        "<script>",
        "--> x",
        "\x1b[31m",
        "😀",
        "عربي",
        "",
        "a" * 300,
        "a " * 9000,
    ],
)
def test_any_label_can_be_drawn(study, text):
    study.add(method=text, data=text)
    assert draw_scores(study.table()).svg.endswith("</svg>\n")


def test_a_character_without_a_glyph_becomes_its_escape():
    assert escape_missing_glyphs("es 任", range(128)) == "es \\u4efb"


def test_a_character_with_a_glyph_stays():
    assert escape_missing_glyphs("ñ → ±") == "ñ → ±"


def test_a_figure_of_more_columns_than_fit_says_what_was_cut(study):
    for number in range(14):
        study.add(data=f"data{number}")
    expected = "The figure shows the first 12 of 14 columns; the table holds all."
    assert draw_scores(study.table()).cut == expected


def test_a_figure_that_shows_everything_says_nothing(study):
    study.add()
    assert draw_scores(study.table()).cut == ""


def test_a_study_of_nothing_but_a_killed_run_can_be_drawn(study):
    study.write("killed", "", name="config.yaml")
    assert draw_scores(study.table()).png


def test_a_score_stands_where_the_axis_says(study):
    study.add(seed=1, score=0.70)
    study.add(seed=2, score=0.80)
    svg = draw_scores(study.table()).svg
    x = [float(value) for value in re.findall(r'<use xlink:href="#m\w+" x="([\d.]+)"', svg)]
    assert x[2] == pytest.approx((x[0] + x[1]) / 2)


@pytest.mark.parametrize("score", [1e18, -1e18, 1e-300, 0.0, 1.0])
def test_any_score_can_be_drawn(study, score):
    study.add(score=score)
    assert draw_scores(study.table()).png
