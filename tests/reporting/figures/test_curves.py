"""Learning curves: read from metrics.jsonl, averaged over seeds, drawn for those that count."""

import json
import re

import pytest

from crosstune.reporting.figures.curves import MAX_PANELS, average_curves, draw_curves, read_curve
from crosstune.reporting.records import list_runs, to_frame
from crosstune.reporting.report import write_report

KEY = "validation/headline"


def add_curve(study, scores, **changes):
    record = study.add(**changes)
    lines = [{"step": 10 * i, KEY: score, "epoch": i} for i, score in enumerate(scores, 1)]
    lines.insert(1, {"step": 15, "train/loss": 0.5})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    study.write(record["run_id"], text, name="metrics.jsonl")
    return record


def drawn(study):
    records = study.read()
    return draw_curves(list_runs(to_frame(records)), records.folders)


def texts(svg):
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg)]


def test_a_curve_has_a_point_for_every_validation(study):
    record = add_curve(study, [0.5, 0.75])
    path = study.folder / record["run_id"] / "metrics.jsonl"
    assert read_curve(path) == [(10, 0.5), (20, 0.75)]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "validation/headline": ',
        '{"step": null, "validation/headline": 1}',
        '{"step": 1, "validation/headline": NaN}',
        '["validation/headline"]',
        '{"validation/headline": 1}',
    ],
)
def test_a_line_that_tells_of_no_score_is_passed_over(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + "\n" + json.dumps({"step": 5, KEY: 0.5}) + "\n")
    assert read_curve(path) == [(5, 0.5)]


def test_a_mean_goes_as_far_as_every_seed():
    curves = [[(1, 0.25), (2, 0.5), (3, 0.9)], [(1, 0.75), (2, 1.0)]]
    assert average_curves(curves) == [(1, 0.5), (2, 0.75)]


def test_a_seed_without_a_curve_leaves_its_arm_without():
    assert average_curves([[(1, 0.25), (2, 0.5)], []]) == []


def test_every_arm_has_its_line_and_the_one_that_ends_highest_comes_first(study):
    add_curve(study, [0.5, 0.6], method="low")
    add_curve(study, [0.5, 0.9], method="high")
    found = texts(drawn(study).svg)
    assert found.index("high") < found.index("low")


def test_a_study_validated_once_has_no_curves(study):
    add_curve(study, [0.5])
    assert drawn(study) is None


def test_runs_that_do_not_count_have_no_curve(study):
    add_curve(study, [0.5, 0.6])
    record = study.fail(method="broken")
    study.write(record["run_id"], "", name="metrics.jsonl")
    assert "broken" not in texts(drawn(study).svg)


def test_more_panels_than_fit_are_named(study):
    for number in range(MAX_PANELS + 1):
        add_curve(study, [0.5, 0.6], data=f"data{number}")
    assert drawn(study).cut == f"The first {MAX_PANELS} of {MAX_PANELS + 1} panels."


def test_the_same_runs_give_the_same_bytes(study):
    add_curve(study, [0.5, 0.6])
    assert drawn(study) == drawn(study)


def test_the_report_has_the_curves_in_both_formats(study):
    add_curve(study, [0.5, 0.6])
    paths = write_report(study.outputs, "study", [], "").paths
    assert paths["curves.png"].read_bytes().startswith(b"\x89PNG")
    assert paths["curves.svg"].read_text("utf-8").endswith("</svg>\n")
    assert "Learning curves" in paths["index.html"].read_text("utf-8")


@pytest.mark.parametrize("scores", [[-1e300, 1e300], [0.0, 0.0], [1e-300, 1.0]])
def test_any_scores_can_be_drawn(study, scores):
    add_curve(study, scores)
    assert drawn(study).png
