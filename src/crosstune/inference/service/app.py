"""The web service: finished runs on one base model answer requests in JSON over HTTP.

The server and its routes. Needs the extra `serve`.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import SkipValidation
from starlette.middleware.trustedhost import TrustedHostMiddleware

from crosstune.errors import ConfigError, CrosstuneError, DataError
from crosstune.inference.predict import Record
from crosstune.inference.service.access import Access, TokenCheck
from crosstune.inference.service.admission import Admission
from crosstune.inference.service.connections import LimitedProtocol, Server
from crosstune.inference.service.limits import Limits, fit_open_files
from crosstune.inference.service.metrics import CLIENT_LEFT, RequestCounter
from crosstune.inference.service.request import PredictRequest
from crosstune.inference.service.service import Service, describe_fault, render_json
from crosstune.inference.service.shared_base import load_shared
from crosstune.logs import silence_libraries

# all telemetry of FastAPI off
NO_TELEMETRY = dict.fromkeys(
    ("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False
)

LOCAL_ACCESS = Access()

log = logging.getLogger(__name__)


def serve(paths: Sequence[Path], host: str, port: int, access: Access = LOCAL_ACCESS) -> None:
    """Load runs, print the address, and answer requests until interrupted.

    What is being computed then is still answered, and what waits is turned away.

    Raises:
        CrosstuneError: the runs cannot be served together, or the address is not available.
    """
    listener = _listen(host, port)
    service = Service(load_shared(paths), fit_open_files(Limits()))
    for run in service.describe():
        log.info("%s: %s", " = ".join(run["names"]), run["kind"])
    address, bound_port = listener.getsockname()[:2]
    if not ipaddress.ip_address(address).is_loopback:
        needs = "whoever has the token" if access.token else "anyone, as there is no token,"
        log.warning(
            "host=%s: %s can send requests from where this machine is reached, unencrypted; they "
            "must call it %s (more: allowed_hosts=NAME,NAME)",
            *(host, needs, " or ".join(access.hosts)),
        )
    print(f"http://{f'[{host}]' if ':' in host else host}:{bound_port}", flush=True)
    with silence_libraries():  # once: for every prediction it would take milliseconds
        build_server(service, access).run(sockets=[listener])


def build_server(service: Service, access: Access = LOCAL_ACCESS) -> Server:
    """Return the server of a service; it logs failed requests only."""
    config = uvicorn.Config(
        RequestCounter(build_app(service, access), service.queue.metrics),
        http=LimitedProtocol,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=service.limits.idle_seconds,
    )
    return Server(config, service.queue)


def build_app(service: Service, access: Access = LOCAL_ACCESS) -> FastAPI:
    """Return the application: /predict, /runs, /health, /metrics, /docs and /openapi.json.

    /docs needs no other server, and no request is sent elsewhere.
    """
    app = FastAPIOffline(
        title="crosstune",
        version=version("crosstune"),
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": "none"},
        telemetry=NO_TELEMETRY,
    )
    _add_checks(app, service, access)

    @app.get("/health")
    async def health() -> Record:
        """Return the state of the service, the size of its weights, and package versions."""
        return service.health

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return counters of requests, items and predictions in the text format of Prometheus."""
        return Response(service.queue.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/runs")
    async def runs() -> list[Record]:
        """List the runs."""
        return service.describe()

    @app.post("/predict")
    async def predict(
        body: Annotated[PredictRequest, SkipValidation], request: Request
    ) -> Response:
        """Predict each item, in order."""
        size = len(await request.body())  # as it was read already
        return await _answer_while_connected(request, service.answer(body, size))

    return app


def _add_checks(app: FastAPI, service: Service, access: Access) -> None:
    """Add what is asked before a route, the last one added first, and the answers to errors."""
    app.add_middleware(Admission, limits=service.limits, refuse=service.queue.refuse)
    if access.token is not None:
        app.add_middleware(TokenCheck, token=access.token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(access.hosts), www_redirect=False)
    app.add_exception_handler(RequestValidationError, _answer_malformed)
    app.add_exception_handler(CrosstuneError, _answer_error)
    app.add_exception_handler(Exception, _answer_failure)


async def _answer_while_connected(request: Request, answer: Coroutine[Any, Any, str]) -> Response:
    """Await an answer; cancel it as soon as nobody is there to read it."""

    async def wait_for_end() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, left = asyncio.create_task(answer), asyncio.create_task(wait_for_end())
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        return _to_response(await task) if task.done() else Response(status_code=CLIENT_LEFT)
    finally:
        task.cancel()
        left.cancel()


def _to_response(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="application/json")


async def _answer_malformed(request: Request, error: Exception) -> Response:
    validation: Any = error
    faults = [
        describe_fault(fault, [] if fault["type"] == "json_invalid" else fault["loc"][1:])
        for fault in validation.errors()
    ]
    return await _answer_error(request, DataError(faults))


async def _answer_error(request: Request, error: Exception) -> Response:
    return _to_response(render_json({"detail": str(error)}), 422)


async def _answer_failure(request: Request, error: Exception) -> Response:
    detail = "The service failed at this request; its log says why."
    return _to_response(render_json({"detail": detail}), 500)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"host={host} port={port}: {error}") from error
