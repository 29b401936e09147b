"""Finished runs on files of their own, small enough to be trained in a test of what they leave."""

import json
from pathlib import Path

from crosstune.config.compose import compose_run
from crosstune.data.synthetic.demo import read_demo_entities, read_demo_sentiment
from crosstune.training.train import train
from tests.tiny import MODEL

ROWS = {"train": 40, "validation": 12, "test": 7}
COMMON = ("trainer=cpu", "trainer.max_steps=3", "data.batch_size=4", "logger=none")
KINDS = ("classification", "tagging", "extraction")
SUFFIXES = {"classification": "tsv", "tagging": "conll", "extraction": "json"}
PLACES = ("Málaga", "Lima", "Quito", "Cádiz", "Bogotá")


def write_files(folder: Path, kind: str, language: str = "es") -> None:
    """Write train, validation and test of a kind, in the format of its own files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in ROWS.items():
        path = folder / f"{split}.{SUFFIXES[kind]}"
        if kind == "classification":
            rows = read_demo_sentiment(split, language=language, rows=ROWS).rows
            lines = [f"{row['text']}\t{row['label']}" for row in rows]
            path.write_text("\n".join(["text\tlabel", *lines]) + "\n")
        elif kind == "tagging":
            rows = read_demo_entities(split, language=language, rows=ROWS).rows
            sentences = [zip(row["words"], row["tags"], strict=True) for row in rows]
            lines = ["".join(f"{w}\t{t}\n" for w, t in sentence) for sentence in sentences]
            path.write_text("\n".join(lines))
        else:
            path.write_text(json.dumps({"data": [{"paragraphs": _paragraphs(split, count)}]}))


def _paragraphs(split: str, count: int) -> list[dict]:
    found = []
    for number in range(count):
        place = PLACES[number % len(PLACES)]
        context = f"{split} {number} : la niña vive en {place} con su abuela . " + "Llueve . " * 12
        answers = [{"text": place, "answer_start": context.index(place)}] * (number % 3 > 0)
        asked = {"id": f"{split}-{number}", "question": "¿Dónde vive?", "answers": answers}
        found.append({"context": context, "qas": [asked]})
    return found


def left_overrides(folder: Path, kind: str, *more: str, language: str = "es") -> list[str]:
    """Return the overrides of a tiny run on files below `folder`, which are written."""
    files = folder / f"{kind}-{language}"
    write_files(files, kind, language)
    splits = [f"data.{split}={files / split}.{SUFFIXES[kind]}" for split in ROWS]
    columns = ["data.text=text", "data.label=label"] if kind == "classification" else []
    own = [f"data=files_{kind}", f"data.language={language}", "data.max_tokens=48"]
    return [*own, *splits, *columns, *MODEL, *COMMON, f"outputs={folder / 'outputs'}", *more]


def left_run(folder: Path, kind: str, *more: str, language: str = "es") -> Path:
    """Return the folder of such a run, finished."""
    return train(compose_run(left_overrides(folder, kind, *more, language=language)))
