"""Connections whose clients are slow or silent are cut, and keep nobody else out."""

import http.client
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from crosstune.inference.service.limits import RESERVED_FILES, Limits, fit_open_files
from crosstune.inference.service.service import Service
from tests.inference.service.asking import Asking, holding, serving
from tests.inference.service.test_overload import wait_for, write_request

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
HEAD = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BEGINNINGS = {
    "silent": b"",
    "half a header": HEAD,
    "half a body": HEAD + b"content-length: 100\r\n\r\n{",
    "half a refused body": HEAD.replace(b"predict", b"nothing") + b"content-length: 100\r\n\r\n{",
}


@contextmanager
def limited(asking: Asking, limits: Limits) -> Iterator[Asking]:
    """Serve the same runs within other limits."""
    with serving(Service(asking.service.runs, limits)) as found:
        yield found


def connect(asking: Asking, *more: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", asking.port), timeout=10)
    connection.sendall(b"".join(more))
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other side has closed or reset; what it sent before is dropped."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_client_that_never_ends_its_request_is_cut_though_it_goes_on_sending(
    beginning: bytes, asking: Asking
) -> None:
    limits = Limits(client_seconds=0.4, idle_seconds=60)
    with limited(asking, limits) as found, connect(found, beginning) as slow:
        start = time.monotonic()
        while not is_closed(slow):
            if beginning:
                try:
                    slow.send(b"x" if b"{" in beginning else b"x: y\r\n"[:1])
                except ConnectionError:
                    break
            time.sleep(0.05)
            assert time.monotonic() < start + 10
        assert time.monotonic() > start + 0.3
        wait_for(lambda: not found.server.server_state.connections)


def test_a_client_is_not_cut_while_it_waits_for_its_answer(
    asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    with (
        limited(asking, Limits(client_seconds=0.2, idle_seconds=60)) as found,
        ThreadPoolExecutor(1) as pool,
    ):
        with holding(found.service.names[name]):
            answer = pool.submit(found.ask, name, [{"text": "a"}])
            time.sleep(0.6)
        assert answer.result()[0] == 200


def test_a_connection_without_a_further_request_is_closed(asking: Asking) -> None:
    request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with limited(asking, Limits(idle_seconds=1)) as found, connect(found, request) as idle:
        assert idle.recv(12) == b"HTTP/1.1 200"
        start = time.monotonic()
        wait_for(lambda: is_closed(idle))
        assert 0.5 < time.monotonic() - start < 3


def test_further_requests_on_a_connection_have_their_own_time(asking: Asking) -> None:
    with limited(asking, Limits(client_seconds=0.5)) as found:
        kept = http.client.HTTPConnection("127.0.0.1", found.port, timeout=10)
        kept.connect()
        first = kept.sock
        for _ in range(5):
            time.sleep(0.25)
            kept.request("GET", "/health")
            assert kept.getresponse().read()
            assert kept.sock is first
        kept.close()


def test_a_client_that_does_not_read_its_answer_is_cut(
    asking: Asking, runs: dict[str, Path]
) -> None:
    words = [{"words": ["a" * 19_000], "id": "b" * 900}] * 45
    request = write_request(runs["tagging"].name, words)
    with limited(asking, Limits(client_seconds=1)) as found, ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", found.port))
        deaf.sendall(request * 6)
        states = found.server.server_state
        wait_for(lambda: any(c.flow.write_paused for c in states.connections))
        wait_for(lambda: not states.connections)


def test_silent_connections_keep_nobody_out(asking: Asking, runs: dict[str, Path]) -> None:
    limits = Limits(connections=50, requests=25)
    with limited(asking, limits) as found, ExitStack() as stack:
        silent = [
            stack.enter_context(connect(found, part))
            for _ in range(25)
            for part in BEGINNINGS.values()
        ]
        for _ in range(5):
            assert found.get("/health")["status"] == "ok"
            assert found.ask(runs["second"].name, [{"text": "a"}])[0] == 200
        assert len(found.server.server_state.connections) <= limits.connections + 1
        assert [is_closed(one) for one in silent[:40]] == [True] * 40  # the oldest make room
        assert not is_closed(silent[-1])


def test_those_who_wait_for_an_answer_are_not_cut_to_make_room(
    asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    limits = Limits(connections=8, requests=4)
    with limited(asking, limits) as found, ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        with holding(found.service.names[name]) as started:
            answers = [pool.submit(found.ask, name, [{"text": "a"}])]
            assert started.wait(10)
            answers += [pool.submit(found.ask, name, [{"text": "a"}]) for _ in range(3)]
            wait_for(lambda: found.service.queue.waiting_items == 3)
            for _ in range(20):
                stack.enter_context(connect(found))
            assert found.get("/health")["status"] == "ok"
        assert [answer.result()[0] for answer in answers] == [200] * 4


def test_more_connections_than_open_files_are_never_taken() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = Limits()
    code = "import resource; from dataclasses import replace; "
    code += "from crosstune.inference.service.limits import *; "
    code += (
        "resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {})); fitted = fit_open_files(Limits());"
    )
    code += "print(fitted.connections, fitted.requests, resource.getrlimit(resource.RLIMIT_NOFILE))"

    def fit(soft: int, hard: int) -> str:
        command = [sys.executable, "-c", code.format(soft, hard)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    needed = limits.connections + RESERVED_FILES
    assert fit(400, 1000) == f"{1000 - RESERVED_FILES} {(1000 - RESERVED_FILES) // 2} (1000, 1000)"
    if hard >= needed or hard == resource.RLIM_INFINITY:
        assert fit(400, hard) == f"{limits.connections} {limits.requests} ({needed}, {hard})"


def test_limits_that_fit_stay_as_they_are() -> None:
    limits = replace(Limits(), connections=10)
    assert fit_open_files(limits) == limits


def test_a_server_that_is_told_to_end_answers_what_it_computes_and_nothing_else(
    asking: Asking, runs: dict[str, Path]
) -> None:
    name = runs["second"].name
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        with limited(asking, Limits()) as found:
            for beginning in BEGINNINGS.values():
                stack.enter_context(connect(found, beginning))
            with holding(found.service.names[name]) as started:
                computed = pool.submit(found.ask, name, [{"text": "a"}])
                assert started.wait(10)
                waiting = pool.submit(found.ask, name, [{"text": "b"}])
                wait_for(lambda: found.service.queue.waiting_items == 1)
                found.server.should_exit = True
                assert waiting.result() == (503, "The service is ending.")
            start = time.monotonic()
        assert computed.result()[0] == 200
        assert time.monotonic() - start < 5  # not the 20 seconds of the slow clients


@pytest.mark.slow
def test_500_silent_connections_for_a_minute_change_nothing_for_others(
    asking: Asking, runs: dict[str, Path]
) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(asking)) for _ in range(500)]
        seconds = []
        end = time.monotonic() + 60
        while time.monotonic() < end:
            start = time.perf_counter()
            assert asking.get("/health")["status"] == "ok"
            assert asking.ask(runs["second"].name, [{"text": "a"}])[0] == 200
            seconds.append(time.perf_counter() - start)
            time.sleep(0.1)
            silent = [
                stack.enter_context(connect(asking)) if is_closed(one) else one for one in silent
            ]
    assert sorted(seconds)[len(seconds) * 99 // 100] < 1
