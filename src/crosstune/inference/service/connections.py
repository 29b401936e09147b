"""The connections of the server, limited in number and in the time that their clients take.

uvicorn limits the time between an answer and the next request, and nothing else: neither how long
a client may take to send a request or to read an answer, nor, without refusing all, the number of
connections.
"""

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from crosstune.inference.service.limits import Limits
from crosstune.inference.service.prediction_queue import PredictionQueue


class ConnectionState(ServerState):
    """The state of the server; `waiting` are connections where it is the client's turn, in order.

    Its turn is to send a request, to send the rest of it, or to read an answer.
    """

    def __init__(self, limits: Limits):
        super().__init__()
        self.limits = limits
        self.waiting: dict[LimitedProtocol, asyncio.TimerHandle] = {}


class LimitedProtocol(H11Protocol):
    """A connection that is cut where its client takes too long.

    Where there are too many connections, that whose client has had its turn for longest is cut:
    connections without a request keep nobody out.
    """

    server_state: ConnectionState

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._update()
        if len(self.connections) > self.server_state.limits.connections:
            next(iter(self.server_state.waiting))._cut()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._update()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()  # what it reads next has its own time
        self._update()

    @override
    def shutdown(self) -> None:
        super().shutdown()
        if self.conn.their_state is h11.SEND_BODY:
            self._cut()

    def _update(self) -> None:
        """Start the client's time unless it has started; end it while the service has to answer."""
        received = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        unanswered = self.cycle is not None and not self.cycle.response_complete
        if received and unanswered and not self.flow.write_paused:
            self._stop_waiting()
        elif self in self.connections and self not in self.server_state.waiting:
            seconds = self.server_state.limits.client_seconds
            self.server_state.waiting[self] = self.loop.call_later(seconds, self._cut)

    def _stop_waiting(self) -> None:
        if timer := self.server_state.waiting.pop(self, None):
            timer.cancel()

    def _cut(self) -> None:
        self._stop_waiting()
        self.transport.abort()  # without waiting until the client has read what was written


class Server(uvicorn.Server):
    """The server of a queue, which is closed when the server is told to end."""

    def __init__(self, config: uvicorn.Config, queue: PredictionQueue):
        super().__init__(config)
        self.server_state: Any = ConnectionState(queue.limits)
        self.queue = queue

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.queue.close()
        await super().shutdown(sockets)
