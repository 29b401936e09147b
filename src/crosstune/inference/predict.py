"""Applies a finished run to new text, along the same path as the run's own test.

Encoding, batches and decoding are the same, so the run's test file gives exactly the predictions
and scores of its predictions.parquet.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import exp, inf, tanh
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning_fabric.utilities import move_data_to_device

from crosstune.config.schema import Precision
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
Record = dict[str, Any]  # the fields that are written about one item
# legal in JSON, but terminals obey them or readers take them for the end of a line
CONTROL_CHARACTERS = re.compile("[\x7f-\x9f\u2028\u2029]")


def predict(run: Path, source: Path, target: Path, language: str = "") -> int:
    """Predict every item of a file, write the predictions, and return their number.

    `language` is that of the items, by default the one that the run was trained on.

    Raises:
        CrosstuneError: there is no finished run, the file does not fit it, or the predictions
            cannot be written to `target`.
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
    if target.suffix == ".conll" and not ("words" in rows[0] and _scheme(saved) != "words"):
        raise ConfigError(
            f"output={target}: CoNLL holds tags of words, which this run does not predict."
        )
    records = predict_rows(saved, rows)
    with atomic_write(target) as partial:
        WRITERS[target.suffix](records, partial)
    return len(records)


def predict_rows(saved: FinishedRun, rows: Sequence[dict[str, Any]]) -> list[Record]:
    """Return a record per row, in order: `id`, `prediction`, `score` and fields of the task.

    `score` is that of predictions.parquet. `probability` is that of the prediction: of the label,
    of all tags of a sentence together, of a whole text; in extraction that of the best span against
    no answer, the logistic function of their difference. Regression has none. `probabilities` are
    those of all labels, or of each word's tag; `spans` and `start` count characters of the text.
    """
    encoded = saved.task.encode(rows, saved.tokenizer, saved.run.data.max_tokens)
    if cut := int(encoded.cut[0]):
        log.warning("%d of %d items cut to %d sub-words", cut, len(rows), saved.run.data.max_tokens)
    outputs, logits = _run_model(saved, encoded)
    outputs_by_item: dict[int, list[Output]] = {}
    for output in sorted(outputs, key=lambda output: output[0]):
        outputs_by_item.setdefault(int(encoded.items[output[0]]), []).append(output)
    predictions = sorted(saved.task.decode(rows, encoded, outputs), key=lambda p: p.item)
    records: list[Record] = []
    for prediction in predictions:
        windows = outputs_by_item[prediction.item]
        records.append(
            {
                "id": prediction.id,
                "prediction": prediction.prediction,
                "score": prediction.score,
                **_task_fields(saved, rows[prediction.item], prediction, windows),
                **_probabilities(saved, [logits[w] for w, _, _ in windows if w in logits]),
            }
        )
    return records


@contextmanager
def _capture_logits(
    model: torch.nn.Module, captured: list[torch.Tensor], needed: bool
) -> Iterator[None]:
    """Append the logits of each forward pass to a list, until the block ends or fails."""
    if not needed:
        yield
        return
    hook = model.register_forward_hook(lambda _, __, output: captured.append(output.logits))
    try:
        yield
    finally:
        hook.remove()


@torch.inference_mode()
def _run_model(
    saved: FinishedRun, encoded: EncodedDataset
) -> tuple[list[Output], dict[int, torch.Tensor]]:
    """Return the output of each window, and its logits (C,) over labels or (words, C) over tags."""
    trainer = saved.run.trainer
    on_gpu = trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    model = saved.model
    if any(parameter.device.type != device.type for parameter in model.parameters()):
        model.to(device)  # even where nothing moves it takes a third of a short prediction
    outputs: list[Output] = []
    logits: dict[int, torch.Tensor] = {}
    captured: list[torch.Tensor] = []
    with _capture_logits(model, captured, _labels_texts(saved) or _labels_words(saved)):
        batches = BatchDataset(encoded, saved.task, saved.tokenizer, None)
        bf16 = trainer.precision is Precision.bf16
        for rank_batch in EvaluationSampler(encoded, saved.run.data.resolved_batch_size):
            batch = move_data_to_device(batches[rank_batch], device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                results = saved.task.predict_batch(model, batch)
            outputs += [(w, *result) for w, result in zip(rank_batch.windows, results, strict=True)]
            if captured:
                batch_logits = captured.pop().float()
                if _labels_words(saved):
                    labelled = batch["labels"] != IGNORE
                    word_logits = batch_logits[:, -labelled.shape[1] :][labelled]
                    batch_logits = word_logits.split(labelled.sum(-1).tolist())
                logits.update(zip(rank_batch.windows, batch_logits, strict=True))
    return outputs, logits


def _labels_words(saved: FinishedRun) -> bool:
    """Return whether the head labels each word independently, which gives it a probability."""
    by_word = saved.task.auto_class == "AutoModelForTokenClassification"
    return by_word and not vars(saved.task).get("crf")


def _labels_texts(saved: FinishedRun) -> bool:
    """Return whether the head labels whole texts, with one label or a set of labels."""
    by_text = saved.task.auto_class == "AutoModelForSequenceClassification"
    is_regression = saved.model.config.problem_type == "regression"
    return by_text and not is_regression and bool(saved.task.labels)


def _scheme(saved: FinishedRun) -> str:
    task: Any = saved.task  # a tagging task
    return task.scheme


def _probabilities(saved: FinishedRun, logits: Sequence[torch.Tensor]) -> Record:
    if not logits:
        return {}
    if _labels_words(saved):
        return {"probabilities": torch.cat(list(logits)).softmax(-1).amax(-1).tolist()}
    (row,) = logits
    is_multilabel = saved.model.config.problem_type == "multi_label_classification"
    probabilities = (row.sigmoid() if is_multilabel else row.softmax(-1)).tolist()
    return {"probabilities": dict(zip(saved.task.labels, probabilities, strict=True))}


def _task_fields(
    saved: FinishedRun, row: dict[str, Any], prediction: Prediction, outputs: Sequence[Output]
) -> Record:
    if saved.model.config.problem_type == "regression":
        return {}
    if "context" in row:
        return _answer_fields(prediction, outputs)
    fields: Record = {"probability": exp(prediction.score)}
    if "words" not in row:
        return fields
    fields |= {"text": row["text"], "words": row["words"]}
    tags = prediction.prediction
    if _scheme(saved) == "words":
        tags = [tag for segment in tags for tag in ["B", *"I" * (len(segment) - 1)]]
    if _scheme(saved) != "tags":
        fields["spans"] = _find_spans(row, tags)
    return fields


def _answer_fields(prediction: Prediction, outputs: Sequence[Output]) -> Record:
    """Return the probability and position of the best span of all windows, the first of equals."""
    score, (start, end, _) = max(((s, span) for _, span, s in outputs), key=lambda pair: pair[0])
    probability = (1 + tanh(prediction.score / 2)) / 2 if score > -inf else 0.0
    if not prediction.prediction:
        return {"probability": 1 - probability, "start": None, "end": None}
    return {"probability": probability, "start": start, "end": end}


def _find_spans(row: dict[str, Any], tags: Sequence[str]) -> list[Record]:
    starts, words = row["starts"], row["words"]
    return [
        {"label": label, "start": starts[first], "end": starts[end - 1] + len(words[end - 1])}
        for label, first, end in sorted(read_spans(tags), key=lambda span: span[1:])
    ]


def _write_jsonl(records: Sequence[Record], path: Path) -> None:
    path.write_text("".join(_to_json(record) + "\n" for record in records), "utf-8")


def _write_tsv(records: Sequence[Record], path: Path) -> None:
    """Write a line per record, texts as JSON strings without their quotes, the rest as JSON."""
    lines = [list(records[0]), *(list(map(_to_cell, record.values())) for record in records)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")


def _write_parquet(records: Sequence[Record], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(records)), path)


def _write_conll(records: Sequence[Record], path: Path) -> None:
    sentences = [
        "".join(f"{w}\t{t}\n" for w, t in zip(r["words"], r["prediction"], strict=True))
        for r in records
    ]
    path.write_text("\n".join(sentences), "utf-8")


def _to_cell(value: Any) -> str:
    r"""Return a value as one cell of a TSV file.

    >>> _to_cell("a\tb"), _to_cell('say "no"'), _to_cell(["B-PER", "O"]), _to_cell(None)
    ('a\\tb', 'say "no"', '["B-PER", "O"]', '')
    """
    if value is None:
        return ""
    text = _to_json(value)
    return text[1:-1].replace('\\"', '"') if isinstance(value, str) else text


def _to_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


WRITERS: dict[str, Callable[[Sequence[Record], Path], None]] = {
    ".jsonl": _write_jsonl,
    ".tsv": _write_tsv,
    ".parquet": _write_parquet,
    ".conll": _write_conll,
}
