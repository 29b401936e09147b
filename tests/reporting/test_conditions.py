import re

import pytest

from crosstune.reporting.render import render_latex, render_markdown
from crosstune.reporting.report import print_report, write_report

# What must be equal in a comparison, and another value of it.
SETTINGS = {
    "data.batch_size": 64,
    "data.max_tokens": 64,
    "data.limit": 100,
    "data.shots": 8,
    "data.metric": "accuracy",  # chooses the checkpoint
    "data.unseen_labels": "miss",
    "trainer.max_epochs": 5,
    "trainer.max_steps": 40,
    "trainer.patience": 2,
    "trainer.precision": "bf16",
    "trainer.accumulate_grad_batches": 2,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_ratio": 0.2,
    "optimizer.weight_decay": 0.2,
    "model.vocab_size": 500,
}
SURROUNDINGS = {
    "torch": "2.99",
    "transformers": "5.99",
    "peft": "0.99",
    "python": "3.99",
    "platform": "Linux riscv",
    "threads": 64,
    "git_commit": "abc",
}
BEFORE = {"torch": "2.13", "transformers": "5.3", "peft": "0.21", "python": "3.11"}
BEFORE |= {"platform": "Linux x86_64", "threads": 2, "git_commit": "def"}


def flags(study):
    return list(study.table().flags)


def groups(study):
    """Return the labels of the rows of each part, by its conditions."""
    return {name: [row[0] for row in rows] for name, rows in study.table().parts}


@pytest.mark.parametrize(("key", "value"), SETTINGS.items())
def test_two_methods_that_differ_in_a_setting_are_two_tables_and_are_named(study, key, value):
    study.add(method="full")
    study.add(method="lora", settings={key: value})
    (flag,) = flags(study)
    assert f"differ in {key}: " in flag
    assert re.search(rf"{value} \(lora\)", flag)
    assert re.search(r" \S+ \(full\)", flag)
    (first, second) = groups(study)
    assert first.startswith(f"{key}=")
    assert second == f"{key}={value}"


@pytest.mark.parametrize(
    ("key", "value"),
    [("trainer.accelerator", "gpu"), ("trainer.devices", 2), ("trainer.strategy", "ddp")],
)
def test_two_methods_that_differ_in_what_cannot_change_a_result_are_one_table(study, key, value):
    study.add(method="full")
    study.add(method="lora", settings={key: value})
    assert (flags(study), groups(study)) == ([], {"": ["full", "lora"]})


@pytest.mark.parametrize(("key", "value"), SURROUNDINGS.items())
def test_two_methods_run_in_different_surroundings_are_named(study, key, value):
    study.add(method="full", environment=BEFORE)
    study.add(method="lora", environment=BEFORE | {key: value})
    (flag,) = flags(study)
    assert flag.startswith("The runs differ in environment, ")
    for held, row in ((BEFORE[key], "full"), (value, "lora")):
        assert re.search(rf"{key}: .*\"?{re.escape(str(held))}\"? \({row}\)", flag)


def test_a_study_of_methods_that_differ_in_nothing_else_has_no_flag(study):
    for seed in (1, 2):
        study.add(method="full", seed=seed, environment=BEFORE)
        study.add(method="lora", seed=seed, environment=BEFORE)
    assert flags(study) == []
    assert groups(study) == {"": ["full", "lora"]}


def test_each_method_may_have_its_own_settings_and_learning_rate(study):
    best = {"optimizer.learning_rate": 0.1, "model.learning_rate_scale": 6, "method.peft": None}
    study.add(method="full", settings=best)
    study.add(method="lora")
    assert flags(study) == []


def test_two_learning_rates_among_the_seeds_of_a_method_are_named(study):
    study.add(method="full")
    study.add(seed=1)
    study.add(seed=2, settings={"optimizer.learning_rate": 0.1})
    rows = [f"lora [optimizer.learning_rate={rate}]" for rate in (0.001, 0.1)]
    expected = f"differ in optimizer.learning_rate: 0.001 ({rows[0]}), 0.1 ({rows[1]})"
    assert [expected in flag for flag in flags(study)] == [True]


def test_two_learning_rates_of_a_method_leave_its_rows_in_one_table(study):
    study.add(method="full")
    study.add(settings={"optimizer.learning_rate": 0.1})
    study.add(settings={"optimizer.learning_rate": 0.2})
    assert len(groups(study)) == 1


def test_one_name_of_two_contents_is_named(study):
    study.add(method="full")
    study.add(method="lora", data_sha256={"a.tsv": "aa", "b.tsv": "bb", "c.tsv": "new"})
    (flag,) = flags(study)
    assert re.search(r"on tags es differ in data_sha256: tags#\w+ \(\w+\), tags#\w+ \(\w+\)", flag)


def test_one_setting_that_varies_in_one_method_is_what_the_study_is_about(study):
    for limit in (10, 20):
        study.add(settings={"data.limit": limit})
    assert groups(study) == {"": ["lora [data.limit=10]", "lora [data.limit=20]"]}
    assert "data.limit: 10 (lora [data.limit=10])" in flags(study)[0]


def test_two_settings_that_vary_in_one_method_part_its_rows(study):
    study.add(settings={"data.limit": 10})
    study.add(settings={"trainer.max_epochs": 9})
    assert len(groups(study)) == 2


def test_a_setting_crossed_with_the_methods_gives_a_table_for_each_value(study):
    for epochs in (3, 5):
        for method in ("full", "lora"):
            study.add(method=method, settings={"trainer.max_epochs": epochs})
    found = groups(study)
    assert [*found] == ["trainer.max_epochs=3", "trainer.max_epochs=5"]
    assert [len(rows) for rows in found.values()] == [2, 2]


def test_two_epoch_counts_are_never_averaged(study):
    study.add(method="full", seed=1, score=0.1)
    study.add(method="lora", seed=1, score=0.2)
    study.add(method="lora", seed=2, score=0.4, settings={"trainer.max_epochs": 5})
    cells = [row[1] for row in study.table().rows]
    assert cells == ["10.0 (1 of 2)", "20.0 (1 of 2)", "40.0 (1 of 2)"]


def test_two_data_sets_may_have_conditions_of_their_own(study):
    for data, epochs in (("tags", 3), ("pairs", 5)):
        for method in ("full", "lora"):
            study.add(data=data, method=method, settings={"trainer.max_epochs": epochs})
    assert flags(study) == []


def test_conditions_that_differ_on_one_data_set_name_it(study):
    for data, epochs in (("tags", 5), ("pairs", 3)):
        study.add(data=data, method="full")
        study.add(data=data, method="lora", settings={"trainer.max_epochs": epochs})
    names = [f"trainer.max_epochs={epochs} on tags es" for epochs in (3, 5)]
    assert [*groups(study)] == names
    assert flags(study)[0].startswith("Runs on tags es differ in trainer.max_epochs")


def test_two_models_may_not_differ_in_the_epochs_but_in_their_own_settings(study):
    study.add(model="mini", settings={"model.vocab_size": 400})
    study.add(model="beto", settings={"model.vocab_size": 500, "trainer.max_epochs": 5})
    assert ["trainer.max_epochs" in flag for flag in flags(study)] == [True]
    assert len(groups(study)) == 2


def test_surroundings_of_one_row_are_named_with_its_seeds(study):
    study.add(seed=1, environment={"torch": "2.12"})
    study.add(seed=2, environment={"torch": "2.13"})
    assert 'torch: "2.12" (lora seed 1), "2.13" (lora seed 2)' in flags(study)[0]


def test_a_run_that_another_supersedes_differs_from_nothing(study):
    study.add(environment={"torch": "2.12"})
    study.add(environment={"torch": "2.13"})
    assert flags(study) == []


def test_a_run_that_never_began_has_no_conditions(study):
    study.add(method="full")
    study.add(settings={"trainer.max_epochs": 5}, seed=1)
    missing = [study.plan(method="bitfit")]
    parts = dict(study.table(missing).parts)
    assert sorted(len(rows) for rows in parts.values()) == [1, 2]


@pytest.fixture
def mixed(study):
    """Two methods with different epoch counts."""
    study.add(method="full")
    study.add(method="lora", settings={"trainer.max_epochs": 5})
    return study


def check_apart(text):
    """Fail unless a text names the key and shows the two rows under headings of their own."""
    flag, one, full, two, lora = (
        text.find(part) for part in ("not one comparison", "3\n", "full {", "5\n", "lora {")
    )
    assert -1 < flag < one < full < two < lora


def shown(study, form):
    """Return a form of the table with each heading on a line of its own."""
    report = write_report(study.outputs, "study", [], "")
    if form == "page":
        text = re.sub(r"<[^>]*>", "", report.paths["index.html"].read_text("utf-8"))
        return text[text.index("trainer.max_epochs: ") :]
    render = {"markdown": render_markdown, "latex": render_latex}[form]
    text = render(report.tables[0]).replace("\\", "").replace("*\n", "\n").replace("} \n", "\n")
    return text.replace("{3}", "3")


@pytest.mark.parametrize("form", ["markdown", "latex", "page"])
def test_rows_that_are_no_comparison_stand_apart_in_every_form(mixed, form):
    check_apart(shown(mixed, form))


def test_the_check_of_forms_sees_rows_under_one_heading(mixed):
    text = shown(mixed, "markdown")
    with pytest.raises(AssertionError):
        check_apart(text.replace("5\n", "3\n"))


def test_the_terminal_shows_rows_that_are_no_comparison_apart(mixed, capsys):
    print_report(write_report(mixed.outputs, "study", [], ""))
    check_apart(capsys.readouterr().out)


def test_a_line_of_the_csv_names_its_conditions(mixed):
    report = write_report(mixed.outputs, "study", [], "")
    lines = report.paths["table.csv"].read_text("utf-8").splitlines()
    ends = [line.rpartition(",")[2] for line in lines]
    assert ends == ["conditions", "trainer.max_epochs=3", "trainer.max_epochs=5"]
