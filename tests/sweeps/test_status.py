"""A study's plan and its state: what is planned, finished, failed and missing."""

import json
import threading
from contextlib import nullcontext

import pytest

from crosstune.config.compose import compose_config, compose_run, write_config
from crosstune.data.splits import read_splits
from crosstune.errors import ConfigError
from crosstune.models.resolve import resolve_defaults
from crosstune.runs.fingerprint import RESULT_FORMAT, compute_run_id
from crosstune.runs.locks import hold_run_lock
from crosstune.runs.plan_file import find_missing, forget_missing, read_plan, write_plan
from crosstune.runs.record import describe_environment
from crosstune.sweeps.plan import expand_sweep, plan_runs
from crosstune.sweeps.status import RunStatus, read_status, render_status
from crosstune.training.schedule import resolve_schedule
from tests.tiny import tiny_run

ROWS = "text\tlabel\nbueno\ta\nmalo\tb\n"


@pytest.fixture
def files(write):
    """Return the overrides that name a user's own files."""
    path = write("rows.tsv", ROWS)
    return [
        "data=files_classification",
        *(f"data.{split}={path}" for split in ("train", "validation", "test")),
        *("data.text=text", "data.label=label", "data.language=es"),
    ]


@pytest.fixture
def study(tmp_path):
    """Return a function that leaves a record of a run in the study."""

    def write_record(run_id, status="finished", **names):
        folder = tmp_path / "study" / run_id
        folder.mkdir(parents=True)
        now = {"environment": describe_environment(1), "result_format": RESULT_FORMAT}
        now |= {"experiment": "study", "run_id": run_id, "seed": 1, "train_language": "es"}
        now |= {"data": "d", "model": "m", "method": "full", "headline": {"metric": "accuracy"}}
        (folder / "record.json").write_text(json.dumps({"status": status, **now, **names}))

    return write_record


def line(seed, run_id):
    names = {"data": "d", "language": "es", "model": "m", "method": "full", "seed": seed}
    return {"overrides": [f"seed={seed}"], **names, "run_id": run_id}


def test_a_run_finished_with_another_version_is_stale_and_says_so(tmp_path, study):
    write_plan(tmp_path / "study", [line(1, "aa")])
    study("aa", environment={**describe_environment(1), "torch": "1.0"})
    ((run, status),) = read_status(tmp_path, "study")
    assert status == "stale"
    assert "torch was 1.0 and is " in run["error"]


def test_a_run_with_an_older_result_format_is_stale(tmp_path, study):
    write_plan(tmp_path / "study", [line(1, "aa")])
    study("aa", result_format=RESULT_FORMAT - 1)
    assert [status for _, status in read_status(tmp_path, "study")] == ["stale"]


def test_a_run_that_a_process_holds_is_running(tmp_path):
    write_plan(tmp_path / "study", [line(1, "aa")])
    with hold_run_lock(tmp_path / "study" / "aa"):
        assert [status for _, status in read_status(tmp_path, "study")] == ["running"]


def test_why_a_run_is_stale_is_printed(tmp_path, study):
    write_plan(tmp_path / "study", [line(1, "aa"), line(2, "bb")])
    study("aa", environment={**describe_environment(1), "torch": "1.0"})
    text = render_status("study", read_status(tmp_path, "study"))
    assert "torch was 1.0 and is " in text


@pytest.mark.parametrize("is_at_work", [True, False])
def test_a_single_run_without_a_record_is_at_work_or_was_killed(tmp_path, is_at_work):
    folder = tmp_path / "study" / "aa"
    folder.mkdir(parents=True)
    write_config(tiny_run(tmp_path), folder / "config.yaml")
    with hold_run_lock(folder) if is_at_work else nullcontext():
        ((run, status),) = read_status(tmp_path, "study")
    assert status == ("running" if is_at_work else "unfinished")
    assert (run["method"], run["seed"]) == ("full", 1)
    assert is_at_work or "killed" in render_status("study", [RunStatus(run, status)])


def test_a_record_without_a_status_is_unreadable_and_says_so(tmp_path):
    (tmp_path / "study" / "aa").mkdir(parents=True)
    (tmp_path / "study" / "aa" / "record.json").write_text("{}")
    text = render_status("study", read_status(tmp_path, "study"))
    assert "unreadable" in text
    assert "it has no status" in text


def test_what_is_planned_and_never_ran_can_be_forgotten(tmp_path, study):
    refused = {"overrides": ["method=lroa"], "error": "no such method"}
    write_plan(tmp_path / "study", [line(1, "aa"), line(2, "bb"), line(3, "cc"), refused])
    study("aa")
    with hold_run_lock(tmp_path / "study" / "cc"):
        dropped = forget_missing(tmp_path, "study")
    assert [run["overrides"] for run in dropped] == [["seed=2"], ["method=lroa"]]
    assert [run["run_id"] for run in read_plan(tmp_path / "study")] == ["aa", "cc"]
    with pytest.raises(ConfigError, match="no such study"):
        forget_missing(tmp_path, "stdy")


# --- the grid


GRID = """
# @package _global_
hydra:
  sweeper:
    params:
      data.language: es,zh
      method: full,lora
      seed: 1,2,3
"""


def test_a_grid_is_every_combination_under_what_the_command_line_says(write, tmp_path):
    write("conf/experiment/mine.yaml", GRID.lstrip())
    fixed = ["experiment=mine", "data=demo_sentiment", "seed=7"]
    here = f"hydra.searchpath=[{(tmp_path / 'conf').as_uri()}]"
    jobs = expand_sweep(compose_config([*fixed, here]))
    assert sorted(sorted(job) for job in jobs) == sorted(
        sorted([*fixed, f"data.language={language}", f"method={method}"])
        for language in ("es", "zh")
        for method in ("full", "lora")
    )


def test_a_study_without_a_grid_is_one_run():
    assert expand_sweep(compose_config(["experiment=demo_encoder"])) == [
        ["experiment=demo_encoder"]
    ]


def test_every_job_is_planned_with_the_run_id_that_training_gives_it(files):
    first, second = plan_runs([[*files, "seed=1"], [*files, "seed=2"]])
    run = resolve_defaults(compose_run([*files, "seed=2"]))
    splits = read_splits(run.data, [])
    assert second["run_id"] == compute_run_id(resolve_schedule(run, splits), splits)
    assert first["run_id"] != second["run_id"]


def test_a_planned_job_has_the_names_that_a_table_needs(files):
    (entry,) = plan_runs([[*files, "seed=2"]])
    names = ("data", "language", "model", "method", "seed")
    assert [entry[name] for name in names] == ["files_classification", "es", "mini", "full", 2]


def test_a_job_that_cannot_run_is_planned_with_what_is_wrong(files):
    wrong, right = plan_runs([[*files, "method=lroa"], files])
    assert "Did you mean lora?" in wrong["error"]
    assert "run_id" not in wrong
    assert "run_id" in right


def test_a_fault_of_a_file_is_in_the_plan(files, write):
    write("rows.tsv", "text\tlabel\nbueno\n")
    (wrong,) = plan_runs([files])
    assert "rows.tsv:2: 1 columns where the header has 2" in wrong["error"]


# --- the plan on disk


def test_a_plan_reads_back_as_it_was_written(tmp_path):
    lines = [line(1, "aa"), {**line(2, "bb"), "error": "línea\u2028两行"}]
    write_plan(tmp_path / "study", lines)
    assert read_plan(tmp_path / "study") == lines


def test_a_second_sweep_adds_to_the_plan_and_renews_what_it_repeats(tmp_path):
    write_plan(tmp_path, [line(1, "old"), line(2, "bb")])
    write_plan(tmp_path, [line(1, "new"), line(3, "cc")])
    assert [entry["run_id"] for entry in read_plan(tmp_path)] == ["new", "bb", "cc"]


def test_where_no_plan_was_written_there_are_no_lines(tmp_path):
    assert read_plan(tmp_path) == []


# --- the state of a study


def test_each_planned_run_has_the_status_of_its_record(tmp_path, study):
    write_plan(tmp_path / "study", [line(1, "aa"), line(2, "bb"), line(3, "cc")])
    study("aa")
    study("bb", "failed")
    assert [status for _, status in read_status(tmp_path, "study")] == [
        "finished",
        "failed",
        "missing",
    ]


def test_only_what_left_no_record_is_missing(tmp_path, study):
    refused = {"overrides": ["seed=x"], "error": "seed=x"}
    lines = [line(1, "aa"), line(2, "bb"), line(3, "cc"), line(4, "cc"), line(5, "dd"), refused]
    study("aa")
    study("bb", "diverged")
    with hold_run_lock(tmp_path / "study" / "dd"):
        assert find_missing(lines, tmp_path / "study") == [lines[2], refused]
    assert find_missing(lines, tmp_path / "study") == [lines[2], lines[4], refused]


def test_a_run_outside_of_the_plan_is_listed_too(tmp_path, study):
    write_plan(tmp_path / "study", [line(1, "aa")])
    study("aa")
    study("zz", train_language="zh")
    assert [(entry["language"], status) for entry, status in read_status(tmp_path, "study")] == [
        ("es", "finished"),
        ("zh", "finished"),
    ]


def test_two_commands_for_the_same_run_count_once(tmp_path, study):
    same = {**line(1, "aa"), "overrides": ["method=full", "seed=1"]}
    write_plan(tmp_path / "study", [line(1, "aa"), same, line(2, "bb")])
    study("aa")
    assert [status for _, status in read_status(tmp_path, "study")] == ["finished", "missing"]


def test_a_record_that_cannot_be_read_is_neither_finished_nor_missing(tmp_path, study):
    write_plan(tmp_path / "study", [line(1, "aa")])
    study("aa")
    (tmp_path / "study" / "aa" / "record.json").write_text("{")
    ((run, status),) = read_status(tmp_path, "study")
    assert (status, "JSONDecodeError" in run["error"]) == ("unreadable", True)


def test_a_study_with_a_file_has_a_plan_before_it_ran(tmp_path):
    ((entry, status),) = read_status(tmp_path, "demo_encoder")
    assert (entry["data"], entry["method"], status) == ("demo_text", "full", "missing")


def test_a_study_that_does_not_exist_gets_the_near_one(tmp_path):
    write_plan(tmp_path / "spanish_ner", [line(1, "aa")])
    with pytest.raises(ConfigError, match=r"experiment=spanish_nre: no such study. Did you mean "):
        read_status(tmp_path, "spanish_nre")


def test_the_status_counts_all_runs_and_names_the_unfinished(tmp_path, study):
    broken = {"overrides": ["method=lroa"], "error": "method=lroa: no such option"}
    write_plan(tmp_path / "study", [line(1, "aa"), line(2, "bb"), broken])
    study("aa")
    text = render_status("study", read_status(tmp_path, "study"))
    assert text.splitlines() == [
        "study: 3 runs, 1 finished, 2 missing",
        "  missing  d · es · m · full · 2  bb",
        "  missing  ? · ? · ? · ? · ?  : method=lroa: no such option",
    ]


def test_a_record_that_the_plan_has_under_another_id_is_stale(tmp_path, study):
    write_plan(tmp_path / "study", [line(1, "aa"), line(2, "bb")])
    study("bb")
    study("old", data="d", train_language="es", model="m", method="full", seed=1)
    study("own", data="d", train_language="es", model="m", method="lora", seed=1)
    statuses = {entry.get("method") + status for entry, status in read_status(tmp_path, "study")}
    assert statuses == {"fullmissing", "fullfinished", "fullstale", "lorafinished"}


def test_the_seeds_of_an_arm_stand_in_one_line_under_the_cells_of_the_table(tmp_path):
    more = {**line(1, "cc"), "overrides": ["method=lora"], "method": "lora"}
    write_plan(tmp_path / "study", [line(1, "aa"), line(2, "bb"), more])
    text = render_status("study", read_status(tmp_path, "study"))
    assert text.splitlines() == [
        "study: 3 runs, 3 missing",
        "  finished/planned  d es",
        "  m · full          0/2",
        "  m · lora          0/1",
        "  missing  d · es · m · full · 1,2  ",
        "  missing  d · es · m · lora · 1  cc",
    ]


def test_a_rehearsal_is_planned_as_one_and_reads_no_file(files):
    (entry,) = plan_runs([[*files, "data.train=nowhere.tsv", "trainer=smoke"]])
    assert (entry["stand_in"], "run_id" in entry) == (True, True)


def test_a_finished_rehearsal_is_counted_as_one(tmp_path, study):
    write_plan(tmp_path / "study", [{**line(1, "aa"), "stand_in": True}])
    study("aa")
    assert render_status("study", read_status(tmp_path, "study")) == "study: 1 run, 1 rehearsed"


def test_missing_data_is_named_once(tmp_path):
    broken = [
        {
            k: v
            for k, v in {**line(seed, ""), "error": "a.tsv: no such file"}.items()
            if k != "run_id"
        }
        for seed in (1, 2)
    ]
    write_plan(tmp_path / "study", broken)
    text = render_status("study", read_status(tmp_path, "study"))
    assert text.count("no such file") == 1
    assert text.endswith("Not at hand:\n  data d: a.tsv: no such file")


def test_two_sweeps_that_start_side_by_side_lose_no_line_of_the_plan(tmp_path):
    def write(half: int) -> None:
        for number in range(20):
            write_plan(tmp_path, [{"overrides": [f"seed={half}", f"data={number}"]}])

    halves = [threading.Thread(target=write, args=(half,)) for half in (1, 2)]
    for half in halves:
        half.start()
    for half in halves:
        half.join()
    assert len(read_plan(tmp_path)) == 40
