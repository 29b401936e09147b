"""Scores that torchmetrics lacks, one file a family.

Each is a torchmetrics `Metric` whose states are counts that add up, so the result is the same for
any split into batches and any number of ranks. `compute()` returns plain Python numbers:
`{"scores": {metric: value}, "report": {...}}`; both are empty when nothing was counted, because
what was not measured is absent, never 0. Turning logits into predictions is the work of `tasks/`.
"""
