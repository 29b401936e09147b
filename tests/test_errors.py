import pytest

from crosstune.errors import ConfigError, CrosstuneError, DataError, RunError, suggest


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("a"), 2), (DataError(["a"]), 1), (RunError("a"), 1)],
)
def test_an_error_knows_the_exit_code_it_ends_in(error, code):
    assert isinstance(error, CrosstuneError)
    assert error.exit_code == code


def test_five_faults_are_shown_whole():
    assert str(DataError(list("abcde"))) == "a; b; c; d; e"


def test_of_more_faults_five_are_shown_and_the_rest_counted():
    assert str(DataError(list("abcdefg"))) == "a; b; c; d; e; and 2 more faults"


def test_no_fault_is_lost_to_who_catches_the_error():
    assert DataError(list("abcdefg")).faults == list("abcdefg")


def test_a_near_name_is_suggested_before_all_that_are_allowed():
    assert suggest("lroa", ["lora", "full"]) == "Did you mean lora? Allowed: full, lora."


def test_a_name_near_to_nothing_gets_the_allowed_ones_alone():
    assert suggest("xyz", ["lora", "full"]) == "Allowed: full, lora."
