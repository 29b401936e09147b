"""The file of chosen learning rates may come from others: it sets a learning rate and no more."""

import json

import pytest

from crosstune.errors import ConfigError
from crosstune.runs.tuned import Choice, read_choices

RATE = "optimizer.learning_rate"


def write(path, values):
    choice = Choice({"config": {}}, 1, 3, values, 0.5, [])
    path.write_text(json.dumps([choice._asdict()]))
    return path


@pytest.mark.parametrize(
    "values",
    [
        {RATE: 1e-3, "allow": ["evil"]},
        {RATE: 1e-3, "outputs": "/elsewhere"},
        {"data.reader": {"_target_": "os.system"}},
        {RATE: "1e-3"},
        {RATE: -1.0},
        {RATE: 0},
        {},
        [RATE],
        None,
    ],
)
def test_a_choice_that_sets_something_else_is_refused(tmp_path, values):
    with pytest.raises(ConfigError, match=r"chosen\.json: a choice sets"):
        read_choices(write(tmp_path / "chosen.json", values))


def test_a_learning_rate_passes(tmp_path):
    (choice,) = read_choices(write(tmp_path / "chosen.json", {RATE: 1e-3}))
    assert choice.values == {RATE: 1e-3}


@pytest.mark.parametrize("text", ["", "{", "3", '[{"arm": 1}]', "[" * 100_000, '["a"]'])
def test_a_torn_file_is_named(tmp_path, text):
    path = tmp_path / "chosen.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"chosen\.json: no list of choices"):
        read_choices(path)
