from collections import defaultdict

import pytest

from crosstune.config.schema import OPTIONS
from crosstune.reporting.aggregate import ARM
from crosstune.reporting.records import list_runs, to_frame
from crosstune.runs.settings import flatten

SEEDLESS = ("seed", "experiment", "outputs")


def check_only_seeds_differ(runs, records):
    """Fail if two runs that would be averaged differ in a setting, or in a file, or not at all."""
    by_id = {record["run_id"]: record for record in records}
    cells = defaultdict(list)
    for run in runs:
        if not run["superseded_by"]:
            cells[tuple(run[key] for key in ARM)].append(by_id[run["run_id"]])
    for members in cells.values():
        settings = [
            flatten(r["config"]) | {"files": sorted(r["data_sha256"].values())} for r in members
        ]
        kept = [{k: str(v) for k, v in s.items() if k not in SEEDLESS} for s in settings]
        assert all(other == kept[0] for other in kept)
        assert len({record["seed"] for record in members}) == len(members)


@pytest.fixture
def mixed(study):
    """Two learning rates, two data limits and two versions of a file, three seeds each."""
    for seed in (1, 2, 3):
        study.add(seed=seed, score=0.8)
        study.add(seed=seed, score=0.2, settings={"optimizer.learning_rate": 0.1})
        study.add(seed=seed, score=0.4, settings={"data.limit": 100})
        study.add(seed=seed, score=0.6, data_sha256={"a": "aa", "b": "bb", "c": "new"})
    study.add(seed=1, score=0.1)
    return study


def labels(study, key="arm", missing=()):
    return sorted({run[key] for run in list_runs(to_frame(study.read(missing)))})


def test_runs_in_one_cell_differ_in_nothing_but_the_seed(mixed):
    records = mixed.read()
    check_only_seeds_differ(list_runs(to_frame(records)), records.records)


@pytest.mark.parametrize(
    ("column", "bug"),
    [
        ("arm", lambda run: run["method"]),
        ("dataset", lambda run: run["data"]),
        ("superseded_by", lambda run: ""),
    ],
)
def test_the_check_of_cells_sees_a_label_that_hides_a_difference(mixed, column, bug):
    records = mixed.read()
    runs = [run | {column: bug(run)} for run in list_runs(to_frame(records))]
    with pytest.raises(AssertionError):
        check_only_seeds_differ(runs, records.records)


def test_two_learning_rates_are_two_rows(study):
    study.add(seed=1, score=0.8)
    study.add(seed=2, score=0.2, settings={"optimizer.learning_rate": 0.1})
    assert [row[:2] for row in study.table().rows] == [
        ("lora [optimizer.learning_rate=0.001]", "80.0 (1 of 2)"),
        ("lora [optimizer.learning_rate=0.1]", "20.0 (1 of 2)"),
    ]


def test_runs_that_differ_in_the_seed_alone_share_the_plain_name(study):
    study.add(seed=1)
    study.add(seed=2)
    assert labels(study) == ["lora"]


@pytest.mark.parametrize(
    "settings",
    [
        {"logger.tracker": "wandb"},
        {"trainer.log_every_n_steps": 7},
        {"trainer.checkpoint_every_seconds": 7},
        {"trainer.devices": 2},
        {"data.train": "x"},
        {"data.batching": "uniform"},  # what every run does, since the option is gone
    ],
)
def test_what_cannot_change_a_result_is_in_no_label(study, settings):
    study.add(seed=1)
    study.add(seed=2, settings=settings)
    assert labels(study) == ["lora"]


@pytest.mark.parametrize(
    "key", [key for key, facts in OPTIONS.items() if not facts.changes_result and key != "seed"]
)
def test_no_option_that_cannot_change_a_result_splits_an_arm(study, key):
    study.add(seed=1)
    study.add(seed=2, settings={key: "another"})
    assert labels(study) == ["lora"]


def test_what_a_user_changes_after_a_failure_is_among_these_options():
    keys = ("retry", "tuned", "trainer.checkpoint_every_seconds", "trainer.devices", "outputs")
    assert not any(OPTIONS[key].changes_result for key in keys)


def test_language_adapters_are_compared_by_content(study):
    for seed, folder, digest in ((1, "a", "aa"), (2, "b", "aa"), (3, "b", "bb")):
        adapters = {"method.language_adapters": {"es": folder}}
        study.add(seed=seed, settings=adapters, language_adapters_sha256={"es": digest})
    assert labels(study) == [
        "lora [method.language_adapters.es=sha256:aa]",
        "lora [method.language_adapters.es=sha256:bb]",
    ]


def test_a_retired_option_with_another_value_is_another_arm(study):
    study.add(seed=1)
    study.add(seed=2, settings={"data.batching": "bucketed"})
    assert len(labels(study)) == 2


def test_a_setting_absent_and_a_setting_null_are_the_same(study):
    study.add(seed=1)
    study.add(seed=2, settings={"trainer.patience": None})
    assert labels(study) == ["lora"]


def test_a_text_and_a_number_that_read_alike_have_different_labels(study):
    study.add(seed=1, settings={"trainer.precision": "16"})
    study.add(seed=2, settings={"trainer.precision": 16})
    assert labels(study) == ['lora [trainer.precision="16"]', "lora [trainer.precision=16]"]


def test_long_settings_that_begin_alike_have_different_labels(study):
    study.add(seed=1, settings={"data.note": "x" * 100 + "a"})
    study.add(seed=2, settings={"data.note": "x" * 100 + "b"})
    assert len(labels(study)) == 2


def test_a_setting_that_varies_on_one_data_set_is_shown_on_all(study):
    study.add(data="tags")
    study.add(data="tags", settings={"optimizer.learning_rate": 0.1})
    study.add(data="pairs")
    study.add(data="pairs", method="full")
    assert labels(study) == [
        "full",
        "lora [optimizer.learning_rate=0.001]",
        "lora [optimizer.learning_rate=0.1]",
    ]


def test_other_files_of_the_same_name_are_another_data_set(study):
    study.add(seed=1)
    study.add(seed=2, data_sha256={"a.tsv": "aa", "b.tsv": "bb", "c.tsv": "new"})
    (first, second) = labels(study, "dataset")
    assert first.startswith("tags#")
    assert second.startswith("tags#")
    assert len({len(first), len(second), len("tags#3fa2")}) == 1


def test_the_same_files_under_other_paths_are_the_same_data_set(study):
    study.add(seed=1)
    paths = {"data.train": "/x/a", "data.validation": "/x/b", "data.test": "/x/c"}
    digests = {"/x/a": "aa", "/x/b": "bb", "/x/c": "cc"}
    study.add(seed=2, settings=paths, data_sha256=digests)
    assert labels(study, "dataset") == ["tags"]


def test_train_and_test_swapped_are_another_data_set(study):
    study.add(seed=1)
    study.add(seed=2, settings={"data.train": "c.tsv", "data.test": "a.tsv"})
    assert len(labels(study, "dataset")) == 2


def test_a_file_and_the_same_file_under_its_language_are_the_same_data_set(study):
    study.add(seed=1)
    study.add(seed=2, settings={"data.test": {"es": "c.tsv"}})
    assert labels(study, "dataset") == ["tags"]


def test_files_of_two_train_languages_are_told_apart_by_the_language_alone(study):
    study.add(train_language="es")
    study.add(train_language="zh", data_sha256={"x": "xx"})
    assert labels(study, "dataset") == ["tags"]


def test_sources_without_digests_are_compared_by_name(study):
    study.add(seed=1, data_sha256={}, settings={"data.train": "train[:100]"})
    study.add(seed=2, data_sha256={}, settings={"data.train": "train"})
    assert labels(study) == ['lora [data.train="train[:100]"]', "lora [data.train=train]"]


def test_a_run_that_failed_before_reading_joins_the_only_data_set(study):
    study.add(seed=1)
    study.fail(seed=2, data_sha256={"a.tsv": "aa"})
    study.fail(seed=3, data_sha256={})
    assert labels(study, "dataset") == ["tags"]


def test_a_run_that_failed_before_reading_joins_neither_of_two_data_sets(study):
    study.add(seed=1)
    study.add(seed=1, data_sha256={"a.tsv": "aa", "b.tsv": "bb", "c.tsv": "new"})
    study.fail(seed=2, data_sha256={})
    assert "tags#?" in labels(study, "dataset")


def test_two_models_of_one_name_at_two_paths_are_never_averaged(study):
    study.add(seed=1, settings={"model.path": "/a"})
    study.add(seed=2, settings={"model.path": "/b"})
    assert labels(study) == ['lora [model.path="/a"]', 'lora [model.path="/b"]']


def test_a_digest_of_the_weights_stands_for_the_path(study):
    study.add(seed=1, settings={"model.path": "/a"}, model_sha256="1" * 64)
    study.add(seed=2, settings={"model.path": "/b"}, model_sha256="1" * 64)
    assert labels(study) == ["lora"]


def test_other_weights_at_the_same_path_are_another_arm(study):
    study.add(seed=1, settings={"model.path": "/a"}, model_sha256="1" * 64)
    study.add(seed=1, settings={"model.path": "/a"}, model_sha256="2" * 64)
    assert len(labels(study)) == 2


def test_of_two_runs_equal_even_in_the_seed_the_later_counts(study):
    study.add(score=0.1, environment={"torch": "1"})
    study.add(score=0.9, environment={"torch": "2"})
    assert study.cell("lora", "tags es f1") == "90.0 (1)"


def test_the_run_that_does_not_count_is_named_below_the_table(study):
    old, new = study.add(), study.add()
    assert any(old["run_id"] in note and new["run_id"] in note for note in study.table().notes)


def test_a_finished_run_counts_before_a_later_failure(study):
    study.add(score=0.9)
    study.fail()
    assert study.cell("lora", "tags es f1") == "90.0 (1)"


def test_a_missing_run_joins_the_only_arm_of_its_method(study):
    study.add(seed=1)
    assert labels(study, missing=[study.plan(seed=2)]) == ["lora"]


def test_a_missing_run_whose_seed_is_taken_has_other_settings(study):
    study.add(seed=1)
    assert labels(study, missing=[study.plan(seed=1)]) == ["lora", "lora [?]"]


def test_a_missing_run_joins_neither_of_two_arms(study):
    study.add(seed=1)
    study.add(seed=1, settings={"optimizer.learning_rate": 0.1})
    assert "lora [?]" in labels(study, missing=[study.plan(seed=2)])


def test_two_missing_runs_of_one_seed_have_different_settings(study):
    study.add(seed=1)
    both = [study.plan(seed=2, run_id="x"), study.plan(seed=2, run_id="y")]
    assert labels(study, missing=both) == ["lora", "lora [?]"]


def test_a_planned_run_that_has_a_record_is_not_missing(study):
    record = study.add()
    runs = list_runs(to_frame(study.read([study.plan(run_id=record["run_id"])])))
    assert [run["status"] for run in runs] == ["finished"]


def test_a_planned_run_that_was_killed_is_unfinished(study):
    study.add(seed=1)
    study.write("killed", "seed: 2", name="config.yaml")
    runs = list_runs(to_frame(study.read([study.plan(seed=2, run_id="killed")])))
    assert [run["status"] for run in runs] == ["finished", "unfinished"]
