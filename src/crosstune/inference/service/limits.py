"""The limits of the service, which bound its memory, its open files and how long a client may take.

The body and the items of one request have further limits in `request.py`.
"""

import contextlib
import resource
from dataclasses import dataclass, replace

from crosstune.inference.service.request import MAX_ITEMS

RESERVED_FILES = 128  # open files that are no connections: libraries, the log, weights


@dataclass(frozen=True)
class Limits:
    """What the service holds at most.

    A body counts from its first byte to the end of its answer, so `body_bytes` bounds the bodies
    that are being read, wait in the queue or are being answered, all together. The objects made of
    a body take more memory than its bytes: up to about 30 times as much for words of one letter.
    """

    body_bytes: int = 32_000_000  # of all requests together
    requests: int = 2_048  # that have a body and are not yet answered
    waiting_items: int = 2_048  # that wait for their prediction
    batch_items: int = MAX_ITEMS  # of several requests that are predicted together
    connections: int = 4_096  # open at the same time
    client_seconds: float = 20  # to send a whole request, or to read 64 KiB of an answer
    idle_seconds: int = 5  # of a connection between an answer and the next request


def fit_open_files(limits: Limits) -> Limits:
    """Raise the process's limit on open files to what the connections need, or lower theirs.

    Half of the connections may have a request that is being answered, as with the default limits;
    the others can be closed to make room for new ones.
    """
    needed = limits.connections + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    connections = max(soft - RESERVED_FILES, soft // 2)
    return replace(limits, connections=connections, requests=min(limits.requests, connections // 2))
