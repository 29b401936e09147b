"""What the base class of the tasks asks of a task."""

import pytest

from crosstune.tasks import TASK_CLASSES, Task


@pytest.mark.parametrize("task", TASK_CLASSES.values(), ids=lambda task: task.__name__)
def test_every_task_defines_what_the_base_class_leaves_open(task: type[Task]) -> None:
    assert not task.__abstractmethods__


def test_a_task_that_lacks_a_part_is_refused_when_it_is_made() -> None:
    class Half(Task):
        auto_class, peft_type = "AutoModelForSequenceClassification", "SEQ_CLS"

    with pytest.raises(TypeError, match="compute_metrics, decode, encode"):
        Half()  # pyright: ignore[reportAbstractUsage]
