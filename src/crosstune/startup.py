"""Faster imports of heavy libraries, by deferring garbage collection.

Almost no object created by importing torch and transformers, or by reading records, becomes
garbage; searching them for it took an eighth of a command's start.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def defer_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, and exempt the objects created meanwhile from it for good."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
