"""The model card of an export: what the record of a run says, as a README that model hubs read.

No path of the machine and no text of the data is told: files by their name and digest. Names come
from data and are escaped. Called by `export.py`.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import yaml

from crosstune.config.compose import to_dict
from crosstune.config.schema import OPTIONS, select_result_options
from crosstune.runs.record import PACKAGES, read_record

PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForMaskedLM": "fill-mask",
}
GROUPS = ("data", "model", "method")
# options of the command that repeats a run, where they are not at their defaults
SHOWN = {
    key: facts
    for key, facts in OPTIONS.items()
    if key.startswith(("data.", "optimizer.", "trainer.")) and not key.endswith(".name")
    if facts.changes_result and not facts.is_path
}
PLAIN = re.compile(r"[\w .,:/@+–-]*")
MARKUP = re.compile(r"([\\`*_{}\[\]<>()#!|~$&])")


class Card(NamedTuple):
    """What the card tells beside the record."""

    record: dict[str, Any]
    others: Sequence[dict[str, Any]]  # records of the same arm with other seeds
    auto_class: str
    options: dict[str, Any]  # what the task learned or was told, labels among it
    load: str  # Python lines
    form: str  # one sentence on what the folder holds
    library: str


def find_other_seeds(folder: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the finished records of a run's study that differ from it in the seed alone."""
    paths = sorted(path for path in folder.parent.glob("*/record.json") if path.parent != folder)
    found = [read_record(path) for path in paths]
    finished = [other for other in found if other.get("status") == "finished"]
    return [other for other in finished if _arm(other) == _arm(record)]


def _arm(record: dict[str, Any]) -> tuple[Any, ...]:
    config = select_result_options(record["config"]) | {"seed": None}
    weights = record["model_sha256"], record.get("language_adapters_sha256")
    return config, sorted(record["data_sha256"].values()), weights


def render_card(card: Card) -> str:
    """Return the card as Markdown with a YAML front matter."""
    record, config = card.record, card.record["config"]
    names = [str(record[group]) for group in GROUPS]
    parts = {
        f"{names[2]} · {names[1]} · {names[0]}": [card.form],
        "Load": ["```python", *card.load.splitlines(), "```"],
        "Scores": [*_rehearsed(config), _scores_intro(card), "", *_score_lines(card)],
        "Task": _options(card.options),
        "Data": _table(
            ["file", "sha256"],
            [[Path(file).name, digest] for file, digest in record["data_sha256"].items()],
        ),
        "Cost": _table(["", ""], [[name, _number(n)] for name, n in record["cost"].items()]),
        "Reproduce": [
            "```bash",
            *_command(config),
            "```",
            "The files of the data are named by their digests above; their paths are the reader's.",
            "",
            *_table(["package", "version"], _versions(record["environment"])),
        ],
        "Licence": [
            "Unknown: it follows from those of the base model and of the data, which the files "
            "of the run do not state. Look them up before you pass this on."
        ],
    }
    heads = ["#" if number == 0 else "##" for number in range(len(parts))]
    body = [
        "\n".join([f"{head} {_escape(title)}", "", *lines])
        for head, (title, lines) in zip(heads, parts.items(), strict=True)
    ]
    front = yaml.safe_dump(_front(card), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(body) + "\n"


def _rehearsed(config: dict[str, Any]) -> list[str]:
    if not config["trainer"].get("stand_in"):
        return []
    return ["**A rehearsal on generated stand-in data: the scores mean nothing.**", ""]


def _front(card: Card) -> dict[str, Any]:
    data, model = card.record["config"]["data"], card.record["config"]["model"]
    languages = [data["language"], *data["further_languages"]]
    # model hubs want bare ISO codes here
    front = {
        "language": list(dict.fromkeys(code.split("-")[0] for code in languages)),
        "license": "unknown",
        "library_name": card.library,
        "pipeline_tag": PIPELINES.get(card.auto_class),
        "base_model": model["hub_id"] if model["origin"] == "hub" else None,
        "base_model_revision": model["revision"] if model["origin"] == "hub" else None,
        "metrics": [card.record["headline"]["metric"]],
        "tags": ["crosstune", card.record["method"], data["kind"]],
    }
    return {key: value for key, value in front.items() if value is not None}


def _scores_intro(card: Card) -> str:
    seeds = sorted({card.record["seed"], *(other["seed"] for other in card.others)})
    metric = _escape(card.record["headline"]["metric"])
    return (
        f"The weights are those of seed {card.record['seed']}; {metric} on validation chose the "
        "checkpoint. Mean and sample standard deviation are over the finished runs of the study "
        f"that differ in the seed alone: {', '.join(map(str, seeds))}."
    )


def _score_lines(card: Card) -> list[str]:
    rows: list[list[str]] = []
    for split, language, metric, value in _scores(card.record):
        others = (o["scores"].get(split, {}).get(language, {}).get(metric) for o in card.others)
        every = [value, *(other for other in others if other is not None)]
        spread = f"{stdev(every):.4f}" if len(every) > 1 else "–"
        numbers = [f"{value:.4f}", f"{mean(every):.4f}", spread, str(len(every))]
        rows.append([split, language, metric, *numbers])
    header = ["split", "language", "metric", "these weights", "mean", "std", "seeds"]
    return _table(header, rows)


def _scores(record: dict[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    for split, languages in record["scores"].items():
        for language, scores in languages.items():
            for metric, value in scores.items():
                yield split, language, metric, value


def _options(options: dict[str, Any]) -> list[str]:
    rows = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)]
        for name, value in options.items()
    ]
    return _table(["option", "value"], rows)


def _command(config: dict[str, Any]) -> list[str]:
    words = [f"{group}={config[group]['name']}" for group in GROUPS]
    words.append(f"seed={config['seed']}")
    for key, facts in SHOWN.items():
        group, _, name = key.partition(".")
        value = config[group].get(name)  # older runs lack newer options
        if value not in (None, to_dict(facts.default)) and not isinstance(value, dict):
            text = f"[{','.join(value)}]" if isinstance(value, list) else value
            words.append(f"{key}={text}")
    # one line, so that no name can end the code block
    return [" ".join(["crosstune train", *(shlex.quote(" ".join(w.split())) for w in words)])]


def _versions(environment: dict[str, Any]) -> list[list[str]]:
    return [[n, str(environment[n])] for n in (*PACKAGES, "python") if n in environment]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([_escape(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _number(value: float) -> str:
    return f"{value:,}"


def _escape(text: str) -> str:
    r"""Return a text that Markdown shows as it is, on one line.

    >>> _escape("demo_es"), _escape("a|b <img>"), _escape("one\ntwo")
    ('demo_es', 'a\\|b \\<img\\>', 'one two')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if PLAIN.fullmatch(line) else MARKUP.sub(r"\\\1", line)
