"""The queue: bounded, fair between runs, many requests in a prediction, none disturbs another."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from crosstune.errors import DataError
from crosstune.inference.predict import Record
from crosstune.inference.service.limits import Limits
from crosstune.inference.service.prediction_queue import PredictionQueue, Rows, Unavailable

LIMITS = Limits(waiting_items=8, batch_items=4)


class Model:
    """Repeats each row, and keeps what it was asked; while it is held it does not begin."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.begun = threading.Event()
        self.free = threading.Event()

    def predict(self, run_id: str, language: str, rows: Rows) -> list[Record]:
        """Return the rows; a row "!" is an error."""
        self.begun.set()
        assert self.free.wait(10)
        self.asked.append((run_id, language, "".join(row["id"] for row in rows)))
        if any(row["id"] == "!" for row in rows):
            raise DataError(["a fault"])
        return [{"id": row["id"]} for row in rows]


def rows_of(ids: str) -> Rows:
    return [{"id": letter} for letter in ids]


def ask_while_busy(
    model: Model, *asked: tuple[str, str, str], limits: Limits = LIMITS, then: Any = None
) -> list[Any]:
    """Return the outcomes of requests that come while the model is busy with the first."""

    async def work() -> list[Any]:
        queue = PredictionQueue(model.predict, limits)
        tasks: list[asyncio.Task[Any]] = []
        for run_id, language, ids in asked:
            tasks.append(asyncio.create_task(queue.submit(run_id, language, rows_of(ids))))
            await asyncio.sleep(0)
            if len(tasks) == 1:
                while not model.begun.is_set():
                    await asyncio.sleep(0.001)
        if then is not None:
            await then(queue, tasks)
        model.free.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(work())


def test_what_waits_for_one_run_and_language_is_predicted_together() -> None:
    model = Model()
    asked = [("a", "es", "1"), ("a", "es", "2"), ("a", "zh", "3"), ("a", "es", "45")]
    answers = ask_while_busy(model, *asked)
    assert model.asked == [("a", "es", "1"), ("a", "es", "245"), ("a", "zh", "3")]
    assert ["".join(record["id"] for record in answer) for answer in answers] == [
        ids for _, _, ids in asked
    ]


def test_a_prediction_has_no_more_items_than_allowed_unless_one_request_has() -> None:
    model = Model()
    asked = [("a", "es", ids) for ids in ("0", "12", "3", "45", "6")]
    ask_while_busy(model, *asked)
    assert [ids for *_, ids in model.asked] == ["0", "123", "456"]
    model = Model()
    ask_while_busy(model, ("a", "es", "0"), ("a", "es", "12345"), ("a", "es", "6"))
    assert [ids for *_, ids in model.asked] == ["0", "12345", "6"]


def test_runs_take_turns_however_many_languages_one_is_asked_in() -> None:
    model = Model()
    asked = [("a", "es", "0"), ("a", "es", "12"), ("a", "es", "345"), ("a", "zh", "6")]
    ask_while_busy(model, *asked, ("b", "es", "7"))
    assert [ids for *_, ids in model.asked] == ["0", "12", "7", "6", "345"]


def test_a_request_beyond_the_bound_is_told_when_to_come_again() -> None:
    model = Model()
    asked = [("a", "es", "0"), ("a", "es", "1234567"), ("a", "es", "8"), ("a", "es", "9")]
    *answered, refused = ask_while_busy(model, *asked)
    assert [len(answer) for answer in answered] == [1, 7, 1]
    assert isinstance(refused, Unavailable)
    assert refused.status_code == 503
    assert refused.detail == "8 items wait already, and the queue is full."
    assert (refused.headers or {})["Retry-After"] == "1"


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (2.5, "5"), (99.0, "60")])
def test_the_time_to_come_again_is_what_the_waiting_need(seconds: float, told: str) -> None:
    queue = PredictionQueue(Model().predict, LIMITS)
    queue.items, queue.seconds, queue.waiting_items = 1, seconds, 2
    assert (queue.refuse("").headers or {})["Retry-After"] == told


def test_a_request_that_is_cancelled_is_not_computed_and_holds_no_place() -> None:
    async def cancel(queue: PredictionQueue, tasks: list[asyncio.Task[Any]]) -> None:
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert queue.waiting_items == 1
        assert [len(jobs) for jobs in queue.waiting["a"].values()] == [1]

    model = Model()
    asked = [("a", "es", "0"), ("a", "es", "12"), ("a", "es", "3")]
    _, cancelled, last = ask_while_busy(model, *asked, then=cancel)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert last == [{"id": "3"}]
    assert [ids for *_, ids in model.asked] == ["0", "3"]


def test_a_request_cancelled_while_it_is_computed_disturbs_nobody() -> None:
    async def cancel(queue: PredictionQueue, tasks: list[asyncio.Task[Any]]) -> None:
        tasks[0].cancel()

    model = Model()
    first, second = ask_while_busy(model, ("a", "es", "0"), ("a", "es", "1"), then=cancel)
    assert isinstance(first, asyncio.CancelledError)
    assert second == [{"id": "1"}]


def test_an_error_goes_to_the_request_that_caused_it_alone() -> None:
    model = Model()
    asked = [("a", "es", "0"), ("a", "es", "1"), ("a", "es", "!"), ("a", "es", "2")]
    _, before, faulty, after = ask_while_busy(model, *asked)
    assert (before, after) == ([{"id": "1"}], [{"id": "2"}])
    assert isinstance(faulty, DataError)


def test_a_closed_queue_answers_what_it_computes_and_turns_the_rest_away() -> None:
    async def close(queue: PredictionQueue, tasks: list[asyncio.Task[Any]]) -> None:
        queue.close()
        tasks.append(asyncio.create_task(queue.submit("a", "es", rows_of("3"))))

    model = Model()
    asked = [("a", "es", "0"), ("a", "es", "1"), ("b", "es", "2")]
    computed, *refused = ask_while_busy(model, *asked, then=close)
    assert computed == [{"id": "0"}]
    assert [getattr(error, "detail", error) for error in refused] == ["The service is ending."] * 3
    assert [ids for *_, ids in model.asked] == ["0"]


def test_batches_and_their_duration_are_counted() -> None:
    async def look(queue: PredictionQueue) -> str:
        free = asyncio.create_task(queue.submit("a", "es", rows_of("123")))
        await free
        return queue.metrics.render().decode()

    model = Model()
    model.free.set()
    text = asyncio.run(look(PredictionQueue(model.predict, replace(LIMITS, waiting_items=3))))
    assert "\ncrosstune_items_total 3.0\n" in text
    assert '\ncrosstune_batch_items_bucket{le="4.0"} 1.0\n' in text
    assert "\ncrosstune_prediction_seconds_count 1.0\n" in text
    assert "\ncrosstune_waiting_items 0.0\n" in text
