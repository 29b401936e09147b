"""More requests than the service can answer at once wait, together, and within bounds."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crosstune.inference.predict import predict
from crosstune.inference.service.limits import Limits
from crosstune.inference.service.service import Service
from tests.inference.service.asking import Asking, holding, serving

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
TEXTS = [f"la comida {'muy ' * (number % 7)}buena {number}" for number in range(30)]


def wait_for(happened: Any) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def write_request(run: str, items: list[Any]) -> bytes:
    """Return a request as it goes over the wire."""
    body = json.dumps({"run": run, "items": items}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"content-type: application/json\r\n\r\n" + body


def numbers_apart(value: Any) -> tuple[list[float], Any]:
    """Return the numbers with a fraction in a JSON value, and the value without them."""
    if isinstance(value, float):
        return [value], None
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        parts = [numbers_apart(part) for part in inner]
        rest = [part for _, part in parts]
        numbers = [number for found, _ in parts for number in found]
        return numbers, dict(zip(value, rest, strict=True)) if isinstance(value, dict) else rest
    return [], value


@pytest.mark.parametrize("kind", ["classification", "tagging", "extraction"])
def test_requests_that_are_predicted_together_get_the_answers_of_predict(
    kind: str, asking: Asking, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = runs[kind]
    items: list[dict[str, str]] = [{"id": str(n), "text": text} for n, text in enumerate(TEXTS, 1)]
    source = tmp_path / "in.txt"
    source.write_text("\n".join(TEXTS) + "\n")
    if kind == "extraction":
        items = [
            {"id": item["id"], "context": item["text"] * 5, "question": "¿cuál?"} for item in items
        ]
        paragraphs = [
            {
                "context": i["context"],
                "qas": [{"id": i["id"], "question": "¿cuál?", "answers": []}],
            }
            for i in items
        ]
        source = tmp_path / "in.json"
        source.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    predict(run, source, tmp_path / "out.jsonl")
    expected = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with (
        serving(Service(asking.service.runs)) as busy,
        ThreadPoolExecutor(len(items) + 1) as pool,
    ):
        with holding(busy.service.names[run.name]) as started:
            first = pool.submit(busy.ask, run.name, items[:1])
            assert started.wait(10)
            others = [pool.submit(busy.ask, run.name, [item]) for item in items[1:]]
            wait_for(lambda: busy.service.queue.waiting_items == len(items) - 1)
        answers = [asked.result() for asked in (first, *others)]
        assert busy.read_metrics()["crosstune_batch_items_count"] == 2
    assert {status for status, _ in answers} == {200}
    found, without = numbers_apart([record for _, (record,) in answers])
    numbers, expected_without = numbers_apart(expected)
    assert without == expected_without
    assert found == pytest.approx(numbers, rel=1e-5, abs=1e-6)


def test_a_full_queue_says_in_json_when_to_come_again(
    asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    limits = Limits(waiting_items=2)
    with (
        serving(Service(asking.service.runs, limits)) as busy,
        ThreadPoolExecutor(2) as pool,
    ):
        with holding(busy.service.names[name]) as started:
            computed = pool.submit(busy.ask, name, [{"text": "a"}])
            assert started.wait(10)
            waiting = pool.submit(busy.ask, name, [{"text": "b"}] * 2)
            wait_for(lambda: busy.service.queue.waiting_items == 2)
            connection = http.client.HTTPConnection("127.0.0.1", busy.port, timeout=10)
            body = json.dumps({"run": name, "items": [{"text": "c"}]})
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            refused = connection.getresponse()
            detail = json.load(refused)
            connection.close()
            assert busy.get("/health")["status"] == "ok"
            assert busy.read_metrics()["crosstune_waiting_items"] == 2
        assert (computed.result()[0], waiting.result()[0]) == (200, 200)
        assert busy.ask(name, [{"text": "c"}])[0] == 200
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert detail == {"detail": "2 items wait already, and the queue is full."}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(body_bytes=1500), "Bodies of "),
        (Limits(requests=1), "1 requests are being answered already."),
    ],
    ids=["bytes", "requests"],
)
def test_bodies_that_are_held_are_bounded_until_they_are_answered(
    limits: Limits, reason: str, asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    items = [{"text": "a" * 1000}]
    with (
        serving(Service(asking.service.runs, limits)) as busy,
        ThreadPoolExecutor(1) as pool,
    ):
        with holding(busy.service.names[name]) as started:
            held = pool.submit(busy.ask, name, items)
            assert started.wait(10)
            status, detail = busy.ask(name, items)
            assert busy.get("/health")["status"] == "ok"
        assert held.result()[0] == 200
        assert (status, detail[: len(reason)]) == (503, reason)
        assert busy.ask(name, items)[0] == 200


def test_a_request_whose_client_has_left_is_not_computed(
    asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    queue = asking.service.queue
    before = asking.read_metrics()
    with ThreadPoolExecutor(1) as pool:
        with holding(asking.service.names[name]) as started:
            held = pool.submit(asking.ask, name, [{"text": "a"}])
            assert started.wait(10)
            with socket.create_connection(("127.0.0.1", asking.port)) as leaving:
                leaving.sendall(write_request(name, [{"text": "b"}] * 5))
                wait_for(lambda: queue.waiting_items == 5)
            wait_for(lambda: queue.waiting_items == 0)
        assert held.result()[0] == 200
    after = asking.read_metrics()
    assert after["crosstune_items_total"] == before["crosstune_items_total"] + 1
    left = 'crosstune_requests_total{status="499"}'
    assert after[left] == before.get(left, 0) + 1


def test_a_faulty_request_is_refused_and_those_beside_it_answered(
    asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    saved = asking.service.names[name]
    asked = [[{"text": "a"}], [{"text": " "}], [{"words": ["a"]}], [{"text": "b"}]]
    with ThreadPoolExecutor(5) as pool:
        with holding(saved) as started:
            first = pool.submit(asking.ask, name, [{"text": "a"}])
            assert started.wait(10)
            others = [pool.submit(asking.ask, name, items) for items in asked]
            wait_for(lambda: asking.service.queue.waiting_items == 2)
        answers = [other.result() for other in others]
        assert first.result()[0] == 200
    assert [status for status, _ in answers] == [200, 422, 422, 200]
    assert "items[0].text: holds no text" in answers[1][1]
    assert "items[0] has words; this run accepts text" in answers[2][1]


def test_health_and_metrics_answer_at_once_while_a_model_computes(
    asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            sum(range(20_000))  # a thread that computes, and holds Python's lock

    hook = asking.service.names[name].model.register_forward_pre_hook(lambda *_: keep_busy())
    slow = json.dumps({"run": name, "items": [{"words": ["a"] * 1900}] * 120}).encode()
    with ThreadPoolExecutor(2) as pool:
        try:
            pool.submit(asking.ask, name, [{"text": "a"}])
            pool.submit(asking.send, "POST", "/predict", slow)
            seconds = []
            for path in ("/health", "/metrics") * 10:
                start = time.perf_counter()
                assert asking.send("GET", path)[0] == 200
                seconds.append(time.perf_counter() - start)
        finally:
            stop.set()
            hook.remove()
    assert sorted(seconds)[len(seconds) // 2] < 0.1  # others may have the cores for a while


def test_health_counts_nothing_anew(asking: Asking) -> None:
    asking.service.health["weights_bytes"], true = -1, asking.service.health["weights_bytes"]
    assert asking.get("/health")["weights_bytes"] == -1
    asking.service.health["weights_bytes"] = true


def test_metrics_count_requests_by_status(asking: Asking, runs: dict[str, Path]) -> None:
    before = asking.read_metrics()
    name = runs["second"].name
    assert asking.ask(name, [{"text": "a"}, {"text": "b"}])[0] == 200
    assert asking.ask("none", [{"text": "a"}])[0] == 404
    after = asking.read_metrics()
    changes = {key: after[key] - before.get(key, 0) for key in after}
    assert changes['crosstune_requests_total{status="404"}'] == 1
    assert changes['crosstune_requests_total{status="200"}'] == 2  # with that of /metrics
    assert changes["crosstune_items_total"] == 2
    assert changes['crosstune_batch_items_bucket{le="2.0"}'] == 1
    assert changes["crosstune_prediction_seconds_sum"] > 0


@pytest.mark.slow
def test_600_requests_of_200_clients_are_all_answered(
    asking: Asking, runs: dict[str, Path]
) -> None:
    def ask(number: int) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", asking.port, timeout=120)
        try:
            body = json.dumps({"run": runs["second"].name, "items": [{"text": f"a {number}"}]})
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status, response.headers.get("retry-after", "")
        finally:
            connection.close()

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(600)))
    assert set(answers) == {(200, "")}
