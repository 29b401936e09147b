"""What a run trains on: joint languages, the first rows, a few rows of each label."""

import itertools
import json
from dataclasses import replace

import pytest

from crosstune.config.schema import Data, TaskType
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError
from crosstune.training import prepare as preparation
from crosstune.training.prepare import PrepareFindings, choose_rows, prepare, prepare_rank
from tests.tiny import tiny_run

DATA = Data("d", TaskType.classification, "es", {}, "", "", "")
ROWS = [
    {"id": str(n), "text": f"t{n}", "label": "abc"[n % 3], "where": f"x.tsv:{n}"} for n in range(60)
]
SPLIT = Split(ROWS, {})


def labels_of(row):
    return [row["label"]]


def chosen(seed=1, **options):
    return [
        int(r["id"]) for r in choose_rows(SPLIT, replace(DATA, **options), labels_of, seed).rows
    ]


def test_a_limit_keeps_the_first_rows():
    assert chosen(limit=5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("limit", "told"), [(2, ["'c'"]), (1, ["'b' or 'c'"]), (3, [])])
def test_a_label_that_the_limit_leaves_no_row_of_is_told(limit, told, caplog):
    """A file may be sorted by label."""
    chosen(limit=limit)
    assert [record.getMessage().rpartition("label ")[2] for record in caplog.records] == told


def test_shots_are_so_many_of_each_label_in_the_order_of_the_file():
    found = chosen(shots=4)
    assert found == sorted(found)
    assert [sum(n % 3 == label for n in found) for label in range(3)] == [4, 4, 4]


def test_fewer_shots_nest_in_more():
    draws = [set(chosen(shots=shots)) for shots in (1, 2, 8, 20)]
    assert all(small < large for small, large in itertools.pairwise(draws))


def test_the_seed_draws_the_shots():
    assert chosen(seed=1, shots=4) == chosen(seed=1, shots=4) != chosen(seed=2, shots=4)


def test_labels_are_drawn_apart():
    by_label = [{n // 3 for n in chosen(shots=8) if n % 3 == label} for label in range(3)]
    assert by_label[0] != by_label[1] != by_label[2]


def test_a_label_with_too_few_rows_for_the_shots_is_an_error():
    with pytest.raises(DataError, match=r"x\.tsv: 20 training rows of label 'a', but data\.shots"):
        chosen(shots=21)


def test_shots_need_one_label_a_row():
    split = Split([{**ROWS[0], "tags": ["O", "O"]}], {})
    with pytest.raises(ConfigError, match=r"data\.shots=1: classification has no label by row"):
        choose_rows(split, replace(DATA, shots=1), lambda row: row["tags"], 1)


def test_a_rank_gets_what_the_run_prepared_without_checking_it_again(tmp_path, monkeypatch):
    words = ("data.limit=20", "data.shots=3", "data.test={es: test, zh: test}")
    prepared = prepare(tiny_run(tmp_path, "classification", *words))
    for check in ("compute_run_id", "count_leakage", "find_unseen", "find_faults"):
        monkeypatch.setattr(preparation, check, None)
    checks = PrepareFindings(*json.loads(json.dumps(prepared.checks)))
    again = prepare_rank(prepared.run, checks)
    assert again == prepared
    assert again.folder == prepared.folder
