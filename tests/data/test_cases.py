"""Small files that went wrong: the right rows, or an error that names line and remedy."""

from pathlib import Path

import pytest

from crosstune.config.compose import compose_run
from crosstune.errors import CrosstuneError
from crosstune.training.prepare import prepare

CASES = Path(__file__).parents[3] / "shared" / "cases"
TABLE = ("data=files_classification", "data.text=texto", "data.label=etiqueta")
TAGS = ("data=files_tagging",)
TEXT = ("data=files_masked_lm",)


def prepared(tmp_path, kind, train, validation, language="es"):
    files = (f"data.train={CASES / train}", f"data.validation={CASES / validation}")
    words = [*kind, *files, "data.test=null", f"data.language={language}", "logger=none"]
    return prepare(compose_run([*words, f"outputs={tmp_path}"]))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("train", "validation", "encoding", "types"),
    [
        ("01_bilou/bilou_train.conll", "01_bilou/bilou_dev.conll", "bilou", {"PER", "LOC"}),
        ("01_bilou/train.conll", "01_bilou/test.conll", "bilou", {"PER", "LOC"}),
        ("01_bilou/iob2_train.conll", "01_bilou/iob2_dev.conll", "iob2", {"PER", "LOC"}),
        ("03_multiconer/train.conll", "03_multiconer/dev.conll", "iob2", {"PER", "LOC"}),
        ("03_multiconer/train_tab.conll", "03_multiconer/test_tab.conll", "iob2", {"PER", "LOC"}),
    ],
)
def test_spans_are_read_as_what_they_are(train, validation, encoding, types, tmp_path):
    run = prepared(tmp_path, TAGS, train, validation)
    assert (run.task.scheme, run.task.encoding) == ("spans", encoding)
    assert {tag[2:] for tag in run.task.labels if tag != "O"} == types
    words = {word for row in run.splits["train"]["es"].rows for word in row["words"]}
    assert not words & {"#", "id", "domain=mixto"}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("kind", "train", "validation", "fault"),
    [
        (
            TAGS,
            "01_bilou/typo_train.conll",
            "01_bilou/iob2_dev.conll",
            r"typo_train.conll:\d+: '0'",
        ),
        (
            TAGS,
            "04_zh_space/sp_train.conll",
            "04_zh_space/sp_dev.conll",
            r":3: .*U\+0020.*skip_emp",
        ),
        (
            TAGS,
            "04_zh_space/ideo_train.conll",
            "04_zh_space/ideo_dev.conll",
            r":3: .*U\+3000.*skip",
        ),
        (TABLE, "05_tables/html.tsv", "05_tables/nfc.tsv", r"html.tsv:1: .*HTML.*download"),
        (TABLE, "05_tables/semi.csv", "05_tables/nfc.tsv", r"semi.csv:2: .*';' may be"),
        (TABLE, "05_tables/array.jsonl", "05_tables/nfc.tsv", r"array.jsonl:1: .*array.*jq"),
        (
            TABLE,
            "05_tables/nfc.tsv",
            "05_tables/nfd_dev.tsv",
            r"nfd_dev.tsv:2: label 'econo\\u0301",
        ),
        (TAGS, "06_lfs/train.conll", "06_lfs/dev.conll", r"train.conll:1: .*LFS.*git lfs pull"),
        (TEXT, "06_lfs/train.txt", "06_lfs/dev.txt", r"train.txt:1: .*LFS.*git lfs pull"),
    ],
)
def test_the_error_names_the_line_and_the_remedy(kind, train, validation, fault, tmp_path):
    with pytest.raises(CrosstuneError, match=fault):
        prepared(tmp_path, kind, train, validation, "zh" if "zh" in train else "es")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["sp", "ideo"])
def test_words_that_are_blanks_are_left_out_where_that_is_asked_for(name, tmp_path):
    kind = (*TAGS, "data.reader.skip_empty=true")
    files = (f"04_zh_space/{name}_train.conll", f"04_zh_space/{name}_dev.conll")
    rows = prepared(tmp_path, kind, *files, "zh").splits["train"]["zh"].rows
    assert rows[0]["words"][:4] == ["小", "明", "住", "北"]


@pytest.mark.shared
def test_tsv_that_pandas_wrote_has_texts_without_its_quotes(tmp_path):
    run = prepared(tmp_path, TABLE, "05_tables/pandas.tsv", "05_tables/pandas.tsv")
    assert run.splits["train"]["es"].rows[1]["text"] == 'dijo "el hotel es excelente caso 1"'
