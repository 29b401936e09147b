"""Runs trained together (`hydra/launcher=fused`) against one by one, and against Trainer.

`measure_fused` is a part of `bench.py`: on a CPU, in processor seconds. As a script it is the same
on a GPU, in seconds by the clock, where 16 runs of LoRA on an encoder of BERT-base's size meet one
`Trainer` + peft process a run; without a GPU it says so, and `--quick` shows that it works.
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import parts
import records
from cases import TINY, lay_out, overrides, write_spec
from gpu import BASE
from machine import describe_machine, name_machine
from pairs import (
    Failed,
    Sample,
    middle,
    order,
    ratio_of,
    ratios,
    run_command,
    run_script,
    show_ratio,
    show_table,
    singles,
    spread,
)
from results import write_results

RESULTS = Path(__file__).parent / "results"
LAUNCHERS = {"together": "fused", "one by one": "basic"}


def measure_fused(plan: parts.Plan, folder: Path) -> dict[str, Any]:
    """Measure a sweep of LoRA over seeds, its runs trained together and one by one."""
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for name in plan.fused:
        place = folder / name.replace(" ", "-")
        case = parts.prepare_case(name, plan, plan.rows, place)
        found: dict[str, list[Sample]] = {who: [] for who in LAUNCHERS}
        for turn in range(plan.pairs):
            for who in order(list(LAUNCHERS), turn):
                found[who].append(sweep(case, who, plan.together, place / f"{turn}-{who}", "cpu"))
        raw[name] = singles(found)
        rows += [
            {
                "data": f"{name} ({case['text']})",
                "trained": who,
                "cpu s": middle(samples, "cpu_seconds"),
                "peak MiB": round(middle(samples, "peak_bytes") / 2**20),
                "together / this, cpu": show_ratio(
                    ratio_of(found["together"], samples, "cpu_seconds")
                ),
            }
            for who, samples in found.items()
        ]
    return {
        "title": f"{plan.together} runs of LoRA that differ in their seed, one epoch each",
        "columns": list(rows[0]),
        "rows": rows,
        "note": f"{plan.rows} training rows; whole commands, medians of {plan.pairs}.",
        "raw": raw,
    }


def sweep(case: dict[str, Any], who: str, runs: int, outputs: Path, trainer: str) -> Sample:
    """Train a sweep over seeds with a launcher.

    Raises:
        Failed: it left fewer records than runs, or trained them otherwise than it was asked to.
    """
    seeds = ",".join(str(seed) for seed in range(1, runs + 1))
    words = [*overrides(case, outputs, seeds), "method=lora", f"trainer={trainer}"]
    words.append(f"hydra/launcher={LAUNCHERS[who]}")
    if who == "together":
        words.append(f"hydra.launcher.size={runs}")
    sample = run_command([*parts.CROSSTUNE, "train", "-m", *words])
    others = [record.get("fused_with", 0) for record in records.read_all(outputs)]
    if others != [runs - 1 if who == "together" else 0] * runs:
        raise Failed(f"not {runs} runs trained {who}")
    return sample


def train_one(case: dict[str, Any], outputs: Path, device: str) -> Sample:
    """Train one of the runs with Trainer and peft."""
    outputs.mkdir(parents=True)
    more = {"padding": "dynamic", "method": "lora", "seed": 1, "device": device}
    spec = write_spec(outputs / "spec.json", case, **more, output=str(outputs / "out"))
    return run_script("trainer_run.py", spec)


def compare(sizes: dict[str, int], given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return the seconds of all contenders, whole and for twice the rows less once the rows."""
    device = "cpu" if given.quick else "gpu"
    cases: list[dict[str, Any]] = []
    for rows in (given.rows, 2 * given.rows):
        case = lay_out("zh reviews", rows, sizes, folder / str(rows))
        run_script("make_base.py", write_spec(folder / str(rows) / "spec.json", case))
        cases.append(case)
    found: dict[str, list[tuple[float, float]]] = {}
    names = [*LAUNCHERS, "Trainer + peft"]
    for turn, who in itertools.product(range(given.pairs), names):
        place, times = folder / f"{turn}-{who}".replace(" ", "-"), 1
        if who in LAUNCHERS:
            both = [sweep(c, who, given.runs, place / str(n), device) for n, c in enumerate(cases)]
        else:
            both = [train_one(case, place / str(n), device) for n, case in enumerate(cases)]
            times = given.runs  # runs that differ in their seed alone take the same time
        short, long = (sample.wall_seconds * times for sample in both)
        found.setdefault(who, []).append((long, long - short))
    return [
        {
            "trained": who,
            "runs": given.runs,
            "s in all": spread([whole for whole, _ in seconds]).median,
            "s without start-up": spread([more for _, more in seconds]).median,
            **{
                f"this / together, {unit}": show_ratio(
                    ratios([s[part] for s in seconds], [s[part] for s in found["together"]])
                )
                for part, unit in enumerate(("in all", "without start-up"))
            },
        }
        for who, seconds in found.items()
    ]


def main() -> None:
    """Measure on the GPU, where there is one."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true", help="tiny, and on a CPU")
    asked.add_argument("--runs", type=int, default=16)
    asked.add_argument("--rows", type=int, default=2000, help="training rows, and twice as many")
    asked.add_argument("--pairs", type=int, default=3, help="rounds of every comparison")
    asked.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    given = asked.parse_args()
    card = run_script("gpu.py", "--ceiling", "cpu" if given.quick else "cuda").said.get("name")
    if not card:
        print("No GPU is at hand: nothing was measured.")
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        rows = compare(TINY if given.quick else BASE, given, Path(work))
    table = {
        "title": f"{given.runs} runs of LoRA on {card}",
        "columns": list(rows[0]),
        "rows": rows,
        "note": f"Medians of {given.pairs}. Trainer's is one run's time, as often as there are "
        f"runs. Without start-up: {2 * given.rows} rows less {given.rows}, evaluation included.",
    }
    print(show_table(table["columns"], rows))
    machine = describe_machine(card)
    print(write_results(given.output, f"fused-{name_machine(machine)}", {
        "machine": machine, "tables": {"fused": table}
    }))  # fmt: skip


if __name__ == "__main__":
    main()
