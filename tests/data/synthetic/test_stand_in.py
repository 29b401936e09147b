"""Generated rows in place of a data set: valid for every data set in conf."""

from dataclasses import replace
from functools import cache

import pytest
from omegaconf import OmegaConf

from crosstune.config.compose import compose_run
from crosstune.config.paths import find_conf
from crosstune.config.schema import Data, TaskType, UnseenLabels
from crosstune.data.quality.duplicates import count_leakage
from crosstune.data.splits import find_faults, find_unseen, merge_languages
from crosstune.data.synthetic.stand_in import ROWS, generate_splits, read_data
from crosstune.errors import DataError
from crosstune.tasks import TASKS

GIVEN = {
    "data.language": "es",
    "data.root": "nowhere",
    **{f"data.{split}": "nowhere" for split in ("train", "validation", "test")},
    **{f"data.{column}": column for column in ("text", "label", "target")},
    "data.task.target_language": "zh",
    "data.reader.path": "nowhere",
    "data.reader.suffixes": "[es,zh]",
    "data.task.patterns": '{es: "{text} {mask}"}',
    "data.task.verbalizers": "{es: {a: b, c: d}}",
    "data.task.templates": '{es: "{label}"}',
    "data.task.names": "{es: {a: b, c: d}}",
}
NAMES = sorted(path.stem for path in (find_conf() / "data").glob("*.yaml"))
NAMES = [name for name in NAMES if not name.startswith("demo")]


@cache
def data_of(name, *more):
    """Return a data set of conf, with what it leaves to its user given."""
    text = (find_conf() / "data" / f"{name}.yaml").read_text("utf-8")
    needed = [
        f"{key}={value}" for key, value in GIVEN.items() if f"{key.rpartition('.')[2]}: ???" in text
    ]
    group = OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.create(text))
    whole = OmegaConf.create({"data": group})  # composing all groups would take ten times as long
    overrides = OmegaConf.from_dotlist([*needed, *more])
    return OmegaConf.to_object(OmegaConf.merge(whole, overrides).data)


def faults_of(data, splits):
    """Return what is wrong with the splits of a data set."""
    task = TASKS[data.kind].from_rows(merge_languages(splits["train"]).rows, **data.task)
    faults = find_faults(splits, task.find_row_faults)
    faults += [
        f for counts in find_unseen(splits, task.labels, task.row_labels).values() for f in counts
    ]
    faults += [] if data.metric in task.metrics else [f"no {data.metric}"]
    return faults + list(count_leakage(splits, task.leakage_texts))


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_stand_in_are_without_fault(name):
    data = data_of(name)
    assert faults_of(data, generate_splits(data)) == []


def test_a_label_that_train_does_not_show_is_found():
    data = data_of("glue_sst2")
    splits = generate_splits(data)
    splits["validation"]["en"].rows[0]["label"] = "third"
    assert len(faults_of(data, splits)) == 1


def test_every_language_and_split_of_the_data_set_is_there():
    splits = generate_splits(data_of("xnli", "data.language=zh"))
    counts = {
        name: {lang: len(part.rows) for lang, part in parts.items()}
        for name, parts in splits.items()
    }
    assert counts == {
        "train": {"zh": ROWS["train"]},
        "validation": {"zh": ROWS["validation"]},
        "test": dict.fromkeys(("en", "es", "zh"), ROWS["test"]),
    }


def test_the_rows_of_a_language_are_in_it():
    rows = generate_splits(data_of("xnli", "data.language=zh"))["train"]["zh"].rows
    assert all("\u4e00" <= row["text"][0] <= "\u9fff" for row in rows)


def test_a_pair_task_has_pairs_and_another_has_none():
    pair, single = (
        generate_splits(data_of(name))["train"]["en"].rows[0] for name in ("glue_rte", "glue_sst2")
    )
    assert ("text_pair" in pair, "text_pair" in single) == (True, False)


def test_the_same_data_set_has_the_same_rows_each_time():
    data = data_of("squad")
    assert generate_splits(data) == generate_splits(data)


def test_data_sets_of_one_kind_have_digests_of_their_own():
    one, other = (
        generate_splits(data_of(name))["train"]["en"].digests for name in ("glue_rte", "glue_qnli")
    )
    assert not set(one.values()) & set(other.values())


def test_an_answer_stands_where_the_row_says():
    row = generate_splits(data_of("cmrc2018"))["train"]["zh"].rows[0]
    (answer,) = row["answers"]
    assert row["context"][answer["start"] :].startswith(answer["text"])


def test_segmented_words_end():
    rows = generate_splits(data_of("files_segmentation"))["train"]["es"].rows
    assert {row["tags"][-1] for row in rows} <= {"E", "S"}


def test_every_kind_has_columns():
    assert {compose.kind for compose in map(data_of, NAMES)} == set(TaskType)


def test_only_a_rehearsal_reads_no_file():
    run = compose_run(["data=conll2003", "data.root=nowhere"])
    rehearsal = replace(run, trainer=replace(run.trainer, stand_in=True))
    assert read_data(rehearsal) == generate_splits(run.data)
    with pytest.raises(DataError, match=r"eng\.train: no such file"):
        read_data(run)


def test_no_data_set_is_tolerant_of_labels_only_to_be_rehearsed():
    assert data_of("glue_rte").unseen_labels is UnseenLabels.error
