"""The literal map from task kind to class.

Adding a kind means one file here, one member of `schema.Kind` and one entry of `TASKS`. Nothing
outside this folder branches on the kind.
"""

from typing import Any

from crosstune.config.schema import Kind
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

TASKS: dict[Kind, Any] = {
    Kind.classification: Classification,
    Kind.tagging: Tagging,
    Kind.relation: Relation,
    Kind.regression: Regression,
    Kind.extraction: Extraction,
    Kind.generation: Generation,
    Kind.masked_lm: MaskedLM,
    Kind.cloze: Cloze,
    Kind.entailment: Entailment,
}
