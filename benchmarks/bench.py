"""`make bench`: everything that README.md states about speed, measured anew and written down.

Each part returns a table; they are printed as they come, and written together into a folder as
JSON and Markdown. `--whole` measures at the size that the project's marks are stated for, which
takes hours; the default is cut to fit ten minutes on two cores; `--quick` only shows that it works.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fused
import parts
from machine import describe_machine, name_machine
from pairs import show_table
from results import publish, write_results

PARTS: dict[str, Callable[[parts.Plan, Path], dict[str, Any]]] = {
    "start": parts.measure_start,
    "step": parts.measure_step,
    "run": parts.measure_runs,
    "study": parts.measure_study,
    "fused": fused.measure_fused,
    "encode": parts.measure_encoding,
    "report": parts.measure_reports,
}
PLANS = {"whole": parts.WHOLE, "cut": parts.CUT, "quick": parts.QUICK}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure the parts that the command line asks for."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--whole", action="store_true", help="at full size: hours")
    asked.add_argument("--quick", action="store_true", help="as small as it gets: a minute")
    asked.add_argument("--pairs", type=int, help="rounds of every comparison")
    asked.add_argument("--rivals", nargs="+", choices=parts.TITLES, help="of a whole run")
    asked.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    asked.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    given = asked.parse_args()
    size = "whole" if given.whole else "quick" if given.quick else "cut"
    plan = PLANS[size]
    if given.pairs:
        plan = plan._replace(pairs=given.pairs)
    if given.rivals:
        plan = plan._replace(rivals=tuple(given.rivals))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        for name in given.only:
            machine, before = describe_machine(), time.perf_counter()
            table = PARTS[name](plan, Path(work) / name)
            print(f"\n{table['title']}\n\n{show_table(table['columns'], table['rows'])}")
            print(f"\n{table['note']}", flush=True)
            result = {"machine": machine, "plan": plan._asdict(), "tables": {name: table}}
            path = write_results(given.output, f"{name_machine(machine)}-{size}", result)
            if given.whole and given.output == RESULTS:
                publish(Path(__file__).parent / "README.md", path)
            print(f"{path}: {name}, {time.perf_counter() - before:.0f} s", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
