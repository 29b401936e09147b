import json
import math

import pytest

from crosstune.errors import ConfigError
from crosstune.reporting.records import list_runs, read_records, to_frame


def scores_of(study, **wanted):
    rows = to_frame(study.read()).to_dict("records")
    return [row["value"] for row in rows if wanted.items() <= row.items()]


def reasons(study):
    return dict(study.read().unreadable)


def test_a_frame_has_one_row_per_run_split_language_and_metric(study):
    study.add(scores={"validation": {"es": {"f1": 0.5}}, "test": {"es": {"f1": 0.6, "mcc": 0.1}}})
    assert len(to_frame(study.read())) == 3


def test_a_score_stands_in_the_row_of_its_split_language_and_metric(study):
    study.add(scores={"test": {"es": {"f1": 0.6}, "zh": {"f1": 0.4, "mcc": -0.1}}})
    assert scores_of(study, split="test", language="zh", metric="mcc") == [-0.1]


def test_a_run_without_scores_keeps_one_row(study):
    study.fail()
    assert list(to_frame(study.read())["status"]) == ["failed"]


def test_a_score_that_was_not_measured_has_no_row(study):
    study.add(scores={"test": {"es": {"f1": None, "mcc": 0.1}}})
    assert scores_of(study) == [0.1]


def test_a_cost_that_was_not_measured_is_nan(study):
    study.add(cost={"train_seconds": None, "head_parameters": 3})
    (run,) = list_runs(to_frame(study.read()))
    assert [run["head_parameters"], math.isnan(run["train_seconds"])] == [3, True]


def test_a_run_folder_without_a_record_is_unfinished(study):
    study.add()
    study.write("killed", "seed: 1", name="config.yaml")
    assert study.read().unfinished == ["killed"]


def test_a_folder_that_holds_no_run_is_passed_over(study):
    study.add()
    study.write("report", "", name="index.html")
    records = study.read()
    assert [len(records.records), records.unfinished, records.unreadable] == [1, [], []]


def test_a_study_without_runs_names_the_studies_that_have_some(study):
    study.add()
    with pytest.raises(ConfigError, match=r"Did you mean study\?"):
        read_records(study.outputs, "studdy")


@pytest.mark.parametrize("name", ["", ".", "..", "../outputs/study", "study/.."])
def test_a_study_outside_the_outputs_folder_is_refused(study, name):
    study.add()
    with pytest.raises(ConfigError):
        read_records(study.outputs, name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"run_id": "a", "sta', "JSONDecodeError"),
        ("", "JSONDecodeError"),
        ("[1, 2]", "holds a list"),
        ("{}", "it has no status"),
        ('{"schema": 2}', "schema 2"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_malformed_record_is_listed_with_its_reason(study, text, reason):
    study.add()
    study.write("broken", text)
    assert reason in reasons(study)["broken"]


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_a_setting_nested_to_the_limit_is_read_or_refused(study, depth):
    record = study.record(config={"x": "@"})
    nested = "[" * depth + "]" * depth
    study.write(record["run_id"], json.dumps(record).replace('"@"', nested))
    assert len(to_frame(study.read())) in (0, 3)


def test_a_record_that_is_no_utf8_is_listed(study):
    study.add()
    study.write("broken", "")
    (study.folder / "broken" / "record.json").write_bytes(b'{"run_id": "\xff"}')
    assert "UnicodeDecodeError" in reasons(study)["broken"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "running"},
        {"seed": "1"},
        {"seed": True},
        {"seed": 2**70},
        {"method": None},
        {"headline": {}},
        {"scores": {"test": {"es": 0.8}}},
        {"scores": {"test": {"es": {"f1": "0.8"}}}},
        {"scores": {"test": {"es": {"f1": float("nan")}}}},
        {"scores": {"test": {"es": {"f1": float("inf")}}}},
        {"scores": {"test": {"es": {"f1": 10**30}}}},
        {"cost": {"train_seconds": "fast"}},
        {"report": {"test": {"es": []}}},
        {"report": {"test": {"es": {"classes": {"PER": 0.5}}}}},
        {"data_sha256": {"a.tsv": 3}},
        {"config": "lora"},
    ],
)
def test_a_record_with_a_wrong_value_is_not_trusted(study, change):
    study.add()
    broken = study.add(**change)
    assert broken["run_id"] in reasons(study)


def test_a_diverged_run_may_hold_a_score_that_is_no_number(study):
    study.fail("diverged", scores={"validation": {"es": {"f1": float("nan")}}})
    assert reasons(study) == {}


def test_the_same_run_in_two_folders_counts_once(study):
    record = study.add()
    study.write("copy", json.dumps(record))
    assert [len(study.read().records), len(study.read().unreadable)] == [1, 1]


def test_half_of_a_surrogate_pair_in_a_label_can_be_written_again(study):
    study.add(method="\ud800")
    assert to_frame(study.read())["method"][0].encode("utf-8")


def test_half_of_a_surrogate_pair_in_a_plan_can_be_written_again(study):
    study.add()
    frame = to_frame(study.read([study.plan(method="\ud800", data="other")]))
    assert list(frame["method"][-1:]) == ["\ufffd"]
