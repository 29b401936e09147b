"""The literal map from task kind to class.

Adding a kind means one file here, one member of `schema.Kind` and one entry of `TASKS`. Nothing
outside this folder branches on the kind.
"""

from typing import Any

from crosstune.config.schema import TaskType
from crosstune.tasks.classification import Classification
from crosstune.tasks.cloze import Cloze
from crosstune.tasks.entailment import Entailment
from crosstune.tasks.extraction import Extraction
from crosstune.tasks.generation import Generation
from crosstune.tasks.masked_lm import MaskedLM
from crosstune.tasks.regression import Regression
from crosstune.tasks.relation import Relation
from crosstune.tasks.tagging import Tagging
from crosstune.tasks.task import Task

__all__ = ["TASKS", "Task"]

TASKS: dict[TaskType, Any] = {
    TaskType.classification: Classification,
    TaskType.tagging: Tagging,
    TaskType.relation: Relation,
    TaskType.regression: Regression,
    TaskType.extraction: Extraction,
    TaskType.generation: Generation,
    TaskType.masked_lm: MaskedLM,
    TaskType.cloze: Cloze,
    TaskType.entailment: Entailment,
}
