"""The served runs: from a request's body to the text of its answer, without HTTP."""

import asyncio
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from fastapi import HTTPException
from pydantic import ValidationError

from crosstune.config.schema import TaskType
from crosstune.errors import DataError, suggest
from crosstune.inference.complete_rows import check_kind, complete_rows
from crosstune.inference.load_run import FinishedRun
from crosstune.inference.predict import Record, predict_rows
from crosstune.inference.read_input import Source
from crosstune.inference.service.limits import Limits
from crosstune.inference.service.prediction_queue import PredictionQueue, Rows
from crosstune.inference.service.request import PredictRequest
from crosstune.inference.service.shared_base import count_bytes
from crosstune.methods import find_tuning_method
from crosstune.runs.record import PACKAGES

SHORT_BYTES = 10_000  # of a body that takes milliseconds at most


class Service:
    """The served runs and their queue.

    Items of requests for the same run and language that wait at the same time are predicted
    together. A request that is predicted alone has the answers of `crosstune predict` to the bit.
    Together with others its texts are in batches of other sizes and lengths, for which matrices are
    multiplied in another order: scores and probabilities differ by rounding, in float32 by less
    than a part in 100,000, in bf16 by about one in a thousand. Labels, tags and spans are the same
    unless two of them tie that closely.
    """

    def __init__(self, runs: Sequence[FinishedRun], limits: Limits | None = None):
        for saved in runs:
            check_kind(saved.run.data.kind)
        self.runs, self.names = runs, name_runs(runs)
        self.limits = limits or Limits()
        self.queue = PredictionQueue(self._predict, self.limits)
        self.thread = ThreadPoolExecutor(1, "json")
        self.health: Record = {
            "status": "ok",
            "runs": len(runs),
            "weights_bytes": count_bytes(saved.model for saved in runs),
            "versions": {name: version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
        }

    async def answer(self, body: Any, size: int) -> str:
        """Return, as JSON, the records that `crosstune predict` writes about the same items.

        Checking a body of the largest size can take a third of a second, in which the event loop
        must answer others, so that long ones are left to a thread.

        Args:
            body: the parsed body of the request.
            size: its length in bytes.

        Raises:
            HTTPException: no run has this name, or the queue is full.
            CrosstuneError: the items are malformed or do not fit the run.
        """
        is_short = size <= SHORT_BYTES
        run_id, language, rows = (
            self._read(body) if is_short else await self._in_thread(self._read, body)
        )
        records = await self.queue.submit(run_id, language, rows)
        content = {"run": run_id, "language": language, "answers": records}
        return render_json(content) if is_short else await self._in_thread(render_json, content)

    def describe(self) -> list[Record]:
        """Return for each run its names, its configuration in short, and the fields of an item."""
        return [
            {
                "names": [name for name, run in self.names.items() if run is saved],
                **{key: saved.record[key] for key in ("experiment", "data", "method", "seed")},
                "kind": saved.run.data.kind.name,
                "fields": fields_of(saved),
                "language": saved.run.data.language,
                "labels": list(getattr(saved.task, "classes", saved.task.labels)),
                "max_tokens": saved.run.data.max_tokens,
            }
            for saved in self.runs
        ]

    def _read(self, body: Any) -> tuple[str, str, Rows]:
        """Return the run id, the language and the completed rows of a body."""
        try:
            request = PredictRequest.model_validate(body)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            raise DataError([describe_fault(fault, fault["loc"]) for fault in faults]) from error
        if (saved := self.names.get(request.run)) is None:
            names = suggest(request.run, list(self.names))
            raise HTTPException(404, f"run {request.run!r} is not served. {names}")
        language = request.language or saved.run.data.language
        rows = complete_rows(_to_rows(request, saved), saved.run.data.kind, saved.task, language)
        return str(saved.record["run_id"]), language, rows

    def _predict(self, run_id: str, language: str, rows: Rows) -> list[Record]:
        saved = self.names[run_id]
        find_tuning_method(saved.model).activate_language(language)
        return predict_rows(saved, rows)

    async def _in_thread(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, argument)


def name_runs(runs: Sequence[FinishedRun]) -> dict[str, FinishedRun]:
    """Return runs by experiment/data/method/seed where that is unique, and by run id."""
    keys = ("experiment", "data", "method", "seed")
    labels = ["/".join(str(saved.record[key]) for key in keys) for saved in runs]
    by_label = {
        label: saved for label, saved in zip(labels, runs, strict=True) if labels.count(label) == 1
    }
    return by_label | {str(saved.record["run_id"]): saved for saved in runs}


def fields_of(saved: FinishedRun) -> list[list[str]]:
    """Return the sets of fields that an item for a run may have."""
    data = saved.run.data
    if data.kind is TaskType.extraction:
        return [["context", "question"]]
    if data.kind is TaskType.tagging:
        return [["words"], ["text"]]
    is_pair = Source("", data, saved.task, data.language).column("text_pair") is not None
    return [["text", "text_pair"] if is_pair else ["text"]]


def describe_fault(fault: Mapping[str, Any], path: Sequence[int | str]) -> str:
    """Return one fault of a body in a sentence, which repeats only names of fields.

    >>> describe_fault({"msg": "Field required"}, ["items", 0, "text"])
    'items[0].text: Field required'
    """
    parts = [f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in path]
    return f"{''.join(parts).removeprefix('.') or 'body'}: {fault['msg']}"


def render_json(content: Any) -> str:
    """Return JSON in ASCII, so without control characters."""
    return json.dumps(content, allow_nan=False)


def _to_rows(request: PredictRequest, saved: FinishedRun) -> list[dict[str, Any]]:
    allowed = fields_of(saved)
    faults = [
        f"items[{number}] has {' and '.join(item.inputs) or 'nothing'}; this run accepts "
        f"{' or '.join(' and '.join(fields) for fields in allowed)}"
        for number, item in enumerate(request.items)
        if list(item.inputs) not in allowed
    ]
    if faults:
        raise DataError(faults)
    return [
        {
            "id": str(number) if item.id is None else item.id,
            "where": f"items[{number}]",
            **item.inputs,
        }
        for number, item in enumerate(request.items)
    ]
