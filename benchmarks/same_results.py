"""Show that two checkouts compute the same: one run of each task and method, compared bit by bit.

    python benchmarks/same_results.py digest NEW.json            # in a checkout: train and digest
    python benchmarks/same_results.py compare OLD.json NEW.json  # exit 1 if anything differs

`PYTHONPATH=CHECKOUT/src` chooses the checkout. Needs the folder of real text beside the project.
Runs use one thread, fp32 unless named otherwise, and a random 4-layer encoder.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SPLITS = ("train", "validation", "test")
COMMON = ("trainer=cpu", "logger=none", "trainer.max_epochs=2", "data.batch_size=8")
SHORT = ("data.limit=40", "trainer.max_steps=6")
METHODS = (
    *("full", "head_only", "top_layers", "bitfit", "layernorm", "houlsby", "pfeiffer"),
    *("parallel_adapter", "lora", "rslora", "dora", "adalora", "loha", "oft", "vera"),
    *("fourierft", "ia3", "prompt_tuning", "p_tuning", "prefix_tuning", "madx"),
)
COMPARED = ("status", "run_id", "scores", "cost", "predictions", "weights")


class Files:
    """Cuts small files out of the shared data."""

    def __init__(self, folder: Path):
        self.folder = folder

    def cut(self, name: str, count: int, separator: str = "\n") -> str:
        """Write the first `count` blocks of a file and return its path."""
        blocks = (SHARED / name).read_text("utf-8").split(separator)[:count]
        target = self.folder / name.replace("/", "_")
        target.write_text(separator.join(blocks) + separator, "utf-8")
        return str(target)

    def cut_squad(self, name: str, count: int) -> str:
        """Write two paragraphs of each of the first `count` articles and return the path."""
        content = json.loads((SHARED / name).read_text("utf-8"))
        articles = content["data"][:count]
        content["data"] = [{**a, "paragraphs": a["paragraphs"][:2]} for a in articles]
        target = self.folder / name.replace("/", "_")
        target.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
        return str(target)

    def splits(self, folder: str, suffix: str, count: int, separator: str = "\n") -> list[str]:
        """Return the overrides that name the three splits of a folder."""
        names = [(split, f"{folder}/{split}.{suffix}") for split in SPLITS]
        return [f"data.{split}={self.cut(name, count, separator)}" for split, name in names]


def list_runs(files: Files) -> dict[str, list[str]]:
    """Return name -> overrides of every run; `nli` comes first, because others start from it."""
    sib = ["data=files_classification", "data.language=es", "data.text=text", "data.label=category"]
    sib += files.splits("classification/es/sib200", "tsv", 80)
    chinese = files.cut("classification/zh/sib200/test.tsv", 60)
    spanish = files.cut("classification/es/sib200/test.tsv", 80)
    entities = ["data=files_tagging", "data.language=es"]
    entities += files.splits("ner/es/meddocan", "conll", 60, "\n\n")
    questions = [
        "data=files_extraction",
        "data.language=es",
        f"data.train={files.cut_squad('qa/es/mlqa/train.json', 30)}",
        f"data.validation={files.cut_squad('qa/es/mlqa/validation.json', 10)}",
        f"data.test={files.cut_squad('qa/es/xquad/test.json', 5)}",
    ]
    runs = {
        "nli": [*_pairs(files, "xnli", "classification", "label"), "method=full"],
        "classification": [*sib, f"data.test={{es: {spanish}, zh: {chinese}}}", "method=lora"],
        "tagging": [*entities, "method=lora"],
        "extraction": [*questions, "method=lora"],
        "in_turn": [*_demo("demo_sentiment"), "method=lora"],
        "cloze": ["data=demo_sentiment_cloze", "data.language=es", "method=lora"],
        "bf16": [*sib, "method=lora", "trainer.precision=bf16"],
        "batch_tokens": [*sib, "method=full", "data.batch_tokens=300"],
        **_other_tasks(files),
    }
    runs |= {f"method {method}": [*sib, f"method={method}"] for method in METHODS}
    runs |= {
        f"tagging {method}": [*entities, f"method={method}"]
        for method in ("bitfit", "prefix_tuning", "prompt_tuning", "houlsby")
    }
    runs |= {f"extraction {m}": [*questions, f"method={m}"] for m in ("adalora", "p_tuning")}
    return runs


def _other_tasks(files: Files) -> dict[str, list[str]]:
    label_sets = ["data=files_multilabel", "data.language=es", "data.text=text"]
    label_sets += ["data.label=category", "data.task.separator=/", "method=full"]
    characters = ["data=files_tagging", "data.language=zh", "data.reader.strip_digit=true"]
    relations = "relation/en/semeval2010_task8"
    parallel = "parallel/en-es/tatoeba_manythings"
    from_nli = ["model=local", "model.path=outputs/nli"]
    names = (
        'health: "salud", politics: "política", science/technology: "ciencia", sports: "deportes"'
    )
    names += ', entertainment: "espectáculos", geography: "geografía", travel: "viajes"'
    topics = ["data.language=es", "data.text=text", "data.label=category"]
    return {
        "multilabel": [*label_sets, *files.splits("classification/es/sib200", "tsv", 80)],
        "tagging with crf": [
            *(*characters, "data.task.crf=true", "method=lora"),
            *files.splits("ner/zh/weibo", "conll", 60, "\n\n"),
        ],
        "parts of speech": [
            *("data=files_pos", "data.language=es", "method=lora"),
            *files.splits("pos_dep/es/ud_gsd", "conllu", 60, "\n\n"),
        ],
        "segmentation": [
            *("data=files_segmentation", "data.language=zh", "method=lora"),
            *files.splits("cws/zh/ud_gsd_seg", "txt", 60),
        ],
        "relation": [
            *("data=files_relation_semeval", "data.language=en", "method=lora", "data.test=null"),
            f"data.train={files.cut(f'{relations}/train.txt', 600, chr(10) * 2)}",
            f"data.validation={files.cut(f'{relations}/test.txt', 40, chr(10) * 2)}",
            "data.unseen_labels=miss",
        ],
        "regression": [*_pairs(files, "pawsx", "regression", "same"), "method=lora"],
        "generation": [
            *("data=files_generation", "model=mini_seq2seq", "data.language=en", "method=full"),
            *("data.task.target_language=es", "data.text=en", "data.target=es"),
            *("data.reader.header=[en, es]", *files.splits(parallel, "tsv", 40)),
        ],
        "masked_lm": [*_raw(files, "es"), "method=full"],
        "masked_lm of spans": [*_raw(files, "zh"), "data.task.masking=span", "method=full"],
        "madx_language": [*_raw(files, "es"), "method=madx_language", *from_nli],
        "entailment": [
            *("data=files_entailment", "trainer.max_epochs=0", "method=full", *from_nli, *topics),
            *files.splits("classification/es/sib200", "tsv", 80),
            'data.task.templates={es: "Este texto trata de {label}."}',
            f"data.task.names={{es: {{{names}}}}}",
        ],
    }


def _raw(files: Files, language: str) -> list[str]:
    splits = files.splits(f"raw_text/{language}/mixed", "txt", 80)
    return ["data=files_masked_lm", f"data.language={language}", *splits]


def _pairs(files: Files, corpus: str, task: str, label: str) -> list[str]:
    return [
        *(f"data=files_{task}", "data.language=es", "data.test=null"),
        f"data.train={files.cut(f'pair/es/{corpus}/validation.tsv', 60)}",
        f"data.validation={files.cut(f'pair/es/{corpus}/test.tsv', 40)}",
        f"++data.reader.header=[a, b, {label}]",
        *("data.text=a", "data.text_pair=b", f"data.label={label}"),
    ]


def _demo(name: str) -> list[str]:
    sources = [f"data.{split}={{es: {split}, zh: {split}}}" for split in SPLITS]
    languages = ["data.language=es", "data.further_languages=[zh]", "data.in_turn=true"]
    return [f"data={name}", *languages, *sources]


def digest(target: Path) -> None:
    """Train every run in a folder of its own and write what came out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results: dict[str, Any] = {}
        for run, words in list_runs(Files(folder)).items():
            experiment = run.replace(" ", "_")
            overrides = [*COMMON, *([] if "trainer.max_epochs=0" in words else SHORT), *words]
            if not any(word.startswith("model=") for word in overrides):
                overrides.append("model=mini")
            command = [sys.executable, "-P", "-m", "crosstune", "train", *overrides]
            done = subprocess.run(
                [*command, f"experiment={experiment}"],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
            )
            results[run] = _read_result(folder / "outputs" / experiment)
            print(run, results[run]["status"], done.stderr[-300:] if done.returncode else "")
            target.write_text(json.dumps(results, indent=1), "utf-8")


def _read_result(study: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file

    for path in study.glob("*/record.json"):
        record = json.loads(path.read_text("utf-8"))
        predictions = path.parent / "predictions.parquet"
        rows = pq.read_table(predictions).to_pylist() if predictions.is_file() else []
        weights = hashlib.sha256()
        for file in sorted((path.parent / "model").glob("**/*.safetensors")):
            for key, tensor in sorted(load_file(file).items()):
                weights.update(key.encode() + tensor.tobytes())
        counts = {k: v for k, v in record.get("cost", {}).items() if k.endswith("_parameters")}
        return {
            "status": record["status"],
            "run_id": record["run_id"],
            "scores": record.get("scores"),
            "cost": counts,
            "predictions": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
            "weights": weights.hexdigest(),
        }
    return {"status": "no record"}


def compare(old: Path, new: Path) -> int:
    """Print what differs between two digests; return 1 if anything does."""
    before, after = (json.loads(path.read_text("utf-8")) for path in (old, new))
    differing = 0
    for run in before:
        fields = [f for f in COMPARED if before[run].get(f) != after.get(run, {}).get(f)]
        differing += bool(fields)
        if fields:
            print(f"{run}: {', '.join(fields)} differ")
    print(f"{len(before) - differing} of {len(before)} runs are identical")
    return int(differing > 0)


if __name__ == "__main__":
    if sys.argv[1] == "digest":
        digest(Path(sys.argv[2]))
    else:
        sys.exit(compare(Path(sys.argv[2]), Path(sys.argv[3])))
