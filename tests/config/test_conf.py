"""Every file of `conf/`, found by its place: a new one is tested with no edit here."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from crosstune.config.compose import compose_config, compose_run
from crosstune.config.instantiate import check_target
from crosstune.config.paths import find_conf
from crosstune.config.schema import ModelOrigin
from crosstune.errors import ConfigError
from crosstune.models.resolve import resolve_model
from crosstune.sweeps.plan import expand_sweep
from tests.config.test_recipes import LARGE, TABLES

CONF = find_conf()
FACTS = {
    "published",
    "table",
}  # folders of facts, which are no groups of choices: `analysis/` reads them
FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent.name not in FACTS)
STUDIES = [
    # the small grids of printed tables are composed whole by the test of recipes
    pytest.param(path, marks=[pytest.mark.slow] * (path.stem in {*TABLES} - {*LARGE}))
    for path in FILES
    if path.parent.name == "experiment"
]
DATA = ["data=demo_sentiment", "data.language=es"]
PLACES = {"experiment": ""}  # studies write over everything; each other group has its own place
NODES = ("data.reader", "model.config", "method.peft", "optimizer.algorithm")


def name_of(path):
    return path.relative_to(CONF).with_suffix("").as_posix()


def group_of(path):
    """Return the group of a file; a method as a paper set it lies in a folder of its group."""
    return path.relative_to(CONF).parts[0] if path.parent != CONF else path.parent.name


def missing_values(path):
    """Return overrides for what a file leaves to its user."""
    return [
        f"{key}={'es' if key.endswith('.language') else 'given'}"
        for key in open_keys(
            PLACES.get(group_of(path), group_of(path)), yaml.safe_load(path.read_text("utf-8"))
        )
    ]


def open_keys(where, node):
    """Return the whole paths of the keys whose value is `???`."""
    where = where.removeprefix(".")
    if isinstance(node, dict):
        return [
            found for key, value in node.items() for found in open_keys(f"{where}.{key}", value)
        ]
    return [where] if node == "???" else []


def choose(path):
    """Return the overrides of a run in which the file has a part."""
    return [*(DATA if group_of(path) not in ("data", "experiment") else []), *chosen(path)]


def chosen(path):
    group = group_of(path)
    name = path.relative_to(CONF / group).with_suffix("").as_posix()
    return [f"{group}={name}", *missing_values(path)]


@cache
def composed(place):
    """Return one run of the options that stand at a place of their groups, for speed."""
    hand = [paths[place] for paths in OPTIONS.values() if place < len(paths)]
    data = DATA if place >= len(OPTIONS["data"]) else []
    return compose_run([*data, *(word for path in hand for word in chosen(path))])


def run_with(path):
    return composed(OPTIONS[group_of(path)].index(path))


def faults_of_the_text(path):
    """Return what is wrong with a file as it is read by people."""
    first = next(
        (line for line in path.read_text("utf-8").splitlines() if "@package" not in line), ""
    )
    faults = [] if re.fullmatch(r"# [^ ].*", first) else ["no first line that says its purpose"]
    content = yaml.safe_load(path.read_text("utf-8"))
    if content.get("name", path.stem) != path.stem:
        faults.append("its name is not the file's")
    return faults


def check_nodes(run):
    """Raise ConfigError if anything that the run names could not be built."""
    for where in NODES:
        group, key = where.split(".")
        check_target(getattr(getattr(run, group), key), where)


OPTIONS = {}  # by group
for file in FILES:
    if file.parent not in (CONF, CONF / "experiment"):
        OPTIONS.setdefault(group_of(file), []).append(file)


def test_there_are_files_of_every_group():
    groups = {path.parent.name for path in FILES if path.parent != CONF}
    assert groups >= {"data", "experiment", "logger", "method", "model", "optimizer", "trainer"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_says_its_purpose_first_and_bears_its_own_name(path):
    assert faults_of_the_text(path) == []


@pytest.mark.parametrize(
    "path", [path for paths in OPTIONS.values() for path in paths], ids=name_of
)
def test_an_option_composes_and_all_that_it_names_can_be_built(path):
    run = run_with(path)
    check_nodes(run)
    group = getattr(run, group_of(path))
    assert getattr(group, "name", path.stem) == path.stem


def covering(jobs):
    """Return few of the jobs of a grid, in which each of its values has a part.

    The first, and what else is no option with a file, which has a test of its own, nor a seed.
    """
    seen = {f"{group_of(path)}={path.stem}" for path in FILES if path.parent != CONF}
    seen |= {f"seed={number}" for number in range(2, 11)} | set(jobs[0])
    yield jobs[0]
    for job in jobs:
        if set(job) - seen:
            seen |= set(job)
            yield job


@pytest.mark.parametrize("path", STUDIES, ids=name_of)
def test_a_study_composes_with_every_value_of_its_grid(path):
    jobs = expand_sweep(compose_config(choose(path)))
    assert jobs
    for job in covering(jobs):
        run = compose_run(job)
        assert run.experiment == path.stem
        check_nodes(run)


def test_the_jobs_that_are_tried_hold_every_value():
    grid = [[f"a={a}", f"b={b}", f"c={c}"] for a in "123" for b in "12" for c in "1234"]
    tried = list(covering(grid))
    assert {value for job in tried for value in job} == {value for job in grid for value in job}
    assert len(tried) < len(grid)


@pytest.mark.parametrize("path", OPTIONS["model"], ids=name_of)
def test_a_checkpoint_of_the_hub_is_pinned(path):
    model = run_with(path).model
    if model.origin is ModelOrigin.hub:
        assert resolve_model(model) == model
        assert model.hub_id.count("/") == 1


def test_the_default_run_needs_the_data_alone():
    check_nodes(compose_run(DATA))


# --- planted bugs: what a wrong file would do to the tests above


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("name: a\n", "no first line that says its purpose"),
        ("name: a\n# Late.\n", "no first line that says its purpose"),
        ("# Purpose.\nname: b\n", "its name is not the file's"),
    ],
)
def test_a_file_that_says_nothing_or_bears_another_name_is_found(write, content, fault):
    assert faults_of_the_text(Path(write("a.yaml", content))) == [fault]


@pytest.mark.parametrize(
    ("group", "content"),
    [
        ("method", "name: a\nlearning_rate: 1e-3\npeft: {_target_: peft.LoraConfg}\n"),
        ("method", "name: a\nlearning_rate: 1e-3\npeft: {_target_: peft.LoraConfig, rank: 8}\n"),
        ("method", "name: a\nlearning_rate: 1e-3\npeft: {_target_: peft.LoraConfig, r: 8.5}\n"),
        ("method", "name: a\nlearning_rate: 1e-3\npeft: {_target_: os.system}\n"),
        ("method", "name: a\nlearning_rat: 1e-3\n"),
        ("optimizer", "algorithm: {_target_: torch.optim.AdamW, beta: 0.9}\n"),
        ("model", "name: a\norigin: hub\nhub_id: a/b\nrevision: main\n"),
    ],
)
def test_a_file_that_composes_or_binds_wrongly_is_found(write, tmp_path, group, content):
    write(f"{group}/a.yaml", f"# Purpose.\n{content}")
    overrides = [*DATA, f"{group}=a", f"hydra.searchpath=[{tmp_path.as_uri()}]"]
    with pytest.raises(ConfigError):  # noqa: PT012 - whichever step finds it
        run = compose_run(overrides)
        check_nodes(run)
        resolve_model(run.model)
