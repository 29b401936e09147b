import csv
import io
import re
from dataclasses import replace

import pytest

from crosstune.reporting.costs import build_costs, render_costs
from crosstune.reporting.records import COSTS
from crosstune.reporting.render import render_latex, render_markdown
from crosstune.reporting.tables import render_cells

HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "back\\slash",
    "a & b",
    "=cmd()",
    "\x1b[31mred\x1b[0m",
    "two\nlines",
    "`code`",
    "100% $x$ #1 _y_ {z} ~ ^",
    "![x](http://example.org/a.png)",
    "[x]",
    "\u202eevil",
    "任务",
]


def read_csv(table):
    return list(csv.DictReader(io.StringIO(render_cells(table.cells))))


def check_markdown(text, columns):
    """Fail unless every line of the table has so many cells and no text is markup."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) - 2 for line in lines} == {columns}
    assert not re.search(r"<[a-z/!]|(?<!\\)`|(?<!\\)\]\(", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)


def check_latex(text, columns=5):
    """Fail if a table's row holds a special character that is not escaped, or not so many cells."""
    rows = re.search(r"\\toprule\n(.*)\\bottomrule", text, re.DOTALL).group(1)
    for line in rows.splitlines():
        if line == r"\midrule":
            continue
        assert line.endswith(r" \\")
        line = line.removesuffix(r" \\")
        assert not re.match(r"[\[*]", line)
        known = r"\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar"
        known += r"|textasciigrave|textperiodcentered|char34)\{\}|\\ensuremath\{\\?[a-z-]+\}"
        line = re.sub(rf"{known}|\{{[\[\]*]\}}|\\[&%$#_{{}}]", "", line)
        assert line.count(" & ") == columns - 1
        assert not re.search(r"[\\%$#_{}~^<>|`]", line.replace(" & ", ""))


def check_csv(text):
    """Fail if a spreadsheet would run a cell; numbers may be negative."""
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell):
                assert not re.match(r"[=+\-@\t\r]", cell)


def test_a_cell_is_mean_spread_and_number_of_seeds(study):
    for seed, score in ((1, 0.5), (2, 0.75), (3, 1.0)):
        study.add(seed=seed, score=score)
    assert study.cell("lora", "tags es f1") == "75.0 ± 25.0 (3)"


def test_a_cell_of_one_seed_has_no_spread(study):
    study.add(score=0.8125)
    assert study.cell("lora", "tags es f1") == "81.2 (1)"


def test_a_cell_short_of_seeds_says_how_many_were_planned(study):
    study.add(seed=1, score=0.5)
    study.add(seed=2, score=0.5)
    study.fail(seed=3)
    assert study.cell("lora", "tags es f1") == "50.0 ± 0.0 (2 of 3)"


def test_a_cell_without_a_finished_run_says_what_became_of_the_runs(study):
    study.fail(seed=1)
    study.fail(seed=2)
    study.fail("diverged", seed=3)
    missing = [study.plan(seed=seed) for seed in (4, 5, 6)]
    assert study.cell("lora", "tags es f1", missing) == "failed (2), diverged (1), missing (3)"


def test_a_combination_nobody_planned_is_empty(study):
    study.add(data="tags", method="lora")
    study.add(data="pairs", method="full")
    assert study.cell("full", "tags es f1") == "–"


def test_seeds_that_are_lacking_are_named_below_the_table(study):
    study.add(seed=1)
    study.fail(seed=2)
    study.add(seed=3, method="full")
    assert "lora on tags es: failed: seed 2; not run: seed 3." in study.table().notes


def test_a_column_of_another_language_names_both(study):
    study.add(scores={"test": {"zh": {"f1": 0.4}}})
    assert study.table().columns == ("tags es→zh f1",)


def test_a_column_of_validation_scores_says_so(study):
    study.add(scores={"validation": {"es": {"f1": 0.3}}})
    assert study.table().columns == ("tags es f1 (validation)",)


def test_one_model_stands_in_the_caption(study):
    study.add()
    table = study.table()
    assert ("Model: mini." in table.caption, table.rows[0][0]) == (True, "lora")


def test_two_models_stand_in_the_row_labels(study):
    study.add(model="mini")
    study.add(model="beto")
    assert [row[0] for row in study.table().rows] == ["beto · lora", "mini · lora"]


def test_a_headline_metric_per_data_set_is_a_column_of_its_own(study):
    study.add(data="tags")
    headline = {"split": "validation", "metric": "accuracy"}
    study.add(data="pairs", headline=headline, settings={"data.metric": "accuracy"})
    assert study.table().columns == ("pairs es accuracy", "tags es f1")


def test_parameters_are_exact_with_thousands_separators(study):
    study.add(cost={"trainable_parameters": 110_000_001})
    assert study.cell("lora", "trainable parameters") == "110,000,001"


def test_costs_are_averaged_over_data_sets_not_over_runs(study):
    for seed in (1, 2, 3):
        study.add(seed=seed, cost={"train_seconds": 10})
    study.add(data="pairs", cost={"train_seconds": 20})
    assert study.cell("lora", "train seconds") == "15.0"


def test_costs_do_not_count_a_data_set_twice_for_two_test_languages(study):
    study.add(scores={"test": {"es": {"f1": 1}, "zh": {"f1": 1}}}, cost={"train_seconds": 10})
    study.add(data="pairs", cost={"train_seconds": 20})
    assert study.cell("lora", "train seconds") == "15.0"


def test_peak_memory_is_in_mebibytes(study):
    study.add(cost={"peak_memory_bytes": 3 * 2**20})
    assert study.cell("lora", "peak memory MiB") == "3.0"


def test_a_cost_that_was_not_measured_is_empty_and_never_zero(study):
    study.add(cost={})
    assert study.table().rows[0][-3:] == ("–", "–", "–")


def test_an_unreadable_record_is_named_below_the_table(study):
    study.add()
    study.write("broken", '{"run_id"')
    assert any(note.startswith("Unreadable record in broken") for note in study.table().notes)


def test_a_killed_run_outside_the_plan_is_named_below_the_table(study):
    study.add()
    study.write("killed", "", name="config.yaml")
    assert "Unfinished, killed or still running: killed." in study.table().notes


def test_a_plan_that_was_refused_is_named_with_its_error(study):
    study.add()
    refused = {"overrides": ["method=lroa", "seed=1"], "error": "no such method"}
    assert (
        "Planned, but refused: method=lroa seed=1: no such method" in study.table([refused]).notes
    )


def costs_of(study):
    """Return the table of costs as row label -> {header: cell}."""
    costs = build_costs(study.table())
    return {row[0]: dict(zip(costs.headers[1:], row[1:], strict=True)) for row in costs.rows}


def test_every_cost_of_a_record_is_a_column_of_the_costs(study):
    study.add(cost=dict.fromkeys(COSTS, 5 * 2**20))
    assert len(costs_of(study)["lora"]) == len(COSTS)


def test_a_cost_that_no_run_measured_has_no_column(study):
    study.add(cost={"train_seconds": 1})
    assert costs_of(study) == {"lora": {"train seconds": "1.0"}}


def test_a_cost_that_one_arm_did_not_measure_is_absent_there(study):
    study.add(cost={"train_seconds": 1, "optimizer_bytes": 2**20})
    study.add(method="full", cost={"train_seconds": 1})
    assert costs_of(study)["full"]["optimizer MiB"] == "–"


def test_a_cost_measured_as_nothing_is_zero_and_not_absent(study):
    study.add(cost={"optimizer_bytes": 0})
    assert costs_of(study)["lora"]["optimizer MiB"] == "0.0"


def test_costs_are_means_over_seeds(study):
    study.add(seed=1, cost={"inference_tokens_per_second": 100})
    study.add(seed=2, cost={"inference_tokens_per_second": 300})
    assert costs_of(study)["lora"] == {"inference tokens per second": "200.0"}


def test_the_csv_of_costs_has_the_names_and_units_of_a_record(study):
    study.add(cost={"peak_memory_bytes": 3 * 2**20 + 1})
    (line,) = csv.DictReader(io.StringIO(render_costs(build_costs(study.table()))))
    assert line["peak_memory_bytes"] == str(3 * 2**20 + 1)
    assert [*line] == ["model", "method", "arm", *COSTS]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_label_breaks_the_costs(study, text):
    study.add(method=text)
    costs = build_costs(study.table())
    check_markdown(render_markdown(costs), len(costs.headers))
    check_latex(render_latex(costs), len(costs.headers))


def test_rows_are_in_the_order_of_their_numbers(study):
    for limit in (100, 20, 3):
        study.add(settings={"data.limit": limit})
    labels = [row[0] for row in study.table().rows]
    assert labels == [f"lora [data.limit={limit}]" for limit in (3, 20, 100)]


def test_markdown_is_a_pipe_table(study):
    study.add(seed=1)
    assert "| lora | 80.0 (1) | 1,234 | 10.0 | 2.0 |" in render_markdown(study.table()).splitlines()


def test_latex_has_a_row_in_booktabs(study):
    study.add(seed=1)
    assert r"lora & 80.0 (1) & 1,234 & 10.0 & 2.0 \\" in render_latex(study.table()).splitlines()


def test_csv_has_one_line_per_arm_data_set_and_language(study):
    study.add(scores={"test": {"es": {"f1": 0.8}, "zh": {"f1": 0.4}}})
    study.add(method="full")
    assert len(read_csv(study.table())) == 4


def test_csv_numbers_are_whole_and_absent_ones_empty(study):
    study.add(score=1 / 3, seed=7, cost={"trainable_parameters": 110_000_001})
    (line,) = read_csv(study.table())
    keys = ("mean", "std", "n", "planned", "seeds", "trainable_parameters", "train_seconds_mean")
    assert [line[key] for key in keys] == [repr(1 / 3), "", "1", "1", "7", "110000001", ""]


def test_a_negative_score_stays_a_number_in_csv(study):
    study.add(score=-0.25)
    assert read_csv(study.table())[0]["mean"] == "-0.25"


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_begins_a_formula_gets_an_apostrophe_in_csv(study, first):
    study.add(method=f"{first}cmd()")
    assert read_csv(study.table())[0]["method"].startswith("'")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_label_breaks_the_markdown(study, text):
    study.add(method=text)
    check_markdown(render_markdown(study.table()), 5)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_label_breaks_the_latex(study, text):
    study.add(method=text)
    check_latex(render_latex(study.table()))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_label_runs_in_a_spreadsheet(study, text):
    study.add(method=text, data=text, model=text)
    check_csv(render_cells(study.table().cells))


def test_the_check_of_markdown_sees_a_label_that_is_not_escaped():
    with pytest.raises(AssertionError):
        check_markdown("| a|b | 1 |", 2)


def test_the_check_of_latex_sees_a_label_that_is_not_escaped(study):
    study.add(method="xyz")
    with pytest.raises(AssertionError):
        check_latex(render_latex(study.table()).replace("xyz", "a_b"))


def test_the_check_of_csv_sees_a_label_that_is_not_escaped(study):
    study.add(method="xyz")
    with pytest.raises(AssertionError):
        check_csv(render_cells(study.table().cells).replace("xyz", "=cmd()"))


def test_hostile_labels_in_notes_are_escaped_too(study):
    study.add()
    study.write("broken", '{"schema": "<script>|`"}')
    check_markdown(render_markdown(study.table()), 5)


def test_the_same_table_renders_the_same(study):
    study.add()
    table = study.table()
    assert render_cells(table.cells) == render_cells(replace(table).cells)
