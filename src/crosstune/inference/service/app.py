"""A small web service: finished runs on one base, chosen by request, over HTTP and JSON.

`together.py` loads the runs, `asked.py` says what a request may be, `items.py` makes rows of it,
`predict.py` answers. Here are the pages and the server. Called by `cli.py`, with the extra
`serve`.
"""

import ipaddress
import json
import logging
import platform
import socket
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crosstune.config.schema import TaskType
from crosstune.errors import ConfigError, CrosstuneError, DataError, suggest
from crosstune.inference.complete_rows import check_kind, complete_rows
from crosstune.inference.load_run import FinishedRun
from crosstune.inference.predict import Record, predict_rows
from crosstune.inference.read_input import Source
from crosstune.inference.service.request import PredictRequest
from crosstune.inference.service.shared_base import count_bytes, load_shared
from crosstune.logs import silence_libraries
from crosstune.methods import find_tuning_method
from crosstune.runs.record import PACKAGES

MAX_BYTES = 1_000_000  # of a request's body
MAX_CONNECTIONS = 64  # open at a time
SILENT = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)

log = logging.getLogger(__name__)


class Service:
    """The runs that are served, and one model at work at a time."""

    def __init__(self, runs: Sequence[FinishedRun]):
        for saved in runs:
            check_kind(saved.run.data.kind)
        self.runs, self.names = runs, name_runs(runs)
        self.lock = threading.Lock()  # models share weights, and are hooked while they work

    def answer(self, asked: PredictRequest) -> dict[str, Any]:
        """Return the records that `crosstune predict` writes of the same items.

        Raises:
            HTTPException: there is no such run.
            CrosstuneError: the items do not fit it.
        """
        if (saved := self.names.get(asked.run)) is None:
            known = suggest(asked.run, list(self.names))
            raise HTTPException(404, f"run {asked.run!r} is not served. {known}")
        language = asked.language or saved.run.data.language
        rows = complete_rows(_rows(asked, saved), saved.run.data.kind, saved.task, language)
        with self.lock, silence_libraries():
            find_tuning_method(saved.model).activate_language(language)
            records = predict_rows(saved, rows)
        return {"run": saved.record["run_id"], "language": language, "answers": records}

    def describe(self) -> list[Record]:
        """Return what each run is, the names that it answers to, and what it is asked with."""
        return [
            {
                "names": [name for name, named in self.names.items() if named is saved],
                **{key: saved.record[key] for key in ("experiment", "data", "method", "seed")},
                "kind": saved.run.data.kind.name,
                "fields": fields_of(saved),
                "language": saved.run.data.language,
                "labels": list(getattr(saved.task, "classes", saved.task.labels)),
                "max_tokens": saved.run.data.max_tokens,
            }
            for saved in self.runs
        ]


class BodyLimit:
    """Ends the reading of a body that is too long, however its length was announced."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        read = 0

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BYTES:
                raise HTTPException(413, f"The body is longer than {MAX_BYTES} bytes.")
            return message

        await self.app(scope, receive_some, send)


def serve(paths: Sequence[Path], host: str, port: int) -> None:
    """Load runs, print the address, and answer until interrupted.

    Raises:
        CrosstuneError: the runs cannot be served together, or the address cannot be had.
    """
    listener = _listen(host, port)
    service = Service(load_shared(paths))
    for described in service.describe():
        log.info("%s: %s", " = ".join(described["names"]), described["kind"])
    if not _is_local(listener):
        log.warning("host=%s: whoever reaches this machine may ask; there is no password", host)
    print(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}", flush=True)
    build_server(service).run(sockets=[listener])


def build_server(service: Service) -> uvicorn.Server:
    """Return the server of a service; it says nothing of requests that went well."""
    config = uvicorn.Config(
        build_app(service),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
    )
    return uvicorn.Server(config)


def build_app(service: Service) -> FastAPI:
    """Return the pages of a service: /predict, /runs, /health, /docs and /openapi.json.

    The page of /docs comes whole from this machine, and nothing that is asked is sent elsewhere.
    """
    app = FastAPIOffline(
        title="crosstune",
        version=version("crosstune"),
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": "none"},
        telemetry=SILENT,
    )
    app.add_middleware(BodyLimit)
    app.add_exception_handler(RequestValidationError, _tell_malformed)
    app.add_exception_handler(CrosstuneError, _tell_unfit)
    app.add_exception_handler(Exception, _tell_broken)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the service works, what it holds, and in which versions."""
        versions = {name: version(name) for name in PACKAGES}
        return {
            "status": "ok",
            "runs": len(service.runs),
            "weights_bytes": count_bytes(saved.model for saved in service.runs),
            "versions": {**versions, "python": platform.python_version()},
        }

    @app.get("/runs")
    async def runs() -> list[Record]:
        """List the runs."""
        return service.describe()

    @app.post("/predict")
    def predict(asked: PredictRequest) -> Response:
        """Answer about each item, in order."""
        return _as_json(service.answer(asked))

    return app


def name_runs(runs: Sequence[FinishedRun]) -> dict[str, FinishedRun]:
    """Return runs by id, and by experiment/data/method/seed where that is one run's alone."""
    keys = ("experiment", "data", "method", "seed")
    spoken = ["/".join(str(saved.record[key]) for key in keys) for saved in runs]
    names = {str(saved.record["run_id"]): saved for saved in runs}
    own = {name: saved for name, saved in zip(spoken, runs, strict=True) if spoken.count(name) == 1}
    return {**own, **names}


def fields_of(saved: FinishedRun) -> list[list[str]]:
    """Return the sets of fields that an item of a run may have."""
    data = saved.run.data
    if data.kind is TaskType.extraction:
        return [["context", "question"]]
    if data.kind is TaskType.tagging:
        return [["words"], ["text"]]
    paired = Source("", data, saved.task, data.language).column("text_pair") is not None
    return [["text", "text_pair"] if paired else ["text"]]


def _rows(asked: PredictRequest, saved: FinishedRun) -> list[dict[str, Any]]:
    allowed = fields_of(saved)
    faults = [
        f"items[{number}] has {' and '.join(item.asked) or 'nothing'}; this run is asked with "
        f"{' or '.join(' and '.join(fields) for fields in allowed)}"
        for number, item in enumerate(asked.items)
        if list(item.asked) not in allowed
    ]
    if faults:
        raise DataError(faults)
    return [
        {"id": str(number) if item.id is None else item.id, "where": f"items[{number}]"}
        | item.asked
        for number, item in enumerate(asked.items)
    ]


def _as_json(content: Any, status: int = 200) -> Response:
    text = json.dumps(content, allow_nan=False)  # ASCII: no terminal obeys it
    return Response(text, status, media_type="application/json")


async def _tell_malformed(request: Request, error: Exception) -> Response:
    """Say in one sentence where a request is malformed, and repeat nothing of it but names."""
    found: Any = error
    faults: list[str] = []
    for each in found.errors():
        path = [] if each["type"] == "json_invalid" else each["loc"][1:]
        parts = [f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in path]
        faults.append(f"{''.join(parts).removeprefix('.') or 'body'}: {each['msg']}")
    return _as_json({"detail": str(DataError(faults))}, 422)


async def _tell_unfit(request: Request, error: Exception) -> Response:
    return _as_json({"detail": str(error)}, 422)


async def _tell_broken(request: Request, error: Exception) -> Response:
    return _as_json({"detail": "The service failed at this request; its log says why."}, 500)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"host={host} port={port}: {error}") from error


def _is_local(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback
