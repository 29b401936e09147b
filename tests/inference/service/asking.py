"""A service that listens on a free port, and a client of it."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from crosstune.inference.load_run import FinishedRun
from crosstune.inference.service.access import Access
from crosstune.inference.service.app import LOCAL_ACCESS, build_server
from crosstune.inference.service.connections import Server
from crosstune.inference.service.service import Service


class Asking:
    """A service on a free port, and a client of it."""

    def __init__(self, service: Service, server: Server, port: int):
        self.service, self.server, self.port = service, server, port

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """Return the status and raw body of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"content-type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Return what a page says."""
        status, body = self.send("GET", path)
        assert status == 200
        return json.loads(body)

    def ask(self, run: str, items: list[Any], **more: Any) -> Any:
        """Return the status of a request, and its answers or why there are none."""
        content = json.dumps({"run": run, "items": items, **more}).encode()
        status, body = self.send("POST", "/predict", content)
        found = json.loads(body)
        return status, found["answers"] if status == 200 else found["detail"]

    def read_metrics(self) -> dict[str, float]:
        """Return the samples of /metrics by name and labels."""
        status, text = self.send("GET", "/metrics")
        assert status == 200
        lines = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in lines}


@contextmanager
def serving(service: Service, access: Access = LOCAL_ACCESS) -> Iterator[Asking]:
    """Serve on a free port."""
    server = build_server(service, access)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Asking(service, server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def holding(saved: FinishedRun) -> Iterator[threading.Event]:
    """Let a model wait until the block ends; the event is set when it starts to."""
    started, released = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        started.set()
        assert released.wait(30)

    hook = saved.model.register_forward_pre_hook(wait)
    try:
        yield started
    finally:
        hook.remove()
        released.set()
