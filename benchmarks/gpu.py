"""`make bench-gpu`: how much of a card crosstune uses, and how it stands against Trainer there.

Model FLOP utilisation is what the model's matrix products need (counted, not estimated) over what
the same card multiplies in the same seconds in large bf16 products, measured first. Where there is
no GPU, that is said and nothing is measured; `--quick` shows on a CPU that it works.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import records
from cases import TINY, lay_out, overrides, write_spec
from machine import describe_machine, name_machine
from pairs import Sample, order, ratios, run_command, run_script, show_ratio, show_table, spread
from results import write_results

RESULTS = Path(__file__).parent / "results"
BASE = {"layers": 12, "hidden": 768, "heads": 12, "inner": 3072}
MODELS = {"BERT-base": BASE, "XLM-R-base": {**BASE, "vocabulary": 250_002}}
SIDE = 8192  # of the square matrices whose product is the ceiling
COMPILED = "crosstune compiled"
CONTENDERS = ("crosstune", COMPILED, "Trainer")


def main() -> None:
    """Measure on the GPU, where there is one."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true", help="tiny, and on a CPU")
    asked.add_argument("--rows", type=int, default=4000, help="training rows")
    asked.add_argument("--pairs", type=int, default=3, help="rounds of every comparison")
    asked.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    given = asked.parse_args()
    ceiling = run_script("gpu.py", "--ceiling", "cpu" if given.quick else "cuda").said
    if not ceiling:
        print("No GPU is at hand: nothing was measured.")
        return
    print(f"{ceiling['name']}: {ceiling['flops'] / 1e12:.1f} TFLOP/s in bf16 products of matrices")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        for model, sizes in ({"tiny": TINY} if given.quick else MODELS).items():
            count = 64 if given.quick else given.rows
            case = lay_out("zh reviews", count, sizes, Path(work) / model)
            run_script("make_base.py", write_spec(Path(work) / model / "spec.json", case))
            for method in ("full", "lora"):
                device = "cpu" if given.quick else "gpu"
                found = measure(case, (method, device), given.pairs, Path(work) / model / method)
                rows += [row_of(model, method, who, found, ceiling["flops"]) for who in CONTENDERS]
    table = {
        "title": "Training on one GPU in bf16",
        "columns": list(rows[0]),
        "rows": rows,
        "note": f"Medians of {given.pairs}; sub-words a second without padding; MFU: of "
        f"{ceiling['flops'] / 1e12:.1f} TFLOP/s, measured.",
    }
    print(show_table(table["columns"], rows))
    machine = describe_machine(ceiling["name"])
    result = {"machine": machine, "ceiling": ceiling, "tables": {"gpu": table}}
    print(write_results(given.output, name_machine(machine), result))


def measure(
    case: dict[str, Any], how: tuple[str, str], pairs: int, folder: Path
) -> dict[str, list[Sample]]:
    """Run all contenders in turn with a method on a device; `said` holds what they measured."""
    method, device = how
    found: dict[str, list[Sample]] = {name: [] for name in CONTENDERS}
    for turn in range(pairs):
        for name in order(CONTENDERS, turn):
            place = folder / f"{turn}-{name}".replace(" ", "-")
            place.mkdir(parents=True)
            if name != "Trainer":
                words = [*overrides(case, place), f"method={method}", f"trainer={device}"]
                words.append(f"trainer.compile={str(name == COMPILED).lower()}")
                sample = run_command([sys.executable, "-m", "crosstune", "train", *words])
                (record,) = records.read_all(place)
                found[name].append(sample._replace(said=record["cost"]))
                continue
            more = {"padding": "dynamic", "method": method, "seed": 1, "device": device}
            spec = write_spec(place / "spec.json", case, **more, output=str(place / "out"))
            found[name].append(run_script("trainer_run.py", spec))
    return found


def row_of(
    model: str, method: str, name: str, found: dict[str, list[Sample]], ceiling: float
) -> dict[str, Any]:
    """Return the row of one contender."""
    rates: dict[str, list[Any]] = {
        who: [sample.said.get("train_tokens_per_second") or sample.said.get("tokens_per_second")
              for sample in samples]
        for who, samples in found.items()
    }  # fmt: skip
    known = all(None not in rate for rate in rates.values())
    row: dict[str, Any] = {
        "model": model,
        "method": method,
        "by": name,
        "tokens/s": spread(rates[name]).median if None not in rates[name] else None,
        "this / Trainer": show_ratio(ratios(rates[name], rates["Trainer"])) if known else None,
        "whole run, wall s": spread([sample.wall_seconds for sample in found[name]]).median,
    }
    each = found["crosstune"][0].said.get("train_flops_per_token")
    row["MFU"] = row["tokens/s"] * each / ceiling if each and row["tokens/s"] else None
    return row


def print_ceiling(device: str) -> None:
    """Print the name of the device and its rate in large bf16 products; nothing if it is absent."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return
    side = SIDE if device == "cuda" else 512
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = _now(device)
        for _ in range(10):
            torch.matmul(one, other)
        best = min(best, (_now(device) - began) / 10)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(json.dumps({"name": name, "flops": 2 * side**3 / best}))


def _now(device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ceiling"]:
        print_ceiling(sys.argv[2])
    else:
        main()
