"""The data that every contender gets: the same files, the same weights, the same options.

Real text where it stands beside the checkout, else sentences that the demo's grammars write.
`lay_out` makes the files of a case; `make_base.py` the encoder that all of them start from.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from crosstune.data.readers.conll import read_conll
from crosstune.data.readers.tables import read_table
from crosstune.data.synthetic.demo import read_demo_entities, read_demo_sentiment

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SPLITS = ("train", "validation", "test")
MINI = {"layers": 4, "hidden": 256, "heads": 4, "inner": 1024}
TINY = {"layers": 1, "hidden": 32, "heads": 2, "inner": 64}
RECIPE: dict[str, Any] = {
    "max_tokens": 128,
    "learning_rate": 3e-4,
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "epochs": 1,
}


class Source(NamedTuple):
    """One data set: where its files stand, or which grammar stands in for them."""

    kind: str
    language: str
    folder: str  # below the folder of real text
    ending: str
    text: str = ""
    label: str = ""
    batch_size: int = 32


SOURCES = {
    "zh reviews": Source(
        "classification", "zh", "classification/zh/chnsenticorp", "tsv", "text_a", "label"
    ),
    # twice the steps: after one epoch of batches of 32 nobody finds an entity
    "es entities": Source("tagging", "es", "ner/es/meddocan", "conll", batch_size=16),
    "es topics": Source(
        "classification", "es", "classification/es/sib200", "tsv", "text", "category"
    ),
    "zh topics": Source(
        "classification", "zh", "classification/zh/sib200", "tsv", "text", "category"
    ),
}


def lay_out(name: str, rows: int, sizes: dict[str, int], folder: Path) -> dict[str, Any]:
    """Write the files of a case, `rows` of train and a quarter of each other split; return it.

    `sizes` are those of the encoder; its folder is named, not made.
    """
    source = SOURCES[name]
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"train": rows, "validation": max(8, rows // 4), "test": max(8, rows // 4)}
    files: dict[str, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.{'tsv' if source.kind == 'classification' else 'conll'}"
        _write(path, source.kind, _read(source, split, counts[split]))
        files[split] = str(path)
    return {
        "name": name,
        "text": "real" if SHARED.is_dir() else "generated",
        "kind": source.kind,
        "language": source.language,
        "files": files,
        "base": str(folder / "base"),
        "sizes": sizes,
        "batch_size": source.batch_size,
        **RECIPE,
    }


def _read(source: Source, split: str, count: int) -> list[dict[str, Any]]:
    path = str(SHARED / source.folder / f"{split}.{source.ending}")
    if source.kind == "classification":
        if SHARED.is_dir():
            found = read_table(path, text=source.text, label=source.label)
        else:
            found = read_demo_sentiment(split, language=source.language, rows={split: count})
    elif SHARED.is_dir():
        found = read_conll(path)
    else:
        found = read_demo_entities(split, language=source.language, rows={split: count})
    return found.rows[:count]


def _write(path: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    if kind == "classification":
        lines = [f"{row['label']}\t{' '.join(row['text'].split())}" for row in rows]
        path.write_text("\n".join(["label\ttext", *lines, ""]), "utf-8")
        return
    sentences = [
        "\n".join(f"{w}\t{t}" for w, t in zip(row["words"], row["tags"], strict=True))
        for row in rows
    ]
    path.write_text("\n\n".join([*sentences, ""]), "utf-8")


def overrides(case: dict[str, Any], outputs: Path, seed: str = "1") -> list[str]:
    """Return what `crosstune train` needs to train on a case as the others do."""
    files = [f"data.{split}={path}" for split, path in case["files"].items()]
    columns = ["data.text=text", "data.label=label"] if case["kind"] == "classification" else []
    return [
        f"data=files_{case['kind']}",
        f"data.language={case['language']}",
        *files,
        *columns,
        "data.unseen_labels=miss",
        "model=local",
        f"model.path={case['base']}",
        f"data.batch_size={case['batch_size']}",
        f"data.max_tokens={case['max_tokens']}",
        f"optimizer.learning_rate={case['learning_rate']}",
        f"optimizer.warmup_ratio={case['warmup_ratio']}",
        f"trainer.max_epochs={case['epochs']}",
        "logger=none",
        f"outputs={outputs}",
        f"seed={seed}",
    ]


def write_spec(path: Path, case: dict[str, Any], **more: Any) -> Path:
    """Write what a rival's script reads: the case and options of its own."""
    path.write_text(json.dumps({**case, **more}, ensure_ascii=False), "utf-8")
    return path
