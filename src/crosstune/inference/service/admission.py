"""Middleware that bounds the bodies that the service holds: of one request, and of all together."""

from collections.abc import Callable

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crosstune.inference.service.limits import Limits

MAX_BYTES = 1_000_000  # of a request body
PART_BYTES = 65_536  # of an answer: after each, the client must have read the one before


class Admission:
    """Middleware that reads a body within the limits, whatever length was announced.

    Requests that read no body, such as `GET /health`, are never refused.

    Args:
        app: what answers.
        limits: the bounds.
        refuse: returns the error of a request that is too much.
    """

    def __init__(self, app: ASGIApp, limits: Limits, refuse: Callable[[str], HTTPException]):
        self.app, self.limits, self.refuse = app, limits, refuse
        self.requests, self.bytes = 0, 0  # that are held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        length: int | None = None  # None: nothing was read yet

        async def receive_limited() -> Message:
            nonlocal length
            if length is None:
                if self.requests >= self.limits.requests:
                    raise self.refuse(f"{self.requests} requests are being answered already.")
                length = 0
                self.requests += 1
            message = await receive()
            size = len(message.get("body", b""))
            length, self.bytes = length + size, self.bytes + size
            if length > MAX_BYTES:
                raise HTTPException(413, f"The body is longer than {MAX_BYTES} bytes.")
            if self.bytes > self.limits.body_bytes:
                raise self.refuse(f"Bodies of {self.bytes} bytes are being answered already.")
            return message

        async def send_in_parts(message: Message) -> None:
            body = message.get("body", b"")
            last = max(len(body) - 1, 0) // PART_BYTES * PART_BYTES
            for start in range(0, last, PART_BYTES):
                part = body[start : start + PART_BYTES]
                await send({**message, "body": part, "more_body": True})
            await send({**message, "body": body[last:]} if last else message)

        try:
            await self.app(scope, receive_limited, send_in_parts)
        finally:
            if length is not None:
                self.requests -= 1
                self.bytes -= length
