"""The recipes of printed tables: each fills its table and says what it costs."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from crosstune.cli.main import main
from crosstune.config.compose import compose_config, compose_run, to_dict
from crosstune.config.paths import find_conf
from crosstune.data.splits import merge_languages
from crosstune.data.synthetic.stand_in import generate_splits
from crosstune.reporting.published.layout import read_target
from crosstune.runs.settings import flatten
from crosstune.sweeps.plan import expand_sweep
from crosstune.tasks import TASKS

CONF = find_conf()
TABLES = sorted(path.stem for path in (CONF / "table").glob("*.yaml"))
LARGE = ("adalora_table1", "beto_dev_grid", "lora_table2", "unipelt_table1")  # a minute to compose
LARGE += ("beto_table1", "beto_table2", "bitfit_table1", "clue_dev_grid", "houlsby_table1")
GRIDS = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in TABLES]
SAID = ("Run", "Rehearse", "Cost", "Licence", "Expected", "Departs")


def runs_of(name):
    """Return the runs of a recipe's grid, of one seed each."""
    jobs = expand_sweep(compose_config([f"experiment={name}"]))
    first = min(word for job in jobs for word in job if word.startswith("seed="))
    return [compose_run(job) for job in jobs if first in job]


def places_of(run):
    """Return what a run fills: (model, method, data, train language, language, split, metric)."""
    splits = generate_splits(run.data)
    metrics = (
        TASKS[run.data.kind]
        .from_rows(merge_languages(splits["train"]).rows, **run.data.task)
        .metrics
    )
    names = (run.model.name, run.method.name, run.data.name, run.data.trained_on)
    return {
        (*names, language, split, metric)
        for split, languages in splits.items()
        for language in languages
        for metric in metrics
    }


def wanted(slot):
    """Return the place that a slot of a layout asks to be filled."""
    keys = ("model", "method", "data", "train_language", "language", "split", "metric")
    return tuple(slot.ours[key] for key in keys)


def match(runs, slots):
    """Return the slots that no run of the grid or several fill, and the runs that fill none."""
    settings = [flatten(to_dict(run)) for run in runs]
    places = [places_of(run) for run in runs]
    filled = {
        number: [
            place
            for place, slot in enumerate(slots)
            if wanted(slot) in places[number]
            and all(settings[number].get(k) == v for k, v in flatten(slot.settings).items())
        ]
        for number in range(len(runs))
    }
    counts = [sum(place in found for found in filled.values()) for place in range(len(slots))]
    wrong = [f"{slot.row}: {slot.column}" for slot, n in zip(slots, counts, strict=True) if n != 1]
    return wrong, [number for number, found in filled.items() if not found]


def faults_of_the_header(name, text):
    """Return what the comment of a recipe does not say."""
    header = [line for line in text.splitlines() if line.startswith("#")]
    said = {found[1]: found[2] for line in header if (found := re.match(r"# (\w+): (.+)", line))}
    faults = [key for key in SAID if key not in said]
    commands = (f"train -m experiment={name};", f"report experiment={name} table={name}")
    faults += [word for word in commands if word not in said.get("Run", "")]
    return faults + ([] if "GPU hours" in said.get("Cost", "") else ["GPU hours"])


def test_every_table_has_a_recipe():
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} >= set(TABLES)


@pytest.mark.parametrize("name", GRIDS)
def test_each_cell_of_the_table_is_filled_by_one_arm_of_the_grid_and_each_arm_fills_one(name):
    assert match(runs_of(name), read_target(CONF, name).slots) == ([], [])


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_says_command_cost_licence_and_what_is_expected(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text("utf-8")
    assert faults_of_the_header(name, text) == []


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_has_five_seeds_at_least(name):
    content = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text("utf-8"))
    assert len(content["hydra"]["sweeper"]["params"]["seed"].split(",")) >= 5


# --- planted bugs


def test_a_grid_that_lacks_an_arm_is_found():
    runs = [run for run in runs_of("xlmr_table2_conll") if run.model.name != "mbert"]
    wrong, idle = match(runs, read_target(CONF, "xlmr_table2_conll").slots)
    assert (len(wrong), idle) == (2, [])


def test_an_arm_that_no_table_asks_for_is_found():
    slots = read_target(CONF, "xlmr_table2_conll").slots
    assert match(runs_of("xlmr_table2_conll"), slots[:3])[1] == [3]


def test_a_header_that_says_nothing_is_found():
    assert faults_of_the_header("a", "# Purpose.\n# Run: crosstune train -m experiment=b\n") == [
        *SAID[1:],
        "train -m experiment=a;",
        "report experiment=a table=a",
        "GPU hours",
    ]


# --- rehearsals: the very three commands, on stand-in data

TINY = (
    "model.config.num_hidden_layers=1",
    "model.config.hidden_size=32",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=64",
)


@pytest.fixture
def crosstune(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command in an empty folder and returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(words):
        monkeypatch.setattr("sys.argv", ["crosstune", *words.split()])
        code = main()
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


def rehearse(crosstune, name, *more):
    """Return the cells of a printed table after its recipe was rehearsed."""
    words = ["trainer=smoke", "model=mini", "seed=1", "logger=none", *more]
    crosstune(f"train -m experiment={name} {' '.join(words)}")
    crosstune(f"report experiment={name} table={name}")
    with Path("outputs", name, "report", "published.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def unfilled(cells):
    """Return the cells that lack our run, the published number or a word on it, or have a score."""
    return [
        f"{cell['row_label']} {cell['data']}"
        for cell in cells
        if not cell["run_ids"]
        or cell["mean"]
        or not float(cell["published"])
        or not cell["protocol"].startswith("stand-in data")
        or cell["difference_to_published"]
    ]


@pytest.mark.parametrize("name", ["xlmr_table2_conll", "spanbert_table4_tacred"])
def test_a_rehearsal_reaches_every_published_cell_without_a_score(crosstune, name):
    cells = rehearse(crosstune, name, *TINY)
    assert len(cells) == len(read_target(CONF, name).slots)
    assert unfilled(cells) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_every_recipe_can_be_rehearsed(crosstune, name):
    cells = rehearse(crosstune, name)
    assert len(cells) == len(read_target(CONF, name).slots)
    zero = [cell for cell in cells if not float(cell["published"])]  # UniPELT prints some
    assert unfilled([cell for cell in cells if cell not in zero]) == []


def test_after_a_rehearsal_the_status_still_lacks_the_study(crosstune):
    crosstune(
        f"train -m experiment=spanbert_table4_tacred model=mini trainer=smoke seed=1 logger=none "
        f"{' '.join(TINY)}"
    )
    said = crosstune("status experiment=spanbert_table4_tacred")
    assert said.startswith("spanbert_table4_tacred: 11 runs, 10 missing, 1 rehearsed\n")
    assert "spanbert_base_cased · full  0/5" in said
    assert "data/tacred/train.json: no such file" in said
    assert "Files: https://catalog.ldc.upenn.edu/LDC2018T24" in said


def test_a_cell_that_is_compared_as_if_it_were_real_is_found():
    cell = {"row_label": "a", "data": "b", "run_ids": "x", "mean": "0.4", "published": "0.5"}
    cell["protocol"] = "stand-in data, not the paper's"
    assert unfilled([{**cell, "difference_to_published": "0.1"}]) == ["a b"]
    assert unfilled([{**cell, "difference_to_published": ""}]) == ["a b"]
