"""What is to be predicted, in every form that a kind of task has for it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crosstune.config.compose import compose_run
from crosstune.config.schema import TaskType
from crosstune.errors import ConfigError, DataError
from crosstune.inference.load_run import load_run
from crosstune.inference.predict import predict
from crosstune.inference.read_input import Source, read_input
from crosstune.tasks import TASKS
from crosstune.training.train import train
from tests.finished_runs import COMMON
from tests.tiny import MODEL, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
TEXTS = ("Ana vive en Lima", "No me gusta nada", "Una sala muy buena", "Luis trabaja en Quito")
MARKED = "<e1>Ana</e1> vive en <e2>{}</e2>"
SEQ2SEQ = [
    "model=mini_seq2seq",
    "model.vocab_size=400",
    "model.config.d_model=32",
    *(f"model.config.{side}_{key}" for side in ("encoder", "decoder") for key in
      ("layers=1", "attention_heads=2", "ffn_dim=64")),
]  # fmt: skip
CASES: dict[str, tuple[dict[str, list[str]], list[str]]] = {
    "files_classification": (
        {"a": list(TEXTS), "b": list(TEXTS[::-1]), "y": ["no", "sí", "no", "sí"]},
        ["data.text=a", "data.text_pair=b", "data.label=y"],
    ),
    "files_multilabel": (
        {"a": list(TEXTS), "y": ["x,y", "x", "", "y"]},
        ["data.text=a", "data.label=y"],
    ),
    "files_regression": (
        {"a": list(TEXTS), "y": ["1.5", "2", "-3", "0"]},
        ["data.text=a", "data.label=y"],
    ),
    "files_relation": (
        {"a": [MARKED.format(place) for place in ("Lima", "Quito", "Perú", "Cádiz")],
         "y": ["in", "no", "in", "no"]},
        ["data.text=a", "data.label=y"],
    ),
    "files_cloze": (
        {"a": list(TEXTS), "y": ["bad", "good", "bad", "good"]},
        ["data.text=a", "data.label=y", "data.task.patterns={es: '{text} : {mask} .'}",
         "data.task.verbalizers={es: {bad: Ana, good: Luis}}"],
    ),
    "files_generation": (
        {"a": list(TEXTS), "y": list(TEXTS[::-1])},
        ["data.text=a", "data.target=y", "data.task.max_target_tokens=6", "data.task.beams=2"],
    ),
}  # fmt: skip


def write_table(path: Path, columns: dict[str, list[str]]) -> Path:
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join("\t".join(row) for row in [tuple(columns), *rows]) + "\n", "utf-8")
    return path


def trained(folder: Path, data: str) -> tuple[Path, dict[str, list[str]]]:
    columns, options = CASES[data]
    file = write_table(folder / "all.tsv", columns)
    splits = [f"data.{split}={file}" for split in ("train", "validation", "test")]
    model = SEQ2SEQ if data == "files_generation" else MODEL
    own = [f"data={data}", "data.language=es", "data.max_tokens=48", f"outputs={folder}"]
    return train(compose_run([*own, *splits, *options, *model, *COMMON])), columns


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(name, marks=() if name == "files_generation" else pytest.mark.slow)
        for name in CASES
    ],
)
def test_a_table_without_its_label_column_gives_the_runs_own_predictions(
    data: str, tmp_path: Path
) -> None:
    run, columns = trained(tmp_path, data)
    bare = {name: values for name, values in columns.items() if name != "y"}
    predict(run, write_table(tmp_path / "bare.tsv", bare), tmp_path / "out.jsonl")
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = pd.read_parquet(run / "predictions.parquet")
    said = [list(p) if hasattr(p, "tolist") else p for p in table["prediction"]]
    assert [record["prediction"] for record in records] == said
    assert [record["score"] for record in records] == list(table["score"])
    assert [list(r.get("probabilities", ())) for r in records] == [
        {"files_classification": ["no", "sí"], "files_relation": ["in", "no"],
         "files_multilabel": ["x", "y"]}.get(data, [])
    ] * 4  # fmt: skip


def test_segments_of_chinese_have_places(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("小明 住 北京\n我们 喝 茶\n", "utf-8")
    (tmp_path / "in.txt").write_text("小明住 北京\n", "utf-8")
    splits = [f"data.{split}={tmp_path / 'all.txt'}" for split in ("train", "validation", "test")]
    own = ["data=files_segmentation", "data.language=zh", f"outputs={tmp_path}"]
    run = train(compose_run([*own, *splits, *MODEL, *COMMON]))
    predict(run, tmp_path / "in.txt", tmp_path / "out.jsonl")
    record = json.loads((tmp_path / "out.jsonl").read_text("utf-8"))
    parts = [record["text"][span["start"] : span["end"]] for span in record["spans"]]
    assert [part.replace(" ", "") for part in parts] == record["prediction"]
    assert "".join(record["prediction"]) == "小明住北京"


def source(path: Path, **options: Any) -> Source:
    """Return a file as a run of tagging sees it."""
    overrides = [f"data.{split}=x" for split in ("train", "validation", "test")]
    run = compose_run(["data=files_tagging", "data.language=es", "model=mini", *overrides])
    run.data.reader |= options
    task: Any = load_task()
    return Source(str(path), run.data, task, "es")


def load_task() -> Any:
    rows = [{"words": ["a"], "tags": ["O"], "where": "x:1"}]
    return TASKS[TaskType.tagging].from_rows(rows)


def test_the_words_of_conllu_are_read_without_any_annotation(tmp_path: Path) -> None:
    blank = "\t_" * 8
    lines = ["# text = Voy al mar", f"1\tVoy{blank}", f"2-3\tal{blank}", f"2\ta{blank}"]
    lines += [f"3\tel{blank}", f"4\tmar{blank}", ""]
    (tmp_path / "in.conllu").write_text("\n".join(lines) + "\n")
    (row,) = read_input(source(tmp_path / "in.conllu"))
    assert row["words"] == ["Voy", "a", "el", "mar"]
    assert (row["text"], row["starts"]) == ("Voy a el mar", [0, 4, 6, 9])


def test_words_come_from_the_runs_own_column(tmp_path: Path) -> None:
    (tmp_path / "in.conll").write_text("1\tVoy\n2\tya\n")
    (row,) = read_input(source(tmp_path / "in.conll", word=1, tag=3))
    assert row["words"] == ["Voy", "ya"]


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress(b"Voy ya\n"))
    (row,) = read_input(source(tmp_path / "in.txt.gz"))
    assert row["words"] == ["Voy", "ya"]


def test_an_unknown_language_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Voy\n")
    with pytest.raises(ConfigError, match="spanish"):
        read_input(source(tmp_path / "in.txt")._replace(language="spanish"))


def test_relations_without_marks_are_refused_by_line(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, "files_relation")
    (tmp_path / "in.txt").write_text(f"{MARKED.format('Lima')}\nAna vive en Lima\n")
    with pytest.raises(DataError, match=r"in\.txt:2: its marks are none"):
        predict(run, tmp_path / "in.txt", tmp_path / "out.jsonl")


def test_pairs_are_not_read_from_lines(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, "files_classification")
    (tmp_path / "in.txt").write_text("Ana vive\n")
    with pytest.raises(ConfigError, match="pairs of texts come in a table"):
        predict(run, tmp_path / "in.txt", tmp_path / "out.jsonl")


def test_a_language_model_is_nothing_to_predict_with(tmp_path: Path) -> None:
    run = train(tiny_run(tmp_path, "masked_lm", "data.language=es", "trainer.max_steps=1"))
    assert load_run(run).task.auto_class == "AutoModelForMaskedLM"
    with pytest.raises(ConfigError, match="masked_lm: it predicts nothing"):
        predict(run, tmp_path / "in.txt", tmp_path / "out.jsonl")
