"""Heavy libraries imported without the collector of garbage walking through them again and again.

While torch and transformers are imported nearly every object stays, and looking for garbage among
them took an eighth of a command's start; so it is while a report reads records. Called by `cli.py`.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def defer_garbage_collection() -> Iterator[None]:
    """Put garbage collection off, and leave out for good what is made meanwhile."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
