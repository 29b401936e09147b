"""What every reader returns: the rows of one source and what they were read from.

Holds the type alone. The readers of files, of a hub and of the demo build it; the data module and
the checks take it.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Split:
    """Rows of one source in canonical columns, with what they were read from."""

    rows: list[dict[str, Any]]
    digests: dict[str, str]  # file or source name -> sha256 hex of its content
