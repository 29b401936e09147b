"""Turns exceptions raised in training into errors that say what to change.

Covers memory, full disks, `torch.compile` and `Diverged`, which is raised for a non-finite loss.
"""

import errno
from typing import Any

from crosstune.config.schema import Run
from crosstune.errors import CrosstuneError, RunError, one_line

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# ends of the messages of libraries that do not raise an OSError
DISK_FULL_MESSAGES = tuple(f"(os error {number})" for number in DISK_FULL)
OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "Cannot allocate memory")


class Diverged(RunError):
    """The loss became infinite or not a number."""

    diverged = True


def failure_fields(error: Exception) -> dict[str, Any]:
    """Return the fields of a record that say how a run failed."""
    status = "diverged" if getattr(error, "diverged", False) else "failed"
    return {"status": status, "error": f"{type(error).__name__}: {error}"}


def explain_failure(error: Exception, run: Run) -> Exception:
    """Return the error, or one that names its cause and a remedy."""
    text = one_line(error)
    if isinstance(error, CrosstuneError):
        return error
    if (isinstance(error, OSError) and error.errno in DISK_FULL) or text.endswith(
        DISK_FULL_MESSAGES
    ):
        return RunError(
            f"the disk is full ({text}). Make room below {run.outputs}, then give the same command "
            "with retry=true: the run goes on from its last checkpoint."
        )
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY_MESSAGES):
        return RunError(f"out of memory ({text[:200]}). {_suggest_smaller(run)}")
    if type(error).__name__ == "BackendCompilerFailed":  # its module takes seconds to import
        return RunError(
            f"torch could not compile the layers ({text[:300]}). It needs a C++ compiler (apt-get "
            "install g++); trainer.compile=false does without."
        )
    return error


def _suggest_smaller(run: Run) -> str:
    data, batches = run.data, run.trainer.accumulate_grad_batches
    key, size, least, unit = "batch_size", data.resolved_batch_size, 1, "rows"
    if data.batch_tokens is not None:
        key, size, least, unit = "batch_tokens", data.batch_tokens, data.max_tokens, "sub-words"
    divisor = 2 if size % 2 == 0 else size
    if size == 1 or size // divisor < least:
        return "Give fewer data.max_tokens, or a smaller model."
    return (
        f"data.{key}={size // divisor} trainer.accumulate_grad_batches={batches * divisor} "
        f"makes steps of as many {unit} ({size * batches}) in less memory."
    )
