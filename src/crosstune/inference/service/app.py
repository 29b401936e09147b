"""The web service: finished runs on one base model answer requests in JSON over HTTP.

The server and its routes; `shared_base.py` loads the runs, `request.py` defines the request body.
Needs the extra `serve`.
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

MAX_BYTES = 1_000_000  # of a request body
MAX_CONNECTIONS = 64  # open at the same time
# all telemetry of FastAPI off
NO_TELEMETRY = dict.fromkeys(
    ("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False
)

log = logging.getLogger(__name__)


class Service:
    """The served runs; one model runs at a time."""

    def __init__(self, runs: Sequence[FinishedRun]):
        for saved in runs:
            check_kind(saved.run.data.kind)
        self.runs, self.names = runs, name_runs(runs)
        self.lock = threading.Lock()  # models share weights, and have hooks while they run

    def answer(self, request: PredictRequest) -> dict[str, Any]:
        """Return the records that `crosstune predict` writes about the same items.

        Raises:
            HTTPException: no run has this name.
            CrosstuneError: the items do not fit the run.
        """
        if (saved := self.names.get(request.run)) is None:
            names = suggest(request.run, list(self.names))
            raise HTTPException(404, f"run {request.run!r} is not served. {names}")
        language = request.language or saved.run.data.language
        rows = complete_rows(_to_rows(request, saved), saved.run.data.kind, saved.task, language)
        with self.lock, silence_libraries():
            find_tuning_method(saved.model).activate_language(language)
            records = predict_rows(saved, rows)
        return {"run": saved.record["run_id"], "language": language, "answers": records}

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


class BodyLimit:
    """Middleware that stops reading a body that is too long, whatever length was announced."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        length = 0

        async def receive_limited() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > MAX_BYTES:
                raise HTTPException(413, f"The body is longer than {MAX_BYTES} bytes.")
            return message

        await self.app(scope, receive_limited, send)


def serve(paths: Sequence[Path], host: str, port: int) -> None:
    """Load runs, print the address, and answer requests until interrupted.

    Raises:
        CrosstuneError: the runs cannot be served together, or the address is not available.
    """
    listener = _listen(host, port)
    service = Service(load_shared(paths))
    for run in service.describe():
        log.info("%s: %s", " = ".join(run["names"]), run["kind"])
    address, bound_port = listener.getsockname()[:2]
    if not ipaddress.ip_address(address).is_loopback:
        log.warning(
            "host=%s: anyone who reaches this machine can send requests; there is no password", host
        )
    print(f"http://{f'[{host}]' if ':' in host else host}:{bound_port}", flush=True)
    build_server(service).run(sockets=[listener])


def build_server(service: Service) -> uvicorn.Server:
    """Return the server of a service; it logs failed requests only."""
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
    """Return the application with the routes /predict, /runs, /health, /docs and /openapi.json.

    /docs needs no other server, and no request is sent elsewhere.
    """
    app = FastAPIOffline(
        title="crosstune",
        version=version("crosstune"),
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": "none"},
        telemetry=NO_TELEMETRY,
    )
    app.add_middleware(BodyLimit)
    app.add_exception_handler(RequestValidationError, _answer_malformed)
    app.add_exception_handler(CrosstuneError, _answer_error)
    app.add_exception_handler(Exception, _answer_failure)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Return the state of the service, the size of its weights, and package versions."""
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
    def predict(request: PredictRequest) -> Response:
        """Predict each item, in order."""
        return _to_response(service.answer(request))

    return app


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


def _to_response(content: Any, status: int = 200) -> Response:
    text = json.dumps(content, allow_nan=False)  # in ASCII, so without control characters
    return Response(text, status, media_type="application/json")


async def _answer_malformed(request: Request, error: Exception) -> Response:
    """Say in one sentence what is malformed; of the request repeat only names of fields."""
    validation: Any = error
    faults: list[str] = []
    for fault in validation.errors():
        path = [] if fault["type"] == "json_invalid" else fault["loc"][1:]
        parts = [f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in path]
        faults.append(f"{''.join(parts).removeprefix('.') or 'body'}: {fault['msg']}")
    return _to_response({"detail": str(DataError(faults))}, 422)


async def _answer_error(request: Request, error: Exception) -> Response:
    return _to_response({"detail": str(error)}, 422)


async def _answer_failure(request: Request, error: Exception) -> Response:
    return _to_response({"detail": "The service failed at this request; its log says why."}, 500)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"host={host} port={port}: {error}") from error
