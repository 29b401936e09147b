"""The results of a run: typed from evaluation to checkpoint and record, and the record's fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from crosstune.config.compose import to_dict
from crosstune.data.splits import collect_digests
from crosstune.runs.fingerprint import RESULT_FORMAT, digest_language_adapters, digest_weights
from crosstune.runs.record import describe_environment, read_record, utc_now
from crosstune.training.datamodule import FineTuningData
from crosstune.training.prepare import Prepared


@dataclass(frozen=True)
class EvaluationResult:
    """What `Task.compute_metrics` returns for one split in one language."""

    scores: dict[str, float]
    report: dict[str, Any]


@dataclass(frozen=True)
class StageResult:
    """The best checkpoint of one stage of training, evaluated."""

    best_step: int
    results: dict[str, dict[str, EvaluationResult]]  # split -> language -> result

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Return the result of which `dataclasses.asdict` made plain values."""
        results = {
            split: {language: EvaluationResult(**result) for language, result in languages.items()}
            for split, languages in plain["results"].items()
        }
        return cls(plain["best_step"], results)

    def select(self, field: str) -> dict[str, dict[str, dict[str, Any]]]:
        """Return split -> language -> `scores` or `report`."""
        return {
            split: {language: getattr(result, field) for language, result in languages.items()}
            for split, languages in self.results.items()
        }


def run_facts(prepared: Prepared, started: str, **environment: str) -> dict[str, Any]:
    """Return the fields of a record that are known whether a run finishes or fails."""
    run = prepared.run
    return {
        "run_id": prepared.run_id,
        "experiment": run.experiment,
        "seed": run.seed,
        "data": run.data.name,
        "model": run.model.name,
        "method": run.method.name,
        "train_language": run.data.trained_on,
        "headline": {"split": "validation", "metric": run.data.metric},
        "result_format": RESULT_FORMAT,
        "unseen_labels": prepared.checks.unseen,
        "leakage": prepared.checks.leakage,
        "data_sha256": collect_digests(prepared.splits),
        "model_sha256": digest_weights(run.model),
        "language_adapters_sha256": digest_language_adapters(run.method),
        "environment": describe_environment(torch.get_num_threads()) | environment,
        "started": started,
        "finished": utc_now(),
        "config": to_dict(run),
        **({"tuning": prepared.checks.tuning} if prepared.checks.tuning else {}),
    }


def result_fields(stages: Sequence[StageResult], data: FineTuningData) -> dict[str, Any]:
    """Return the fields of a record that hold results: those of the last stage, scores of each."""
    by_stage = [
        {"languages": languages, "scores": stage.select("scores")}
        for languages, stage in zip(data.data.stages, stages, strict=True)
    ]
    truncated = {
        f"{split}/{language}": int(encoded.cut[0])
        for split, languages in data.encoded.items()
        for language, encoded in languages.items()
        if encoded.cut[0]
    }
    return {
        "scores": stages[-1].select("scores"),
        "report": stages[-1].select("report"),
        "truncated": truncated,
        **({"stages": by_stage} if len(stages) > 1 else {}),
    }


def format_scores(record: dict[str, Any]) -> str:
    """Return the headline scores in one line: of test, or of validation if there is no test."""
    metric = record["headline"]["metric"]
    languages = record["scores"].get("test") or record["scores"]["validation"]
    return ", ".join(
        f"{language} {metric} {scores[metric]:.3f}" for language, scores in languages.items()
    )


def read_headline(folder: Path) -> float:
    """Read a run's score: the mean headline metric on validation over the training languages."""
    record = read_record(folder / "record.json")
    scores = record["scores"]["validation"]
    data = record["config"]["data"]
    languages = [data["language"], *data["further_languages"]]
    metric = record["headline"]["metric"]
    return sum(float(scores[language][metric]) for language in languages) / len(languages)
