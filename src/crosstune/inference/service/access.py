"""Who may ask: the names by which the service may be called, and the token that requests bring."""

import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crosstune.errors import ConfigError

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
TOKEN_VARIABLE = "CROSSTUNE_TOKEN"  # noqa: S105, the name of a variable
OPEN_PATHS = ("/health",)  # that need no token
HOST_PATTERN = re.compile(r"\*|(\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Access:
    """The hosts that a request may name, in the form of its Host header; the token it must bring.

    A page of another site can let a browser call a service on the same machine under a name of its
    own (DNS rebinding); such a request names that host, and is refused.
    """

    hosts: tuple[str, ...] = LOCAL_HOSTS
    token: str | None = field(default=None, repr=False)


def read_access(host: str, names: Iterable[str] = (), token_file: Path | None = None) -> Access:
    """Return who may ask a service that listens on a host and has further names.

    The token is the content of a file or the value of CROSSTUNE_TOKEN, without blanks around it;
    neither: no token is needed.

    Raises:
        ConfigError: a name is none, or the token is empty or has characters that no header has.
        OSError: the file cannot be read.
    """
    hosts = [*LOCAL_HOSTS]
    for name in (host, *names):
        bracketed = f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
        if not HOST_PATTERN.fullmatch(bracketed):
            raise ConfigError(
                f"allowed_hosts={name}: no name of a host. Allowed: names and addresses without "
                "scheme and port, such as lab.example.org, *.example.org or 10.0.0.7; * for any."
            )
        hosts.append(bracketed)
    source = f"token_file={token_file}" if token_file else TOKEN_VARIABLE
    token = token_file.read_text("utf-8", "replace") if token_file else os.getenv(TOKEN_VARIABLE)
    if token is None:
        return Access(tuple(dict.fromkeys(hosts)))
    if not re.fullmatch("[!-~]+", token := token.strip()):
        raise ConfigError(f"{source}: a token is one word of ASCII characters, without spaces.")
    return Access(tuple(dict.fromkeys(hosts)), token)


class TokenCheck:
    """Middleware that refuses requests without the token, before their body is read."""

    def __init__(self, app: ASGIApp, token: str):
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["path"] in OPEN_PATHS or self._is_given(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        detail = "This service needs a token: send it as Authorization: Bearer TOKEN."
        refusal = JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": "Bearer"})
        await refusal(scope, receive, send)

    def _is_given(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given_bytes = given.strip().encode("latin-1", "replace")
        return scheme.lower() == "bearer" and hmac.compare_digest(given_bytes, self.token)
