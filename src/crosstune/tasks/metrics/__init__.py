"""Metrics that torchmetrics lacks, one file a family; turning logits into predictions is not here.

Each is a torchmetrics `Metric` whose states are summed or gathered, so the result does not depend
on batches or ranks; `overlap` is a function over gathered texts. `compute()` returns plain numbers,
`{"scores": {metric: value}, "report": {...}}`; both are empty if nothing was counted.
"""
