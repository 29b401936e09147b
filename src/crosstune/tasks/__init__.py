"""Task types: the head, encoding, decoding and metrics of each, one file a task type.

To add one, add its file here, a member of `TaskType` and an entry of `TASKS`. Training and its
LightningModule do not branch on the task type.
"""

from typing import Any

from crosstune.config.schema import TaskType
from crosstune.tasks.classification import Classification, MultiLabel
from crosstune.tasks.cloze import Cloze
from crosstune.tasks.entailment import Entailment
from crosstune.tasks.extraction import Extraction
from crosstune.tasks.generation import Generation
from crosstune.tasks.masked_lm import MaskedLM
from crosstune.tasks.regression import Regression
from crosstune.tasks.relation import Relation
from crosstune.tasks.tagging import Tagging
from crosstune.tasks.task import Task

__all__ = ["TASKS", "TASK_CLASSES", "Task"]

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

TASK_CLASSES: dict[str, Any] = {cls.__name__: cls for cls in (*TASKS.values(), MultiLabel)}
