"""Printed tables filled with our runs: each layout of `conf/table`, and what stands in a line."""

import csv
import io
import re
from pathlib import Path

import pytest
import yaml

from crosstune.errors import ConfigError, DataError
from crosstune.reporting.comparison import Comparison
from crosstune.reporting.published.layout import REQUIRED, read_target
from crosstune.reporting.report import ReportOptions, write_report
from tests.reporting.test_report import HOSTILE, check_page, printed
from tests.reporting.test_tables import check_csv, check_latex, check_markdown

CONF = Path(__file__).parents[3] / "conf"
LAYOUTS = sorted((CONF / "table").glob("*.yaml"))
NAMED = {
    *("beto_table1", "beto_table2", "beto_dev_grid", "clue_dev_grid", "lora_table2"),
    *("zh_wwm_chnsenticorp", "zh_wwm_xnli", "zh_wwm_lcqmc", "zh_wwm_ner", "zh_wwm_cmrc2018"),
    *("spanbert_table1_squad", "spanbert_table4_tacred", "houlsby_table1", "bitfit_table1"),
    *("adalora_table1", "unipelt_table1", "xlmr_table1_xnli", "xlmr_table2_conll"),
    "wikiann_xquad",
}

PUBLISHED = """# Published numbers: a table.
name: paper
paper: {title: 'T | <b>', authors: A et al., year: 2020}
table: {number: 1, what: W}
sources:
- {kind: repo_file, repo: a/b, path: README.md, commit: 0123abc}
selection: best on dev
known_problems: [two cells are swapped]
units: {F1: percent, minutes: minutes}
defaults: {split: test, verified: true, selected_on: validation, language: es, dataset: NER}
columns: [model, method, metric, value, aggregate, seeds]
groups:
- same: {}
  rows:
  - [BERT, full, F1, 80.0, mean, 5]
  - [BERT, LoRA, F1, 50.0, max, 2]
  - [BERT, LoRA, F1, 45.0, median, 3]
  - [BERT, full, minutes, 3, single, 1]
"""
LAYOUT = """# A layout.
name: mine
published: paper
baseline: full
same:
  ours: {model: mini, data: tags, language: es, split: test, metric: f1}
  theirs: {model: BERT, metric: F1}
rows:
- {ours: {method: full}, theirs: {method: full}}
columns:
- {ours: {}, theirs: {aggregate: mean}}
"""
LORA = LAYOUT.replace("method: full", "method: lora").replace("{method: lora}}", "{method: LoRA}}")


@pytest.fixture
def conf(tmp_path):
    """Return a writer of a layout beside the one published table."""

    def write(layout=LAYOUT):
        for folder, name, text in (("published", "paper", PUBLISHED), ("table", "mine", layout)):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}.yaml").write_text(text, "utf-8")
        return tmp_path

    return write


def report_of(study, conf, name="mine"):
    wanted = ReportOptions(Comparison(), read_target(conf, name))
    return write_report(study.outputs, "study", [], "crosstune report", wanted)


def line_of(study, conf):
    """Return the only line of the filled table."""
    (table,) = [table for table in report_of(study, conf).tables if "beside" in table.caption]
    (row,) = table.rows
    return row


def csv_of(study, conf):
    text = report_of(study, conf).paths["published.csv"].read_text("utf-8")
    (line,) = csv.DictReader(io.StringIO(text))
    return line


# --- every layout


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_every_cell_of_a_layout_finds_one_published_score(path):
    target = read_target(CONF, path.stem)
    assert target.slots
    assert all(slot.theirs.score is not None for slot in target.slots)


def test_the_tables_that_were_asked_for_have_a_layout():
    assert {path.stem for path in LAYOUTS} >= NAMED


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_a_layout_says_its_purpose_first_and_bears_its_own_name(path):
    text = path.read_text("utf-8")
    assert re.match(r"# [^ ].*\.\n", text)
    assert yaml.safe_load(text)["name"] == path.stem


@pytest.mark.parametrize("group", ["data", "model", "method"])
@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_what_a_layout_names_is_an_option_or_its_header_says_how_to_name_it(path, group):
    options = {option.stem for option in (CONF / group).glob("*.yaml")}
    header = " ".join(re.findall(r"^# (.*)$", path.read_text("utf-8"), re.MULTILINE))
    told = set(re.findall(rf"{group}\.name=(\w+)", header))
    named = {slot.ours[group] for slot in read_target(CONF, path.stem).slots}
    assert named <= options | told
    assert not told & options


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_no_two_cells_of_a_layout_are_the_same(path):
    slots = read_target(CONF, path.stem).slots
    assert len({(slot.row, slot.column) for slot in slots}) == len(slots)


# --- a line


def test_a_score_stands_beside_the_published_one(study, conf):
    for seed, score in ((1, 0.75), (2, 0.85)):
        study.add(method="full", seed=seed, score=score)
    line = line_of(study, conf())
    assert line[1:5] == ("80.0 ± 7.1 (2)", "80.00", "80.00 (mean of 5)", "0.00")


def test_five_seeds_around_the_published_number_agree_with_it(study, conf):
    for seed in range(1, 6):
        study.add(method="full", seed=seed, score=0.8 + 0.01 * (seed - 3))
    assert line_of(study, conf())[-1] == "agrees"


def test_five_seeds_far_from_the_published_number_disagree_with_it(study, conf):
    for seed in range(1, 6):
        study.add(method="full", seed=seed, score=0.7 + 0.01 * (seed - 3))
    assert line_of(study, conf())[-1] == "disagrees"


def test_few_seeds_leave_the_verdict_open_and_name_what_differs(study, conf):
    study.add(method="full", score=0.8)
    report = report_of(study, conf())
    assert "(a) seeds: 1 here, 5 there." in printed(report)
    assert line_of(study, conf())[-1] == "open (a)"


def test_a_score_on_another_split_is_named_as_a_difference(study, conf):
    study.add(method="full", score=0.8)
    line = csv_of(study, conf(LAYOUT.replace("split: test", "split: validation")))
    assert line["protocol"] == "split: validation here, test there; seeds: 1 here, 5 there"


@pytest.mark.parametrize(("how", "ours"), [("max", "63.33"), ("median", "50.00")])
def test_ours_are_aggregated_as_the_paper_did(study, conf, how, ours):
    for seed, score in enumerate((0.4, 0.5, 0.7)):
        study.add(seed=seed, score=score)
    line = line_of(study, conf(LORA.replace("aggregate: mean", f"aggregate: {how}")))
    assert line[1:3] == ("53.3 ± 15.3 (3)", ours)  # the best of two of three is 0.5, 0.7 or 0.7


def test_a_cell_that_nothing_fills_says_so_beside_the_published_number(study, conf):
    study.add(method="bitfit")
    assert line_of(study, conf())[1:] == ("–", "–", "80.00 (mean of 5)", "–", "not run")


def test_a_failed_run_counts_as_planned(study, conf):
    study.add(method="full", seed=1, score=0.8)
    study.fail(method="full", seed=2)
    assert line_of(study, conf())[1] == "80.0 (1 of 2)"


def test_any_metric_of_a_record_may_stand_in_a_cell(study, conf):
    study.add(method="full", score=0.8)
    assert line_of(study, conf(LAYOUT.replace("metric: f1", "metric: accuracy")))[1] == "20.0 (1)"


def test_several_arms_that_fit_are_named_and_none_is_taken(study, conf):
    for rank in (8, 16):
        study.add(method="full", settings={"optimizer.learning_rate": rank / 100})
    report = report_of(study, conf())
    assert line_of(study, conf())[-1] == "2 arms fit"
    assert "several arms fit: full [optimizer.learning_rate=0.08] on tags" in " ".join(
        report.paths["published.md"].read_text("utf-8").split()
    )


def test_settings_tell_arms_apart(study, conf):
    for rate, score in ((0.1, 0.5), (0.2, 0.75)):
        study.add(method="full", score=score, settings={"optimizer.learning_rate": rate})
    old = "ours: {method: full}"
    new = "ours: {method: full, settings: {optimizer.learning_rate: 2.0e-01}}"
    assert line_of(study, conf(LAYOUT.replace(old, new)))[1] == "75.0 (1)"


def test_a_score_that_may_be_claimed_is_marked_against_the_baseline_of_the_layout(study, conf):
    for seed in range(1, 11):
        study.add(method="full", seed=seed, score=0.8 + 0.001 * seed)
        study.add(method="lora", seed=seed, score=0.7 - 0.001 * seed)
    lora = "- {ours: {method: lora}, theirs: {method: LoRA, metric: F1, aggregate: max}}"
    both = LAYOUT.replace("columns:\n", f"{lora}\ncolumns:\n").replace(
        ", theirs: {method: full}}", ", theirs: {method: full, aggregate: mean}}"
    )
    (table,) = [
        table
        for table in report_of(
            study, conf(both.replace("theirs: {aggregate: mean}", "theirs: {}"))
        ).tables
        if "beside" in table.caption
    ]
    assert [row[1][-1] for row in table.rows] == [")", "*"]
    assert "* differs from full" in table.caption


def test_the_notes_say_what_is_known_of_the_published_table(study, conf):
    study.add(method="full")
    shown = printed(report_of(study, conf()))
    assert "Known of the published table: two cells are swapped." in shown
    assert "Published numbers were picked so: best on dev." in shown


def test_the_csv_has_both_numbers_as_fractions_and_as_printed(study, conf):
    study.add(method="full", score=0.75)
    line = csv_of(study, conf())
    keys = ("scores", "published", "published_value", "published_seeds", "expected", "verified")
    assert [line[key] for key in keys] == ["0.75", "0.8", "80", "5", "", "True"]
    assert float(line["difference_to_published"]) == pytest.approx(-0.05)


def test_a_printed_table_of_an_earlier_report_goes(study, conf):
    study.add(method="full")
    assert "published.md" in report_of(study, conf()).paths
    report = write_report(study.outputs, "study", [], "")
    assert not (report.folder / "published.md").exists()


def test_no_text_of_runs_breaks_a_printed_table(study, conf):
    for rate in (0.1, 0.2):
        study.add(method="full", settings={"optimizer.learning_rate": rate, "data.metric": HOSTILE})
    study.add(method="full", settings={"method.name": HOSTILE})
    report = report_of(study, conf())
    check_markdown(report.paths["published.md"].read_text("utf-8"), 6)
    check_csv(report.paths["published.csv"].read_text("utf-8"))
    check_page(report.paths["index.html"].read_text("utf-8"))


def test_a_printed_table_in_latex_is_whole(study, conf):
    study.add(method="full")
    text = report_of(study, conf()).paths["published.tex"].read_text("utf-8")
    check_latex(re.sub(r"(?m)^\\multicolumn.*\n", "", text), 6)


# --- planted bugs: what a wrong layout would do


def test_a_layout_that_is_not_there_is_an_error_of_the_command(conf):
    with pytest.raises(ConfigError, match="Did you mean mine"):
        read_target(conf(), "mines")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("theirs: {method: full}", "theirs: {method: ful}", "no row with method='ful'"),
        ("theirs: {aggregate: mean}", "theirs: {aggregat: mean}", "rows have no such name"),
        ("metric: F1}", "metric: minutes}", "no row with aggregate='mean'"),
        (LAYOUT, LORA.replace("theirs: {aggregate: mean}", "theirs: {}"), "has 2 rows with"),
        (
            "theirs: {aggregate: mean}",
            "theirs: {metric: minutes, aggregate: single}",
            "is a cost, no score",
        ),
        ("data: tags, ", "", "missing in ours: data"),
        (
            "data: tags, ",
            "data: tags, dat: tags, ",
            "unknown key 'same.ours.dat'. Did you mean data",
        ),
        ("data: tags, ", "data: 5, ", "same.ours.data is 5. Input should be a valid string"),
        ("name: mine", "name: yours", "its name is 'yours', not 'mine'"),
        ("baseline: full", "baseline: 5", "baseline is 5. Input should be a valid string"),
        (
            "published: paper",
            "published: [paper]",
            "published is ['paper']. Input should be a valid string",
        ),
        ("baseline: full", "test: t", "unknown key 'test'. Allowed: baseline, columns, name"),
        (
            "- {ours: {}, theirs: {aggregate: mean}}",
            " []",
            "columns is []. List should have at least 1 item",
        ),
        (
            "- {ours: {}, theirs",
            "- {our: {}, theirs",
            "'columns[0].our'. Did you mean ours? Allowed",
        ),
        (
            "- {ours: {}, theirs",
            "- {ours: [], theirs",
            "columns[0].ours is []. Input should be a valid",
        ),
        (LAYOUT, "[]", "mine.yaml: Input should be a valid dictionary"),
        (LAYOUT, "a: {", "while parsing"),
        (
            "{method: full}, theirs",
            "{method: full, settings: 3}, theirs",
            "rows[0].ours.settings is 3. Input should be a valid dictionary",
        ),
    ],
)
def test_a_wrong_layout_is_refused(conf, old, new, fault):
    assert old in LAYOUT
    with pytest.raises(DataError, match=re.escape(fault)):
        read_target(conf(LAYOUT.replace(old, new, 1)), "mine")


def test_a_published_table_that_is_not_there_is_named(conf):
    with pytest.raises(ConfigError, match="published=papers is not known"):
        read_target(conf(LAYOUT.replace("published: paper", "published: papers")), "mine")


def test_every_fault_of_a_layout_is_told_at_once(conf):
    twice = LAYOUT.replace("theirs: {method: full}", "theirs: {method: ful}")
    twice += "- {ours: {}, theirs: {aggregate: max}}\n"
    with pytest.raises(DataError) as caught:
        read_target(conf(twice), "mine")
    assert len(caught.value.faults) == 2


def test_a_train_language_that_is_not_given_is_the_tested_one(conf):
    (slot,) = read_target(conf(), "mine").slots
    assert (slot.ours["train_language"], set(slot.ours)) == ("es", set(REQUIRED))


def test_rehearsals_on_stand_in_data_are_compared_with_no_published_number(study, conf):
    study.add(method="full", settings={"trainer.stand_in": True})
    line = line_of(study, conf())
    assert line[-2:] == ("–", "stand-in data, not the paper's")
    assert line[1:3] == ("–", "–")  # ours, and ours as published


def test_the_same_runs_on_the_paper_s_own_data_are_compared(study, conf):
    study.add(method="full", settings={"trainer.stand_in": False})
    assert line_of(study, conf())[-2] == "0.00"


def test_the_numbers_of_rehearsals_hold_no_difference_to_a_published_number(study, conf):
    study.add(method="full", settings={"trainer.stand_in": True})
    text = report_of(study, conf()).paths["published.csv"].read_text("utf-8")
    (line,) = csv.DictReader(io.StringIO(text))
    names = ("difference_to_published", "mean", "scores", "low", "ours_as_published")
    assert [line[name] for name in names] == [""] * len(names)
    assert line["protocol"] == "stand-in data, not the paper's"


def test_a_study_of_rehearsals_says_so_above_its_table(study):
    study.add(settings={"trainer.stand_in": True})
    assert "1 of 1 runs are rehearsals on stand-in data" in study.table().flags[0]
