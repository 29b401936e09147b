"""The queue in front of the models: bounded, fair between runs, many requests in one prediction.

Everything but the prediction itself happens in the event loop, so that nothing needs a lock.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from fastapi import HTTPException

from crosstune.inference.predict import Record
from crosstune.inference.service.limits import Limits
from crosstune.inference.service.metrics import Metrics

MAX_RETRY_SECONDS = 60
Rows = Sequence[dict[str, Any]]


class Unavailable(HTTPException):
    """The service cannot take a request now; `retry_after` seconds later it may."""

    def __init__(self, reason: str, retry_after: int):
        super().__init__(503, reason, {"Retry-After": str(retry_after)})


@dataclass(eq=False)
class Job:
    """The rows of one request, which wait for their records."""

    run_id: str
    language: str
    rows: Rows
    answer: asyncio.Future[list[Record]] = field(default_factory=asyncio.Future)


class PredictionQueue:
    """Requests that wait, by run and language; one prediction runs at a time, in a thread.

    Each turn predicts what waits for one run and language, the oldest requests first, up to
    `limits.batch_items`. Turns go round the runs, and round the languages of a run.

    Args:
        predict: returns a record per row, for a run id, a language and rows.
        limits: the bounds of the queue and of a prediction.
    """

    def __init__(self, predict: Callable[[str, str, Rows], list[Record]], limits: Limits):
        self.predict, self.limits = predict, limits
        self.metrics = Metrics(lambda: self.waiting_items)
        self.waiting: dict[str, dict[str, dict[Job, None]]] = {}  # run, language, in their order
        self.waiting_items = 0
        self.closed = False
        self.thread = ThreadPoolExecutor(1, "prediction")  # models share weights and have hooks
        self.worker: asyncio.Task[None] | None = None
        self.items, self.seconds = 0, 0.0  # predicted so far

    async def submit(self, run_id: str, language: str, rows: Rows) -> list[Record]:
        """Return the records of rows; cancelling it takes them out of the queue.

        Raises:
            Unavailable: the queue is full, or the service ends.
            Exception: what `predict` raises about these rows alone.
        """
        if self.closed:
            raise self.refuse("The service is ending.")
        if self.waiting_items + len(rows) > self.limits.waiting_items:
            raise self.refuse(f"{self.waiting_items} items wait already, and the queue is full.")
        job = Job(run_id, language, rows)
        self.waiting.setdefault(run_id, {}).setdefault(language, {})[job] = None
        self.waiting_items += len(rows)
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        try:
            return await job.answer
        finally:
            self._remove(job)

    def refuse(self, reason: str) -> Unavailable:
        """Return the error of a request that is not taken, with the time that the waiting need."""
        seconds = ceil(self.waiting_items * self.seconds / max(self.items, 1))
        return Unavailable(reason, min(max(seconds, 1), MAX_RETRY_SECONDS))

    def close(self) -> None:
        """Take nothing more and turn away what waits; what is being computed is answered."""
        self.closed = True
        jobs = [
            job
            for languages in self.waiting.values()
            for jobs in languages.values()
            for job in jobs
        ]
        for job in jobs:
            self._remove(job)
            if not job.answer.done():
                job.answer.set_exception(self.refuse("The service is ending."))

    def _remove(self, job: Job) -> None:
        languages = self.waiting.get(job.run_id, {})
        jobs = languages.get(job.language, {})
        if job not in jobs:
            return
        del jobs[job]
        self.waiting_items -= len(job.rows)
        if not jobs:
            del languages[job.language]
        if not languages:
            del self.waiting[job.run_id]

    def _take(self) -> list[Job]:
        """Remove and return the jobs whose turn it is; their run and language queue up again."""
        run_id = next(iter(self.waiting))
        languages = self.waiting[run_id] = self.waiting.pop(run_id)
        language = next(iter(languages))
        jobs = languages[language] = languages.pop(language)
        batch: list[Job] = []
        items = 0
        for job in jobs:
            items += len(job.rows)
            if batch and items > self.limits.batch_items:
                break
            batch.append(job)
        for job in batch:
            self._remove(job)
        return batch

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            batch = self._take()
            start = time.perf_counter()
            outcomes = await loop.run_in_executor(self.thread, self._predict_batch, batch)
            seconds, items = time.perf_counter() - start, sum(len(job.rows) for job in batch)
            self.items, self.seconds = self.items + items, self.seconds + seconds
            self.metrics.count_batch(items, seconds)
            for job, outcome in zip(batch, outcomes, strict=True):
                if job.answer.done():  # its client has left meanwhile
                    continue
                if isinstance(outcome, Exception):
                    job.answer.set_exception(outcome)
                else:
                    job.answer.set_result(outcome)

    def _predict_batch(self, batch: Sequence[Job]) -> list[list[Record] | Exception]:
        """Return the records of each job, or its own error: after an error each is tried alone."""
        rows = [row for job in batch for row in job.rows]
        try:
            records = iter(self.predict(batch[0].run_id, batch[0].language, rows))
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [outcome for job in batch for outcome in self._predict_batch([job])]
        return [[next(records) for _ in job.rows] for job in batch]
