"""Predict: a finished run on new text gives what the run's own test gave, and says where."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from crosstune.errors import ConfigError, DataError
from crosstune.inference.load_run import FinishedRun, load_run
from crosstune.inference.predict import predict, predict_rows
from crosstune.inference.read_input import Source, read_input
from tests.finished_runs import KINDS, SUFFIXES, left_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
HOSTILE = "\x1b[31mrojo\x1b[0m\u2028\x9bm <script> [SEP] =1+1"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("left")


@pytest.fixture(scope="module")
def runs(study: Path) -> dict[str, Path]:
    """A finished run of each kind, on files of its own below `study`."""
    return {kind: left_run(study, kind, "method=lora") for kind in KINDS}


def own_test(study: Path, kind: str) -> Path:
    """Return the file that a run was tested on."""
    return study / f"{kind}-es" / f"test.{SUFFIXES[kind]}"


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def recorded(run: Path) -> list[tuple[str, Any, float]]:
    """Return id, prediction and score of the run's own test."""
    table = pd.read_parquet(run / "predictions.parquet")
    said = [list(p) if hasattr(p, "tolist") else p for p in table["prediction"]]
    return list(zip(table["id"], said, table["score"], strict=True))


def predicted(run: Path, source: Path, target: Path) -> list[tuple[str, Any, float]]:
    predict(run, source, target)
    return [(r["id"], r["prediction"], r["score"]) for r in told(target)]


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, "lora") for kind in KINDS]
    + [("classification", name) for name in ("full", "bitfit", "houlsby", "prompt_tuning")],
)
def test_the_runs_own_test_file_gives_its_predictions_and_scores_to_the_bit(
    kind: str, method: str, study: Path, tmp_path: Path
) -> None:
    run = left_run(study, kind, f"method={method}")
    assert predicted(run, own_test(study, kind), tmp_path / "out.jsonl") == recorded(run)


def test_other_weights_give_other_scores(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    other = left_run(study, "classification", "method=lora", "seed=2")
    source = own_test(study, "classification")
    found = predicted(other, source, tmp_path / "out.jsonl")
    assert found != recorded(runs["classification"])


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_to_the_bit_and_tells_no_text(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    jobs = [
        [str(runs[kind]), str(own_test(study, kind)), f"{tmp_path}/{kind}.jsonl"] for kind in KINDS
    ]
    (tmp_path / "in.txt").write_text(f"{HOSTILE}\n{'larga ' * 100}\n")
    jobs.append([str(runs["classification"]), f"{tmp_path}/in.txt", f"{tmp_path}/out.jsonl"])
    code = "import sys, json; from crosstune.cli.main import main\n"
    code += "for run, source, target in json.loads(sys.argv[1]):\n"
    code += "    sys.argv = ['', 'predict', f'run={run}', f'input={source}', f'output={target}']\n"
    code += "    assert main() == 0"
    command = [sys.executable, "-c", code, json.dumps(jobs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for kind in KINDS:
        found = [(r["id"], r["prediction"], r["score"]) for r in told(tmp_path / f"{kind}.jsonl")]
        assert found == recorded(runs[kind])
    # and no text of the input reaches the terminal
    assert "1 of 2 items cut" in done.stderr
    assert done.stdout.splitlines() == [target for _, _, target in jobs]
    assert "rojo" not in done.stderr
    assert "\x1b" not in done.stderr


def test_a_run_with_a_random_field_gives_its_predictions_to_the_bit(
    study: Path, tmp_path: Path
) -> None:
    run = left_run(study, "tagging", "method=lora", "data.task.crf=true")
    assert predicted(run, own_test(study, "tagging"), tmp_path / "out.jsonl") == recorded(run)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_not_read(kind: str, runs: dict[str, Path], study: Path, tmp_path: Path) -> None:
    given = own_test(study, kind).read_text("utf-8")
    bare = tmp_path / f"bare.{SUFFIXES[kind]}"
    if kind == "extraction":
        found = json.loads(given)
        for paragraph in found["data"][0]["paragraphs"]:
            del paragraph["qas"][0]["answers"]
        bare.write_text(json.dumps(found))
    else:
        bare.write_text("\n".join(line.partition("\t")[0] for line in given.split("\n")))
    assert predicted(runs[kind], bare, tmp_path / "out.jsonl") == recorded(runs[kind])


def test_probabilities_of_all_labels_sum_to_one_and_hold_the_predictions(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    predict(runs["classification"], own_test(study, "classification"), tmp_path / "out.jsonl")
    for record in told(tmp_path / "out.jsonl"):
        each = record["probabilities"]
        assert list(each) == ["negative", "positive"]
        assert sum(each.values()) == pytest.approx(1, abs=1e-6)
        assert max(each, key=each.get) == record["prediction"]
        assert each[record["prediction"]] == pytest.approx(record["probability"], abs=1e-6)


def test_tags_have_a_probability_for_each_word_whose_product_is_that_of_the_sentence(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    predict(runs["tagging"], own_test(study, "tagging"), tmp_path / "out.jsonl")
    for record in told(tmp_path / "out.jsonl"):
        assert len(record["probabilities"]) == len(record["words"]) == len(record["prediction"])
        product = float(torch.tensor(record["probabilities"]).double().prod())
        assert product == pytest.approx(record["probability"], rel=1e-4)


def test_an_answer_is_what_stands_between_its_start_and_end(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    saved = load_run(runs["extraction"])
    rows = read_input(Source(str(own_test(study, "extraction")), saved.run.data, saved.task, "es"))
    for threshold, answered in ((-1e9, True), (1e9, False)):
        task: Any = replace(saved.task, threshold=threshold)
        for row, record in zip(rows, predict_rows(saved._replace(task=task), rows), strict=True):
            assert bool(record["prediction"]) == answered
            if answered:
                assert row["context"][record["start"] : record["end"]] == record["prediction"]
            else:
                assert (record["start"], record["end"]) == (None, None)


def saying_tags(saved: FinishedRun, source: Path, tags: list[str], language: str) -> dict[str, Any]:
    """Return what is told of the only row of a file whose words get these tags."""
    rows = read_input(Source(str(source), saved.run.data, saved.task, language))

    class Told(type(saved.task)):
        def decode(self, rows: Any, encoded: Any, outputs: Any) -> Any:
            return [p._replace(prediction=tags) for p in super().decode(rows, encoded, outputs)]

    (record,) = predict_rows(saved._replace(task=Told(**vars(saved.task))), rows)
    return record


@pytest.mark.parametrize(
    ("language", "name", "content", "tags", "found"),
    [
        ("es", "a.conll", "Ana\nPérez\nvive\n", ["B-PER", "I-PER", "O"], ["Ana Pérez"]),
        ("es", "a.txt", "Ana  Pérez   vive\n", ["B-PER", "I-PER", "O"], ["Ana  Pérez"]),
        ("es", "a.txt", "  Ana fue a Lima.\n", ["B-PER", "O", "O", "B-LOC"], ["Ana", "Lima."]),
        ("zh", "a.conll", "小\n明\n住\n北\n京\n", ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"],
         ["小明", "北京"]),
        ("zh", "a.txt", "小明 住\n", ["B-PER", "I-PER", "O"], ["小明"]),
        ("zh", "a.txt", "住𠮷野\n", ["O", "B-PER", "I-PER"], ["𠮷野"]),
    ],
)  # fmt: skip
def test_spans_count_characters_of_the_text(
    runs: dict[str, Path],
    tmp_path: Path,
    language: str,
    name: str,
    content: str,
    tags: list[str],
    found: list[str],
) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    record = saying_tags(load_run(runs["tagging"]), path, tags, language)
    assert [record["text"][s["start"] : s["end"]] for s in record["spans"]] == found
    assert [s["label"] for s in record["spans"]] == [t[2:] for t in tags if t.startswith("B")]


def test_lines_of_text_are_classified_one_by_one(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Una sala muy buena.\n\nNo volveré.\n")
    predict(runs["classification"], tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert [record["id"] for record in told(tmp_path / "out.jsonl")] == ["1", "3"]


def test_every_output_holds_the_same_predictions(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    for suffix in ("jsonl", "tsv", "parquet", "conll"):
        predict(runs["tagging"], own_test(study, "tagging"), tmp_path / f"out.{suffix}")
    tags = [record["prediction"] for record in told(tmp_path / "out.jsonl")]
    header, *lines = (tmp_path / "out.tsv").read_text().splitlines()
    column = header.split("\t").index("prediction")
    assert [json.loads(line.split("\t")[column]) for line in lines] == tags
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert [list(p) for p in table["prediction"]] == tags
    sentences = (tmp_path / "out.conll").read_text().strip().split("\n\n")
    pairs = [[line.split("\t") for line in sentence.split("\n")] for sentence in sentences]
    assert [[tag for _, tag in sentence] for sentence in pairs] == tags


@pytest.mark.parametrize("suffix", ["jsonl", "tsv"])
def test_hostile_text_comes_out_escaped_and_whole(
    runs: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "in.conll").write_text("".join(f"{w}\n" for w in HOSTILE.split(" ")), "utf-8")
    predict(runs["tagging"], tmp_path / "in.conll", tmp_path / f"out.{suffix}")
    raw = (tmp_path / f"out.{suffix}").read_text("utf-8")
    assert not {c for c in raw if not c.isprintable()} - {"\n", "\t"}
    if suffix == "jsonl":
        assert json.loads(raw)["text"] == HOSTILE
    else:
        header, line = raw.splitlines()
        cell = line.split("\t")[header.split("\t").index("text")]
        assert json.loads(f'"{cell}"') == HOSTILE


def test_neither_the_input_nor_the_run_is_overwritten(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    source = own_test(study, "classification")
    for target in (source, runs["classification"] / "predictions.parquet"):
        before = target.read_bytes()
        with pytest.raises(ConfigError, match="overwritten"):
            predict(runs["classification"], source, target)
        assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "name", "content", "target", "message"),
    [
        ("classification", "in.json", "{}", "out.jsonl", r"\.txt, \.tsv"),
        ("classification", "in.txt", "\n", "out.jsonl", "no rows"),
        ("classification", "in.tsv", "title\nhola\n", "out.jsonl", "no column 'text'"),
        ("classification", "in.txt", "hola\n", "out.csv", "must end in"),
        ("classification", "in.txt", "hola\n", "out.conll", "tags of words"),
        ("classification", "in.txt", b"\xff\n", "out.jsonl", "not UTF-8"),
        ("extraction", "in.json", '{"data": 1}', "out.jsonl", "not a list"),
        ("tagging", "in.conll", "Ana\nvive a\n", "out.jsonl", "2 columns"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_written(
    runs: dict[str, Path],
    tmp_path: Path,
    kind: str,
    name: str,
    content: str | bytes,
    target: str,
    message: str,
) -> None:
    raw = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(raw)
    with pytest.raises((ConfigError, DataError), match=message):
        predict(runs[kind], tmp_path / name, tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_failure_while_writing_leaves_no_file(
    runs: dict[str, Path], study: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        predict(runs["tagging"], own_test(study, "tagging"), tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_model_that_fails_keeps_no_hook(runs, monkeypatch):
    saved = load_run(runs["classification"])
    rows = [{"id": "0", "where": "x", "text": "hola", "label": saved.task.labels[0]}]

    def fail(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(saved.task, "predict_batch", fail)
        with pytest.raises(MemoryError):
            predict_rows(saved, rows)
    assert not saved.model._forward_hooks
    assert len(predict_rows(saved, rows)) == 1
