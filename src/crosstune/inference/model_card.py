"""The model card of an export: the record of a run as a README with metadata for model hubs.

The card holds no path of this machine and no text of the data: files stand by name and digest.
Names come from the data, so they are escaped.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from crosstune.config.compose import to_dict
from crosstune.config.schema import OPTIONS
from crosstune.inference.load_run import FinishedRun
from crosstune.runs.record import PACKAGES, read_record
from crosstune.runs.settings import collect_digests, have_digests, list_settings

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
PIPELINE_TAGS = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForMaskedLM": "fill-mask",
}
GROUPS = ("data", "model", "method")
# options of the command that repeats a run, where they are not at their defaults
COMMAND_OPTIONS = {
    key: facts
    for key, facts in OPTIONS.items()
    if key.startswith(("data.", "optimizer.", "trainer.")) and not key.endswith(".name")
    if facts.changes_result and not facts.is_path
}
PLAIN = re.compile(r"[\w .,:/@+–-]*")
MARKUP = re.compile(r"([\\`*_{}\[\]<>()#!|~$&])")


def render_card(saved: FinishedRun, base_arguments: str = "") -> str:
    """Return the card as Markdown with YAML metadata, a `model-index` of all scores included.

    Args:
        saved: the exported run.
        base_arguments: Python arguments that load the base of an adapter; "" for a whole model.
    """
    record = saved.record
    config, environment = record["config"], record["environment"]
    files = [[Path(file).name, digest] for file, digest in record["data_sha256"].items()]
    versions = [[n, str(environment[n])] for n in (*PACKAGES, "python") if n in environment]
    options = {name: value for name, value in vars(saved.task).items() if name != "vocabulary"}
    other_seeds = _find_other_seeds(saved.folder, record)
    card = ModelCard.from_template(
        _metadata(saved, "peft" if base_arguments else "transformers"),
        template_path=str(TEMPLATE),
        title=_escape(_title(record)),
        base_arguments=base_arguments,
        adapted=saved.adapted,
        method=record["method"],
        auto_class=saved.task.auto_class,
        stand_in=config["trainer"].get("stand_in"),
        seed=record["seed"],
        seeds=", ".join(map(str, sorted({r["seed"] for r in (record, *other_seeds)}))),
        metric=_escape(record["headline"]["metric"]),
        score_table=_score_table(record, other_seeds),
        option_table=_table(["option", "value"], map(_option_row, options.items())),
        file_table=_table(["file", "sha256"], files),
        cost_table=_table(["", ""], [[name, f"{n:,}"] for name, n in record["cost"].items()]),
        command=_command(config),
        version_table=_table(["package", "version"], versions),
    )
    return f"{card}\n"


def _find_other_seeds(folder: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the finished records of a run's study that differ from it in the seed alone."""
    paths = sorted(path for path in folder.parent.glob("*/record.json") if path.parent != folder)
    records = [read_record(path) for path in paths]
    finished = [other for other in records if other.get("status") == "finished"]
    digested = have_digests([record, *finished])
    return [other for other in finished if _arm(other, digested) == _arm(record, digested)]


def _arm(record: dict[str, Any], digested: bool) -> tuple[Any, ...]:
    names = [record[group] for group in (*GROUPS, "train_language")]
    return names, list_settings(record, digested), collect_digests(record)


def _title(record: dict[str, Any]) -> str:
    data, model, method = (record[group] for group in GROUPS)
    return f"{method} · {model} · {data}"


def _metadata(saved: FinishedRun, library: str) -> ModelCardData:
    record = saved.record
    data, model = record["config"]["data"], record["config"]["model"]
    languages = [data["language"], *data["further_languages"]]
    pipeline_tag = PIPELINE_TAGS[saved.task.auto_class]
    on_hub = model["origin"] == "hub"
    rehearsal = record["config"]["trainer"].get("stand_in")
    results = [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=record["data"],
            dataset_name=record["data"],
            dataset_config=language,
            dataset_split=split,
            metric_type=metric,
            metric_value=value,
        )
        for split, language, metric, value in _scores(record)
    ]
    return ModelCardData(
        # model hubs want bare ISO codes here
        language=list(dict.fromkeys(code.split("-")[0] for code in languages)),
        license="unknown",
        library_name=library,
        pipeline_tag=pipeline_tag,
        base_model=model["hub_id"] if on_hub else None,
        base_model_revision=model["revision"] if on_hub else None,
        metrics=[record["headline"]["metric"]],
        tags=["crosstune", record["method"], data["kind"]],
        # scores of a rehearsal are not results
        model_name=None if rehearsal else _title(record),
        eval_results=None if rehearsal else results,
    )


def _scores(record: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    return [
        (split, language, metric, value)
        for split, languages in record["scores"].items()
        for language, scores in languages.items()
        for metric, value in scores.items()
    ]


def _score_table(record: dict[str, Any], other_seeds: Sequence[dict[str, Any]]) -> str:
    rows: list[list[str]] = []
    for *names, value in _scores(record):
        values = [value, *(s for other in other_seeds for *n, s in _scores(other) if n == names)]
        std = f"{stdev(values):.4f}" if len(values) > 1 else "–"
        rows.append([*names, f"{value:.4f}", f"{mean(values):.4f}", std, str(len(values))])
    return _table(["split", "language", "metric", "these weights", "mean", "std", "seeds"], rows)


def _option_row(option: tuple[str, Any]) -> list[str]:
    name, value = option
    return [name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)]


def _command(config: dict[str, Any]) -> str:
    words = [f"{group}={config[group]['name']}" for group in GROUPS]
    words.append(f"seed={config['seed']}")
    for key, facts in COMMAND_OPTIONS.items():
        group, _, name = key.partition(".")
        value = config[group].get(name)  # older runs lack newer options
        if value not in (None, to_dict(facts.default)) and not isinstance(value, dict):
            text = f"[{','.join(value)}]" if isinstance(value, list) else value
            words.append(f"{key}={text}")
    # one line, so that no name can end the code block
    return " ".join(["crosstune train", *(shlex.quote(" ".join(w.split())) for w in words)])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    r"""Return a text that Markdown shows as it is, on one line.

    >>> _escape("demo_es"), _escape("a|b <img>"), _escape("one\ntwo")
    ('demo_es', 'a\\|b \\<img\\>', 'one two')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if PLAIN.fullmatch(line) else MARKUP.sub(r"\\\1", line)
