"""What ended a run, in words that say what to do: memory that was short, a disk that is full.

Called by `run.py` and, on several devices, by the worker of each rank.
"""

import errno

from crosstune.config.schema import Run
from crosstune.errors import CrosstuneError, RunError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# what libraries that do not raise an OSError say of them
FULL_IN_WORDS = tuple(f"(os error {number})" for number in FULL)
NO_MEMORY_IN_WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def explain_failure(error: Exception, run: Run) -> Exception:
    """Return the error, or one that names its cause and what helps."""
    text = " ".join(str(error).split())
    if isinstance(error, CrosstuneError):
        return error
    if (isinstance(error, OSError) and error.errno in FULL) or text.endswith(FULL_IN_WORDS):
        return RunError(
            f"the disk is full ({text}). Make room below {run.outputs}, then give the same command "
            "with retry=true: the run goes on from its last checkpoint."
        )
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY_IN_WORDS):
        return RunError(f"out of memory ({text[:200]}). {_smaller(run)}")
    if type(error).__name__ == "BackendCompilerFailed":  # its module takes seconds to import
        return RunError(
            f"torch could not compile the layers ({text[:300]}). It needs a C++ compiler (apt-get "
            "install g++); trainer.compile=false does without."
        )
    return error


def _smaller(run: Run) -> str:
    data, parts = run.data, run.trainer.accumulate_grad_batches
    key, size, least, unit = "batch_size", data.batch_size, 1, "rows"
    if data.batch_tokens is not None:
        key, size, least, unit = "batch_tokens", data.batch_tokens, data.max_tokens, "sub-words"
    divisor = 2 if size % 2 == 0 else size
    if size == 1 or size // divisor < least:
        return "Give fewer data.max_tokens, or a smaller model."
    return (
        f"data.{key}={size // divisor} trainer.accumulate_grad_batches={parts * divisor} "
        f"makes steps of as many {unit} ({size * parts}) in less memory."
    )
