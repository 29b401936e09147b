"""Says when a run has learned nothing: one answer for every item, or no more than the majority's.

Such a run finishes with scores like any other, and a mean over it compares nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from crosstune.tasks import Task
from crosstune.tasks.prediction import Prediction
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.prepare import Prepared
from crosstune.training.results import StageResult

FEW_STEPS = 100  # of the optimizer, under which more of them are the first advice


class LearningChecks(NamedTuple):
    """What the majority scores, split -> language -> metric, and sentences on what went wrong."""

    majority: dict[str, dict[str, dict[str, float]]]
    warnings: list[str]


def check_learning(
    prepared: Prepared,
    stage: StageResult,
    module: FineTuningModule,
    predictions: Mapping[str, Sequence[Prediction]],
) -> LearningChecks:
    """Compare the last stage of a run with the majority's answer.

    `predictions` are those of all ranks, of the test split by language, or of validation without
    one. Every rank must call this: the module has its share, and metrics are summed over ranks.
    """
    steps = module.trainer.global_step
    run, task = prepared.run, prepared.task
    split, metric = ("test" if "test" in prepared.splits else "validation"), run.data.metric
    train = [row for part in prepared.splits["train"].values() for row in part.rows]
    some = [item for items in predictions.values() for item in items[:1]]
    has_majority = bool(task.predict_majority(train, some))  # equal on all ranks
    scores: dict[str, dict[str, float]] = {}
    warnings: list[str] = []
    for language, items in predictions.items():
        if has_majority and items:
            trivial = task.predict_majority(train, module.predictions[language])
            computed = task.compute_metrics(trivial, module.device)["scores"]
            scores[language] = {metric: computed[metric]} if metric in computed else {}
        score = stage.results[split][language].scores.get(metric)
        limit = scores.get(language, {}).get(metric)
        faults = _find_faults(task, items, score, limit)
        warnings += [f"{split}/{language}: {fault}. {_advise(run, steps)}" for fault in faults]
    return LearningChecks({split: scores} if any(scores.values()) else {}, warnings)


def _find_faults(
    task: Task, items: Sequence[Prediction], score: float | None, limit: float | None
) -> Iterator[str]:
    answers = {answer for item in items for answer in task.list_answers(item)}
    golds = {repr(item.gold) for item in items}
    if len(answers) == 1 and len(golds) > 1:
        yield f"predicts {answers.pop()!a:.60} for all {len(items)} items"
    elif score is not None and limit is not None and score <= limit:
        yield f"scores {score:.3f}, and the majority of train's labels {limit:.3f}"


def _advise(run: Any, steps: int) -> str:
    took = f"It took {steps} step{'' if steps == 1 else 's'} of the optimizer"
    if steps < FEW_STEPS:
        return (
            f"{took}: try a smaller data.batch_size, more trainer.max_epochs or a higher "
            "optimizer.learning_rate"
        )
    if run.model.origin.name == "scratch":
        return f"{took}, from random weights: try a pretrained encoder, such as model=me5_small"
    return f"{took}: try another optimizer.learning_rate, or look at the labels"
