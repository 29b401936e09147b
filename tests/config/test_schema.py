"""Every option of the schema: its sentence, its bounds, and whether it can change a result."""

import math
from enum import Enum
from operator import attrgetter

import pytest

from crosstune.config.compose import compose_run, run_from_dict, to_dict
from crosstune.config.schema import OPTIONS, RETIRED_OPTIONS, Run, select_result_options
from crosstune.errors import ConfigError
from crosstune.reporting.arms import list_settings

DEMO = ("data=demo_sentiment", "data.language=es", "method=lora")
PATHS = {"data.train", "data.validation", "data.test", "model.path", "method.language_adapters"}
KEPT = {"data.root"}  # in run ids from the start, though it is a path


@pytest.fixture(scope="module")
def plain():
    """Return a run as plain values."""
    return to_dict(compose_run(DEMO))


def change(plain, key):
    """Return the run's plain values with a text in place of one option's."""
    group, _, name = key.rpartition(".")
    if not group:
        return {**plain, name: "changed"}
    return {**plain, group: {**plain[group], name: "changed"}}


def test_every_value_of_a_run_is_an_option(plain):
    keys = {
        f"{key}.{name}" if isinstance(value, dict) else key
        for key, value in plain.items()
        for name in (value if isinstance(value, dict) else [""])
    }
    assert keys == set(OPTIONS)


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_has_a_sentence_of_its_own_and_its_default(key):
    facts = OPTIONS[key]
    assert facts.sentence.strip()
    assert not facts.sentence.endswith(".")
    default = attrgetter(key)(Run())
    assert default == facts.default
    if isinstance(default, int | float) and not isinstance(default, bool):
        assert (facts.minimum or -math.inf) <= default <= (facts.maximum or math.inf)
    assert not facts.allowed or isinstance(default, Enum) or default in facts.allowed


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_says_whether_it_changes_the_run_id(plain, key):
    same = select_result_options(change(plain, key)) == select_result_options(plain)
    assert same == (not OPTIONS[key].changes_result or key in PATHS)


@pytest.mark.parametrize("key", [key for key in OPTIONS if key != "seed"])
def test_an_option_says_whether_it_parts_the_arms_of_a_report(plain, key):
    settings = [list_settings({"config": c}, True) for c in (plain, change(plain, key))]
    data_path = key in {*PATHS, *KEPT} and key.startswith("data.")
    assert (settings[0] == settings[1]) == (not OPTIONS[key].changes_result or data_path)


def test_paths_are_the_options_whose_content_counts():
    assert {key for key, facts in OPTIONS.items() if facts.is_path} == PATHS | KEPT


@pytest.mark.parametrize("key", [key for key, facts in OPTIONS.items() if facts.minimum])
def test_a_bound_of_the_schema_is_checked(key):
    least = OPTIONS[key].minimum
    with pytest.raises(ConfigError, match=f"{key}={least - 1}: must be at least {least}"):
        compose_run([*DEMO, f"{key}={least - 1}"])


def test_a_retired_option_is_read_and_changes_nothing(plain):
    old = {**plain, "data": {**plain["data"], "batching": "uniform"}}
    old["method"] = {**plain["method"], "search": {}}
    assert run_from_dict(old) == run_from_dict(plain)
    assert select_result_options(old) == select_result_options(plain)


@pytest.mark.parametrize("key", RETIRED_OPTIONS)
def test_a_retired_option_cannot_be_set(key):
    with pytest.raises(ConfigError, match=f"{key}: unknown key"):
        compose_run([*DEMO, f"+{key}=uniform"])
