"""The search of equal budget for every arm, and the runs that take what it chose."""

import json
from dataclasses import replace

import pytest

from crosstune.cli.main import main
from crosstune.config.compose import to_dict
from crosstune.errors import ConfigError
from crosstune.runs.tuned import RATE, choose_best, make_trials, override_values, read_choices
from crosstune.sweeps.tune import tune
from crosstune.training.prepare import prepare
from crosstune.training.train import train
from tests.tiny import tiny_overrides, tiny_run

METHODS = ("head_only", "lora")


def jobs(outputs, *more):
    """Return the jobs of a small study: two methods, two seeds."""
    return [
        tiny_overrides(outputs, "classification", f"method={method}", f"seed={seed}", *more)
        for method in METHODS
        for seed in (3, 4)
    ]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Return the folder of a study that was tuned, and its choices."""
    outputs = tmp_path_factory.mktemp("outputs")
    _, choices = tune(jobs(outputs, "trainer.max_steps=2"), 3)
    return outputs, choices


def read_records(folder):
    """Return the records of a study."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/record.json"))]


def test_every_arm_has_the_same_number_of_trials(tuned):
    _, choices = tuned
    assert [(choice.trials, len(choice.tried)) for choice in choices] == [(3, 3), (3, 3)]


def test_the_seeds_of_an_arm_are_one_arm_and_the_first_is_searched_with(tuned):
    outputs, choices = tuned
    assert [choice.seed for choice in choices] == [3, 3]
    assert {record["seed"] for record in read_records(outputs / "adhoc.tuning")} == {3}


def test_no_trial_opens_the_test_data(tuned):
    outputs, _ = tuned
    for record in read_records(outputs / "adhoc.tuning"):
        assert "test" not in record["scores"]
        assert record["config"]["data"]["test"] is None


def test_the_chosen_trial_has_the_best_validation(tuned):
    for choice in tuned[1]:
        assert choice.validation == max(trial["validation"] for trial in choice.tried)


def test_a_run_takes_the_chosen_values_and_records_how_they_were_chosen(tuned):
    outputs, choices = tuned
    run = tiny_run(
        outputs, "classification", "method=lora", "seed=4", "trainer.max_steps=2", "tuned=true"
    )
    record = json.loads((train(run) / "record.json").read_text())
    values = choices[1].values
    assert record["config"]["optimizer"]["learning_rate"] == values[RATE]
    assert record["tuning"] == {
        "trials": 3,
        "seed": 3,
        "values": values,
        "validation": choices[1].validation,
    }


def test_another_seed_s_run_has_the_id_it_would_have_with_the_values_given(tuned):
    outputs, choices = tuned
    words = ("method=lora", "seed=4", "trainer.max_steps=2")
    given = override_values(tiny_run(outputs, "classification", *words), choices[1].values)
    assert prepare(given).run_id == prepare(replace(given, tuned=True)).run_id


@pytest.mark.parametrize("change", ["trainer.max_steps=3", "method=bitfit", "data.limit=20"])
def test_a_choice_made_under_other_conditions_is_refused(tuned, change):
    outputs, _ = tuned
    words = ("method=lora", "seed=4", "trainer.max_steps=2", change, "tuned=true")
    with pytest.raises(ConfigError, match="holds no choice for method="):
        prepare(tiny_run(outputs, "classification", *words))


def test_the_refusal_names_what_differs(tuned):
    outputs, _ = tuned
    words = ("method=lora", "trainer.max_steps=3", "tuned=true")
    with pytest.raises(ConfigError, match=r"trainer\.max_steps: 3 here, 2 there"):
        prepare(tiny_run(outputs, "classification", *words))


def test_tuning_again_replaces_an_arm_s_choice_and_trains_nothing(tuned):
    outputs, _ = tuned
    before = [record["finished"] for record in read_records(outputs / "adhoc.tuning")]
    path, _ = tune(jobs(outputs, "trainer.max_steps=2")[:1], 3)
    assert [record["finished"] for record in read_records(outputs / "adhoc.tuning")] == before
    assert len(read_choices(path)) == 2


def test_a_run_s_own_values_are_tried_first_and_rates_lie_half_a_power_of_ten_apart(tmp_path):
    run = tiny_run(tmp_path, "classification", "optimizer.learning_rate=0.001")
    rates = [values[RATE] for values in make_trials(run, 5)]
    assert rates == [0.001, 0.0032, 0.00032, 0.01, 0.0001]


def test_a_trial_without_a_score_counts_but_is_never_chosen():
    tried = [{"values": {"a": 1}}, {"values": {"a": 2}, "validation": 0.0}]
    choice = choose_best({}, 1, tried)
    assert (choice.values, choice.trials) == ({"a": 2}, 2)


def test_an_arm_of_which_no_trial_finished_is_an_error():
    with pytest.raises(ConfigError, match="none of the 2 trials"):
        choose_best({}, 1, [{"values": {}}, {"values": {}}])


def test_values_lie_where_their_keys_say(tmp_path):
    run = tiny_run(tmp_path, "classification", "method=lora")
    changed = to_dict(override_values(run, {RATE: 0.5, "method.peft.r": 3}))
    assert (changed["optimizer"]["learning_rate"], changed["method"]["peft"]["r"]) == (0.5, 3)


def test_the_command_tells_the_choice_of_each_arm(tuned, capsys, monkeypatch):
    outputs, choices = tuned
    words = tiny_overrides(outputs, "classification", "trainer.max_steps=2")
    sweep = ["method=head_only,lora", "seed=3,4", "trials=3"]
    monkeypatch.setattr("sys.argv", ["crosstune", "tune", *words, *sweep])
    assert main() == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [*(c.summary for c in choices), str(outputs / "adhoc.tuning" / "chosen.json")]
    assert "lora · mini · demo_sentiment · es: optimizer.learning_rate=" in told[1]


def test_a_number_of_trials_that_is_none_is_refused(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["crosstune", "tune", "trials=many"])
    assert main() == 2
    assert "trials=many" in capsys.readouterr().err
