"""What a run was and what came out, as its record has it.

Called by `run.py`, which writes the record; what the record's parts mean is said in the README.
"""

from typing import Any

import torch

from crosstune.config.compose import to_dict
from crosstune.data.splits import collect_digests
from crosstune.runs.fingerprint import RESULT_FORMAT, digest_language_adapters, digest_weights
from crosstune.runs.record import describe_environment, utc_now
from crosstune.training.datamodule import FineTuningData
from crosstune.training.prepare import Prepared


def run_facts(prepared: Prepared, started: str) -> dict[str, Any]:
    """Return what is known of a run whatever comes of it."""
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
        "unseen_labels": prepared.unseen,
        "leakage": prepared.leakage,
        "data_sha256": collect_digests(prepared.splits),
        "model_sha256": digest_weights(run.model),
        "language_adapters_sha256": digest_language_adapters(run.method),
        "environment": describe_environment(torch.get_num_threads()),
        "started": started,
        "finished": utc_now(),
        "config": to_dict(run),
        **({"tuning": prepared.tuning} if prepared.tuning else {}),
    }


def collect_results(stages: list[dict[str, Any]], data: FineTuningData) -> dict[str, Any]:
    """Return scores and reports after the last stage, and the scores after each of several."""
    found = {
        part: [
            {
                split: {language: result[part] for language, result in languages.items()}
                for split, languages in results.items()
            }
            for results in (stage["results"] for stage in stages)
        ]
        for part in ("scores", "report")
    }
    cut = {
        f"{split}/{language}": int(encoded.cut[0])
        for split, languages in data.encoded.items()
        for language, encoded in languages.items()
        if encoded.cut[0]
    }
    after = [
        {"languages": languages, "scores": scores}
        for languages, scores in zip(data.data.stages, found["scores"], strict=True)
    ]
    return {
        "scores": found["scores"][-1],
        "report": found["report"][-1],
        "truncated": cut,
        **({"stages": after} if len(after) > 1 else {}),
    }


def format_scores(record: dict[str, Any]) -> str:
    """Return the headline scores in a line: of test, or of validation if nothing is tested."""
    metric = record["headline"]["metric"]
    found = record["scores"].get("test") or record["scores"]["validation"]
    return ", ".join(
        f"{language} {metric} {scores[metric]:.3f}" for language, scores in found.items()
    )
