"""The sentences below a study's table: what a cell means, and every run that is not in a mean.

Plain text from a frame and its records; `tables.py` calls it, and each form of the table escapes
it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crosstune.reporting.aggregate import ARM, UNSCORED
from crosstune.reporting.arms import name_plan
from crosstune.reporting.records import Records, Rows, list_runs

Arm = tuple[str, ...]


def list_notes(frame: Rows, records: Records, labels: Mapping[Arm, str]) -> Iterable[str]:
    """Yield the sentences below the table; `labels` names each (model, method, arm)."""
    runs = list_runs(frame)
    yield (
        "Scores are of the test split unless the column says otherwise; ± is the sample standard "
        "deviation (n − 1). (2 of 3) counts finished seeds against all seeds that this study holds "
        "for the data set and model, whatever the method."
    )
    yield (
        "Costs are means over the finished runs of a data set, then over data sets. "
        "– was not measured."
    )
    yield from _incomplete(runs, labels)
    if any(run["arm"].endswith(" [?]") or run["dataset"].endswith("#?") for run in runs):
        yield "[?] and #? mark runs that left no record of their settings or files."
    for run in runs:
        if run["superseded_by"]:
            yield (
                f"Run {run['run_id']} ({run['arm']} on {run['dataset']}, seed {run['seed']}, "
                f"{run['status']}) is superseded by {run['superseded_by']}, which has the same "
                "settings, files and seed."
            )
    placed = {run["run_id"] for run in runs}
    unplaced = [run_id for run_id in records.unfinished if run_id not in placed]
    if unplaced:
        yield f"Unfinished, killed or still running: {', '.join(unplaced)}."
    for plan in records.missing:
        if name_plan(plan) not in placed and "error" in plan:
            yield f"Planned, but refused: {name_plan(plan)}: {plan['error']}"
    for folder, reason in records.unreadable:
        yield f"Unreadable record in {folder}, counted nowhere: {reason}."


def _incomplete(runs: Sequence[Mapping[str, Any]], labels: Mapping[Arm, str]) -> Iterable[str]:
    planned, arms = defaultdict(set), defaultdict(list)
    for run in runs:
        planned[run["dataset"], run["model"]].add(run["seed"])
        if not run["superseded_by"]:
            arms[tuple(run[name] for name in ARM)].append(run)
    for key, members in sorted(arms.items()):
        outcome = defaultdict(list)
        for run in sorted(members, key=lambda run: run["seed"]):
            outcome[run["status"]].append(run["seed"])
        outcome["not run"] = sorted(planned[key[3], key[0]] - {run["seed"] for run in members})
        lacking = "; ".join(
            f"{status}: seed {', '.join(map(str, outcome[status]))}"
            for status in (*UNSCORED, "not run")
            if outcome[status]
        )
        if lacking:
            yield f"{labels[key[:3]]} on {key[3]} {key[4]}: {lacking}."
