import re
from itertools import pairwise

import pytest

from crosstune.reporting.figures.pareto import (
    MAX_NAMED,
    MEMORY,
    PARAMETERS,
    SECONDS,
    ParetoArm,
    draw_pareto,
    find_front,
)


def texts(study):
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", draw_pareto(study.table()).svg)]


def dots(study):
    """Return the positions of the markers in the plot, in the order of the table's rows."""
    plot, _, _ = draw_pareto(study.table()).svg.partition('<g id="legend')
    marks = re.findall(r'<use xlink:href="#m\w+" x="([\d.]+)" y="([\d.]+)"', plot)
    return [(float(x), float(y)) for x, y in marks]


def add(study, method, parameters, score, **more):
    study.add(method=method, score=score, cost={"trainable_parameters": parameters}, **more)


def check_front(arms, front):
    """Fail unless the front holds exactly the arms that none beats, by trying every pair."""

    def beats(one, other):
        no_worse = one.cost <= other.cost and one.score >= other.score
        return no_worse and (one.cost, one.score) != (other.cost, other.score)

    best = {(a.cost, a.score) for a in arms if not any(beats(b, a) for b in arms)}
    assert [(arm.cost, arm.score) for arm in front] == sorted(best)


@pytest.mark.parametrize(
    "values",
    [
        [(1, 1)],
        [(1, 3), (2, 2), (3, 1)],
        [(1, 1), (2, 2), (3, 3)],
        [(2, 5), (2, 5), (2, 4), (1, 4), (9, 5), (9, 9)],
        [(i * 7 % 11 + 1, i * 5 % 13) for i in range(40)],
    ],
)
def test_the_front_holds_the_arms_that_none_beats(values):
    arms = [ParetoArm(str(i), cost, score) for i, (cost, score) in enumerate(values)]
    check_front(arms, find_front(arms))


def test_the_check_of_the_front_sees_an_arm_that_is_beaten():
    arms = [ParetoArm("a", 1, 3), ParetoArm("b", 2, 2)]
    with pytest.raises(AssertionError):
        check_front(arms, arms)


def test_ten_times_the_parameters_are_always_the_same_step_to_the_right(study):
    for number, method in enumerate("abc"):
        add(study, method, 10 ** (3 + number), 0.5 + number / 10)
    (first, _), (second, _), (third, _) = dots(study)
    assert second - first == pytest.approx(third - second)
    assert second > first


def test_a_higher_score_stands_higher(study):
    add(study, "a", 1000, 0.5)
    add(study, "b", 1000, 0.6)
    (_, low), (_, high) = dots(study)
    assert high < low  # the y of a drawing goes down


def test_a_dot_is_the_mean_over_seeds(study):
    for seed, score in ((1, 0.5), (2, 0.7)):
        add(study, "a", 1000, score, seed=seed)
    add(study, "b", 1000, 0.6)
    assert dots(study)[0] == dots(study)[1]


def test_every_arm_is_named_full_fine_tuning_among_them(study):
    add(study, "full", 110_000_000, 0.7)
    add(study, "lora", 300_000, 0.8)
    assert {"full", "lora"} <= set(texts(study))


def test_there_is_a_panel_for_every_headline_column(study):
    add(study, "full", 1000, 0.7)
    add(study, "full", 1000, 0.7, data="pairs")
    assert {"tags es f1", "pairs es f1"} <= set(texts(study))


def test_rows_that_are_no_comparison_have_panels_of_their_own(study):
    add(study, "full", 1000, 0.7)
    add(study, "lora", 10, 0.7, settings={"trainer.max_epochs": 5})
    titles = {f"tags es f1 · trainer.max_epochs={epochs}" for epochs in (3, 5)}
    assert titles <= set(texts(study))


def test_an_arm_without_a_score_or_without_parameters_is_not_drawn(study):
    add(study, "full", 1000, 0.7)
    study.add(method="lora", cost={})
    study.fail(method="bitfit")
    assert len(dots(study)) == 1


def test_a_study_without_parameters_has_no_plot(study):
    study.add(cost={})
    assert draw_pareto(study.table()) is None


def test_a_plot_of_more_panels_than_fit_says_so(study):
    most = PARAMETERS.panels
    for number in range(most + 1):
        add(study, "full", 1000, 0.7, data=f"data{number}")
    assert draw_pareto(study.table()).cut == f"The first {most} of {most + 1} panels."


@pytest.mark.parametrize(
    ("cost", "values", "ticks"),
    [
        (MEMORY, (600 * 2**20, 700 * 2**20), {"600", "650", "700"}),
        (SECONDS, (3.0, 4.5), {"3", "4"}),
    ],
)
def test_memory_and_time_stand_on_even_steps(study, cost, values, ticks):
    for method, value, score in zip("ab", values, (0.5, 0.6), strict=True):
        study.add(method=method, score=score, cost={cost.name: value})
    table = study.table()
    svg = draw_pareto(table, cost).svg
    assert {cost.title, "a", "b", *ticks} <= {t.strip() for t in re.findall(r"<!--(.*?)-->", svg)}
    assert draw_pareto(table, PARAMETERS) is None


def test_of_many_methods_the_front_full_and_the_best_are_named(study):
    add(study, "full", 1000, 0.1)
    add(study, "small", 1, 0.2)
    for number in range(MAX_NAMED + 3):
        add(study, f"method{number}", 500, 0.5 + number / 100)
    named = set(texts(study))
    assert {"full", "small", f"method{MAX_NAMED + 2}"} <= named
    assert not {"method0", "method1", "method2", "method3"} & named


def test_a_plot_in_which_not_every_dot_is_named_says_so(study):
    for number in range(MAX_NAMED + 1):
        add(study, f"method{number}", 500, 0.5 + number / 100)
    assert draw_pareto(study.table()).cut == "Not every dot is named; the table holds all."


def test_the_same_study_gives_the_same_bytes(study):
    add(study, "full", 1000, 0.7)
    assert draw_pareto(study.table()) == draw_pareto(study.table())


@pytest.mark.parametrize("text", ["$\\frac{1}{$", "任务 标签", "--> <b>", "😀", "", "a " * 9000])
def test_any_label_can_be_drawn(study, text):
    add(study, text, 1000, 0.7, data=text)
    assert draw_pareto(study.table()).svg.endswith("</svg>\n")


@pytest.mark.parametrize("parameters", [1, 999, 1000, 1001, 10**12, 2**62])
@pytest.mark.parametrize("score", [0.0, 1.0, -0.5, 1e-300])
def test_any_arm_can_be_drawn(study, parameters, score):
    add(study, "full", parameters, score)
    assert draw_pareto(study.table()).png.startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 13, 40])
def test_no_two_names_stand_on_each_other(study, count):
    for number in range(count):
        add(study, f"arm{number:02}", 1000, 0.5)
    svg = draw_pareto(study.table()).svg
    found = re.findall(r"<!-- arm\d+ -->\s*<g [^>]*translate\(([\d.]+) ([\d.]+)\)", svg)
    heights = sorted(float(y) for _, y in found)
    assert len(heights) == min(count, MAX_NAMED)
    assert all(b - a > 8 for a, b in pairwise(heights))
