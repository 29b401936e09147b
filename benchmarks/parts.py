"""The parts of `make bench`, one function each: what runs against what, and the table of it.

A function takes the plan and a folder to work in, and returns title, columns, rows, a note and the
raw figures. What is measured runs in processes of its own; nothing here imports torch.
"""

import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import records
from cases import MINI, TINY, lay_out, overrides, write_spec
from first_step import measure_first_step
from pairs import (
    Failed,
    Sample,
    middle,
    order,
    ratio_of,
    run_command,
    run_script,
    show_ratio,
    singles,
    spread,
)

CROSSTUNE = [sys.executable, "-m", "crosstune"]
IMPORTS = "import torch, pytorch_lightning, transformers"
PADDINGS = {"max": "Trainer, padded to max", "dynamic": "Trainer", "group": "Trainer, by length"}
TITLES = {**PADDINGS, "loop": "plain loop"}
TEXTS = ("zh reviews", "es entities")
METHODS = ("full", "lora", "bitfit", "head_only")


class Plan(NamedTuple):
    """How large everything is that is measured."""

    pairs: int  # rounds of each comparison
    rows: int  # training rows of a whole run
    seeds: int  # rounds beyond the first take further seeds, this many in all
    steps: int  # of training, where steps are timed
    study_seeds: int
    study_methods: tuple[str, ...]
    topics: int  # training rows of a run of the study
    encoded: tuple[int, ...]  # rows
    records: tuple[int, ...]
    sizes: dict[str, int]  # of the encoder
    together: int  # runs of a sweep that are trained together
    fused: tuple[str, ...]  # the data of these
    rivals: tuple[str, ...] = (*PADDINGS, "loop")  # of a whole run


CUT = Plan(
    2, 200, 1, 12, 1, ("full", "lora"), 150, (500, 2_000), (100, 1_000, 10_000), MINI, 4, TEXTS[:1]
)
WHOLE = Plan(
    5, 2_000, 5, 63, 3, METHODS, 701, (500, 2_000, 8_000), (100, 1_000, 10_000), MINI, 8, TEXTS
)
QUICK = Plan(1, 40, 1, 8, 1, ("full",), 40, (40,), (10,), TINY, 2, TEXTS)


def prepare_case(name: str, plan: Plan, rows: int, folder: Path) -> dict[str, Any]:
    """Write the files, the encoder and the spec of a case."""
    case = lay_out(name, rows, plan.sizes, folder)
    run_script("make_base.py", write_spec(folder / "spec.json", case))
    return case


def measure_runs(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure a whole run of crosstune against Trainer and a plain loop."""
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for name in TEXTS:
        case = prepare_case(name, plan, plan.rows, folder / name.replace(" ", "-"))
        samples: dict[str, list[Sample]] = {}
        contenders = ["crosstune", *(TITLES[rival] for rival in plan.rivals)]
        for turn in range(plan.pairs):
            for contender in order(contenders, turn):
                place = folder / f"{turn}-{name}-{contender}".replace(" ", "-")
                sample = _run_once(contender, case, 1 + turn % plan.seeds, place)
                samples.setdefault(contender, []).append(sample)
        rows += [_run_row(case, who, samples["crosstune"], samples[who]) for who in contenders]
        raw[name] = singles(samples)
    return {
        "title": "One whole run, from the start of the process to its end",
        "columns": [
            "run", "cpu s", "wall s", "crosstune / this, cpu", "crosstune / this, wall",
            "peak MiB", "tokens/s", "score",
        ],
        "rows": rows,
        "note": f"{plan.rows} training rows, one epoch, medians of {plan.pairs}.",
        "raw": raw,
    }  # fmt: skip


def _run_once(contender: str, case: dict[str, Any], seed: int, place: Path) -> Sample:
    if contender == "crosstune":
        sample = run_command([*CROSSTUNE, "train", *overrides(case, place, str(seed))])
        (found,) = records.read_all(place)
        metric = found["headline"]["metric"]
        said = {
            "score": found["scores"]["test"][case["language"]][metric],
            "tokens_per_second": found["cost"].get("train_tokens_per_second"),
        }
        return sample._replace(said=said)
    place.mkdir()
    padding = {title: name for name, title in PADDINGS.items()}.get(contender, "")
    more = {"padding": padding, "seed": seed, "output": str(place / "out")}
    script = "trainer_run.py" if padding else "loop_run.py"
    return run_script(script, write_spec(place / "spec.json", case, **more))


def _run_row(
    case: dict[str, Any], who: str, ours: list[Sample], theirs: list[Sample]
) -> dict[str, Any]:
    rates = [s.said["tokens_per_second"] for s in theirs if s.said["tokens_per_second"]]
    scores = spread([sample.said["score"] for sample in theirs])
    return {
        "run": f"{case['name']} ({case['text']}): {who}",
        "cpu s": middle(theirs, "cpu_seconds"),
        "wall s": middle(theirs, "wall_seconds"),
        "crosstune / this, cpu": show_ratio(ratio_of(ours, theirs, "cpu_seconds")),
        "crosstune / this, wall": show_ratio(ratio_of(ours, theirs, "wall_seconds")),
        "peak MiB": round(middle(theirs, "peak_bytes") / 2**20),
        "tokens/s": spread(rates).median if rates else None,
        "score": show_ratio(scores),
    }


def measure_step(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure what the loop adds to a plain one over the very same batches."""
    case = prepare_case("zh reviews", plan, max(plan.rows, 500), folder)
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for method in plan.study_methods:
        said = raw[method] = []
        for turn in range(plan.pairs):
            words = overrides(case, folder / f"{method}-{turn}")
            more = ["trainer.max_epochs=1000", f"trainer.max_steps={plan.steps}"]
            said.append(run_script("step_time.py", *words, f"method={method}", *more).said)
        rows.append(
            {
                "method": method,
                "crosstune ms": spread([s["ours"] for s in said]).median * 1000,
                "plain ms": spread([s["plain"] for s in said]).median * 1000,
                "ratio, median step": show_ratio(spread([s["median"] for s in said])),
                "ratio, cpu in all": show_ratio(spread([s["cpu"] for s in said])),
                "ratio, wall in all": show_ratio(spread([s["wall"] for s in said])),
            }
        )
    return {
        "title": "One training step of crosstune against a plain loop over the same batches",
        "columns": list(rows[0]),
        "rows": rows,
        "note": f"{plan.steps} steps, a plain one before each of crosstune's, {plan.pairs} times.",
        "raw": raw,
    }


def measure_study(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure a study of several methods, languages and seeds against one Trainer process a run."""
    cases = [
        prepare_case(f"{language} topics", plan, plan.topics, folder / language)
        for language in ("es", "zh")
    ]
    each = _run_each(plan, cases, folder)
    found = {
        f"crosstune train -m hydra/launcher={launcher}": [_sweep(plan, cases[0], folder, launcher)]
        for launcher in ("pool", "basic")
    }
    found["one Trainer process a run"] = each
    taken = {name: sum(s.wall_seconds for s in samples) for name, samples in found.items()}
    for launcher in ("pool", "basic"):
        if len(records.read_all(folder / launcher)) != len(each):
            raise Failed(f"crosstune left other than {len(each)} records")
    rows = [
        {
            "study": name,
            "runs": len(each),
            "wall s": seconds,
            "this / Trainer, wall": seconds / taken["one Trainer process a run"],
        }
        for name, seconds in taken.items()
    ]
    return {
        "title": "A study: methods, es and zh, seeds; one epoch each",
        "columns": list(rows[0]),
        "rows": rows,
        "note": f"{', '.join(plan.study_methods)}; {plan.topics} training rows, dynamic padding. "
        "The pool trains as many runs side by side as there are cores.",
        "raw": singles(found),
    }


def _sweep(plan: Plan, case: dict[str, Any], folder: Path, launcher: str) -> Sample:
    seeds = ",".join(map(str, range(1, plan.study_seeds + 1)))
    words = [*overrides(case, folder / launcher, seeds), f"method={','.join(plan.study_methods)}"]
    # one command for both languages: what is in the folder of one stands in the other's as well
    both = [word.replace(str(folder / "es"), f"{folder}/${{data.language}}") for word in words]
    both[both.index("data.language=es")] = "data.language=es,zh"
    return run_command([*CROSSTUNE, "train", "-m", *both, f"hydra/launcher={launcher}"])


def _run_each(plan: Plan, cases: list[dict[str, Any]], folder: Path) -> list[Sample]:
    samples: list[Sample] = []
    for case, method, turn in itertools.product(cases, plan.study_methods, range(plan.study_seeds)):
        place = folder / f"{case['language']}-{method}-{turn}"
        more = {"padding": "dynamic", "method": method, "seed": turn + 1, "output": str(place)}
        samples.append(run_script("trainer_run.py", write_spec(folder / "spec.json", case, **more)))
    return samples


def measure_start(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure the start of a run up to the end of its first step against the imports alone."""
    case = prepare_case("zh reviews", plan, 200, folder)
    found: dict[str, list[Sample]] = {"imports alone": [], "first step": [], "encoded before": []}
    words = [*overrides(case, folder / "warm"), "trainer.max_steps=1", "data.batch_size=2"]
    run_command([*CROSSTUNE, "train", *words])
    for turn in range(plan.pairs):
        found["imports alone"].append(run_command([sys.executable, "-c", IMPORTS]))
        for name, outputs in (("first step", f"cold-{turn}"), ("encoded before", "warm")):
            words = overrides(case, folder / outputs, seed=str(2 + turn))
            found[name].append(measure_first_step([*words, "data.batch_size=2"], folder / outputs))
    imports = found["imports alone"]
    rows = [
        {
            "from the process's start": name,
            "wall s": middle(samples, "wall_seconds"),
            "cpu s": middle(samples, "cpu_seconds"),
            "this / imports, wall": show_ratio(ratio_of(samples, imports, "wall_seconds")),
            "this / imports, cpu": show_ratio(ratio_of(samples, imports, "cpu_seconds")),
        }
        for name, samples in found.items()
    ]
    return {
        "title": "Start-up: crosstune's first step against importing its libraries",
        "columns": list(rows[0]),
        "rows": rows,
        "note": "Imports: torch, pytorch_lightning, transformers. The first step is over.",
        "raw": singles(found),
    }


def measure_encoding(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure how long text takes to become sub-words."""
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for name in TEXTS:
        base = prepare_case(name, plan, max(plan.encoded), folder / name.replace(" ", "-"))["base"]
        for count in plan.encoded:
            place = folder / f"{name}-{count}".replace(" ", "-")
            case = {**lay_out(name, count, plan.sizes, place), "base": base}
            said = raw[f"{name}, {count}"] = [
                # a folder for each round: another's cache would be read in place of encoding
                run_script("encode_time.py", *overrides(case, place / f"out-{turn}")).said
                for turn in range(plan.pairs)
            ]
            rows.append(
                {
                    "text": f"{name} ({case['text']})",
                    "rows": said[0]["rows"],
                    "sub-words": said[0]["tokens"],
                    "cpu s": spread([s["cpu_seconds"] for s in said]).median,
                    "from the cache, cpu s": spread([s["cached_seconds"] for s in said]).median,
                }
            )
    return {
        "title": "Encoding the rows of all splits",
        "columns": list(rows[0]),
        "rows": rows,
        "note": "Reading and checking the files is not in it; writing the cache is.",
        "raw": raw,
    }


def measure_reports(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure `crosstune report` over studies of many records."""
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Sample]] = {}
    for count in plan.records:
        outputs = folder / str(count)
        records.write_study(outputs / "study", count)
        command = [*CROSSTUNE, "report", "experiment=study", f"outputs={outputs}"]
        samples = found[str(count)] = [run_command(command) for _ in range(plan.pairs)]
        rows.append(
            {
                "records": count,
                "wall s": middle(samples, "wall_seconds"),
                "cpu s": middle(samples, "cpu_seconds"),
                "peak MiB": round(middle(samples, "peak_bytes") / 2**20),
            }
        )
    return {
        "title": "The report of a study",
        "columns": list(rows[0]),
        "rows": rows,
        "note": "Generated records: 3 languages, 4 metrics, 9 classes; 5 seeds of every arm.",
        "raw": singles(found),
    }
