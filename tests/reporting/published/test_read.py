"""The published tables, each found by its place, and what a wrong file would do to the reader."""

import math
import re
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import yaml

from crosstune.errors import ConfigError, DataError
from crosstune.reporting.published.model import Procedure
from crosstune.reporting.published.read import choose_table, read_published
from crosstune.reporting.published.verdict import expect_best, judge_published

FOLDER = Path(__file__).parents[3] / "conf" / "published"
FILES = sorted(FOLDER.glob("*.yaml"))
TABLES = read_published(FOLDER)
ROWS = [row for table in TABLES.values() for row in table.rows]
OURS = Procedure("test", "mean", 5, "validation")

WHOLE = """# Purpose.
name: a
paper: {title: T, authors: A, year: 2020}
table: {number: 1, what: W}
sources:
- {kind: repo_file, repo: a/b, path: README.md, commit: 0123abc}
selection: best on dev
units: {accuracy: percent, minutes: minutes}
defaults: {split: test, aggregate: mean, seeds: 5, verified: true}
columns: [dataset, language, metric, value, lr]
groups:
- same: {model: BERT, method: full}
  rows:
  - [XNLI, es, accuracy, 78.5, null]
  - [XNLI, zh, accuracy, 76.0, null]
"""


@pytest.fixture
def read(tmp_path):
    def read(old="", new=""):
        assert old in WHOLE
        (tmp_path / "a.yaml").write_text(WHOLE.replace(old, new, 1), "utf-8")
        return read_published(tmp_path)

    return read


# --- every file


def test_all_the_tables_and_their_cells_are_there():
    assert len(TABLES) == len(FILES) == 51
    assert len(ROWS) == 3557


def test_recalled_numbers_are_told_from_those_that_stand_in_a_source():
    recalled = defaultdict(int)
    for row in ROWS:
        recalled[row.table] += not row.verified
    assert {table: count for table, count in recalled.items() if count} == {
        "bitfit2022_table1_glue": 36,
        "hgiyt2021_table2_mono_vs_mbert": 20,
        "lora_table2_third_party_replication": 11,
        "madx2020_ner": 2,
        "ptuningv2_readme_ner_superglue": 8,
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_table_says_its_purpose_first_and_bears_its_own_name(path):
    first = path.read_text("utf-8").splitlines()[0]
    assert re.fullmatch(r"# Published numbers: \S.*\.", first)
    assert TABLES[path.stem].name == path.stem


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_a_file_of_a_repository_is_named_with_its_commit(table):
    commits = [source.commit for source in table.sources if source.kind == "repo_file"]
    assert all(re.fullmatch(r"[0-9a-f]{7,40}", commit) for commit in commits)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_source_can_be_followed_by_a_reader(table):
    for source in table.sources:
        public = source.url if source.kind == "paper" else f"https://github.com/{source.repo}"
        assert re.fullmatch(
            r"https://(arxiv\.org/abs/\d{4}\.\d{5}|github\.com/[\w.-]+/[\w.-]+)", public
        )
        assert source.kind == "repo_file" or source.what


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_a_table_says_what_else_is_known_to_be_wrong_with_it(table):
    if not all(row.verified for row in table.rows):
        assert table.verified_scope


def cpu_seconds(work):
    """Return the least of three measurements: other processes share the cores."""

    def measure():
        begun = time.process_time()
        work()
        return time.process_time() - begun

    return min(measure() for _ in range(3))


def test_checking_every_row_costs_little_beside_parsing_the_files():
    texts = [path.read_text("utf-8") for path in FOLDER.glob("*.yaml")]
    parsing = cpu_seconds(lambda: [yaml.load(text, yaml.CSafeLoader) for text in texts])
    assert cpu_seconds(lambda: read_published(FOLDER)) < 5 * parsing


# --- averages that are printed beside their cells

# Table: the column in which an average has a label of its own, that label, and half of the printed
# digit, cells being rounded too.
AVERAGES = {
    "adalora2023_table1_glue": ("dataset", "avg8", 0.016),
    "clue2020_classification_test": ("dataset", "Score (mean of 6)", 0.016),
    "clue_paddle_dev_grid": ("dataset", "AVG", 0.016),
    "cluener2020": ("entity", "Overall@Macro", 0.016),
    "diffpruning2021_tables1_2": ("dataset", "avg9", 0.061),
    "lora2022_table2_glue": ("dataset", "avg8", 0.061),
    "spanbert_table2_mrqa": ("dataset", "avg5", 0.061),
    "unipelt2022_table1_lowresource": ("dataset", "avg8", 0.016),
    "unipelt2022_table3_full": ("dataset", "avg8", 0.016),
    "xlmr2020_table1_xnli": ("language", "avg15", 0.061),
    "xlmr2020_table2_conll_ner": ("language", "avg4", 0.061),
    "xlmr2020_table3_mlqa": ("language", "avg7", 0.061),
    "xquad_readme": ("language", "avg", 0.061),
}
# Printed and recomputed, where they are not the same.
MISPRINTED = {
    "clue_paddle_dev_grid": {(64.21, 64.24)},
    "cluener2020": {(70.0, 69.9), (78.82, 78.74)},
    "unipelt2022_table1_lowresource": {(47.56, 47.58)},
    "xlmr2020_table1_xnli": {(71.3, 70.72), (70.7, 71.26)},  # the two are swapped
}
REMARKS = ("note", "reported_elsewhere", "origin", "lr", "batch_size")  # of a cell, not of its line
NO_PART = {("CMRC2018", "F1"), ("CLUENER2020", "overall")}  # an average has the other number of it


def facts_of(row, *without):
    """Return what else tells a number apart, but for some of it."""
    plain = {"table", "model", "method", "dataset", "language", "metric", "unit", "value"}
    plain |= {"verified", "split", "aggregate", "seeds", "selected_on", "seed", "std", "sem"}
    return row.model_dump(exclude=plain | set(without), exclude_none=True)


def lines_of(table, column):
    """Return the cells of each line of a printed table, by what `column` says, and its average."""
    lines = defaultdict(lambda: defaultdict(list))
    for row in table.rows:
        part = getattr(row, column)
        if {(row.dataset, row.metric), (row.dataset, part)} & NO_PART or part is None:
            continue
        facts = sorted(facts_of(row, *REMARKS, column).items())
        line = (row.model, row.method, row.split, row.aggregate, *facts)
        metric = row.metric if column == "language" else ""
        lines[*line, metric][part].append(row.value)
    return lines.values()


def changed(model, **values):
    return model.model_copy(update=values)


def misprints(table, column, label, tolerance):
    """Return how many averages a table prints, and those that its cells do not have."""
    printed = [line for line in lines_of(table, column) if label in line]
    wrong = set()
    for line in printed:
        (shown,) = line.pop(label)
        mean = fmean(fmean(numbers) for numbers in line.values())
        if abs(mean - shown) > tolerance:
            wrong.add((shown, round(mean, 2)))
    return len(printed), wrong


@pytest.mark.parametrize("name", AVERAGES)
def test_a_printed_average_is_that_of_its_cells(name):
    printed, wrong = misprints(TABLES[name], *AVERAGES[name])
    assert printed >= 4
    assert wrong == MISPRINTED.get(name, set())


def test_a_cell_that_was_copied_wrongly_would_be_found():
    table = TABLES["xlmr2020_table2_conll_ner"]
    first = changed(table.rows[0], value=table.rows[0].value + 1)
    spoilt = changed(table, rows=[first, *table.rows[1:]])
    assert misprints(spoilt, *AVERAGES[table.name])[1]


@pytest.mark.parametrize("model", ["Google BERT large", "Our BERT-1seq large", "SpanBERT large"])
def test_the_coreference_score_is_the_mean_of_three_f1(model):
    rows = TABLES["spanbert_table3_coref"].find(model=model)
    scores = {row.metric: row.value for row in rows if row.origin is None}
    mean = fmean(scores[f"{part} F1"] for part in ("MUC", "B3", "CEAF"))
    assert mean == pytest.approx(scores["avg F1"], abs=0.061)


def test_the_glue_average_of_spanbert_holds_wnli_at_the_majority_class():
    table = TABLES["spanbert_table5_glue"]
    for model in {row.model for row in table.rows}:
        cells = defaultdict(list)
        for row in table.find(model=model):
            cells[row.dataset.split("-m")[0]].append(row.value)
        (printed,) = cells.pop("avg incl. WNLI")
        mean = fmean([65.1, *(fmean(numbers) for numbers in cells.values())])
        assert mean == pytest.approx(printed, abs=0.061)


def test_five_published_seeds_have_the_mean_that_is_printed_beside_them():
    seeds, means = defaultdict(list), {}
    for row in TABLES["wikiann_xquad_xlmr_base_repro"].rows:
        cell = (row.model, row.dataset, row.language, row.split, row.metric)
        if row.seed is not None:
            seeds[cell].append(row.value)
        elif (row.origin or "stefan-it").startswith("stefan-it"):
            means[cell] = row.value
    compared = means.keys() & seeds.keys()
    assert len(compared) >= 30
    wrong = {cell for cell in compared if abs(fmean(seeds[cell]) - means[cell]) > 0.061}
    # The source prints the averages of the test rows beside the dev rows too.
    assert {cell[2:4] for cell in wrong} == {("avg", "validation")}


# --- looking up


def test_one_cell_of_a_table_is_found_by_its_names():
    (row,) = choose_table(FOLDER, "beto2020_table1_glues").find(
        model="BETO cased", method="full fine-tuning", dataset="XNLI", language="es", split="test"
    )
    assert (row.value, row.unit, row.score) == (82.01, "percent", pytest.approx(0.8201))


def test_facts_tell_rows_apart():
    table = TABLES["beto2020_dev_grid"]
    found = table.find(model="BETO cased", dataset="MLDoc", lr=2e-5, batch_size=16, epochs=3)
    assert [row.value for row in found] == [96.6]


def test_a_cost_is_no_score():
    (row, *_) = TABLES["adalora2023_table15_cost"].find(metric="GPU memory GB")
    assert (row.unit, row.score) == ("gigabytes", None)
    with pytest.raises(ConfigError, match="is a cost in gigabytes"):
        judge_published([0.5] * 5, OURS, row)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"model": "BETO case"}, "has no row with model='BETO case'. Did you mean BETO cased"),
        ({"modell": "BETO cased"}, "modell: rows have no such name. Did you mean model"),
        ({"model": "BETO cased", "dataset": "QA"}, "Allowed: CoNLL-2002 NER, MLDoc, PAWS-X"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(where, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TABLES["beto2020_table1_glues"].find(**where)


def test_a_table_that_is_not_known_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean beto2020_table1_glues"):
        choose_table(FOLDER, "beto2020_table1_glue")


# --- the verdict


def published(**where):
    (row,) = TABLES["zh_wwm_chnsenticorp"].find(model="BERT-base Chinese", split="test", **where)
    return row


def test_the_same_protocol_differs_in_nothing():
    row = published(aggregate="mean")
    same = changed(row, selected_on="validation", seeds=5)
    assert judge_published([0.95] * 5, OURS, same).differs == ()


def test_each_fact_of_protocol_that_differs_or_is_not_stated_is_named():
    row = changed(published(aggregate="max"), split="validation", verified=False)
    assert judge_published([0.95] * 5, OURS, row).differs == (
        "split: test here, validation there",
        "aggregate: mean here, max there",
        "seeds: 5 here, 10 there",
        "chosen on: validation here, not stated there",
        "it is not verified",
    )


def test_our_scores_are_aggregated_as_the_paper_did():
    scores = [0.90, 0.91, 0.92, 0.93, 0.99]
    row = changed(published(aggregate="mean"), value=95.0)
    assert judge_published(scores, OURS, row).difference == pytest.approx(-0.02)
    best = changed(row, aggregate="max", seeds=5)
    assert judge_published(scores, OURS, best).difference == pytest.approx(0.04)
    middle = changed(row, aggregate="median")
    assert judge_published(scores, OURS, middle).difference == pytest.approx(-0.03)


@pytest.mark.parametrize("seeds", [6, None])
def test_the_best_of_more_runs_than_ours_is_not_made_up(seeds):
    row = changed(published(aggregate="max"), seeds=seeds)
    verdict = judge_published([0.9, 0.91, 0.92, 0.93, 0.94], OURS, row)
    assert math.isnan(verdict.difference)
    assert verdict.expected is None


def test_too_few_seeds_say_nothing_about_what_was_to_be_expected():
    assert judge_published([0.9] * 4, OURS, published(aggregate="mean")).expected is None


def expected_share(runs, believed):
    """Return how often the mean of so many runs is found where runs of the same kind would be."""
    random = np.random.default_rng(7)
    theirs = random.normal(0.8, 0.02, (10_000, runs)).mean(axis=1)
    row = changed(published(aggregate="mean"), seeds=believed)
    return fmean(
        bool(judge_published(ours, OURS, changed(row, value=100 * value)).expected)
        for ours, value in zip(
            random.normal(0.8, 0.02, (10_000, 5)).tolist(), theirs.tolist(), strict=True
        )
    )


@pytest.mark.parametrize("runs", [1, 5, 10])
def test_a_number_of_the_same_kind_is_expected_with_the_stated_probability(runs):
    assert 0.94 <= expected_share(runs, believed=runs) <= 0.96


def test_to_take_a_single_run_for_a_mean_of_ten_would_be_found():
    assert expected_share(1, believed=10) < 0.9


def test_the_expected_best_is_the_mean_of_all_choices():
    scores = [0.1, 0.5, 0.6, 0.8, 0.9, 0.95]
    for runs in range(1, 7):
        every = fmean(max(chosen) for chosen in combinations(scores, runs))
        assert expect_best(scores, runs) == pytest.approx(every)


# --- planted faults: what a wrong file would do to the reader


def test_the_whole_file_is_read(read):
    assert [row.value for row in read()["a"].rows] == [78.5, 76.0]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("selection: best on dev\n", "", "a.yaml: selection is missing"),
        ("selection:", "choice: x\nselection:", "a.yaml: unknown key 'choice'"),
        ("selection:", "note: x\nselection:", "unknown key 'note'. Did you mean notes?"),
        ("selection:", "note: x\nselection:", "Allowed: checks, columns, defaults, groups"),
        ("name: a", "name: b", "a.yaml: its name is 'b', not 'a'"),
        ("name: a", "name: [", "ParserError"),
        ("# Purpose.\nname: a", "- a", "ParserError"),
        (WHOLE, "- a", "a.yaml: Input should be a valid dictionary"),
        ("accuracy: percent", "accuracy: points", "a.yaml: units.accuracy is 'points'. "),
        ("accuracy: percent", "accuracy: percents", "Did you mean percent? Allowed: gibibytes"),
        ("commit: 0123abc", "note: x", "a.yaml: sources[0].repo_file.commit is missing"),
        ("path: README.md, ", "", "a.yaml: sources[0].repo_file.path is missing"),
        ("repo: a/b, ", "", "a.yaml: sources[0].repo_file.repo is missing"),
        ("kind: repo_file", "kind: hearsay", "a.yaml: sources[0] is {'kind': 'hearsay'"),
        ("kind: repo_file", "kind: hearsay", "tags: 'repo_file', 'paper'"),
        ("groups:", "groups:\n- {rows: []}", "a.yaml: groups[0].same is missing"),
        ("groups:", "groups:\n- {same: [], rows: []}", "groups[0].same is []. Input should be a"),
        ("groups:", "groups:\n- {same: {}, rows: null}", "groups[0].rows is None. Input should"),
        ("groups:", "groups:\n- {same: {}, rows: [], x: 1}", "unknown key 'groups[0].x'. Allowed"),
        (
            "groups:\n",
            "groups: {}\nchecks:\n",
            "a.yaml: groups is {}. Input should be a valid list",
        ),
        ("accuracy: percent", "accuracy: [percent]", "units.accuracy is ['percent']. Input should"),
        (
            "metric, value",
            "[metric], value",
            "columns[2] is ['metric']. Input should be a valid str",
        ),
        ("metric, value", "metric, values", "group 1: unknown column 'values'. Did you mean value"),
        ("{model: BERT", "{model: BERT, value: 1", "group 1: column 'value' is there twice"),
        ("method: full}", "model: 3}", "a.yaml:12: the key 'model' is given twice"),
        (", method: full", "", "group 1, row 1: method is missing"),
        ("78.5, null", "null, null", "group 1, row 1: value is missing"),
        ("78.5, null", "78.5", "group 1, row 1: it has 4 cells, not 5"),
        ("78.5, null", "'78.5', null", "group 1, row 1: value is '78.5'"),
        ("78.5, null", "true, null", "group 1, row 1: value is True"),
        ("78.5, null", "178.5, null", "group 1, row 1: value 178.5 is outside 0 to 100 percent"),
        ("78.5, null", "-0.1, null", "group 1, row 1: value -0.1 is outside 0 to 100 percent"),
        ("78.5, null", ".nan, null", "group 1, row 1: value nan is outside 0 to 100 percent"),
        ("accuracy, 78.5", "minutes, .inf", "row 1: value inf is outside 0 to inf minutes"),
        ("es, accuracy", "es, f1", "metric 'f1' has no unit. Allowed: accuracy, minutes"),
        (
            "XNLI, es",
            "XNLI, Spanish",
            "language is 'Spanish'. Allowed: an ISO code, or a text that",
        ),
        ("XNLI, zh", "XNLI, es", "group 1, row 2: it repeats group 1, row 1"),
        (
            "split: test",
            "split: dev",
            "split is 'dev'. Input should be 'train', 'validation', 'test'",
        ),
        ("seeds: 5", "seeds: 5, seed: 1", "seed is 1, but aggregate is mean, not single"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(read, old, new, fault):
    with pytest.raises(DataError) as caught:
        read(old, new)
    assert fault in " ".join(caught.value.faults)


def test_every_fault_is_told_at_once(read):
    with pytest.raises(DataError) as caught:
        read("78.5, null]\n  - [XNLI, zh, accuracy, 76.0", "178.5, null]\n  - [XNLI, zh, f1, 76.0")
    assert len(caught.value.faults) == 2


def test_nothing_in_a_file_is_instantiated(read):
    with pytest.raises(DataError, match="ConstructorError"):
        read("what: W", "what: !!python/object/apply:os.getcwd []")


def test_rows_that_a_fact_tells_apart_are_no_repetition(read):
    rows = read("XNLI, zh, accuracy, 76.0, null", "XNLI, es, accuracy, 76.0, 0.001")["a"].rows
    assert [facts_of(row) for row in rows] == [{}, {"lr": 0.001}]
