"""What the figures were measured on: processor, cores, memory, versions; no name and no path."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("crosstune", "torch", "pytorch-lightning", "transformers", "tokenizers", "peft")


def describe_machine(card: str = "") -> dict[str, Any]:
    """Return the facts that stand beside every result; `card` is the GPU's name, if it did it."""
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[2], 1),  # of the last 15 minutes: above cores, it was busy
        **{name: version(name) for name in PACKAGES},
    }
    return {**facts, "card": card} if card else facts


def name_machine(facts: dict[str, Any]) -> str:
    """Return the kind of machine as part of a file's name.

    >>> name_machine({"cores": 2}), name_machine({"cores": 16, "card": "NVIDIA H100 80GB HBM3"})
    ('2-cores', 'nvidia-h100-80gb-hbm3')
    """
    name = facts.get("card") or f"{facts['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    units = {"amx_bf16", "avx512_bf16", "avx512f", "avx2"} & set(facts.get("flags", "").split())
    name = facts.get("model name") or platform.machine()
    return f"{name} ({', '.join(sorted(units))})" if units else name
