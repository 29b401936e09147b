"""Predict: a finished run applied to new text, by the same path as the run's own test.

Same encoding, same batches, same decoding, so that the run's test file gives the very predictions
and scores of its predictions.parquet. What files may be asked about is `inputs.py`'s. Called by
`cli.py`.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from math import exp, inf, tanh
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning_fabric.utilities import move_data_to_device

from crosstune.config.schema import Precision, Run
from crosstune.data.tag_schemes import read_spans
from crosstune.data.windows import IGNORE, EncodedDataset
from crosstune.errors import ConfigError
from crosstune.files import atomic_write
from crosstune.inference.load_run import FinishedRun, load_run
from crosstune.inference.read_input import Source, read_input
from crosstune.methods import find_tuning_method
from crosstune.tasks.prediction import Output, Prediction
from crosstune.training.batching import BatchDataset, EvaluationSampler

log = logging.getLogger(__name__)
Record = dict[str, Any]  # what is told of one item
# what JSON lets stand, but a terminal obeys or a reader of lines takes for the end of one
OBEYED = re.compile("[\x7f-\x9f\u2028\u2029]")


def predict(run: Path, source: Path, target: Path, language: str = "") -> int:
    """Predict every item of a file, write the answers, return their number.

    Items are in `language`, by default the one that the run trained on.

    Raises:
        CrosstuneError: there is no finished run, the file does not fit it, or the answers cannot
            be written as asked.
    """
    if target.suffix not in WRITERS:
        raise ConfigError(f"output={target}: its name must end in {', '.join(WRITERS)}.")
    saved = load_run(run)
    if target.resolve() == source.resolve() or saved.folder.resolve() in target.resolve().parents:
        raise ConfigError(
            f"output={target}: neither the input nor the folder of the run is overwritten."
        )
    data = saved.run.data
    language = language or data.language
    rows = read_input(Source(str(source), data, saved.task, language))
    find_tuning_method(saved.model).activate_language(language)
    if target.suffix == ".conll" and not _is_tagged(saved, rows[0]):
        raise ConfigError(f"output={target}: CoNLL holds tags of words, which this run has not.")
    records = predict_rows(saved, rows)
    with atomic_write(target) as partial:
        WRITERS[target.suffix](records, partial)
    return len(records)


def predict_rows(saved: FinishedRun, rows: Sequence[dict[str, Any]]) -> list[Record]:
    """Return a record for each row, in order: `id`, `prediction`, `score` and what its kind adds.

    `score` is that of predictions.parquet. `probability` is the prediction's: of the label, of all
    tags of a sentence together, of a whole text; in extraction that of the best span against no
    answer, the logistic function of their difference. Regression has none. `probabilities` are
    those of each label, or of the tag of each word; `spans` and `start` count characters of the
    text.
    """
    encoded = saved.task.encode(rows, saved.tokenizer, saved.run.data.max_tokens)
    if cut := int(encoded.cut[0]):
        log.warning("%d of %d items cut to %d sub-words", cut, len(rows), saved.run.data.max_tokens)
    outputs, logits = _run_model(saved, encoded)
    said: dict[int, list[Output]] = {}
    for output in sorted(outputs, key=lambda output: output[0]):
        said.setdefault(int(encoded.items[output[0]]), []).append(output)
    predictions = sorted(saved.task.decode(rows, encoded, outputs), key=lambda p: p.item)
    return [
        {
            "id": p.id,
            "prediction": p.prediction,
            "score": p.score,
            **_detail(saved, rows[p.item], p, said[p.item]),
            **_probabilities(saved, [logits[w] for w, _, _ in said[p.item] if w in logits]),
        }
        for p in predictions
    ]


@torch.inference_mode()
def _run_model(
    saved: FinishedRun, encoded: EncodedDataset
) -> tuple[list[Output], dict[int, torch.Tensor]]:
    """Return what the task reads off each window and the logits (C,), by word (n, C), of labels."""
    device, run = _device(saved.run), saved.run
    model = saved.model.to(device)
    outputs: list[Output] = []
    logits: dict[int, torch.Tensor] = {}
    seen: list[torch.Tensor] = []
    hook = None
    if _labels_texts(saved) or _labels_words(saved):
        hook = model.register_forward_hook(lambda _, __, found: seen.append(found.logits))
    batches = BatchDataset(encoded, saved.task, saved.tokenizer, None)
    bf16 = run.trainer.precision is Precision.bf16
    for share in EvaluationSampler(encoded, run.data.batch_size):
        batch = move_data_to_device(batches[share], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            read = saved.task.predict_batch(model, batch)
        outputs += [(w, *found) for w, found in zip(share.windows, read, strict=True)]
        if seen:
            found = seen.pop().float()
            if _labels_words(saved):
                carries = batch["labels"] != IGNORE
                found = found[:, -carries.shape[1] :][carries].split(carries.sum(-1).tolist())
            logits.update(zip(share.windows, found, strict=True))
    if hook is not None:
        hook.remove()
    return outputs, logits


def _device(run: Run) -> torch.device:
    on_gpu = run.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def _labels_words(saved: FinishedRun) -> bool:
    """Say whether the head gives each word a tag by itself, so that it has a probability."""
    by_word = saved.task.auto_class == "AutoModelForTokenClassification"
    return by_word and not vars(saved.task).get("crf")


def _labels_texts(saved: FinishedRun) -> bool:
    """Say whether the head gives whole texts one of the task's labels, or a set of them."""
    by_text = saved.task.auto_class == "AutoModelForSequenceClassification"
    numbers = saved.model.config.problem_type == "regression"
    return by_text and not numbers and bool(saved.task.labels)


def _is_tagged(saved: FinishedRun, row: dict[str, Any]) -> bool:
    return "words" in row and _scheme(saved) != "words"


def _scheme(saved: FinishedRun) -> str:
    task: Any = saved.task  # of a kind that tags words
    return task.scheme


def _probabilities(saved: FinishedRun, logits: Sequence[torch.Tensor]) -> Record:
    if not logits:
        return {}
    if _labels_words(saved):
        found = torch.cat(list(logits)).softmax(-1).amax(-1).tolist()
        return {"probabilities": found}
    several = saved.model.config.problem_type == "multi_label_classification"
    (row,) = logits
    found = (row.sigmoid() if several else row.softmax(-1)).tolist()
    return {"probabilities": dict(zip(saved.task.labels, found, strict=True))}


def _detail(
    saved: FinishedRun, row: dict[str, Any], prediction: Prediction, said: Sequence[Output]
) -> Record:
    if saved.model.config.problem_type == "regression":
        return {}
    if "context" in row:
        return _place_answer(prediction, said)
    record: Record = {"probability": exp(prediction.score)}
    if "words" in row:
        parts = _segments if _scheme(saved) == "words" else _spans
        record |= {"text": row["text"], "words": row["words"]}
        if _scheme(saved) != "tags":
            record["spans"] = parts(row, prediction.prediction)
    return record


def _place_answer(prediction: Prediction, said: Sequence[Output]) -> Record:
    """Return where the best span of an item's windows stands, the first of equals."""
    score, (first, last, _) = max(((s, found) for _, found, s in said), key=lambda pair: pair[0])
    span = (1 + tanh(prediction.score / 2)) / 2 if score > -inf else 0.0
    if not prediction.prediction:
        return {"probability": 1 - span, "start": None, "end": None}
    return {"probability": span, "start": first, "end": last}


def _spans(row: dict[str, Any], tags: Sequence[str]) -> list[Record]:
    starts, words = row["starts"], row["words"]
    found = sorted(read_spans(tags), key=lambda span: span[1:])
    return [
        {"label": label, "start": starts[first], "end": starts[last - 1] + len(words[last - 1])}
        for label, first, last in found
    ]


def _segments(row: dict[str, Any], segments: Sequence[str]) -> list[Record]:
    marked: list[str] = []
    for segment in segments:
        marked += ["B", *"I" * (len(segment) - 1)]
    return _spans(row, marked)


def _write_jsonl(records: Sequence[Record], path: Path) -> None:
    path.write_text("".join(_json(record) + "\n" for record in records), "utf-8")


def _write_tsv(records: Sequence[Record], path: Path) -> None:
    """Write a line a record, texts as JSON strings without their quotes, the rest as JSON."""
    lines = [list(records[0]), *(list(map(_cell, record.values())) for record in records)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")


def _write_parquet(records: Sequence[Record], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(records)), path)


def _write_conll(records: Sequence[Record], path: Path) -> None:
    sentences = [
        "".join(f"{w}\t{t}\n" for w, t in zip(r["words"], r["prediction"], strict=True))
        for r in records
    ]
    path.write_text("\n".join(sentences), "utf-8")


def _cell(value: Any) -> str:
    r"""Return a value as one cell.

    >>> _cell("a\tb"), _cell('say "no"'), _cell(["B-PER", "O"]), _cell(None)
    ('a\\tb', 'say "no"', '["B-PER", "O"]', '')
    """
    if value is None:
        return ""
    return _json(value)[1:-1].replace('\\"', '"') if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return OBEYED.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


WRITERS: dict[str, Callable[[Sequence[Record], Path], None]] = {
    ".jsonl": _write_jsonl,
    ".tsv": _write_tsv,
    ".parquet": _write_parquet,
    ".conll": _write_conll,
}
