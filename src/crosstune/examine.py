"""What `crosstune check` does: every fault of a data set in one pass, training nothing."""

from crosstune.data.splits import find_faults, find_unseen, merge, read_each
from crosstune.errors import CrosstuneError
from crosstune.schema import Run, Unseen
from crosstune.tasks import TASKS


def examine(run: Run) -> tuple[list[str], str]:
    """Return every fault of the run's data set, and a line a split on what was read."""
    splits, faults = read_each(run.data, run.allow)
    lines = [
        f"{run.data.name} {name}/{language}: {len(split.rows)} rows"
        for name, languages in splits.items()
        for language, split in languages.items()
    ]
    train = merge(splits.get("train", {}))
    if train.rows:
        try:
            task = TASKS[run.data.kind].from_rows(train.rows, **run.data.task)
        except CrosstuneError as error:
            return [*faults, str(error)], "\n".join(lines)
        faults += find_faults(splits, task.faults_of)
        unseen = find_unseen(splits, task.labels, task.labels_of)
        for name, found in unseen.items():
            if run.data.unseen_labels is Unseen.error:
                faults += found
            else:
                lines.append(
                    f"{name}: {len(found)} labels that train never shows; the first: {found[0]}"
                )
    return faults, "\n".join(lines)
