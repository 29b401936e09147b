import math

import pytest

from crosstune.reporting.aggregate import summarise_classes, summarise_scores
from crosstune.reporting.records import to_frame


def summary(study, missing=()):
    return summarise_scores(to_frame(study.read(missing)))


def report(f1, **more):
    numbers = {"precision": 0.5, "recall": 0.25, "f1": f1, "support": 7}
    return {"test": {"es": {"classes": {"PER": numbers | more}, "micro": numbers}}}


def test_the_mean_of_three_seeds_is_theirs(study):
    for seed, score in ((1, 0.5), (2, 0.75), (3, 1.0)):
        study.add(seed=seed, score=score)
    assert summary(study)[0].mean == 0.75


def test_the_standard_deviation_divides_by_n_minus_one(study):
    for seed, score in ((1, 0.5), (2, 0.75), (3, 1.0)):
        study.add(seed=seed, score=score)
    assert summary(study)[0].std == 0.25


def test_one_seed_has_no_standard_deviation(study):
    study.add()
    assert math.isnan(summary(study)[0].std)


def test_scores_stand_in_the_order_of_their_seeds(study):
    records = {seed: study.add(seed=seed, score=seed / 10)["run_id"] for seed in (3, 1, 2)}
    (row,) = summary(study)
    ids = tuple(records[seed] for seed in (1, 2, 3))
    assert (row.seeds, row.scores, row.run_ids) == ((1, 2, 3), (0.1, 0.2, 0.3), ids)


def test_a_failed_run_is_in_no_mean_even_if_it_holds_a_score(study):
    study.add(seed=1, score=0.5)
    study.fail(seed=2, scores={"test": {"es": {"f1": 0.9}}})
    (cell,) = summary(study)
    assert [cell.mean, cell.n, cell.unscored["failed"]] == [0.5, 1, 1]


def test_failed_diverged_and_missing_runs_are_counted_apart(study):
    study.fail(seed=1)
    study.fail("diverged", seed=2)
    (row,) = summary(study, [study.plan(seed=3), study.plan(seed=4)])
    assert [row.unscored[key] for key in ("failed", "diverged", "missing")] == [1, 1, 2]


def test_planned_seeds_are_those_of_every_method_and_every_ending(study):
    study.add(seed=1)
    study.add(method="full", seed=2)
    study.fail(method="full", seed=3)
    assert {row.planned for row in summary(study, [study.plan(method="x", seed=4)])} == {4}


def test_planned_seeds_of_another_data_set_do_not_count(study):
    study.add(seed=1)
    study.add(seed=2, data="pairs")
    assert {row.planned for row in summary(study)} == {1}


def test_planned_seeds_of_another_model_do_not_count(study):
    study.add(seed=1)
    study.add(seed=2, model="beto")
    assert {row.planned for row in summary(study)} == {1}


def test_each_test_language_is_a_row(study):
    study.add(scores={"test": {"es": {"f1": 0.8}, "zh": {"f1": 0.4}}})
    assert [(row.language, row.mean) for row in summary(study)] == [("es", 0.8), ("zh", 0.4)]


def test_only_the_headline_metric_is_summarised(study):
    study.add()
    assert [row.metric for row in summary(study)] == ["f1"]


def test_validation_scores_stand_in_where_nothing_was_tested(study):
    study.add(scores={"validation": {"es": {"f1": 0.3}}})
    assert [(row.split, row.mean) for row in summary(study)] == [("validation", 0.3)]


def test_validation_scores_never_stand_beside_test_scores(study):
    study.add()
    assert [row.split for row in summary(study)] == ["test"]


def test_a_method_without_a_finished_run_has_a_row_for_every_language(study):
    study.add(scores={"test": {"es": {"f1": 0.8}, "zh": {"f1": 0.4}}})
    study.fail(method="full")
    rows = [row for row in summary(study) if row.method == "full"]
    assert [(row.language, row.n, row.unscored["failed"]) for row in rows] == [
        ("es", 0, 1),
        ("zh", 0, 1),
    ]


def test_a_study_in_which_everything_failed_has_a_row_all_the_same(study):
    study.fail()
    assert [(row.language, row.metric, row.n) for row in summary(study)] == [("es", "f1", 0)]


def test_a_cost_is_the_mean_of_the_finished_runs_that_measured_it(study):
    study.add(seed=1, cost={"train_seconds": 10})
    study.add(seed=2, cost={"train_seconds": 20})
    study.add(seed=3, cost={})
    study.fail(seed=4, cost={"train_seconds": 1000})
    assert summary(study)[0].costs["train_seconds"] == 15


def test_a_cost_that_no_run_measured_is_nan(study):
    study.add(cost={})
    assert math.isnan(summary(study)[0].costs["train_seconds"])


def classes(study):
    records = study.read()
    return summarise_classes(to_frame(records), records.records).to_dict("records")


def test_a_class_is_averaged_over_seeds(study):
    study.add(seed=1, report=report(0.5))
    study.add(seed=2, report=report(1.0))
    row = classes(study)[0]
    assert [row["label"], row["f1"], row["f1_std"], row["n"]] == [
        "PER",
        0.75,
        pytest.approx(0.3535533905932738, abs=1e-15),
        2,
    ]


def test_averages_over_classes_come_last_and_are_marked(study):
    study.add(report=report(0.5))
    assert [(row["label"], row["average"]) for row in classes(study)] == [
        ("PER", False),
        ("micro", True),
    ]


def test_a_class_named_like_an_average_is_a_row_of_its_own(study):
    study.add(report={"test": {"es": {"classes": {"micro": {"f1": 0.1}}, "micro": {"f1": 0.9}}}})
    assert [row["f1"] for row in classes(study)] == [0.1, 0.9]


def test_a_measure_that_is_absent_from_a_class_is_nan(study):
    study.add(report=report(0.5, support=None))
    assert math.isnan(classes(study)[0]["support"])


def test_the_classes_of_a_failed_run_are_in_no_mean(study):
    study.add(seed=1, report=report(0.5))
    study.fail(seed=2, report=report(1.0))
    assert classes(study)[0]["f1"] == 0.5
